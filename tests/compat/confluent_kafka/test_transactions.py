"""confluent-kafka: commit, abort, fencing, offsets in transactions, and kill -9 in the middle."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import KafkaException, Producer, TopicPartition

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

RECOVERY_S = 120.0


def transactional(bootstrap: str, transactional_id: str, **settings: Any) -> Producer:
    producer = clients.producer(
        bootstrap, transactional_id=transactional_id, reconnect_backoff_max_ms=500, **settings
    )
    producer.init_transactions(PATIENCE_S)
    return producer


def values(bootstrap: str, topic: str, last: bytes) -> list[bytes | None]:
    """What a read_committed consumer sees of partition 0, up to the record ``last``."""
    seen: list[bytes | None] = []
    with closing(clients.consumer(bootstrap, isolation_level="read_committed")) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        while last not in seen:
            seen += [record.sample.value for record in clients.receive(consumer, 1)]
    return seen


def test_committed_records_are_seen_and_aborted_ones_are_not(
    bootstrap: str, topic: str, fresh_name: Any
) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)
    producer = transactional(bootstrap, fresh_name("tx"), compression_type="gzip")
    for number in range(6):
        producer.begin_transaction()
        for partition in range(2):
            producer.produce(topic, b"%d" % number, partition=partition)
        if number % 2:
            assert producer.flush(PATIENCE_S) == 0
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"end", now_ms())], 0)
    assert values(bootstrap, topic, b"end") == [b"0", b"2", b"4", b"end"]
    uncommitted = clients.read_topic(
        bootstrap, topic, 13, partitions=2, isolation_level="read_uncommitted"
    )
    assert len(uncommitted) == 13


def test_an_open_transaction_holds_back_what_follows_it(
    bootstrap: str, topic: str, fresh_name: Any
) -> None:
    clients.create_topic(bootstrap, topic)
    producer = transactional(bootstrap, fresh_name("tx"))
    producer.begin_transaction()
    producer.produce(topic, b"open")
    assert producer.flush(PATIENCE_S) == 0
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"plain", now_ms())], 0)
    with closing(clients.consumer(bootstrap, isolation_level="read_committed")) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        assert consumer.poll(1.5) is None
        producer.commit_transaction(PATIENCE_S)
        assert [r.sample.value for r in clients.receive(consumer, 2)] == [b"open", b"plain"]


def test_a_second_producer_fences_the_first(bootstrap: str, topic: str, fresh_name: Any) -> None:
    clients.create_topic(bootstrap, topic)
    transactional_id = fresh_name("tx")
    first = transactional(bootstrap, transactional_id)
    first.begin_transaction()
    first.produce(topic, b"zombie")
    assert first.flush(PATIENCE_S) == 0

    second = transactional(bootstrap, transactional_id)

    with pytest.raises(KafkaException) as refused:
        first.commit_transaction(PATIENCE_S)
    assert refused.value.args[0].fatal()
    second.begin_transaction()
    second.produce(topic, b"new")
    second.commit_transaction(PATIENCE_S)
    assert values(bootstrap, topic, b"new") == [b"new"]


def test_offsets_count_with_the_transaction(
    bootstrap: str, topic: str, group: str, fresh_name: Any
) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"in", now_ms())], 0)
    producer = transactional(bootstrap, fresh_name("tx"))
    with closing(clients.consumer(bootstrap, group)) as consumer:
        consumer.subscribe([topic])
        clients.receive(consumer, 1)
        for offset, commits in ((1, True), (7, False)):
            producer.begin_transaction()
            producer.send_offsets_to_transaction(
                [TopicPartition(topic, 0, offset)], consumer.consumer_group_metadata(), PATIENCE_S
            )
            if commits:
                producer.commit_transaction(PATIENCE_S)
            else:
                producer.abort_transaction(PATIENCE_S)
            (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=PATIENCE_S)
            assert found.offset == 1


def test_a_transaction_times_out_by_itself(bootstrap: str, topic: str, fresh_name: Any) -> None:
    clients.create_topic(bootstrap, topic)
    producer = transactional(bootstrap, fresh_name("tx"), transaction_timeout_ms=2000)
    producer.begin_transaction()
    producer.produce(topic, b"late")
    assert producer.flush(PATIENCE_S) == 0
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"end", now_ms())], 0)
    assert values(bootstrap, topic, b"end") == [b"end"]
    with pytest.raises(KafkaException):
        producer.commit_transaction(PATIENCE_S)


def test_an_open_transaction_survives_kill_9(owned_broker: OwnedBroker, topic: str) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    producer = transactional(bootstrap, "tx")
    for number in range(3):
        producer.begin_transaction()
        producer.produce(topic, b"before %d" % number)
        assert producer.flush(PATIENCE_S) == 0
        owned_broker.kill()
        owned_broker.start()
        producer.produce(topic, b"after %d" % number)
        assert producer.flush(RECOVERY_S) == 0
        if number == 1:
            producer.abort_transaction(RECOVERY_S)
        else:
            producer.commit_transaction(RECOVERY_S)
    assert values(bootstrap, topic, b"after 2") == [
        b"before 0",
        b"after 0",
        b"before 2",
        b"after 2",
    ]


def test_the_successor_of_a_killed_producer_aborts_what_it_left(
    owned_broker: OwnedBroker, topic: str
) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    first = transactional(bootstrap, "tx")
    first.begin_transaction()
    first.produce(topic, b"left behind")
    assert first.flush(PATIENCE_S) == 0
    owned_broker.kill()
    owned_broker.start()

    second = transactional(bootstrap, "tx")
    second.begin_transaction()
    second.produce(topic, b"new")
    second.commit_transaction(RECOVERY_S)

    assert values(bootstrap, topic, b"new") == [b"new"]

    def is_fenced() -> bool:
        try:
            first.commit_transaction(PATIENCE_S)
        except KafkaException as refused:
            if refused.args[0].retriable():
                time.sleep(0.1)
                return False
            return True
        raise AssertionError("a zombie has committed")

    eventually(is_fenced, what="the first producer is fenced", timeout_s=RECOVERY_S)
