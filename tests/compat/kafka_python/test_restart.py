"""kafka-python: the broker stops, or is killed, and comes back on the same data directory."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from kafka import TopicPartition
from kafka.structs import OffsetAndMetadata

from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import eventually

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

# After kill -9 Apache Kafka needs half a minute until it leads its partitions again.
RECOVERY_S = 120.0


def _end(broker: OwnedBroker, how: str) -> None:
    if how == "stopped":
        broker.stop()
    else:
        broker.kill()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_records_topics_and_offsets_survive(
    owned_broker: OwnedBroker, topic: str, group: str, how: str
) -> None:
    """New clients after the restart find everything that was acknowledged before it."""
    bootstrap = owned_broker.bootstrap
    sent = {partition: varied_samples(100, seed=partition) for partition in range(3)}
    clients.create_topic(bootstrap, topic, partitions=3)
    for partition, samples in sent.items():
        clients.produce(bootstrap, topic, samples, partition, compression_type="gzip")
    partition_1 = TopicPartition(topic, 1)
    with closing(clients.consumer(bootstrap, group)) as consumer:
        consumer.commit({partition_1: OffsetAndMetadata(77, "", -1)})

    _end(owned_broker, how)
    owned_broker.start()

    received = clients.read_topic(bootstrap, topic, 300, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent
    with closing(clients.consumer(bootstrap, group)) as consumer:
        assert consumer.committed(partition_1) == 77


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_clients_that_stay_connected_go_on(
    owned_broker: OwnedBroker, topic: str, group: str, how: str
) -> None:
    """One producer and one group member live through the restart and miss nothing."""
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    values = [b"%d" % number for number in range(100)]
    patient = {"retries": 1_000_000, "delivery_timeout_ms": 300_000, "max_block_ms": 300_000}
    with (
        closing(clients.producer(bootstrap, **patient)) as producer,
        closing(clients.consumer(bootstrap, group)) as consumer,
    ):
        clients.subscribe(consumer, topic)
        clients.send(producer, topic, [Sample(None, value, now_ms()) for value in values[:40]])
        seen = {record.offset: record.sample.value for record in clients.receive(consumer, 40)}
        consumer.commit()

        _end(owned_broker, how)
        futures = [producer.send(topic, value) for value in values[40:]]
        owned_broker.start()
        for future in futures:
            future.get(timeout=RECOVERY_S)

        def all_seen() -> bool:
            for batch in consumer.poll(timeout_ms=200).values():
                seen.update({record.offset: record.value for record in batch})
            return len(seen) == 100

        eventually(all_seen, what="all records come", timeout_s=RECOVERY_S)
    assert [seen[offset] for offset in range(100)] == values
