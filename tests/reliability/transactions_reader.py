"""Asks the broker for what the auditor of transactions judges, and watches the output live."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from kafka import KafkaAdminClient, KafkaConsumer
from kafka import TopicPartition as Partition
from kafka.errors import KafkaError

from tests.reliability.transactions_auditor import Observation
from tests.reliability.transactions_history import OutputEntry, record_of
from tests.reliability.transactions_worker import QUICK

if TYPE_CHECKING:
    from collections.abc import Mapping

READ_TIMEOUT_S = 10.0
ADMIN_TIMEOUT_S = 10.0
OPEN_STATES = ("Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence")


class Broker:
    """Questions to a running broker. KafkaException when it does not answer."""

    def __init__(self, bootstrap: str, group: str, topics: tuple[str, str]) -> None:
        self._bootstrap = bootstrap
        self._group = group
        self._input, self._output = topics
        self.forget()

    def forget(self) -> None:
        """The broker was started again: librdkafka's admin client keeps to the leader epochs that
        it has seen first, which are refused with FENCED_LEADER_EPOCH."""
        self._admin = AdminClient({"bootstrap.servers": self._bootstrap, **QUICK})

    def input_ends(self, partitions: int) -> dict[int, int]:
        """End offset of each input partition."""
        return self._ends(self._input, partitions, IsolationLevel.READ_UNCOMMITTED)

    def output_ends(self, partitions: int) -> dict[int, tuple[int, int]]:
        """(last stable offset, high watermark) of each output partition."""
        stable = self._ends(self._output, partitions, IsolationLevel.READ_COMMITTED)
        high = self._ends(self._output, partitions, IsolationLevel.READ_UNCOMMITTED)
        return {each: (stable[each], high[each]) for each in stable}

    def _ends(self, topic: str, partitions: int, level: IsolationLevel) -> dict[int, int]:
        asked = {TopicPartition(topic, each): OffsetSpec.latest() for each in range(partitions)}
        answers = self._admin.list_offsets(
            asked, isolation_level=level, request_timeout=ADMIN_TIMEOUT_S
        )
        return {each.partition: future.result().offset for each, future in answers.items()}

    def committed(self) -> dict[int, int]:
        """The group's stable offsets by input partition."""
        asked = [ConsumerGroupTopicPartitions(self._group)]
        (future,) = self._admin.list_consumer_group_offsets(
            asked, require_stable=True, request_timeout=ADMIN_TIMEOUT_S
        ).values()
        found = future.result().topic_partitions
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return {each.partition: each.offset for each in found}

    def open_transactions(self) -> list[str]:
        """Transactional ids in a state that is not the end, as ListTransactions tells."""
        with closing(KafkaAdminClient(bootstrap_servers=self._bootstrap)) as admin:
            found = admin.list_transactions(state_filters=list(OPEN_STATES))
        return [str(each) for listed in found.values() for each in listed] if found else []

    def observe(self, inputs: int, outputs: int) -> Observation:
        """What there is now; all inputs are consumed and nothing is in flight."""
        ends = self.output_ends(outputs)
        output, unreadable = read_committed(
            self._bootstrap, self._output, {each: stable for each, (stable, _) in ends.items()}
        )
        return Observation(
            output=output,
            inputs=self.input_ends(inputs),
            committed=self.committed(),
            ends=ends,
            open_transactions=self.open_transactions(),
            unreadable=unreadable,
        )


def read_committed(
    bootstrap: str, topic: str, ends: Mapping[int, int]
) -> tuple[list[OutputEntry], list[str]]:
    """All records below ``ends`` that a read_committed consumer gets, CRCs checked, and what was
    wrong with partitions that cannot be read so far."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        isolation_level="read_committed",
        auto_offset_reset="none",
        check_crcs=True,
        max_poll_records=20_000,
    )
    entries: list[OutputEntry] = []
    left = {Partition(topic, number): end for number, end in ends.items() if end > 0}
    with closing(consumer):
        consumer.assign(list(left))
        consumer.seek_to_beginning(*left)
        quiet_since = time.monotonic()
        while left:
            try:
                polled = consumer.poll(timeout_ms=200)
            except KafkaError as error:
                return entries, [f"{sorted(left)}: {error!r}"]
            for records in polled.values():
                entries += [OutputEntry(r.partition, r.offset, record_of(r.value)) for r in records]
                quiet_since = time.monotonic()
            left = {each: end for each, end in left.items() if consumer.position(each) < end}
            if time.monotonic() - quiet_since > READ_TIMEOUT_S:
                places = [
                    f"{p} at {consumer.position(p)}, the end is {end}" for p, end in left.items()
                ]
                return entries, places
    return entries, []


class LiveObserver:
    """A read_committed consumer that runs all the time; what it is shown must stay true."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.seen: list[OutputEntry] = []
        self._is_stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": "live-observer",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                **QUICK,
            }
        )
        self._consumer.assign([TopicPartition(topic, each, 0) for each in range(partitions)])
        self._thread = threading.Thread(target=self._run, name="live-observer")
        self._thread.start()

    def stop(self) -> None:
        self._is_stopping.set()
        self._thread.join()

    def _run(self) -> None:
        with closing(self._consumer):
            while not self._is_stopping.is_set():
                for message in self._consumer.consume(num_messages=1000, timeout=0.2):
                    if message.error() is None:
                        self._note(message.partition(), message.offset(), message.value())

    def _note(self, partition: int | None, offset: int | None, value: object) -> None:
        assert partition is not None and offset is not None
        record = record_of(value if isinstance(value, bytes) else None)
        self.seen.append(OutputEntry(partition, offset, record))
