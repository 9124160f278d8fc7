"""Index files, entry by entry, held against the batches that they point at.

A checker is fed the batches of the log in order and looks at its own entries as they come due, so
that one walk over the log checks every index of a segment.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from kbroker.common.files import File
from kbroker.log_tools.log_scan import Batch, LegacyMessage
from kbroker.storage.indexes import (
    MAX_RELATIVE_OFFSET,
    OFFSET_ENTRY_SIZE,
    TIME_ENTRY_SIZE,
    TimestampOffset,
)
from kbroker.storage.transaction_index import ABORTED_TXN_SIZE, AbortedTxn

Complain = Callable[[int, str], None]
"""Takes a position in the index file and what is wrong there."""

_OFFSET_ENTRY = struct.Struct(">II")
_TIME_ENTRY = struct.Struct(">qI")
_TXN_ENTRY = struct.Struct(">hqqqq")
_CONTROL_BIT = 0x20
_ENTRIES_PER_READ = 65_536


class OffsetPosition(NamedTuple):
    """An entry of an offset index."""

    offset: int
    position: int


def _entries(
    file: File, layout: struct.Struct, complain: Complain
) -> Iterator[tuple[int, tuple[int, ...]]]:
    """(position in the index, fields) of the entries, up to the zeros of a preallocated file."""
    end = file.size()
    step = layout.size * _ENTRIES_PER_READ
    position = 0
    zeros = bytes(layout.size)
    while position + layout.size <= end:
        data = file.read_at(min(step, end - position), position)
        whole = len(data) - len(data) % layout.size
        for at in range(0, whole, layout.size):
            if position + at and data[at : at + layout.size] == zeros:
                return  # what a killed Kafka leaves of the space that it maps
            yield position + at, layout.unpack_from(data, at)
        if not whole:
            return
        position += whole
    if position < end:
        complain(position, f"{end - position} bytes are no whole entry")


def offset_entries(file: File, base_offset: int, complain: Complain) -> Iterator[OffsetPosition]:
    """The entries of an ``.index``; ends at the first that does not ascend."""
    last = OffsetPosition(-1, -1)
    for at, (relative, position) in _entries(file, _OFFSET_ENTRY, complain):
        if at == 0 and (relative, position) == (0, 0) and file.size() > OFFSET_ENTRY_SIZE:
            return  # nothing but preallocated space
        entry = OffsetPosition(base_offset + relative, position)
        if (
            relative > MAX_RELATIVE_OFFSET
            or entry.offset <= last.offset
            or position <= last.position
        ):
            complain(at, f"entry {tuple(entry)} does not ascend from {tuple(last)}")
            return
        last = entry
        yield entry


def time_entries(file: File, base_offset: int, complain: Complain) -> Iterator[TimestampOffset]:
    """The entries of a ``.timeindex``; ends at the first that does not ascend."""
    last = TimestampOffset(-1, base_offset)
    for at, (timestamp, relative) in _entries(file, _TIME_ENTRY, complain):
        if at == 0 and (timestamp, relative) == (0, 0) and file.size() > TIME_ENTRY_SIZE:
            return
        entry = TimestampOffset(timestamp, base_offset + relative)
        if (
            relative > MAX_RELATIVE_OFFSET
            or timestamp <= last.timestamp
            or entry.offset < last.offset
        ):
            complain(at, f"entry {tuple(entry)} does not ascend from {tuple(last)}")
            return
        last = entry
        yield entry


def txn_entries(file: File, base_offset: int, complain: Complain) -> Iterator[AbortedTxn]:
    """The entries of a ``.txnindex``; ends at the first that cannot be."""
    last = base_offset - 1
    end = file.size()
    for position in range(0, end - end % ABORTED_TXN_SIZE, ABORTED_TXN_SIZE):
        version, *fields = _TXN_ENTRY.unpack(file.read_at(ABORTED_TXN_SIZE, position))
        entry = AbortedTxn(*fields)
        if version != 0:
            complain(position, f"version {version} is unknown")
            return
        if not 0 <= entry.first_offset <= entry.last_offset or entry.last_offset <= last:
            complain(position, f"{entry} does not ascend from offset {last}")
            return
        last = entry.last_offset
        yield entry
    if end % ABORTED_TXN_SIZE:
        complain(end - end % ABORTED_TXN_SIZE, f"{end % ABORTED_TXN_SIZE} bytes are no whole entry")


class OffsetIndexChecker:
    """An entry points at the first byte of a batch, and all batches before it end below it."""

    def __init__(self, entries: Iterator[OffsetPosition], complain: Callable[[str], None]) -> None:
        self._entries = entries
        self._complain = complain
        self._next = next(entries, None)
        self._last_offset = -1  # of the batches seen

    def on_entry(self, entry: Batch | LegacyMessage) -> None:
        """The next batch of the log."""
        while self._next is not None and self._next.position <= entry.position:
            offset, position = self._next
            if position < entry.position:
                self._complain(f"offset {offset}: no batch begins at position {position}")
            elif offset <= self._last_offset or offset < entry.base_offset:
                self._complain(
                    f"offset {offset} position {position}: the batch there holds the offsets "
                    f"{entry.base_offset} to {entry.last_offset}"
                )
            self._next = next(self._entries, None)
        self._last_offset = entry.last_offset

    def finish(self) -> None:
        """The log has ended."""
        while self._next is not None:
            offset, position = self._next
            self._complain(f"offset {offset}: position {position} is behind the last batch")
            self._next = next(self._entries, None)


class TimeIndexChecker:
    """No record up to an entry's offset is younger than its timestamp, and one is that young."""

    def __init__(self, entries: Iterator[TimestampOffset], complain: Callable[[str], None]) -> None:
        self._entries = entries
        self._complain = complain
        self._next = next(entries, None)
        self._largest = -1  # timestamp of the batches seen

    def on_entry(self, entry: Batch | LegacyMessage) -> None:
        """The next batch of the log."""
        while self._next is not None and self._next.offset < entry.base_offset:
            self._check(self._largest, self._largest)
        upper = max(self._largest, entry.max_timestamp)
        while self._next is not None and self._next.offset <= entry.last_offset:
            # Kafka before 3.7 named the very record, later ones the last of its batch.
            self._check(upper if self._next.offset == entry.last_offset else self._largest, upper)
        self._largest = upper

    def _check(self, lower: int, upper: int) -> None:
        assert self._next is not None
        timestamp, offset = self._next
        if not lower <= timestamp <= upper:
            self._complain(
                f"timestamp {timestamp} at offset {offset}: the largest one up to there is {upper}"
            )
        self._next = next(self._entries, None)

    def finish(self) -> None:
        """The log has ended."""
        while self._next is not None:
            timestamp, offset = self._next
            self._complain(f"timestamp {timestamp}: offset {offset} is behind the last batch")
            self._next = next(self._entries, None)


class TxnIndexChecker:
    """An aborted transaction ends with a marker of its producer."""

    def __init__(self, entries: Iterator[AbortedTxn], complain: Callable[[str], None]) -> None:
        self._entries = entries
        self._complain = complain
        self._next = next(entries, None)

    def on_entry(self, entry: Batch | LegacyMessage) -> None:
        """The next batch of the log."""
        while self._next is not None and self._next.last_offset <= entry.last_offset:
            wanted = self._next
            # Compaction may have removed the marker; what it leaves in its place is no record.
            if wanted.last_offset >= entry.base_offset and not (
                isinstance(entry, Batch)
                and entry.header.attributes & _CONTROL_BIT
                and entry.header.producer_id == wanted.producer_id
            ):
                self._complain(
                    f"producer {wanted.producer_id}: there is no marker at offset "
                    f"{wanted.last_offset}"
                )
            self._next = next(self._entries, None)

    def finish(self) -> None:
        """The log has ended."""
        while self._next is not None:
            self._complain(
                f"producer {self._next.producer_id}: the marker's offset "
                f"{self._next.last_offset} is behind the last batch"
            )
            self._next = next(self._entries, None)


Checker = OffsetIndexChecker | TimeIndexChecker | TxnIndexChecker
