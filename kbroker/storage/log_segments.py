"""The segments of a log in the order of their base offsets."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from kbroker.storage.log_segment import LogSegment


class LogSegments:
    """A sorted list; the last one is the active segment."""

    __slots__ = ("_base_offsets", "_segments")

    def __init__(self) -> None:
        self._segments: list[LogSegment] = []
        self._base_offsets: list[int] = []

    def __len__(self) -> int:
        return len(self._segments)

    def __iter__(self) -> Iterator[LogSegment]:
        return iter(self._segments)

    @property
    def active(self) -> LogSegment | None:
        """The segment that is appended to; None while the log has no files."""
        return self._segments[-1] if self._segments else None

    @property
    def first(self) -> LogSegment | None:
        return self._segments[0] if self._segments else None

    @property
    def base_offsets(self) -> list[int]:
        return list(self._base_offsets)

    @property
    def size(self) -> int:
        """Bytes of all ``.log`` files."""
        return sum(segment.size for segment in self._segments)

    def add(self, segment: LogSegment) -> None:
        """Add at its place; base offsets are unique."""
        place = bisect_left(self._base_offsets, segment.base_offset)
        assert self._base_offsets[place : place + 1] != [segment.base_offset], "segment is there"
        self._base_offsets.insert(place, segment.base_offset)
        self._segments.insert(place, segment)

    def remove(self, segment: LogSegment) -> None:
        """Take the segment out; its files are the caller's business."""
        place = bisect_left(self._base_offsets, segment.base_offset)
        assert self._segments[place] is segment
        del self._segments[place]
        del self._base_offsets[place]

    def floor(self, offset: int) -> LogSegment | None:
        """The last segment whose base offset is not above ``offset``."""
        place = bisect_right(self._base_offsets, offset)
        return self._segments[place - 1] if place else None

    def higher(self, base_offset: int) -> LogSegment | None:
        """The first segment whose base offset is above ``base_offset``."""
        place = bisect_right(self._base_offsets, base_offset)
        return self._segments[place] if place < len(self._segments) else None

    def starting_from(self, offset: int) -> list[LogSegment]:
        """The segment that holds ``offset`` and all after it."""
        return self._segments[max(0, bisect_right(self._base_offsets, offset) - 1) :]

    def above(self, offset: int) -> list[LogSegment]:
        """The segments whose base offset is above ``offset``."""
        return self._segments[bisect_right(self._base_offsets, offset) :]
