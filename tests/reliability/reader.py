"""Reads a topic back for the auditor.

With kafka-python, because what a faulty broker serves may be garbage: librdkafka ends the whole
process on some of it, a client in Python raises an exception.
"""

from __future__ import annotations

import time
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from tests.reliability.auditor import Anomaly, Violation
from tests.reliability.history import LogEntry, record_of

STUCK_AFTER_S = 30.0


def read_everything(
    bootstrap: str, topic: str, partitions: int
) -> tuple[dict[int, list[LogEntry]], list[Violation]]:
    """The whole topic, CRCs checked, and a violation for each partition that cannot be read."""
    log: dict[int, list[LogEntry]] = {}
    violations = []
    for partition in range(partitions):
        log[partition] = []
        try:
            _read_partition(bootstrap, TopicPartition(topic, partition), log[partition])
        except (KafkaError, TimeoutError) as error:
            detail = f"after {len(log[partition])} records: {error!r}"
            violations.append(Violation(Anomaly.UNREADABLE, partition, detail))
    return log, violations


def _read_partition(bootstrap: str, partition: TopicPartition, entries: list[LogEntry]) -> None:
    """Appends every record from offset 0 to the end to ``entries``."""
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        auto_offset_reset="none",
        check_crcs=True,
        max_partition_fetch_bytes=4 << 20,
        max_poll_records=20_000,
    )
    with closing(consumer):
        consumer.assign([partition])
        consumer.seek(partition, 0)
        (end,) = consumer.end_offsets([partition]).values()
        quiet_since = time.monotonic()
        while consumer.position(partition) < end:
            for batch in consumer.poll(timeout_ms=500).values():
                entries += [LogEntry(record.offset, record_of(record.value)) for record in batch]
                quiet_since = time.monotonic()
            if time.monotonic() - quiet_since > STUCK_AFTER_S:
                position = consumer.position(partition)
                raise TimeoutError(f"stuck at offset {position}, the end is {end}")
