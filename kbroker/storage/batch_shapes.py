"""Batches with the shape of one that was seen before: all their records looked at in one go.

A producer of records of one size sends batches that are as long and hold as many records, again and
again. For such a shape one ``Struct`` reads every byte that the walk would look at, and one
comparison says whether they are what they must be; another reads the timestamp deltas, which
differ. So a record costs a quarter of a walk of few records, and less than the columns of
``record.equal_records`` until there are hundreds.

What matches is a subset of what ``walk.walk_records`` accepts: offset deltas in order, no
attributes, no headers, timestamp deltas of one byte that are not negative. All else is walked.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kbroker.record.batch import HEADER_SIZE
from kbroker.record.encoding import write_varint

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_RECORDS: Final = 256
_NARROW: Final = 64
"""Offset deltas below it take one byte, the others two."""
_MOST_SHAPES: Final = 64
_FORGOTTEN_AFTER: Final = 16
"""So many batches that turn out to have another shape are walked before one is learned anew."""
_NOT_NEGATIVE: Final = bytes(range(0, 0x80, 2))
"""Zigzag varints of one byte."""


SeenRecords = tuple[int, int, int, bool]
"""The smallest and the largest timestamp delta, the index of the first record that has the largest,
and whether the keys are null."""


class _Shape(NamedTuple):
    """Batches of so many bytes and records."""

    frames: "Callable[[memoryview], tuple[bytes, ...]]"
    """Reads what is the same in each batch of this shape."""
    expected: tuple[bytes, ...]
    timestamps: "Callable[[memoryview], tuple[int, ...]]"
    same_time: tuple[int, ...]
    """The timestamp deltas when all are 0."""
    has_null_key: bool


class BatchShapes:
    """The shapes of batches that came to one broker, a bounded number of them."""

    __slots__ = ("_misses", "_shapes")

    def __init__(self) -> None:
        self._shapes: dict[tuple[int, int], _Shape] = {}
        self._misses = 0

    def look(self, batch: memoryview, record_count: int) -> SeenRecords | None:
        """What the walk would find in an uncompressed batch; None: walk it.

        The batch has at least a header, and says that it holds ``record_count`` records, at most
        ``MOST_RECORDS``.
        """
        key = len(batch), record_count
        shape = self._shapes.get(key)
        if shape is None:
            shape = _shape_of(batch, record_count)
            if shape is None:
                return None
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            self._shapes[key] = shape
        if shape.frames(batch) != shape.expected:
            self._misses += 1
            if self._misses >= _FORGOTTEN_AFTER:
                self._misses = 0
                del self._shapes[key]
            return None
        timestamps = shape.timestamps(batch)
        if timestamps == shape.same_time:
            return 0, 0, 0, shape.has_null_key
        if bytes(timestamps).translate(None, _NOT_NEGATIVE):
            return None
        most = max(timestamps)
        return min(timestamps) >> 1, most >> 1, timestamps.index(most), shape.has_null_key


def _shape_of(batch: memoryview, record_count: int) -> _Shape | None:
    """The shape of a batch whose records are as long as its first one; None if they cannot be."""
    try:
        length, attributes_at = _varint(batch, HEADER_SIZE)
        offset_at = attributes_at + 2  # the timestamp delta in between takes one byte
        key_size, key_at = _varint(batch, offset_at + 1)
        value_length_at = key_at + max(0, key_size)
        value_size, value_at = _varint(batch, value_length_at)
        headers_at = value_at + max(0, value_size)
    except IndexError:  # cut short, or a varint that is too long
        return None
    first_end = headers_at + 1
    length_bytes = write_varint(length)
    longer = write_varint(length + 1)  # by a byte of the offset delta
    narrow, wide = min(record_count, _NARROW), max(0, record_count - _NARROW)
    size = HEADER_SIZE + narrow * (len(length_bytes) + length) + wide * (len(longer) + length + 1)
    if (
        length != first_end - attributes_at
        or size != len(batch)
        or batch[HEADER_SIZE:attributes_at] != length_bytes
        or batch[first_end : first_end + len(length_bytes)] != length_bytes
    ):
        return None
    key_length = bytes(batch[offset_at + 1 : key_at])
    value_length = bytes(batch[value_length_at:value_at])
    rest = first_end - offset_at - 1  # behind the offset delta
    # In front of a record stands the count of the headers of the one before it; in front of the
    # first one it is the last byte of the batch's header, the lowest of the record count.
    frames, timestamps = f">{HEADER_SIZE - 1}x", f">{HEADER_SIZE}x"
    expected: list[bytes] = []
    for first, count, width, said in ((0, narrow, 1, length_bytes), (_NARROW, wide, 2, longer)):
        frames += count * (
            f"{len(said) + 2}sx{width + len(key_length)}s{max(0, key_size)}x"
            f"{len(value_length)}s{max(0, value_size)}x"
        )
        timestamps += count * f"{len(said) + 1}xB{width + rest}x"
        front = b"\0" + said + b"\0"
        for index in range(first, first + count):
            expected += (front, write_varint(index) + key_length, value_length)
    expected[0] = bytes([record_count & 0xFF]) + expected[0][1:]
    return _Shape(
        frames=Struct(frames + "1s").unpack_from,
        expected=(*expected, b"\0"),
        timestamps=Struct(timestamps).unpack_from,
        same_time=(0,) * record_count,
        has_null_key=key_size < 0,
    )


def _varint(data: memoryview, position: int) -> tuple[int, int]:
    """(value, next position) of a zigzag varint of at most four bytes; IndexError otherwise."""
    raw = 0
    for shift in (0, 7, 14, 21):
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position
    raise IndexError
