"""The three clients on one topic: what one writes the others read, and they agree on places."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("confluent_kafka", reason="interop needs all three clients")
pytest.importorskip("aiokafka", reason="interop needs all three clients")
pytest.importorskip("kafka", reason="interop needs all three clients")

from aiokafka import TopicPartition as AiokafkaPartition
from confluent_kafka import TopicPartition as ConfluentPartition
from kafka import TopicPartition as KafkaPythonPartition
from kafka.structs import OffsetAndMetadata

from tests.compat.aiokafka import clients as aiokafka_clients
from tests.compat.confluent_kafka import clients as confluent_clients
from tests.compat.kafka_python import clients as kafka_python_clients
from tests.compat.placement import murmur2, partition_for
from tests.compat.samples import CODECS, Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable

CLIENTS = ("kafka-python", "confluent-kafka", "aiokafka")


def _produce(client: str, bootstrap: str, topic: str, samples: list[Sample], codec: str) -> None:
    compression = None if codec == "none" else codec
    if client == "kafka-python":
        kafka_python_clients.produce(bootstrap, topic, samples, compression_type=compression)
    elif client == "aiokafka":
        asyncio.run(
            aiokafka_clients.produce(bootstrap, topic, samples, compression_type=compression)
        )
    else:
        producer = confluent_clients.producer(
            bootstrap, compression_type=codec, partitioner="murmur2_random"
        )
        confluent_clients.send(producer, topic, samples)


@pytest.mark.parametrize("codec", CODECS)
def test_every_client_reads_what_every_client_wrote(bootstrap: str, topic: str, codec: str) -> None:
    confluent_clients.create_topic(bootstrap, topic)
    sent: list[Sample] = []
    for number, client in enumerate(CLIENTS):
        samples = varied_samples(60, seed=number)
        _produce(client, bootstrap, topic, samples, codec)
        sent += samples

    by_confluent = confluent_clients.read_topic(bootstrap, topic, len(sent))
    by_kafka_python = kafka_python_clients.read_topic(bootstrap, topic, len(sent))
    by_aiokafka = asyncio.run(aiokafka_clients.read_topic(bootstrap, topic, len(sent)))

    assert of_partition(by_confluent, 0) == sent
    assert of_partition(by_kafka_python, 0) == sent
    assert of_partition(by_aiokafka, 0) == sent


def test_the_reference_hash_agrees_with_the_java_client() -> None:
    """Values of Kafka's Java client, as unsigned numbers."""
    known = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {data: murmur2(data) for data in known} == {
        data: value % 2**32 for data, value in known.items()
    }


def test_all_clients_put_a_key_into_the_same_partition(
    bootstrap: str, fresh_name: Callable[[str], str]
) -> None:
    keys = [b"", *(b"k%d" % number for number in range(100)), "schlüssel".encode(), b"\xff" * 9]
    expected = {key: partition_for(key, 7) for key in keys}
    for client in CLIENTS:
        topic = fresh_name(f"placement-{client}")
        confluent_clients.create_topic(bootstrap, topic, partitions=7)
        _produce(client, bootstrap, topic, [Sample(key, b"v", now_ms()) for key in keys], "none")

        received = confluent_clients.read_topic(bootstrap, topic, len(keys), partitions=7)

        placed = {record.sample.key: record.partition for record in received}
        assert placed == expected, client


def test_offsets_committed_by_one_client_are_seen_by_all(
    bootstrap: str, topic: str, group: str
) -> None:
    confluent_clients.create_topic(bootstrap, topic, partitions=3)

    with closing(kafka_python_clients.consumer(bootstrap, group)) as consumer:
        consumer.commit({KafkaPythonPartition(topic, 0): OffsetAndMetadata(11, "", -1)})
    with closing(confluent_clients.consumer(bootstrap, group)) as client:
        confluent_clients.commit(client, [ConfluentPartition(topic, 1, 22)])

    async def commit_with_aiokafka() -> list[int | None]:
        partitions = [AiokafkaPartition(topic, number) for number in range(3)]
        async with aiokafka_clients.consumer(bootstrap, group=group) as consumer:
            consumer.assign(partitions)
            await consumer.commit({partitions[2]: 33})
            return [await consumer.committed(partition) for partition in partitions]

    assert asyncio.run(commit_with_aiokafka()) == [11, 22, 33]
    with closing(kafka_python_clients.consumer(bootstrap, group)) as consumer:
        found = [consumer.committed(KafkaPythonPartition(topic, n)) for n in range(3)]
        assert found == [11, 22, 33]
    with closing(confluent_clients.consumer(bootstrap, group)) as client:
        asked = [ConfluentPartition(topic, number) for number in range(3)]
        assert [p.offset for p in client.committed(asked, timeout=PATIENCE_S)] == [11, 22, 33]
