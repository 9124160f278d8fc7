"""The sparse indexes of a segment: offset to position, time to offset.

Files as Kafka's, all big-endian, ascending: ``.index`` holds (offset - base offset: u32, position:
u32) an entry, ``.timeindex`` (timestamp: i64, offset - base offset: u32). An index lives in memory
while its segment is in use; entries reach the file when the segment is rolled, flushed or closed.
What a crash takes from the file is rebuilt from the log.
"""

import struct
import sys
from array import array
from bisect import bisect_left, bisect_right
from typing import NamedTuple

from kbroker.common.files import FileSystem

OFFSET_ENTRY_SIZE = 8
TIME_ENTRY_SIZE = 12
MAX_RELATIVE_OFFSET = 2**31 - 1
NO_TIMESTAMP = -1
_TIME_ENTRY = struct.Struct(">qI")


class CorruptIndexError(Exception):
    """An index file that cannot be this segment's; it must be rebuilt."""


class TimestampOffset(NamedTuple):
    """A timestamp in ms and the last offset of the batch that carries it."""

    timestamp: int
    offset: int


class IndexFile:
    """What both indexes share: how much of memory has reached the file."""

    __slots__ = ("_saved", "_stale", "base_offset", "path")

    entry_size: int

    def __init__(self, path: str, base_offset: int, *, saved: int, stale: bool) -> None:
        self.path = path
        self.base_offset = base_offset
        self._saved = saved  # entries in memory that are in the file too
        self._stale = stale  # the file holds something else behind them

    def __len__(self) -> int:
        raise NotImplementedError

    def _encode(self, first: int) -> bytes:
        raise NotImplementedError

    @property
    def is_saved(self) -> bool:
        """The file holds exactly these entries."""
        return not self._stale and self._saved == len(self)

    def save(self, files: FileSystem) -> None:
        """Bring the file up to date. After an OSError the next call does it all again."""
        if self.is_saved:
            return
        file = files.open(self.path, create=True)
        try:
            if self._stale:
                file.truncate(self._saved * self.entry_size)
                self._stale = False
            count = len(self)
            if count > self._saved:
                self._stale = True  # until all of it is there
                file.write_at(self._encode(self._saved), self._saved * self.entry_size)
                self._saved = count
                self._stale = False
        finally:
            file.close()

    def _forget_from(self, count: int) -> None:
        if count < self._saved:
            self._saved = count
            self._stale = True


class OffsetIndex(IndexFile):
    """Offset of a batch (its last one) to the position where the batch begins."""

    __slots__ = ("_offsets", "_positions")

    entry_size = OFFSET_ENTRY_SIZE

    def __init__(
        self, path: str, base_offset: int, data: bytes = b"", *, stale: bool = False
    ) -> None:
        """``data`` is the file's content; ``stale`` says that the file holds anything else.

        Raises CorruptIndexError when no sound index of this segment looks so.
        """
        if len(data) % OFFSET_ENTRY_SIZE:
            raise CorruptIndexError(f"{path}: {len(data)} bytes are no whole entries")
        words = array("I", data)
        if sys.byteorder == "little":
            words.byteswap()
        self._offsets = words[0::2]
        self._positions = words[1::2]
        super().__init__(path, base_offset, saved=len(self._offsets), stale=stale)
        if len(self._offsets):
            _check_ascending(path, self._offsets)
            _check_ascending(path, self._positions)
            if self._offsets[-1] > MAX_RELATIVE_OFFSET:
                raise CorruptIndexError(f"{path}: an offset is below the segment's base offset")

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def last_offset(self) -> int:
        """Offset of the last entry; the segment's base offset when there is none."""
        return self.base_offset + self._offsets[-1] if self._offsets else self.base_offset

    @property
    def last_position(self) -> int:
        """Position of the last entry, 0 when there is none."""
        return self._positions[-1] if self._positions else 0

    def lookup(self, offset: int) -> int:
        """Position of the last entry at or below ``offset``, 0 when all are above."""
        found = bisect_right(self._offsets, offset - self.base_offset)
        return self._positions[found - 1] if found else 0

    def offset_at(self, position: int) -> int | None:
        """Offset of the entry for the batch that begins at ``position``, if there is one."""
        found = bisect_left(self._positions, position)
        if self._positions[found : found + 1] != array("I", [position]):
            return None
        return self.base_offset + self._offsets[found]

    def position_before(self, offset: int, entries: int) -> int:
        """Position of the entry ``entries`` before the one for ``offset``; 0 when there is none."""
        found = bisect_right(self._offsets, offset - self.base_offset) - entries
        return self._positions[found - 1] if found > 0 else 0

    def offset_above_position(self, position: int) -> int | None:
        """Offset of the first entry whose batch begins at ``position`` or behind it."""
        found = bisect_right(self._positions, position - 1)
        return self.base_offset + self._offsets[found] if found < len(self._offsets) else None

    def entries(self) -> list[tuple[int, int]]:
        """(offset, position) of every entry."""
        base = self.base_offset
        return [
            (base + offset, position)
            for offset, position in zip(self._offsets, self._positions, strict=True)
        ]

    def append(self, offset: int, position: int) -> None:
        """Add an entry; offsets ascend."""
        relative = offset - self.base_offset
        assert not self._offsets or relative > self._offsets[-1], "index offsets must ascend"
        self._offsets.append(relative)
        self._positions.append(position)

    def truncate_to(self, offset: int) -> None:
        """Forget the entries at ``offset`` and above."""
        count = bisect_right(self._offsets, offset - self.base_offset - 1)
        del self._offsets[count:]
        del self._positions[count:]
        self._forget_from(count)

    def truncate_to_position(self, position: int) -> None:
        """Forget the entries whose batch begins at ``position`` or behind it."""
        count = bisect_right(self._positions, position - 1)
        del self._offsets[count:]
        del self._positions[count:]
        self._forget_from(count)

    def _encode(self, first: int) -> bytes:
        count = len(self._offsets) - first
        words = array("I", bytes(count * OFFSET_ENTRY_SIZE))
        words[0::2] = self._offsets[first:]
        words[1::2] = self._positions[first:]
        if sys.byteorder == "little":
            words.byteswap()
        return words.tobytes()


