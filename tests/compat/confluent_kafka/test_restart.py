"""confluent-kafka: the broker stops, or is killed, and comes back on the same data directory."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms, of_partition, varied_samples
from tests.compat.waiting import PATIENCE_S, eventually

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
    sent = {partition: varied_samples(200, seed=partition) for partition in range(3)}
    clients.create_topic(bootstrap, topic, partitions=3, configs={"retention.ms": "7200000"})
    producer = clients.producer(bootstrap, compression_type="lz4")
    for partition, samples in sent.items():
        clients.send(producer, topic, samples, partition)
    with closing(clients.consumer(bootstrap, group)) as consumer:
        clients.commit(consumer, [TopicPartition(topic, 1, 77)])

    _end(owned_broker, how)
    owned_broker.start()

    received = clients.read_topic(bootstrap, topic, 600, partitions=3)
    assert {partition: of_partition(received, partition) for partition in range(3)} == sent
    with closing(clients.consumer(bootstrap, group)) as consumer:
        (found,) = consumer.committed([TopicPartition(topic, 1)], timeout=PATIENCE_S)
        assert found.offset == 77
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"after", now_ms())], 0)
    (after,) = [r for r in clients.read_topic(bootstrap, topic, 601, 3) if r.offset == 200]
    assert after.sample.value == b"after"


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_clients_that_stay_connected_go_on(
    owned_broker: OwnedBroker, topic: str, group: str, how: str
) -> None:
    """One producer and one group member live through the restart and miss nothing."""
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    producer = clients.producer(
        bootstrap, enable_idempotence=True, message_timeout_ms=300_000, reconnect_backoff_max_ms=500
    )
    values = [b"%d" % number for number in range(100)]
    with closing(clients.consumer(bootstrap, group, reconnect_backoff_max_ms=500)) as consumer:
        consumer.subscribe([topic])
        clients.send(producer, topic, [Sample(None, value, now_ms()) for value in values[:40]])
        received = clients.receive(consumer, 40)
        consumer.commit(asynchronous=False)

        _end(owned_broker, how)
        undelivered: list[object] = []
        for value in values[40:]:
            producer.produce(
                topic, value, on_delivery=lambda e, _: undelivered.append(e) if e else None
            )
        owned_broker.start()

        assert producer.flush(RECOVERY_S) == 0
        assert not undelivered
        seen = {record.offset: record.sample.value for record in received}

        def all_seen() -> bool:
            # Errors of the time without a broker reach poll(); only records count here.
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                record = clients.as_received(message)
                seen[record.offset] = record.sample.value
            return len(seen) == 100

        eventually(all_seen, what="all records come", timeout_s=RECOVERY_S)
        assert [seen[offset] for offset in range(100)] == values


def test_a_broker_can_be_killed_again_and_again(owned_broker: OwnedBroker, topic: str) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    rounds = 3
    for number in range(rounds):
        samples = [Sample(b"%d" % number, b"v" * 1000, now_ms()) for _ in range(500)]
        clients.send(clients.producer(bootstrap), topic, samples)
        owned_broker.kill()
        owned_broker.start()

    received = clients.read_topic(bootstrap, topic, 500 * rounds)

    keys = [sample.key for sample in of_partition(received, 0)]
    assert keys == [b"%d" % (position // 500) for position in range(500 * rounds)]
