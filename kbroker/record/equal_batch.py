"""A batch whose records all have one shape, passed by as few columns as there can be.

Where keys and values of a batch are of one size each, all that makes one record longer than another
is its place: from the 65th on the offset delta takes two bytes, from the 8,193rd on three, and from
some record on the timestamp delta may take two. So the size of all records, which is known, tells
where that is, and whether the first record is worth taking for the shape of all: no byte of the
others needs to be looked at to see that it is not. The columns are those of ``equal_records``,
which does what is left to do; but the shape is looked for once instead of once for each run, and of
what must be the same in all records the value is known beforehand.
"""

from typing import Final, NamedTuple

from kbroker.record.encoding import Bytes
from kbroker.record.equal_records import (
    COPIED_BELOW,
    FIRST_OF_TWO,
    LAST_OF_TWO,
    LEAST_RUN,
    MIDDLE_OF_THREE,
    ONE_BYTE,
    TWO_BYTES_BELOW,
    column_of,
    note_timestamps,
)
from kbroker.record.walk import WalkResult

_BYTES: Final = tuple(bytes([value]) for value in range(256))
_ONE_BYTE_BELOW: Final = 64
_MOST: Final = 2 * TWO_BYTES_BELOW
"""Records: librdkafka sends 10,000 in a batch at most."""
_LARGEST: Final = 0x3FFF - 6
"""The zigzag length of a record that still takes two bytes when the record is 3 bytes longer."""


class _First(NamedTuple):
    """What the first record of a batch says of the others."""

    stride: int
    """The bytes it takes, its length in front included."""
    width: int
    """Those of its length."""
    raw_length: int
    same: list[tuple[int, bytes]]
    """Bytes of every record outside key and value, by their distance from the length of the key."""


def pass_equal_batch(
    data: Bytes, position: int, end: int, *, count: int, base_timestamp: int, result: WalkResult
) -> int:
    """Passes the first of ``count`` records that should fill ``data[position:end]``, mostly all.

    Returns the position after the last one passed; ``position`` when they are not of one shape.
    What ``result`` then says is what ``walk_records`` would have made it say. A view is taken at
    the price of a copy; what any buffer holds behind ``end`` does not matter.
    """
    if not LEAST_RUN <= count <= _MOST or base_timestamp < 0:
        return position
    try:
        first = _first_of_many(data, position)
    except IndexError:  # cut short
        return position
    if first is None:
        return position
    # So many timestamp deltas must take two bytes; if any do, then the last ones.
    wider = end - position - count * first.stride - max(0, count - _ONE_BYTE_BELOW)
    wider -= max(0, count - TWO_BYTES_BELOW)
    if not 0 <= wider < count:
        return position
    if type(data) is memoryview and first.stride < COPIED_BELOW:
        copy = bytes(data[position:end])
        return position + _pass_runs(copy, 0, count, wider, first, base_timestamp, result)
    return _pass_runs(data, position, count, wider, first, base_timestamp, result)


def _first_of_many(data: Bytes, position: int) -> _First | None:
    """The record at ``position``; None when the others are not to be looked at by columns.

    Lengths take one byte or two, the timestamp delta one; there are no attributes and no headers.
    """
    raw_length = data[position]
    width = 1
    if raw_length >= 0x80:
        if (byte := data[position + 1]) >= 0x80:
            return None
        raw_length += (byte - 1) << 7
        width = 2
    start = position + width
    if data[start] or data[start + 1] >= 0x80 or data[start + 2]:
        return None
    place = key_at = start + 3
    same = []
    for _ in ("key", "value"):
        raw = data[place]
        same.append((place - key_at, _BYTES[raw]))
        place += 1
        if raw >= 0x80:
            if (byte := data[place]) >= 0x80:
                return None
            raw += (byte - 1) << 7
            same.append((place - key_at, _BYTES[byte]))
            place += 1
        if not raw & 1:
            place += raw >> 1
    same.append((place - key_at, _BYTES[0]))
    if data[place] or raw_length != 2 * (place + 1 - start) or raw_length > _LARGEST:
        return None
    return _First(place + 1 - position, width, raw_length, same)


def _pass_runs(
    data: Bytes,
    position: int,
    count: int,
    wider: int,
    first: _First,
    base_timestamp: int,
    result: WalkResult,
) -> int:
    """Passes runs of records of exactly one size; the position after the last that is sound.

    ``wider``: so many of the last timestamp deltas take two bytes.
    """
    _, width, raw_length, same = first
    has_null_key = bool(same[0][1][0] & 1)
    narrow = count - wider
    start = 0
    while start < count:
        timestamp_width, stop = (1, narrow) if start < narrow else (2, count)
        if start < _ONE_BYTE_BELOW:
            offset_width, stop = 1, min(stop, _ONE_BYTE_BELOW)
        elif start < TWO_BYTES_BELOW:
            offset_width, stop = 2, min(stop, TWO_BYTES_BELOW)
        else:
            offset_width = 3
        raw = raw_length + 2 * (timestamp_width + offset_width - 2)
        if width == 1 and raw >= 0x80:
            return position  # from here on the length takes two
        offset_at = width + 1 + timestamp_width
        size, stride = stop - start, width + (raw >> 1)
        columns = [
            *_length(width, raw, size),
            (width, bytes(size)),  # attributes
            *enumerate(_offset_deltas(start, stop, offset_width), offset_at),
        ]
        key_at = offset_at + offset_width
        columns += [(key_at + distance, byte * size) for distance, byte in same]
        end = position + (size - 1) * stride + 1
        for place, expected in columns:
            if data[position + place : end + place : stride] != expected:
                return position
        timestamps = [
            column_of(data, position + place, stride, size) for place in range(width + 1, offset_at)
        ]
        if not note_timestamps(timestamps, base_timestamp, result):
            return position
        if has_null_key:
            result.has_null_key = True
        result.index = start = stop
        position += size * stride
    return position


def _length(width: int, raw: int, size: int) -> tuple[tuple[int, bytes], ...]:
    """Places and bytes of the lengths of so many records."""
    if width == 1:
        return ((0, _BYTES[raw] * size),)
    return (0, _BYTES[raw & 0x7F | 0x80] * size), (1, _BYTES[raw >> 7] * size)


def _offset_deltas(start: int, stop: int, width: int) -> tuple[bytes, ...]:
    """The first bytes, the second bytes and so on of what takes ``width`` bytes all the way."""
    if width == 1:
        return (ONE_BYTE[start:stop],)
    if width == 2:
        return FIRST_OF_TWO[start:stop], LAST_OF_TWO[start:stop]
    block, size = start // TWO_BYTES_BELOW, stop - start
    start %= TWO_BYTES_BELOW
    stop = start + size
    return FIRST_OF_TWO[start:stop], MIDDLE_OF_THREE[start:stop], _BYTES[block] * size
