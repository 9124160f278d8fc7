"""Records of one shape in a row, passed by columns instead of one after the other.

Producers mostly send records of one size: all that differs between them, outside key and value,
is the offset delta and some bits of the timestamp delta. If a record takes ``stride`` bytes, then a
byte of it lies ``stride`` before the same byte of the next one, and one extended slice is the
column of that byte in all of them. Records are sound when every column outside key and value is
what it must be: every byte that ``walk.walk_records`` looks at is looked at, at a tenth of its
price.

What is passed here is a subset of what Kafka takes: records without attributes and headers, with
offset deltas in order and timestamps that are not negative. All else is left to the walk.
"""

import sys
from typing import Final, NamedTuple

from kbroker.record.encoding import Bytes
from kbroker.record.walk import WalkResult

LEAST_RUN: Final = 8
"""Fewer records are not worth the trouble."""

COPIED_BELOW: Final = 1_536
"""A column of bytes costs a seventh of one of a view: that is worth copying records so small, which
of larger ones takes longer than the columns."""

ONE_BYTE: Final = bytes(range(0, 0x80, 2))
"""Zigzag varints of one byte that are not negative; in this order the offset deltas 0 to 63."""
TWO_BYTES_BELOW: Final = 8192
"""Offset deltas below it take at most two bytes; the first two of longer ones repeat after it."""
FIRST_OF_TWO: Final = bytes(range(0x80, 0x100, 2)) * (TWO_BYTES_BELOW // 64)
LAST_OF_TWO: Final = b"".join(bytes([value]) * 64 for value in range(TWO_BYTES_BELOW // 64))
MIDDLE_OF_THREE: Final = b"".join(
    bytes([value | 0x80]) * 64 for value in range(TWO_BYTES_BELOW // 64)
)
_RUNS: Final = 16
"""Of timestamps that change more often each is looked at."""
_FOUR_BYTES_FROM: Final = 1 << 20

_GOES_ON: Final = bytes(range(0x80, 0x100))
_MAX_INT64: Final = 0x7FFFFFFFFFFFFFFF


class _Shape(NamedTuple):
    """Where the fields of a record are, in bytes after its beginning."""

    stride: int
    """What the record takes, its length in front included."""
    timestamp_at: int
    offset_at: int
    same: list[int]
    """Bytes that are the same in every record of this shape."""
    has_null_key: bool


def pass_equal_records(
    data: Bytes,
    position: int,
    end: int,
    *,
    limit: int,
    base_timestamp: int,
    result: WalkResult,
) -> int:
    """Passes records that are shaped like the one at ``position``, up to record ``limit``.

    Returns the position after the last one passed; ``position`` when they are not worth it. What
    ``result`` then says is what ``walk_records`` would have made it say. Any buffer is taken, a
    view at the price of a copy; what it holds behind ``end`` does not matter.
    """
    index = result.index
    if not _next_is_as_long(data, position):
        return position
    width = 1 if index < 64 else 2 if index < TWO_BYTES_BELOW else 3
    shape = _shape_at(data, position, width)
    if shape is None or base_timestamp < 0:
        return position
    stride = shape.stride
    count = min(limit - index, (end - position) // stride, _same_width(index))
    if count < LEAST_RUN:
        return position
    start = position
    if stride < COPIED_BELOW and type(data) is memoryview:
        data = bytes(data[position : position + count * stride])
        start = 0
    for place in shape.same:
        column = column_of(data, start + place, stride, count)
        if column != column[:1] * count:
            count -= len(column.lstrip(column[:1]))
            if count < LEAST_RUN:
                return position
    offset_at = start + shape.offset_at
    offsets = [column_of(data, offset_at + place, stride, count) for place in range(width)]
    count = _count_in_order(offsets, index)
    if count < LEAST_RUN:
        return position
    places = range(start + shape.timestamp_at, offset_at)
    timestamps = [column_of(data, place, stride, count) for place in places]
    if not note_timestamps(timestamps, base_timestamp, result):
        return position
    if shape.has_null_key:
        result.has_null_key = True
    result.index = index + count
    return position + count * stride


def _next_is_as_long(data: Bytes, position: int) -> bool:
    """Whether the record after this one seems to have its size: a quick look, mostly the last."""
    try:
        raw, second = data[position], data[position + 1]
        if raw < 0x80:
            return data[position + 1 + (raw >> 1)] == raw
        following = position + 2 + (((raw & 0x7F) | (second & 0x7F) << 7) >> 1)
        return second >= 0x80 or (data[following] == raw and data[following + 1] == second)
    except IndexError:
        return False


def column_of(data: Bytes, place: int, stride: int, count: int) -> bytes | bytearray:
    column = data[place : place + (count - 1) * stride + 1 : stride]
    return bytes(column) if type(column) is memoryview else column


def _shape_at(data: Bytes, position: int, width: int) -> _Shape | None:
    """The shape of the record at ``position``, None when it is not one that is passed here.

    ``width``: the bytes of its offset delta, which is not looked at, nor is its timestamp delta.
    """
    try:
        length, attributes_at = short_varint(data, position)
        if length < 0 or data[attributes_at]:
            return None
        _, offset_at = short_varint(data, attributes_at + 1)
        key_at = offset_at + width
        key_size, key_end = short_varint(data, key_at)
        value_at = key_end + max(0, key_size)
        value_size, value_end = short_varint(data, value_at)
        headers_at = value_end + max(0, value_size)
        if data[headers_at] or headers_at + 1 != attributes_at + length:
            return None
    except IndexError:  # cut short, or a varint that is too long
        return None
    same = [
        *range(attributes_at + 1 - position),
        *range(key_at - position, key_end - position),
        *range(value_at - position, value_end - position),
        headers_at - position,
    ]
    stride = headers_at + 1 - position
    return _Shape(stride, attributes_at + 1 - position, offset_at - position, same, key_size < 0)


def short_varint(data: Bytes, position: int) -> tuple[int, int]:
    """(value, next position) of a zigzag varint of at most four bytes; IndexError otherwise."""
    raw = 0
    for shift in (0, 7, 14, 21):
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (raw >> 1) ^ -(raw & 1), position
    raise IndexError


def _same_width(index: int) -> int:
    """How many offset deltas from ``index`` on differ in their first two bytes only."""
    if index < 64:
        return 64 - index
    return TWO_BYTES_BELOW - index % TWO_BYTES_BELOW if index < _FOUR_BYTES_FROM else 0


def _count_in_order(columns: list[bytes | bytearray], index: int) -> int:
    """How many offset deltas are ``index`` and what follows it. All columns have one length."""
    count = len(columns[0])
    start = index % TWO_BYTES_BELOW
    stop = start + count
    if len(columns) == 1:
        expected = [ONE_BYTE[start:stop]]
    elif len(columns) == 2:
        expected = [FIRST_OF_TWO[start:stop], LAST_OF_TWO[start:stop]]
    else:
        last = bytes([index // TWO_BYTES_BELOW]) * count
        expected = [FIRST_OF_TWO[start:stop], MIDDLE_OF_THREE[start:stop], last]
    if columns == expected:
        return count
    sound, unsound = 0, count  # so many are in order, so many are not
    while unsound - sound > 1:
        middle = (sound + unsound) // 2
        if all(a[sound:middle] == b[sound:middle] for a, b in zip(columns, expected, strict=True)):
            sound = middle
        else:
            unsound = middle
    return sound


def note_timestamps(
    columns: list[bytes | bytearray], base_timestamp: int, result: WalkResult
) -> bool:
    """Notes the timestamps of records that are passed; False when they are not simple enough.

    ``columns``: the bytes of their deltas, which are simple when they are zigzag varints of exactly
    so many bytes, none is negative and no sum overflows.
    """
    column = columns[0]
    allowed = ONE_BYTE
    rest = 0  # the bytes behind the first, where they are the same in all
    raws: bytes | bytearray | list[int] = column
    if len(columns) > 1:
        allowed = FIRST_OF_TWO[:64]
        for place, other in enumerate(columns[1:], 1):
            if (other[0] < 0x80) is not (place == len(columns) - 1):
                return False
            if other != other[:1] * len(other):
                if not _are_varints(columns):
                    return False
                raws = _joined(columns)
                break
            rest |= other[0] << 8 * place
    if raws is column:
        # Mostly they do not fall: then the first and the last one are the extremes.
        low, high = column[0], column[-1]
        start, stop = (low & 0x7F) >> 1, ((high & 0x7F) >> 1) + 1
        if start >= stop or column.translate(None, allowed[start:stop]):
            if column.translate(None, allowed):
                return False
            values = _without_repeats(column)
            low, high = min(values), max(values)
    else:
        low, high, rest = min(raws), max(raws), 0
    max_timestamp = base_timestamp + _delta(high | rest)
    if max_timestamp > _MAX_INT64:
        return False
    if result.index == 0:
        result.first_timestamp = base_timestamp + _delta(raws[0] | rest)
    if max_timestamp > result.max_timestamp:
        result.max_timestamp = max_timestamp
        result.index_of_max_timestamp = result.index + raws.index(high)
    result.min_timestamp = min(result.min_timestamp, base_timestamp + _delta(low | rest))
    return True


def _are_varints(columns: list[bytes | bytearray]) -> bool:
    """Whether all take as many bytes as there are columns, two or more, and none is negative."""
    return (
        not (
            columns[0].translate(None, FIRST_OF_TWO[:64])
            or any(column.translate(None, _GOES_ON) for column in columns[1:-1])
        )
        and columns[-1].isascii()
    )


def _without_repeats(column: bytes | bytearray) -> bytes:
    """The same values, a run of one as one: records that were sent together share few times."""
    values = bytearray()
    for _ in range(_RUNS):
        if not column:
            break
        values += column[:1]
        column = column.lstrip(column[:1])
    return bytes(values + column)


def _joined(columns: list[bytes | bytearray]) -> list[int]:
    """The bytes of each varint as one number, the first byte lowest: they sort as their values."""
    numbers = bytearray(4 * len(columns[0]))
    for place, column in enumerate(columns):
        numbers[place if sys.byteorder == "little" else 3 - place :: 4] = column
    return memoryview(numbers).cast("I").tolist()


def _delta(raw: int) -> int:
    """The number that the bytes of a varint mean which is not negative."""
    value = raw & 0x7F
    for place in (1, 2, 3):
        value |= ((raw >> 8 * place) & 0x7F) << 7 * place
    return value >> 1
