"""confluent-kafka: offsets in transactions with members of both group protocols, and open
transactions whose producer does not come back."""

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
    from collections.abc import Callable

    from confluent_kafka import Consumer

    from tests.compat.broker_under_test import OwnedBroker

PROTOCOLS = pytest.mark.parametrize("protocol", ["classic", "consumer"])
VANISHED_TIMEOUT_MS = 5_000
SOON_S = 0.7
"""Long enough for an answer, if there were one."""


def transactional(bootstrap: str, transactional_id: str, **settings: Any) -> Producer:
    producer = clients.producer(bootstrap, transactional_id=transactional_id, **settings)
    producer.init_transactions(PATIENCE_S)
    return producer


def member(bootstrap: str, topic: str, group: str, protocol: str) -> Consumer:
    """A member that owns the topic's partition and has seen its record."""
    consumer = clients.consumer(
        bootstrap, group, group_protocol=protocol, isolation_level="read_committed"
    )
    consumer.subscribe([topic])
    clients.receive(consumer, 1)
    return consumer


def committed(consumer: Consumer, topic: str, timeout_s: float = PATIENCE_S) -> int:
    (found,) = consumer.committed([TopicPartition(topic, 0)], timeout=timeout_s)
    return found.offset


def send_offset(producer: Producer, consumer: Consumer, topic: str, offset: int) -> None:
    producer.send_offsets_to_transaction(
        [TopicPartition(topic, 0, offset)], consumer.consumer_group_metadata(), PATIENCE_S
    )


@pytest.fixture
def filled(bootstrap: str, topic: str) -> str:
    """A topic with one record."""
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"in", now_ms())], 0)
    return topic


@PROTOCOLS
def test_offsets_of_a_member_count_when_the_transaction_commits(
    bootstrap: str, filled: str, group: str, fresh_name: Callable[[str], str], protocol: str
) -> None:
    producer = transactional(bootstrap, fresh_name("tx"))
    with closing(member(bootstrap, filled, group, protocol)) as consumer:
        for offset, commits, expected in ((5, True, 5), (9, False, 5), (7, True, 7)):
            producer.begin_transaction()
            send_offset(producer, consumer, filled, offset)
            if commits:
                producer.commit_transaction(PATIENCE_S)
            else:
                producer.abort_transaction(PATIENCE_S)
            assert committed(consumer, filled) == expected


@PROTOCOLS
def test_who_wants_stable_offsets_waits_for_the_transaction(
    bootstrap: str, filled: str, group: str, fresh_name: Callable[[str], str], protocol: str
) -> None:
    producer = transactional(bootstrap, fresh_name("tx"))
    careless = clients.consumer(bootstrap, group, isolation_level="read_uncommitted")
    with closing(member(bootstrap, filled, group, protocol)) as consumer, closing(careless):
        clients.commit(consumer, [TopicPartition(filled, 0, 1)])
        producer.begin_transaction()
        send_offset(producer, consumer, filled, 4)
        with pytest.raises(KafkaException):
            committed(consumer, filled, SOON_S)
        assert committed(careless, filled) == 1
        producer.commit_transaction(PATIENCE_S)
        assert committed(consumer, filled) == 4
        assert committed(careless, filled) == 4


@PROTOCOLS
def test_a_member_that_has_left_cannot_commit_in_a_transaction(
    bootstrap: str, filled: str, group: str, fresh_name: Callable[[str], str], protocol: str
) -> None:
    """KIP-447: a zombie with its own transactional id is fenced by its generation."""
    producer = transactional(bootstrap, fresh_name("tx"))
    consumer = member(bootstrap, filled, group, protocol)
    left = consumer.consumer_group_metadata()
    consumer.close()
    producer.begin_transaction()
    with pytest.raises(KafkaException) as refused:
        producer.send_offsets_to_transaction([TopicPartition(filled, 0, 9)], left, PATIENCE_S)
    assert refused.value.args[0].txn_requires_abort()
    producer.abort_transaction(PATIENCE_S)
    with closing(clients.consumer(bootstrap, group)) as successor:
        assert committed(successor, filled) < 0


def test_what_a_vanished_producer_left_open_stays_so_over_a_restart_until_its_timeout(
    owned_broker: OwnedBroker, topic: str
) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    producer = transactional(bootstrap, "tx", transaction_timeout_ms=VANISHED_TIMEOUT_MS)
    begun = time.monotonic()
    producer.begin_transaction()
    producer.produce(topic, b"left open")
    assert producer.flush(PATIENCE_S) == 0
    del producer
    owned_broker.stop()
    owned_broker.start()
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"after", now_ms())], 0)
    with closing(clients.consumer(bootstrap, isolation_level="read_committed")) as consumer:
        consumer.assign([TopicPartition(topic, 0, 0)])
        seen = []

        def has_come() -> bool:
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                seen.append(message.value())
            return bool(seen)

        eventually(has_come, what="the transaction times out", timeout_s=60.0)
    assert seen == [b"after"]
    assert time.monotonic() - begun >= VANISHED_TIMEOUT_MS / 1000
