"""kafka-python: commit, abort, fencing, offsets in transactions."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import kafka
import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError

from tests.compat.kafka_python import clients
from tests.compat.waiting import PATIENCE_S

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

# After kill -9 Apache Kafka needs half a minute until it leads its partitions again.
RECOVERY_S = 120.0


def transactional(bootstrap: str, transactional_id: str) -> Any:
    producer = clients.producer(bootstrap, transactional_id=transactional_id)
    producer.init_transactions()
    return producer


def values(bootstrap: str, topic: str, count: int) -> list[bytes]:
    with closing(clients.consumer(bootstrap, isolation_level="read_committed")) as consumer:
        consumer.assign([TopicPartition(topic, 0)])
        consumer.seek_to_beginning()
        return [record.sample.value for record in clients.receive(consumer, count)]


def test_committed_records_are_seen_and_aborted_ones_are_not(
    bootstrap: str, topic: str, fresh_name: Any
) -> None:
    clients.create_topic(bootstrap, topic)
    with closing(transactional(bootstrap, fresh_name("tx"))) as producer:
        for number in range(5):
            producer.begin_transaction()
            producer.send(topic, b"%d" % number, partition=0).get(PATIENCE_S)
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
    assert values(bootstrap, topic, 3) == [b"0", b"2", b"4"]


def test_a_second_producer_fences_the_first(bootstrap: str, topic: str, fresh_name: Any) -> None:
    clients.create_topic(bootstrap, topic)
    transactional_id = fresh_name("tx")
    first = transactional(bootstrap, transactional_id)
    first.begin_transaction()
    first.send(topic, b"zombie", partition=0).get(PATIENCE_S)
    with closing(transactional(bootstrap, transactional_id)) as second:
        with pytest.raises(KafkaError):
            first.commit_transaction()
        second.begin_transaction()
        second.send(topic, b"new", partition=0).get(PATIENCE_S)
        second.commit_transaction()
    first.close(timeout=0)
    assert values(bootstrap, topic, 1) == [b"new"]


def test_offsets_count_with_the_transaction(
    bootstrap: str, topic: str, group: str, fresh_name: Any
) -> None:
    clients.create_topic(bootstrap, topic)
    partition = TopicPartition(topic, 0)
    with closing(transactional(bootstrap, fresh_name("tx"))) as producer:
        for offset, commits in ((3, True), (8, False)):
            producer.begin_transaction()
            offsets = {partition: kafka.OffsetAndMetadata(offset, "", -1)}
            producer.send_offsets_to_transaction(offsets, group)
            if commits:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    with closing(clients.consumer(bootstrap, group)) as consumer:
        assert consumer.committed(partition) == 3


@pytest.mark.skipif(
    clients.IS_VERSION_2,
    reason="kafka-python 2 waits for ever when its connection breaks in a transaction",
)
def test_an_open_transaction_survives_kill_9(owned_broker: OwnedBroker, topic: str) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    with closing(transactional(bootstrap, "tx")) as producer:
        for number in range(2):
            producer.begin_transaction()
            producer.send(topic, b"before %d" % number, partition=0).get(PATIENCE_S)
            owned_broker.kill()
            owned_broker.start()
            producer.send(topic, b"after %d" % number, partition=0).get(RECOVERY_S)
            if number:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    assert values(bootstrap, topic, 2) == [b"before 1", b"after 1"]
