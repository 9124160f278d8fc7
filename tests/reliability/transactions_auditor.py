"""The judge of exactly-once: every input reflected once, in transactions that are whole.

Pure, as ``auditor``: it knows nothing of brokers, processes or clocks. It looks at a moment when
all inputs are consumed, nothing is in flight and everybody who was killed has a successor.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.reliability.transactions_history import Accounts, OutputEntry


class TransactionAnomaly(Enum):
    """What can be wrong with transactions."""

    LOST = "an input that the group has consumed is not in the output"
    DUPLICATE = "an input is in the output more than once"
    TORN = "some records of a transaction are visible, others are not"
    ABORTED_READ = "a record of an aborted transaction is visible"
    LOST_COMMIT = "a transaction is not visible whose commit was acknowledged"
    OFFSETS = "the group's offset is not where its inputs end"
    VANISHED = "a record that a read_committed consumer saw live is not there later"
    FOREIGN = "the output holds a record that nobody sent"
    UNFENCED = "a producer committed what it began after its successor was ready"
    STUCK = "the last stable offset does not reach the end"
    UNFINISHED = "a transaction is still open or prepared when nobody works on it"


@dataclass(frozen=True)
class TransactionViolation:
    """One anomaly."""

    anomaly: TransactionAnomaly
    detail: str

    def __str__(self) -> str:
        return f"{self.anomaly.name} ({self.anomaly.value}): {self.detail}"


@dataclass
class Observation:
    """What the broker says when everything has come to rest.

    ``output``: all that a read_committed consumer gets from offset 0; ``seen``: what another got
    while transactions were running. ``inputs``, ``committed``: end offset of each input partition
    and the group's offset there. ``ends``: (last stable offset, high watermark) of each output
    partition. ``open_transactions``: as ListTransactions tells.
    """

    output: Sequence[OutputEntry]
    inputs: Mapping[int, int]
    committed: Mapping[int, int]
    ends: Mapping[int, tuple[int, int]]
    seen: Sequence[OutputEntry] = ()
    open_transactions: Sequence[str] = ()
    unreadable: list[str] = field(default_factory=list)


def audit_transactions(accounts: Accounts, found: Observation) -> list[TransactionViolation]:
    """All violations."""
    return [
        TransactionViolation(anomaly, detail)
        for anomaly, detail in (
            *_audit_inputs(found),
            *_audit_wholeness(accounts, found.output),
            *_audit_observer(found),
            *_audit_ends(found),
            *((TransactionAnomaly.UNFENCED, name) for name in sorted(accounts.zombie_commits)),
        )
    ]


_Found = tuple[TransactionAnomaly, str]


def _audit_inputs(found: Observation) -> Iterator[_Found]:
    """Each input once; the group stands behind the last one."""
    reflected: Counter[tuple[int, int]] = Counter()
    transactions = defaultdict(list)
    for entry in found.output:
        if entry.record is not None:
            place = entry.record.input_partition, entry.record.input_offset
            reflected[place] += 1
            transactions[place].append(entry.record.transaction)
    for (partition, offset), count in sorted(reflected.items()):
        if count > 1:
            names = ", ".join(transactions[partition, offset])
            yield TransactionAnomaly.DUPLICATE, f"input {partition}-{offset} by {names}"
        if offset >= found.inputs.get(partition, 0):
            yield TransactionAnomaly.FOREIGN, f"input {partition}-{offset} does not exist"
    for partition, end in sorted(found.inputs.items()):
        missing = [offset for offset in range(end) if not reflected[partition, offset]]
        if missing:
            detail = f"partition {partition}: {_ranges(missing)}, of {end}"
            yield TransactionAnomaly.LOST, detail
        if found.committed.get(partition, 0) != end:
            detail = f"partition {partition}: {found.committed.get(partition)}, the end is {end}"
            yield TransactionAnomaly.OFFSETS, detail


def _audit_wholeness(accounts: Accounts, output: Sequence[OutputEntry]) -> Iterator[_Found]:
    """Transactions are visible in full or not at all, as their producers were told."""
    visible: Counter[str] = Counter()
    totals: dict[str, int] = {}
    for partition, offset, record in output:
        if record is None or record.transaction not in accounts.begun:
            yield TransactionAnomaly.FOREIGN, f"offset {offset} of partition {partition}: {record}"
            continue
        visible[record.transaction] += 1
        totals[record.transaction] = record.total
    for name, count in sorted(visible.items()):
        if count < totals[name]:
            yield TransactionAnomaly.TORN, f"{name}: {count} of {totals[name]} records"
        if name in accounts.aborted:
            yield TransactionAnomaly.ABORTED_READ, f"{name}: {count} records"
    for name in sorted(accounts.committed - set(visible)):
        yield TransactionAnomaly.LOST_COMMIT, name


def _audit_observer(found: Observation) -> Iterator[_Found]:
    """Nothing was shown that did not stay."""
    final = {(entry.partition, entry.offset): entry.record for entry in found.output}
    for partition, offset, record in found.seen:
        if final.get((partition, offset)) != record:
            yield TransactionAnomaly.VANISHED, f"offset {offset} of partition {partition}: {record}"


def _audit_ends(found: Observation) -> Iterator[_Found]:
    for partition, (stable, high_watermark) in sorted(found.ends.items()):
        if stable != high_watermark:
            detail = f"partition {partition}: {stable}, the end is {high_watermark}"
            yield TransactionAnomaly.STUCK, detail
    for detail in found.unreadable:
        yield TransactionAnomaly.STUCK, detail
    for name in found.open_transactions:
        yield TransactionAnomaly.UNFINISHED, name


def _ranges(numbers: Iterable[int]) -> str:
    """``3-5, 9`` of 3, 4, 5, 9."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{a}-{b}" if a != b else str(a) for a, b in runs)
