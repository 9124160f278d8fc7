"""Short ways to make confluent-kafka's clients and to read with them."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.compat.samples import Received, Sample
from tests.compat.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

COORDINATOR_NOT_READY = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)


def admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap})


def create_topic(
    bootstrap: str, topic: str, partitions: int = 1, configs: dict[str, str] | None = None
) -> None:
    """Creates a topic and waits for the answer; raises KafkaException when it is refused."""
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=configs or {})
    client = admin(bootstrap)  # its futures end with it
    client.create_topics([new])[topic].result(timeout=PATIENCE_S)


def producer(bootstrap: str, **settings: Any) -> Producer:
    """Keyword names with underscores for dots: ``linger_ms=5`` is ``linger.ms``."""
    return Producer({"bootstrap.servers": bootstrap, "acks": "all", **_dotted(settings)})


def consumer(bootstrap: str, group: str = "unused", **settings: Any) -> Consumer:
    """A consumer that starts at the beginning and commits only when told."""
    defaults: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "topic.metadata.refresh.interval.ms": 500,
    }
    if settings.get("group_protocol") != "consumer":  # there the broker sets it
        defaults["heartbeat.interval.ms"] = 500  # a member learns of a rebalance from its heartbeat
    return Consumer({**defaults, **_dotted(settings)})


def send(client: Producer, topic: str, samples: Iterable[Sample], partition: int = -1) -> None:
    """Produces and flushes; raises KafkaException when any delivery failed."""
    failures: list[Any] = []

    def delivered(error: Any, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for sample in samples:
        client.produce(
            topic,
            key=sample.key,
            value=sample.value,
            partition=partition,
            timestamp=sample.timestamp_ms,
            headers=list(sample.headers),
            on_delivery=delivered,
        )
        client.poll(0)
    assert client.flush(PATIENCE_S) == 0, "records are still in flight"
    if failures:
        raise KafkaException(failures[0])


def receive(client: Consumer, count: int, *, timeout_s: float = PATIENCE_S) -> list[Received]:
    """Polls until ``count`` records came; raises on an error event or when time is up."""
    messages: list[Message] = []
    deadline = time.monotonic() + timeout_s
    while len(messages) < count:
        message = client.poll(0.2)
        if message is not None:
            if message.error() is not None:
                raise KafkaException(message.error())
            messages.append(message)
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records came"
    return [as_received(message) for message in messages]


def read_topic(
    bootstrap: str, topic: str, count: int, partitions: int = 1, **settings: Any
) -> list[Received]:
    """The first ``count`` records of a topic, without a group."""
    with closing(consumer(bootstrap, **settings)) as client:
        client.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        return receive(client, count)


def commit(client: Consumer, offsets: list[TopicPartition]) -> None:
    """Commits for a group without members, which librdkafka does not retry by itself.

    The first commit of a broker's life finds the coordinator's partition still being created.
    """

    def committed() -> bool:
        try:
            client.commit(offsets=offsets, asynchronous=False)
        except KafkaException as refused:
            if refused.args[0].code() not in COORDINATOR_NOT_READY:
                raise
            return False
        return True

    eventually(committed, what="the offsets are committed")


def as_received(message: Message) -> Received:
    kind, timestamp_ms = message.timestamp()
    assert kind != TIMESTAMP_NOT_AVAILABLE
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None
    headers: Any = tuple(message.headers() or ())
    key: Any = message.key()
    value: Any = message.value()
    return Received(partition, offset, Sample(key, value, timestamp_ms, headers))


def _dotted(settings: dict[str, Any]) -> dict[str, Any]:
    return {name.replace("_", "."): value for name, value in settings.items()}
