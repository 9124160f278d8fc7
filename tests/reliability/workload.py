"""The load: idempotent producers that pipeline small batches, and a consumer that commits.

The producers live through the broker's death. That is the point: what was written but not yet
acknowledged is sent again, and only restored producer state keeps it from being written twice.
"""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.reliability.history import History, RecordId, record_of, value_of

PARTITIONS = 8
PRODUCERS = 4
VALUE_SIZES = (100, 500, 2000)
MAX_UNANSWERED = 1000
SEGMENT_BYTES = 1 << 20  # the smallest that Kafka 4 accepts
PATIENCE_S = 120.0
COMMIT_GROUP = "reliability"

PRODUCER_SETTINGS = {
    "acks": "all",
    "enable.idempotence": True,
    "linger.ms": 1,
    "batch.num.messages": 50,
    "message.timeout.ms": 600_000,
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    "log_level": 0,  # every round tears connections; librdkafka would tell of each
}


class LoadProducer:
    """One idempotent producer in a thread of its own; writes its part of the history."""

    def __init__(self, bootstrap: str, topic: str, number: int, history: History) -> None:
        self.acks = 0
        self.is_broken = False
        self._topic = topic
        self._number = number
        self._history = history
        self._source = random.Random(number)
        self._unanswered = 0
        self._stopping = threading.Event()
        self._client = Producer({"bootstrap.servers": bootstrap, **PRODUCER_SETTINGS})
        self._thread = threading.Thread(target=self._run, name=f"load-{number}")
        self._thread.start()

    def stop(self) -> None:
        """Sends nothing more; the answers still due are waited for by ``join``."""
        self._stopping.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        try:
            self._load()
        except KafkaException as fatal:
            self._history.fatal.append(f"producer {self._number}: {fatal}")
            self.is_broken = True

    def _load(self) -> None:
        next_number = [0] * PARTITIONS
        while not self._stopping.is_set():
            partition = self._source.randrange(PARTITIONS)
            record = RecordId(self._number, partition, next_number[partition])
            next_number[partition] += 1
            # Before the send: the auditor must never see a record that was not announced.
            self._history.sent[self._number, partition] = next_number[partition]
            self._unanswered += 1
            self._client.produce(
                self._topic,
                value_of(record, self._source.choice(VALUE_SIZES)),
                partition=partition,
                on_delivery=self._delivered,
            )
            self._client.poll(0)
            if next_number[partition] % 10 == 0:
                # A pace that leaves the processor to the broker, and rounds of bearable size.
                self._stopping.wait(0.001)
            while self._unanswered >= MAX_UNANSWERED and not self._stopping.is_set():
                self._client.poll(0.05)
        self._client.flush(PATIENCE_S)

    def _delivered(self, error: Any, message: Message) -> None:
        value = message.value()
        record = record_of(value if isinstance(value, bytes) else None)
        assert record is not None
        self._unanswered -= 1
        offset = message.offset()
        if error is None and offset is not None:
            self._history.acked[record] = offset
            self.acks += 1
        else:
            self._history.failed[record] = str(error)


class Committer:
    """Commits a rising offset again and again, so that the coordinator's log grows as well."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.acked = 0
        self._topic = topic
        self._stopping = threading.Event()
        self._client = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"{COMMIT_GROUP}-{topic}",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 100,
                "log_level": 0,
            }
        )
        self._thread = threading.Thread(target=self._run, name="committer")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def join(self) -> None:
        self._thread.join()

    def read_back(self) -> int:
        """The committed offset as the broker tells it now; 0 when there is none."""
        deadline = time.monotonic() + PATIENCE_S
        with closing(self._client):
            while True:
                try:
                    asked = [TopicPartition(self._topic, 0)]
                    (found,) = self._client.committed(asked, timeout=5)
                    return max(0, found.offset)
                except KafkaException:
                    if time.monotonic() > deadline:
                        raise

    def _run(self) -> None:
        offset = 0
        while not self._stopping.is_set():
            offset += 1
            wanted = TopicPartition(self._topic, 0, offset)
            try:
                self._client.commit(offsets=[wanted], asynchronous=False)
            except KafkaException:
                self._stopping.wait(0.02)  # the broker is down, or still loading
                continue
            self.acked = offset
            self._stopping.wait(0.01)  # the producers are the load, this is a background


def create_topic(bootstrap: str, topic: str) -> None:
    """A topic whose segments are as small as they may be, so that rounds roll them."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    new = NewTopic(topic, PARTITIONS, 1, config={"segment.bytes": str(SEGMENT_BYTES)})
    client.create_topics([new])[topic].result(timeout=PATIENCE_S)