class TimeIndex(IndexFile):
    """Largest timestamp so far to the last offset of the batch that brought it."""

    __slots__ = ("_offsets", "_timestamps")

    entry_size = TIME_ENTRY_SIZE

    def __init__(
        self, path: str, base_offset: int, data: bytes = b"", *, stale: bool = False
    ) -> None:
        """As ``OffsetIndex``."""
        if len(data) % TIME_ENTRY_SIZE:
            raise CorruptIndexError(f"{path}: {len(data)} bytes are no whole entries")
        self._timestamps = array("q")
        self._offsets = array("I")
        for timestamp, offset in _TIME_ENTRY.iter_unpack(data):
            self._timestamps.append(timestamp)
            self._offsets.append(offset)
        super().__init__(path, base_offset, saved=len(self._offsets), stale=stale)
        if len(self._offsets):
            _check_ascending(path, self._timestamps)
            _check_ascending(path, self._offsets, equal_allowed=True)
            if self._offsets[-1] > MAX_RELATIVE_OFFSET:
                raise CorruptIndexError(f"{path}: an offset is below the segment's base offset")

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def last_entry(self) -> TimestampOffset:
        """The last entry; (-1, base offset) when there is none."""
        if not self._offsets:
            return TimestampOffset(NO_TIMESTAMP, self.base_offset)
        return TimestampOffset(self._timestamps[-1], self.base_offset + self._offsets[-1])

    def lookup(self, timestamp: int) -> TimestampOffset:
        """The last entry at or below ``timestamp``; (-1, base offset) when all are above."""
        found = bisect_right(self._timestamps, timestamp)
        if not found:
            return TimestampOffset(NO_TIMESTAMP, self.base_offset)
        return TimestampOffset(
            self._timestamps[found - 1], self.base_offset + self._offsets[found - 1]
        )

    def entries(self) -> list[TimestampOffset]:
        """Every entry."""
        return [
            TimestampOffset(timestamp, self.base_offset + offset)
            for timestamp, offset in zip(self._timestamps, self._offsets, strict=True)
        ]

    def maybe_append(self, timestamp: int, offset: int) -> None:
        """Add an entry when ``timestamp`` is above the last one."""
        if timestamp > (self._timestamps[-1] if self._timestamps else NO_TIMESTAMP):
            relative = offset - self.base_offset
            assert not self._offsets or relative >= self._offsets[-1], "index offsets must ascend"
            self._timestamps.append(timestamp)
            self._offsets.append(relative)

    def truncate_to(self, offset: int) -> None:
        """Forget the entries at ``offset`` and above."""
        count = bisect_right(self._offsets, offset - self.base_offset - 1)
        del self._offsets[count:]
        del self._timestamps[count:]
        self._forget_from(count)

    def _encode(self, first: int) -> bytes:
        return b"".join(
            map(_TIME_ENTRY.pack, self._timestamps[first:], self._offsets[first:]),
        )


def _check_ascending(path: str, numbers: "array[int]", *, equal_allowed: bool = False) -> None:
    """Sorting what is sorted already takes one pass in C."""
    ordered = sorted(numbers)
    if ordered != numbers.tolist() or (not equal_allowed and len(set(ordered)) != len(ordered)):
        raise CorruptIndexError(f"{path}: the entries do not ascend")
