"""Batches with the shape of one that was seen before: all their records looked at in one go.

A producer of records of one size sends batches that are as long and hold as many records, again and
again. For such a shape one ``Struct`` reads every byte that the walk would look at, and a
comparison says whether they are what they must be. Timestamp deltas, where they differ, are
columns of what was read. So a record costs a tenth to a third of a walk, and less than the columns
of ``record.equal_records`` until there are hundreds.

What matches is a subset of what ``walk.walk_records`` accepts: offset deltas in order, no
attributes, no headers, timestamp deltas of one byte that are not negative. All else is walked.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple

from kbroker.record.batch import HEADER_SIZE
from kbroker.record.encoding import write_varint
from kbroker.record.equal_records import short_varint

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_RECORDS: Final = 512
_NARROW: Final = 64
"""Offset deltas below it take one byte, the others two."""
_MOST_SHAPES: Final = 64
_PRICE: Final = 64
"""To learn a shape takes as long as some batches are walked: so many looks pay for it that found
none, or fewer that did. Where sizes seldom come again the walk is what remains."""
_EARNED: Final = 8
"""Of a look that found a shape."""
_SAVED: Final = _PRICE * _MOST_SHAPES
_FORGOTTEN_AFTER: Final = 16
"""So many batches that turn out to have another shape are walked before one is learned anew."""
_NOT_NEGATIVE: Final = bytes(range(0, 0x80, 2))
"""Zigzag varints of one byte."""


SeenRecords = tuple[int, int, int, bool]
"""The smallest and the largest timestamp delta, the index of the first record that has the largest,
and whether the keys are null."""


class _Shape(NamedTuple):
    """Batches of so many bytes and records."""

    heads: "Callable[[memoryview], tuple[bytes, ...]]"
    """Reads all that is looked at."""
    at_one_time: bytes
    """What that is, joined, when all timestamp deltas are 0."""
    timestamps: list[tuple[slice, bytes]]
    """Where the timestamp deltas are in it, and as many zeros."""
    has_null_key: bool


class BatchShapes:
    """The shapes of batches that came to one broker, a bounded number of them."""

    __slots__ = ("_credit", "_misses", "_shapes")

    def __init__(self) -> None:
        self._shapes: dict[tuple[int, int], _Shape] = {}
        self._misses = 0
        self._credit = _SAVED

    def look(self, batch: memoryview, record_count: int) -> SeenRecords | None:
        """What the walk would find in an uncompressed batch; None: walk it.

        The batch has at least a header, and says that it holds ``record_count`` records, at most
        ``MOST_RECORDS``.
        """
        key = len(batch), record_count
        shape = self._shapes.get(key)
        if shape is None:
            self._credit += 1
            if self._credit <= _PRICE:
                return None
            shape = _shape_of(batch, record_count)
            if shape is None:
                return None
            self._credit -= _PRICE
            if len(self._shapes) >= _MOST_SHAPES:
                del self._shapes[next(iter(self._shapes))]  # the oldest
            self._shapes[key] = shape
        elif self._credit < _SAVED:
            self._credit += _EARNED
        heads = b"".join(shape.heads(batch))
        if heads == shape.at_one_time:
            return 0, 0, 0, shape.has_null_key
        frames = bytearray(heads)
        timestamps = b""
        for place, zeros in shape.timestamps:
            timestamps += heads[place]
            frames[place] = zeros
        if frames != shape.at_one_time:
            self._misses += 1
            if self._misses >= _FORGOTTEN_AFTER:
                self._misses = 0
                del self._shapes[key]
            return None
        if timestamps.translate(None, _NOT_NEGATIVE):
            return None
        times = set(timestamps)  # few, of whatever many records
        most = max(times)
        return min(times) >> 1, most >> 1, timestamps.index(most), shape.has_null_key


def _shape_of(batch: memoryview, record_count: int) -> _Shape | None:
    """The shape of a batch whose records are as long as its first one; None if they cannot be."""
    try:
        length, attributes_at = short_varint(batch, HEADER_SIZE)
        offset_at = attributes_at + 2  # the timestamp delta in between takes one byte
        key_size, key_at = short_varint(batch, offset_at + 1)
        value_length_at = key_at + max(0, key_size)
        value_size, value_at = short_varint(batch, value_length_at)
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
    # In front of a record stands the count of the headers of the one before it; in front of the
    # first one it is the last byte of the batch's header, the lowest of the record count.
    read = f">{HEADER_SIZE - 1}x"
    heads = b""
    timestamps: list[tuple[slice, bytes]] = []
    for first, count, width, said in ((0, narrow, 1, length_bytes), (_NARROW, wide, 2, longer)):
        front = b"\0" + said + b"\0"
        before_key = len(front) + 1 + width + len(key_length)
        step = before_key + len(value_length)
        one = f"{before_key}s{key_size}x{len(value_length)}s" if key_size > 0 else f"{step}s"
        read += count * f"{one}{max(0, value_size)}x"
        if count:
            place = slice(len(heads) + len(front), len(heads) + count * step, step)
            timestamps.append((place, bytes(count)))
        heads += b"".join(
            front + b"\0" + write_varint(index) + key_length + value_length
            for index in range(first, first + count)
        )
    return _Shape(
        heads=Struct(read + "1s").unpack_from,
        at_one_time=bytes([record_count & 0xFF]) + heads[1:] + b"\0",
        timestamps=timestamps,
        has_null_key=key_size < 0,
    )
