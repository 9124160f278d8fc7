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

from kbroker.record.walk import WalkResult

LEAST_RUN: Final = 8
"""Fewer records are not worth the trouble."""

_COPIED_BELOW: Final = 1_536
"""A column of bytes costs a seventh of one of a view: that is worth copying records so small, which
of larger ones takes longer than the columns."""

_ONE_BYTE: Final = bytes(range(0, 0x80, 2))
"""Zigzag varints of one byte that are not negative; in this order the offset deltas 0 to 63."""
_BLOCK: Final = 8192
"""Offset deltas below it take at most two bytes; the first two of longer ones repeat after it."""
_FIRST: Final = bytes(range(0x80, 0x100, 2)) * (_BLOCK // 64)
_LAST: Final = b"".join(bytes([value]) * 64 for value in range(_BLOCK // 64))
_MIDDLE: Final = b"".join(bytes([value | 0x80]) * 64 for value in range(_BLOCK // 64))
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
    data: bytes, position: int, end: int, *, limit: int, base_timestamp: int, result: WalkResult
) -> int:
    """Passes records that are shaped like the one at ``position``, up to record ``limit``.

    Returns the position after the last one passed; ``position`` when they are not worth it. What
    ``result`` then says is what ``walk_records`` would have made it say. Any buffer is taken.
    """
    index = result.index
    if not _next_is_as_long(data, position):
        return position
    width = 1 if index < 64 else 2 if index < _BLOCK else 3
    shape = _shape_at(data, position, width)
    if shape is None or base_timestamp < 0:
        return position
    stride = shape.stride
    count = min(limit - index, (end - position) // stride, _same_width(index))
    if count < LEAST_RUN:
        return position
    start = position
    if stride < _COPIED_BELOW and type(data) is not bytes:
        data = bytes(data[position : position + count * stride])
        start = 0
    for place in shape.same:
        column = _column(data, start + place, stride, count)
        if column != column[:1] * count:
            count -= len(column.lstrip(column[:1]))
            if count < LEAST_RUN:
                return position
    offset_at = start + shape.offset_at
    offsets = [_column(data, offset_at + place, stride, count) for place in range(width)]
    count = _count_in_order(offsets, index)
    if count < LEAST_RUN:
        return position
    places = range(start + shape.timestamp_at, offset_at)
    timestamps = [_column(data, place, stride, count) for place in places]
    if not _note_timestamps(timestamps, base_timestamp, result):
        return position
    if shape.has_null_key:
        result.has_null_key = True
    result.index = index + count
    return position + count * stride


def _next_is_as_long(data: bytes, position: int) -> bool:
    """Whether the record after this one seems to have its size: a quick look, mostly the last."""
    try:
        raw, second = data[position], data[position + 1]
        if raw < 0x80:
            return data[position + 1 + (raw >> 1)] == raw
        following = position + 2 + (((raw & 0x7F) | (second & 0x7F) << 7) >> 1)
        return second >= 0x80 or (data[following] == raw and data[following + 1] == second)
    except IndexError:
        return False


def _column(data: bytes, place: int, stride: int, count: int) -> bytes:
    return bytes(data[place : place + (count - 1) * stride + 1 : stride])


def _shape_at(data: bytes, position: int, width: int) -> _Shape | None:
    """The shape of the record at ``position``, None when it is not one that is passed here.

    ``width``: the bytes of its offset delta, which is not looked at, nor is its timestamp delta.
    """
    try:
        length, attributes_at = _varint(data, position)
        if length < 0 or data[attributes_at]:
            return None
        _, offset_at = _varint(data, attributes_at + 1)
        key_at = offset_at + width
        key_size, key_end = _varint(data, key_at)
        value_at = key_end + max(0, key_size)
        value_size, value_end = _varint(data, value_at)
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


def _varint(data: bytes, position: int) -> tuple[int, int]:
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
    return _BLOCK - index % _BLOCK if index < _FOUR_BYTES_FROM else 0


def _count_in_order(columns: list[bytes], index: int) -> int:
    """How many offset deltas are ``index`` and what follows it. All columns have one length."""
    count = len(columns[0])
    start = index % _BLOCK
    stop = start + count
    if len(columns) == 1:
        expected = [_ONE_BYTE[start:stop]]
    elif len(columns) == 2:
        expected = [_FIRST[start:stop], _LAST[start:stop]]
    else:
        last = bytes([index // _BLOCK]) * count
        expected = [_FIRST[start:stop], _MIDDLE[start:stop], last]
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


def _note_timestamps(columns: list[bytes], base_timestamp: int, result: WalkResult) -> bool:
    """Notes the timestamps of records that are passed; False when they are not simple enough.

    ``columns``: the bytes of their deltas, which are simple when they are zigzag varints of exactly
    so many bytes, none is negative and no sum overflows.
    """
    if all(column == column[:1] * len(column) for column in columns):
        columns = [column[:1] for column in columns]
    if len(columns) == 1:
        raws: bytes | list[int] = columns[0]
        if columns[0].translate(None, _ONE_BYTE):
            return False
        values: bytes | list[int] = _without_repeats(columns[0])
    else:
        inner_bytes = columns[1:-1]
        if (
            columns[0].translate(None, _FIRST[:64])
            or any(column.translate(None, _GOES_ON) for column in inner_bytes)
            or not columns[-1].isascii()
        ):
            return False
        raws = values = _joined(columns)
    largest = max(values)
    max_timestamp = base_timestamp + _delta(largest)
    if max_timestamp > _MAX_INT64:
        return False
    if result.index == 0:
        result.first_timestamp = base_timestamp + _delta(raws[0])
    if max_timestamp > result.max_timestamp:
        result.max_timestamp = max_timestamp
        result.index_of_max_timestamp = result.index + raws.index(largest)
    result.min_timestamp = min(result.min_timestamp, base_timestamp + _delta(min(values)))
    return True


def _without_repeats(column: bytes) -> bytes:
    """The same values, a run of one as one: records that were sent together share few times."""
    values = bytearray()
    for _ in range(_RUNS):
        if not column:
            break
        values += column[:1]
        column = column.lstrip(column[:1])
    return bytes(values + column)


def _joined(columns: list[bytes]) -> list[int]:
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
