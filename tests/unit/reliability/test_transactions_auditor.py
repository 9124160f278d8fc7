"""The auditor of transactions: silent on good outcomes, named anomalies on bad ones."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.reliability.transactions_auditor import (
    Observation,
    TransactionAnomaly,
    audit_transactions,
)
from tests.reliability.transactions_history import (
    Accounts,
    Journal,
    OutputEntry,
    OutputRecord,
    events_of,
    record_of,
    value_of,
)

if TYPE_CHECKING:
    from pathlib import Path


def entry(partition: int, offset: int, name: str, total: int, at: int) -> OutputEntry:
    """Input ``at`` of partition 0, written by transaction ``name``."""
    return OutputEntry(partition, offset, OutputRecord(name, total, 0, at))


# Inputs 0-3: transaction a took 0 and 1, b was aborted, c took 2 and 3.
OUTPUT = [
    entry(0, 0, "a", 2, 0),
    entry(1, 0, "a", 2, 1),
    entry(0, 4, "c", 2, 2),
    entry(1, 4, "c", 2, 3),
]
GOOD = Observation(
    output=OUTPUT, inputs={0: 4}, committed={0: 4}, ends={0: (6, 6), 1: (6, 6)}, seen=OUTPUT[:3]
)


def accounts() -> Accounts:
    return Accounts(begun={"a", "b", "c"}, committed={"a"}, aborted={"b"})


def anomalies(found: Observation, known: Accounts | None = None) -> set[str]:
    return {each.anomaly.name for each in audit_transactions(known or accounts(), found)}


def test_a_run_with_everything_in_place_is_clean() -> None:
    """The outcome of c was never told: it may be visible."""
    assert audit_transactions(accounts(), GOOD) == []


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (OUTPUT[:2], {"LOST"}),
        (OUTPUT[2:], {"LOST", "LOST_COMMIT"}),
        (OUTPUT[:3], {"LOST", "TORN"}),
        ([*OUTPUT, entry(0, 5, "d", 1, 3)], {"DUPLICATE", "FOREIGN"}),
        ([*OUTPUT, entry(0, 5, "b", 1, 3)], {"DUPLICATE", "ABORTED_READ"}),
        ([*OUTPUT, OutputEntry(0, 5, None)], {"FOREIGN"}),
        ([*OUTPUT[:3], entry(1, 4, "c", 2, 9)], {"LOST", "FOREIGN"}),
    ],
)
def test_what_is_wrong_with_the_output(output: list[OutputEntry], expected: set[str]) -> None:
    assert anomalies(replace(GOOD, output=output, seen=())) == expected


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (replace(GOOD, committed={0: 3}), {"OFFSETS"}),
        (replace(GOOD, committed={}), {"OFFSETS"}),
        (replace(GOOD, ends={0: (3, 6)}), {"STUCK"}),
        (replace(GOOD, unreadable=["partition 0 at 3"]), {"STUCK"}),
        (replace(GOOD, open_transactions=["tx"]), {"UNFINISHED"}),
        (replace(GOOD, seen=[entry(0, 2, "b", 1, 2)]), {"VANISHED"}),
    ],
)
def test_what_else_can_be_wrong(found: Observation, expected: set[str]) -> None:
    assert anomalies(found) == expected


def test_a_commit_of_a_zombie_is_told() -> None:
    known = replace(accounts(), zombie_commits={"c"})
    assert anomalies(GOOD, known) == {TransactionAnomaly.UNFENCED.name}


def test_missing_inputs_are_told_as_ranges() -> None:
    found = replace(GOOD, inputs={0: 9}, committed={0: 9})
    (violation,) = audit_transactions(accounts(), found)
    assert str(violation).endswith("partition 0: 4-8, of 9")


def test_values_carry_records() -> None:
    record = OutputRecord("worker-0.1.7", 3, 2, 99)
    assert record_of(value_of(record)) == record
    assert record_of(b"something|else") is None
    assert record_of(None) is None


def test_a_journal_outlives_its_writer_up_to_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    assert events_of(path) == []
    journal = Journal(path)
    journal.note("begun", "a")
    journal.note("committed", "a")
    journal.close()
    with path.open("a") as file:
        file.write("begun b")
    assert events_of(path) == [("begun", "a"), ("committed", "a")]
    found = Accounts()
    found.add(events_of(path))
    assert (found.begun, found.committed, found.aborted) == ({"a"}, {"a"}, set())
