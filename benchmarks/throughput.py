"""Produce and consume through confluent-kafka, and what a record costs the broker."""

from __future__ import annotations

import random
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks import warm_memory
from benchmarks.process_stats import cpu_seconds

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker

PATIENCE_S = 300.0
RECORD_SIZE = 1024
_VALUES = 500  # different ones, sent in turn


@dataclass(frozen=True)
class Run:
    """One direction of one run."""

    records: int
    seconds: float
    broker_cpu_s: float

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds

    @property
    def cpu_us_per_record(self) -> float:
        return 1e6 * self.broker_cpu_s / self.records


def values(size: int) -> list[bytes]:
    """Values of that size, of words and numbers: codecs make about a third of them."""
    source = random.Random(size)
    words = [source.randbytes(4).hex() for _ in range(400)]
    made = []
    for _ in range(_VALUES):
        text = ""
        while len(text) < size:
            text += f'"{source.choice(words)}":{source.randrange(10_000)},'
        made.append(text[:size].encode())
    return made


def create_topic(bootstrap: str, topic: str, partitions: int) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(timeout=PATIENCE_S)


def produce(
    broker: MeasuredBroker,
    topic: str,
    *,
    records: int,
    size: int = RECORD_SIZE,
    codec: str = "none",
    partition: int = -1,
) -> Run:
    """Sends records with acks=all; the clock stops when the last is acknowledged.

    ``partition`` -1: the client's own choice.
    """
    failures: list[Any] = []

    def delivered(error: Any, _: Any) -> None:
        if error is not None:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": broker.bootstrap,
            "acks": "all",
            "queue.buffering.max.messages": 500_000,
            "compression.type": codec,
        }
    )
    sent = values(size)
    warm_memory.touch(records * size)
    cpu, started = cpu_seconds(broker.pid), time.perf_counter()
    for number in range(records):
        value = sent[number % _VALUES]
        while True:
            with suppress(BufferError):
                producer.produce(topic, value, partition=partition, on_delivery=delivered)
                break
            producer.poll(0.01)
        if number % 1000 == 0:
            producer.poll(0)
    if producer.flush(PATIENCE_S) or failures:
        raise RuntimeError(f"{len(failures)} records were refused: {failures[:1]}")
    return Run(records, time.perf_counter() - started, cpu_seconds(broker.pid) - cpu)


def consume(broker: MeasuredBroker, topic: str, *, records: int, partitions: int) -> Run:
    """Reads the topic from its start until ``records`` have come."""
    settings = {
        "bootstrap.servers": broker.bootstrap,
        "group.id": "benchmark",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        # Having 100,000 records in its queue it would ask for no more within a second: a wait
        # in some runs and not in others, whatever the broker.
        "fetch.queue.backoff.ms": 10,
    }
    with closing(Consumer(settings)) as consumer:
        cpu, started = cpu_seconds(broker.pid), time.perf_counter()
        consumer.assign([TopicPartition(topic, number, 0) for number in range(partitions)])
        left = records
        while left > 0:
            for message in consumer.consume(min(left, 10_000), timeout=1.0):
                if message.error() is not None:
                    raise KafkaException(message.error())
                left -= 1
            if time.perf_counter() - started > PATIENCE_S:
                raise TimeoutError(f"{left} of {records} records are missing")
        return Run(records, time.perf_counter() - started, cpu_seconds(broker.pid) - cpu)
