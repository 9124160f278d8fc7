"""A broker with many partitions: ``python -m benchmarks.partitions [--count N] [--brokers NAMES]``.

What is measured: creating them, the start after a clean stop and after kill -9 (with
a record in each) until ApiVersions is answered, with the CPU that it takes, then until a new client
knows an offset; memory, idle CPU and open files. Records that were acknowledged are counted after
each start. ``--rest SECONDS`` looks at the memory again that long after a record came to each.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from benchmarks.process_stats import cpu_seconds, idle_cpu_percent, rss_mb
from benchmarks.table import OURS, PEER, Figures
from tests.peers import probe
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.brokers import MeasuredBroker

TOPICS = 100
PARTITIONS_A_REQUEST = 4_000  # Apache Kafka refuses 10,000 records in one step
PATIENCE_S = 180.0
KINDS: dict[str, Callable[[Path], MeasuredBroker]] = {
    OURS: KbrokerProcess,
    PEER: ApacheKafka,
}


class ManyPartitions:
    """One broker and ``count`` partitions in 100 topics."""

    def __init__(self, broker: MeasuredBroker, count: int, figures: Figures) -> None:
        self._broker = broker
        self._per_topic = max(1, count // TOPICS)
        self._topics = [f"many-{number}" for number in range(min(count, TOPICS))]
        self._figures = figures
        self._sent = 0
        self._broker_knows_its_ends_s = 0.0 if broker.name == OURS else PATIENCE_S

    @property
    def count(self) -> int:
        return self._per_topic * len(self._topics)

    def measure(self, *, idle_s: float, rest_s: float) -> None:
        """The whole sequence; the broker is killed at its end."""
        self._broker.start()
        self._note("create", "s", self._create())
        self._note("RSS, created", "MB", rss_mb(self._broker.pid), target="<= 80")
        self._produce()
        self._note("RSS, one record in each", "MB", rss_mb(self._broker.pid), target="<= 80")
        if rest_s:
            time.sleep(rest_s)
            self._note(f"RSS, {rest_s:g} s later", "MB", rss_mb(self._broker.pid), target="<= 80")
        self._note("open files", "", open_files(self._broker.pid), target="< 200")
        self._broker.kill()
        self._start("start after kill -9", target="<= 2")
        self._check()
        self._broker.stop()
        self._start("start after a clean stop", target="<= 1")
        self._note("RSS, started", "MB", rss_mb(self._broker.pid), target="<= 80")
        self._note("open files, started", "", open_files(self._broker.pid), target="< 200")
        time.sleep(1)
        idle = idle_cpu_percent(self._broker.pid, seconds=idle_s)
        self._note("idle CPU", "% of a core", idle, target="< 1")
        self._check()
        self._broker.kill()
        self._start("start after kill -9, idle", target="<= 2")
        self._check()
        self._broker.kill()

    def _note(self, name: str, unit: str, value: float, *, target: str = "") -> None:
        line = self._figures.line(f"{self.count} partitions: {name}", unit, digits=2, target=target)
        line.add(self._broker.name, value)

    def _create(self) -> float:
        admin = AdminClient({"bootstrap.servers": self._broker.bootstrap})
        new = [NewTopic(topic, self._per_topic, 1) for topic in self._topics]
        started = time.monotonic()
        step = max(1, PARTITIONS_A_REQUEST // self._per_topic)
        for first in range(0, len(new), step):
            some = new[first : first + step]
            for created in admin.create_topics(some, request_timeout=PATIENCE_S).values():
                created.result()
        return time.monotonic() - started

    def _produce(self) -> None:
        """A record into each partition."""
        producer = Producer({"bootstrap.servers": self._broker.bootstrap, "acks": "all"})
        for topic in self._topics:
            for partition in range(self._per_topic):
                producer.produce(topic, b"%d" % self._sent, partition=partition)
                self._sent += 1
                producer.poll(0)
        left = producer.flush(PATIENCE_S)
        assert left == 0, f"{left} records were not acknowledged"

    def _start(self, name: str, *, target: str) -> None:
        started = time.monotonic()
        self._broker.start()
        probe.ask_api_versions(self._broker.bootstrap, timeout_s=30)
        self._note(name, "s", time.monotonic() - started, target=target)
        self._note(f"{name}: CPU", "s", cpu_seconds(self._broker.pid))
        self._note(f"{name}: first offset", "s", self._ask_one_offset())

    def _ask_one_offset(self) -> float:
        """Seconds until a new client knows the end of one partition: Metadata and ListOffsets."""
        started = time.monotonic()
        consumer = Consumer({"bootstrap.servers": self._broker.bootstrap, "group.id": "many"})
        try:
            watermarks(consumer, TopicPartition(self._topics[0], 0))
            return time.monotonic() - started
        finally:
            consumer.close()

    def _check(self) -> None:
        """One partition of each topic is read, its end offset asked for.

        Apache Kafka may lead a partition for a moment before it knows how far it is committed.
        """
        consumer = Consumer({"bootstrap.servers": self._broker.bootstrap, "group.id": "many"})
        try:
            last = self._per_topic - 1
            for topic in self._topics:
                deadline = time.monotonic() + self._broker_knows_its_ends_s
                while (found := watermarks(consumer, TopicPartition(topic, last))) != (0, 1):
                    assert time.monotonic() < deadline, f"{topic}-{last} holds {found}"
                    time.sleep(0.01)
            consumer.assign([TopicPartition(topic, last, 0) for topic in self._topics])
            came = 0
            while came < len(self._topics):
                messages = consumer.consume(len(self._topics), timeout=30)
                assert messages, f"{came} of {len(self._topics)} records came"
                came += len(messages)
        finally:
            consumer.close()


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset and the one after the last.

    Apache Kafka answers requests before it leads all its partitions: until then it is asked again.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            low, high = consumer.get_watermark_offsets(partition, 30)
            return int(low), int(high)
        except KafkaException as error:
            not_yet = error.args[0].code() == KafkaError.NOT_LEADER_FOR_PARTITION
            if not not_yet or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def open_files(pid: int) -> int:
    """Descriptors that the process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.partitions", description=__doc__)
    parser.add_argument("--count", type=int, default=10_000, help="default 10000")
    parser.add_argument("--brokers", default=OURS, help=f"default {OURS}; or {OURS},{PEER}")
    parser.add_argument("--rest", type=float, default=0, help="default 0: do not wait")
    parser.add_argument("--idle", type=float, default=20, help="seconds of idle CPU; default 20")
    options = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory(prefix="kbroker-partitions-") as folder:
        try:
            for name in options.brokers.split(","):
                broker = KINDS[name](Path(folder) / name)
                try:
                    ManyPartitions(broker, options.count, figures).measure(
                        idle_s=options.idle, rest_s=options.rest
                    )
                finally:
                    broker.kill()
        finally:
            print(figures.render())
    return 0


if __name__ == "__main__":
    sys.exit(main())
