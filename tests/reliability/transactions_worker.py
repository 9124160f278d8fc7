"""``python -m tests.reliability.transactions_worker``: consume, transform, produce, in a process
that can be killed and frozen.

Reads its part of the input, writes each input's result and the group's new offsets in one
transaction, a random number of inputs at a time, and sometimes aborts for no reason. Its journal is
what the auditor believes. Status: 0 after SIGTERM, 3 when the broker has fenced it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

from tests.reliability.transactions_history import Journal, OutputRecord, value_of

if TYPE_CHECKING:
    from collections.abc import Callable

FENCED_STATUS = 3
LARGEST_TRANSACTION = 8
ABORTS_ON_PURPOSE = 0.1
STEP_TIMEOUT_S = 5.0
"""Of one try of a step of a transaction; those that may be tried again are."""
SESSION_MS = 2_000
QUICK = {
    "reconnect.backoff.ms": 20,
    "reconnect.backoff.max.ms": 100,
    "retry.backoff.ms": 20,
    "retry.backoff.max.ms": 100,
    # Else librdkafka forgets a single broker that is down, but not that it was the group's
    # coordinator, and waits for it for ever in send_offsets_to_transaction (its issue 5511).
    "metadata.recovery.strategy": "none",
    "log_level": 0,
}


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker is told on its command line. ``name`` is unique to this process."""

    name: str
    bootstrap: str
    transactional_id: str
    group: str
    input_topic: str
    input_partitions: list[int]
    output_topic: str
    output_partitions: int
    timeout_ms: int
    journal: str
    protocol: str = ""
    """Of the group that shares the input: classic or consumer; none: ``input_partitions``."""

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    def as_words(self) -> list[str]:
        """In the order of the fields, a list with commas: what a worker in Java is told."""
        fields = asdict(self)
        fields["input_partitions"] = ",".join(map(str, self.input_partitions))
        return [str(value) for value in fields.values()]


class Worker:
    """One process's life."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._journal = Journal(Path(settings.journal))
        self._source = random.Random(settings.name)
        self._count = 0
        self.is_stopping = False
        self._producer = Producer(
            {
                "bootstrap.servers": settings.bootstrap,
                "transactional.id": settings.transactional_id,
                "transaction.timeout.ms": settings.timeout_ms,
                "linger.ms": 0,
                **QUICK,
            }
        )
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.bootstrap,
                "group.id": settings.group,
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest" if settings.protocol else "error",
                "fetch.wait.max.ms": 50,
                **_membership(settings.protocol),
                **QUICK,
            }
        )

    def run(self) -> None:
        """KafkaException of a fatal error: another producer has our transactional id."""
        _until_done(self._producer.init_transactions)
        if self._settings.protocol:
            self._consumer.subscribe([self._settings.input_topic])
        else:
            self._rewind()
        self._journal.note("ready", self._settings.name)
        while not self.is_stopping:
            count = self._source.randint(1, LARGEST_TRANSACTION)
            messages = [
                each
                for each in self._consumer.consume(num_messages=count, timeout=0.1)
                if each.error() is None
            ]
            if messages:
                self._transact(messages)
        self._consumer.close()

    def fenced(self) -> None:
        self._journal.note("fenced", self._settings.name)

    def _rewind(self) -> None:
        """Go on where the group is: behind the last transaction that was committed.

        A member that has lost its partitions gets them, or others, when it polls again.
        """
        settings = self._settings
        if settings.protocol:
            asked = self._consumer.assignment()
            if not asked:
                return
        else:
            asked = [TopicPartition(settings.input_topic, p) for p in settings.input_partitions]
        while True:
            try:
                found = self._consumer.committed(asked, timeout=STEP_TIMEOUT_S)
                break
            except KafkaException:
                if self.is_stopping:
                    return
        for partition in found:
            partition.offset = max(partition.offset, 0)
        if not settings.protocol:
            self._consumer.assign(found)
            return
        for partition in found:
            self._consumer.seek(partition)

    def _transact(self, messages: list[Message]) -> None:
        self._count += 1
        name = f"{self._settings.name}.{self._count}"
        self._journal.note("begun", name)
        try:
            self._write(name, messages)
            if self._source.random() < ABORTS_ON_PURPOSE:
                self._abort(name)
                return
            _until_done(self._producer.commit_transaction)
            self._journal.note("committed", name)
        except KafkaException as refused:
            if not refused.args[0].txn_requires_abort():
                raise
            self._abort(name)

    def _write(self, name: str, messages: list[Message]) -> None:
        self._producer.begin_transaction()
        ends: dict[int, int] = {}
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None and offset is not None
            ends[partition] = offset + 1
            self._producer.produce(
                self._settings.output_topic,
                value_of(OutputRecord(name, len(messages), partition, offset)),
                partition=offset % self._settings.output_partitions,
            )
        offsets = [TopicPartition(self._settings.input_topic, p, at) for p, at in ends.items()]
        member = self._consumer.consumer_group_metadata()
        _until_done(
            lambda timeout_s: self._producer.send_offsets_to_transaction(offsets, member, timeout_s)
        )

    def _abort(self, name: str) -> None:
        _until_done(self._producer.abort_transaction)
        self._journal.note("aborted", name)
        self._rewind()


def _membership(protocol: str) -> dict[str, Any]:
    """Short sessions, as ``transactions.BROKER_SETTINGS`` allow them."""
    if protocol == "classic":
        session_ms = SESSION_MS
        return {"session.timeout.ms": session_ms, "heartbeat.interval.ms": session_ms // 6}
    return {"group.protocol": "consumer"} if protocol else {}


def _until_done(step: Callable[[float], Any]) -> None:
    """librdkafka says which errors are worth another try of the same step."""
    while True:
        try:
            step(STEP_TIMEOUT_S)
            return
        except KafkaException as refused:
            if not refused.args[0].retriable():
                raise


def main() -> int:
    worker = Worker(WorkerSettings(**json.loads(sys.argv[1])))

    def stop(*_: object) -> None:
        worker.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    try:
        worker.run()
    except KafkaException as refused:
        if not refused.args[0].fatal():
            raise
        print(f"fenced: {refused}", file=sys.stderr, flush=True)
        worker.fenced()
        os._exit(FENCED_STATUS)  # librdkafka may crash when a fenced producer is taken down
    return 0


if __name__ == "__main__":
    sys.exit(main())
