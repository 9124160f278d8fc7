"""What a consume-transform-produce run leaves behind: the records of its output, its journals."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_VALUE = re.compile(rb"([\w.-]+)\|(\d+)\|(\d+)\|(\d+)")


class OutputRecord(NamedTuple):
    """What one input became: by which transaction, which holds ``total`` records in all."""

    transaction: str
    total: int
    input_partition: int
    input_offset: int


class OutputEntry(NamedTuple):
    """A record as a read_committed consumer got it; None when its value is not ours."""

    partition: int
    offset: int
    record: OutputRecord | None


def value_of(record: OutputRecord) -> bytes:
    """The value that carries it."""
    return b"%s|%d|%d|%d" % (record.transaction.encode(), *record[1:])


def record_of(value: bytes | None) -> OutputRecord | None:
    """The record in a value; None when the value is not one that ``value_of`` made."""
    found = _VALUE.fullmatch(value or b"")
    if found is None:
        return None
    total, input_partition, input_offset = map(int, found.groups()[1:])
    return OutputRecord(found[1].decode(), total, input_partition, input_offset)


class Journal:
    """A worker's own account, a line an event, in a file that outlives its kill -9."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, event: str, name: str) -> None:
        """``ready`` and ``fenced`` name a worker, ``begun``, ``committed`` and ``aborted`` a
        transaction; written before anybody can see the effect of ``begun``, and after the broker's
        answer for the others."""
        os.write(self._file, f"{event} {name}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def events_of(path: Path) -> list[tuple[str, str]]:
    """(event, name) of each whole line; none when the worker has not come so far."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]  # what follows the last newline is not whole
    return [(event, name) for event, _, name in (line.partition(" ") for line in lines)]


@dataclass
class Accounts:
    """All journals together. A transaction that is in none of the sets may have ended either way.

    ``zombie_commits``: transactions begun and committed by a worker after its successor was ready.
    """

    begun: set[str] = field(default_factory=set)
    committed: set[str] = field(default_factory=set)
    aborted: set[str] = field(default_factory=set)
    zombie_commits: set[str] = field(default_factory=set)

    def add(self, events: Iterable[tuple[str, str]]) -> None:
        """Take over a journal; again as it grows does no harm."""
        kept = {"begun": self.begun, "committed": self.committed, "aborted": self.aborted}
        for event, name in events:
            if event in kept:
                kept[event].add(name)
