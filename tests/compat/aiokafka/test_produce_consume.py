"""aiokafka: what goes in comes out, whatever its codec, size and place."""

from __future__ import annotations

import asyncio
import time

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import MessageSizeTooLargeError

from tests.compat.aiokafka import clients
from tests.compat.placement import partition_for
from tests.compat.samples import CODECS, Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import PATIENCE_S

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_brings_back_what_was_sent(
    bootstrap: str, topic: str, codec: str
) -> None:
    samples = varied_samples(300)
    await clients.create_topic(bootstrap, topic)

    compression = None if codec == "none" else codec
    await clients.produce(bootstrap, topic, samples, compression_type=compression, linger_ms=20)

    received = await clients.read_topic(bootstrap, topic, len(samples))
    assert of_partition(received, 0) == samples


@pytest.mark.parametrize("acks", [0, 1, "all"])
async def test_every_acks_setting_stores_the_records(
    bootstrap: str, topic: str, acks: int | str
) -> None:
    samples = varied_samples(50)
    await clients.create_topic(bootstrap, topic)

    async with clients.producer(bootstrap, acks=acks) as producer:
        await clients.send(producer, topic, samples)
        received = await clients.read_topic(bootstrap, topic, len(samples))

    assert of_partition(received, 0) == samples


async def test_the_answer_tells_where_the_record_is(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=2)
    async with clients.producer(bootstrap) as producer:
        answers = [
            await producer.send_and_wait(topic, b"v", partition=1, timestamp_ms=5_000)
            for _ in range(3)
        ]

    assert [(a.topic, a.partition, a.offset) for a in answers] == [(topic, 1, n) for n in range(3)]
    assert {answer.timestamp for answer in answers} == {5_000}


async def test_each_of_three_partitions_keeps_its_order(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=3)
    sent = {partition: varied_samples(100, seed=partition) for partition in range(3)}

    async with clients.producer(bootstrap) as producer:
        for partition, samples in sent.items():
            await clients.send(producer, topic, samples, partition)

    received = await clients.read_topic(bootstrap, topic, 300, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent


async def test_murmur2_places_keys_as_the_java_client_does(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=3)
    keys = [b"key-%d" % number for number in range(60)]

    await clients.produce(bootstrap, topic, [Sample(key, b"v", now_ms()) for key in keys])

    received = await clients.read_topic(bootstrap, topic, len(keys), partitions=3)
    assert {record.sample.key: record.partition for record in received} == {
        key: partition_for(key, 3) for key in keys
    }


async def test_empty_and_absent_keys_and_values_stay_different(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    pairs = [(None, b""), (None, b"v"), (b"", None), (b"", b""), (b"", b"v"), (b"k", None)]
    samples = [Sample(key, value, now_ms()) for key, value in pairs]

    await clients.produce(bootstrap, topic, samples)

    received = await clients.read_topic(bootstrap, topic, len(samples))
    assert of_partition(received, 0) == samples


async def test_records_of_almost_a_megabyte(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, bytes([number]) * 1_000_000, now_ms()) for number in range(5)]

    await clients.produce(
        bootstrap, topic, samples, max_request_size=2_000_000, max_batch_size=1_000_000
    )

    assert of_partition(await clients.read_topic(bootstrap, topic, 5), 0) == samples


async def test_a_record_above_message_max_bytes_is_refused(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, configs={"max.message.bytes": "20000"})

    with pytest.raises(MessageSizeTooLargeError):
        await clients.produce(bootstrap, topic, [Sample(None, b"x" * 30_000, now_ms())])
    await clients.produce(bootstrap, topic, [Sample(None, b"small", now_ms())])

    (record,) = await clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"small")


async def test_log_append_time_replaces_the_producers_timestamp(bootstrap: str, topic: str) -> None:
    log_append_time = {"message.timestamp.type": "LogAppendTime"}
    await clients.create_topic(bootstrap, topic, configs=log_append_time)
    before = now_ms()
    await clients.produce(bootstrap, topic, [Sample(None, b"v", before - 3_600_000)])

    (record,) = await clients.read_topic(bootstrap, topic, 1)

    assert before - 1000 <= record.sample.timestamp_ms <= now_ms() + 1000


async def test_an_idempotent_producer_writes_each_record_once_in_order(
    bootstrap: str, topic: str
) -> None:
    await clients.create_topic(bootstrap, topic)
    samples = [Sample(b"%d" % number, b"v" * 100, now_ms()) for number in range(2000)]

    await clients.produce(bootstrap, topic, samples, enable_idempotence=True, max_batch_size=1000)

    received = await clients.read_topic(bootstrap, topic, len(samples))
    assert of_partition(received, 0) == samples


async def test_producing_to_an_unknown_topic_creates_it(bootstrap: str, topic: str) -> None:
    await clients.produce(bootstrap, topic, [Sample(b"k", b"v", now_ms())])

    async with clients.admin(bootstrap) as admin:
        assert topic in await admin.list_topics()
    assert len(await clients.read_topic(bootstrap, topic, 1)) == 1


async def test_a_consumer_with_small_limits_still_gets_large_records(
    bootstrap: str, topic: str
) -> None:
    await clients.create_topic(bootstrap, topic)
    samples = [Sample(None, bytes([number]) * 100_000, now_ms()) for number in range(8)]
    await clients.produce(bootstrap, topic, samples, max_batch_size=100)

    received = await clients.read_topic(
        bootstrap, topic, 8, max_partition_fetch_bytes=1000, fetch_max_bytes=2000
    )

    assert of_partition(received, 0) == samples


async def test_a_waiting_consumer_gets_a_record_at_once(bootstrap: str, topic: str) -> None:
    """The fetch waits in the broker (30 s here): the record, not the wait's end, answers it."""
    await clients.create_topic(bootstrap, topic)
    async with (
        clients.consumer(bootstrap, topic, fetch_max_wait_ms=30_000) as consumer,
        clients.producer(bootstrap) as producer,
    ):
        assert await consumer.getmany(timeout_ms=1000) == {}
        started = time.monotonic()
        await clients.send(producer, topic, [Sample(None, b"now", now_ms())])
        record = await asyncio.wait_for(consumer.getone(), PATIENCE_S)

    assert record.value == b"now"
    assert time.monotonic() - started < 20


async def test_a_read_committed_consumer_reads_plain_records(bootstrap: str, topic: str) -> None:
    samples = varied_samples(20)
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, samples)

    received = await clients.read_topic(bootstrap, topic, 20, isolation_level="read_committed")

    assert of_partition(received, 0) == samples


async def test_the_ends_of_a_partition_are_known(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, varied_samples(7))
    partition = TopicPartition(topic, 0)

    async with clients.consumer(bootstrap) as consumer:
        consumer.assign([partition])
        await clients.receive(consumer, 7)
        assert await consumer.position(partition) == 7
        assert consumer.highwater(partition) == 7
        assert consumer.last_stable_offset(partition) in (7, -1)  # -1: read_uncommitted
        assert await consumer.beginning_offsets([partition]) == {partition: 0}
        assert await consumer.end_offsets([partition]) == {partition: 7}
