"""Compares what was acknowledged with what can be read: the judge of a kill -9 round.

Names of anomalies follow the checklists for log systems (lost write, duplicate, reordered ...).
The auditor is pure: it knows nothing of brokers, processes or clocks.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.reliability.history import History, LogEntry, RecordId


class Anomaly(Enum):
    """What can be wrong with a log."""

    LOST = "an acknowledged record is not in the log"
    MOVED = "an acknowledged record is not at the offset the acknowledgement named"
    DUPLICATE = "a record is in the log more than once"
    REORDERED = "a record stands behind one that its producer sent later"
    FOREIGN = "the log holds a record that nobody sent, or not as it was sent"
    GAP = "offsets are not 0, 1, 2, ..."
    FAILED = "an idempotent producer with time left got an error"
    UNREADABLE = "a partition cannot be read to its end"


@dataclass(frozen=True)
class Violation:
    """One anomaly, in one partition; -1 where it is not about a certain one."""

    anomaly: Anomaly
    partition: int
    detail: str

    def __str__(self) -> str:
        return f"{self.anomaly.name} in partition {self.partition}: {self.detail}"


def audit(history: History, log: Mapping[int, Sequence[LogEntry]]) -> list[Violation]:
    """All violations of one topic, whose whole content ``log`` maps by partition."""
    found: list[Violation] = []
    places: dict[RecordId, list[int]] = defaultdict(list)
    for partition, entries in sorted(log.items()):
        found += _audit_offsets(partition, entries)
        found += _audit_order(history, partition, entries)
        for entry in entries:
            if entry.record is not None:
                places[entry.record].append(entry.offset)
    found += _audit_acknowledged(history, places)
    found += [
        Violation(Anomaly.DUPLICATE, record.partition, f"{record} at offsets {offsets}")
        for record, offsets in places.items()
        if len(offsets) > 1
    ]
    found += [Violation(Anomaly.FAILED, -1, error) for error in history.fatal]
    found += [
        Violation(Anomaly.FAILED, record.partition, f"{record}: {error}")
        for record, error in history.failed.items()
    ]
    return found


def _audit_offsets(partition: int, entries: Sequence[LogEntry]) -> list[Violation]:
    """Nothing is compacted or transactional here: every offset holds a record."""
    found = []
    for expected, entry in enumerate(entries):
        if entry.offset != expected:
            detail = f"{entry.offset} where {expected} was due"
            found.append(Violation(Anomaly.GAP, partition, detail))
            break
    return found


def _audit_order(history: History, partition: int, entries: Sequence[LogEntry]) -> list[Violation]:
    """Each producer's numbers rise; each record is one that was sent to this partition."""
    found = []
    highest: dict[int, int] = {}
    for offset, record in entries:
        if record is None:
            found.append(Violation(Anomaly.FOREIGN, partition, f"offset {offset}: not our value"))
            continue
        sent = history.sent.get((record.producer, partition), 0)
        if record.partition != partition or record.number >= sent:
            found.append(Violation(Anomaly.FOREIGN, partition, f"offset {offset}: {record}"))
            continue
        before = highest.get(record.producer, -1)
        if record.number < before:
            detail = f"offset {offset}: {record} after number {before}"
            found.append(Violation(Anomaly.REORDERED, partition, detail))
        highest[record.producer] = max(before, record.number)
    return found


def _audit_acknowledged(
    history: History, places: Mapping[RecordId, Sequence[int]]
) -> list[Violation]:
    found = []
    for record, offset in history.acked.items():
        offsets = places.get(record, ())
        if not offsets:
            detail = f"{record}, acknowledged at offset {offset}"
            found.append(Violation(Anomaly.LOST, record.partition, detail))
        elif offset not in offsets:
            detail = f"{record}, acknowledged at {offset}, is at {list(offsets)}"
            found.append(Violation(Anomaly.MOVED, record.partition, detail))
    return found
