"""Structural walk of record data: lengths and varints, no key, no value, no object a record.

What Kafka's iterators accept is accepted, and nothing else. They are two, and differ:

* uncompressed data, and data that is about to be recompressed, is read record by record with the
  length in front as the law (``strict``): whatever does not end where the length says is invalid;
* compressed data that is stored as it came is skipped through (``lenient``): the length in front
  is read and never looked at again.

Timestamps are 64-bit sums that wrap, varints drop the bits they have no room for. Attributes of a
record are not looked at; any negative length of a key, value or header value means null; offset
deltas may be anything (what the caller does about it depends on the path, see LogValidator).

This module compiles with mypyc as it is. ``bytes`` is what it takes then, four times as fast as
any buffer; interpreted, it takes any. ``kbroker.record.stream_walk.walkable`` knows which.
"""

from typing import Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

NO_TIMESTAMP: Final = -1
NO_MINIMUM: Final = 0x8000000000000000
_MAX_INT64: Final = 0x7FFFFFFFFFFFFFFF
_MIN_INT64: Final = -0x8000000000000000


class WalkResult:
    """What a walk has seen so far; ``index`` is the number of records passed."""

    __slots__ = (
        "contiguous",
        "first_timestamp",
        "has_null_key",
        "index",
        "index_of_max_timestamp",
        "max_timestamp",
        "min_timestamp",
        "plain",
    )

    def __init__(self) -> None:
        self.index: int = 0
        self.max_timestamp: int = NO_TIMESTAMP
        """The largest timestamp, -1 when none is larger (Kafka starts counting there)."""
        self.index_of_max_timestamp: int = 0
        """Index of the first record that has it (0 when all are below 0)."""
        self.min_timestamp: int = NO_MINIMUM
        """The smallest timestamp other than -1, NO_MINIMUM when there is none."""
        self.first_timestamp: int = NO_TIMESTAMP
        self.contiguous: bool = True
        """Offset deltas are 0, 1, 2 and so on."""
        self.has_null_key: bool = False
        self.plain: bool = True
        """Every record has attributes 0, so its bytes are what a rebuild would write."""


def invalid(message: str) -> KafkaError:
    """What Kafka's InvalidRecordException becomes."""
    return KafkaError(ErrorCode.INVALID_RECORD, message)


def _raw_varint(data: bytes, position: int, max_bytes: int) -> tuple[int, int]:
    """(unsigned value, next position); the value is -1 when the last allowed byte is not the end.

    Raises IndexError at the end of the data.
    """
    raw = 0
    shift = 0
    while shift < 7 * max_bytes:
        byte = data[position]
        position += 1
        raw |= (byte & 0x7F) << shift
        if byte < 0x80:
            return raw & (0xFFFFFFFF if max_bytes == 5 else 0xFFFFFFFFFFFFFFFF), position
        shift += 7
    return -1, position


def _skip_headers(data: bytes, position: int, end: int, count: int, *, strict: bool) -> int:
    """The position after ``count`` headers; IndexError when the data ends before."""
    if strict and count > end - position:
        raise invalid(f"{count} record headers are announced, more than bytes remain")
    for _ in range(count):
        raw, position = _raw_varint(data, position, 5)
        if raw < 0 or raw & 1:
            raise invalid("a record header has a null or unreadable key")
        position += raw >> 1
        raw, position = _raw_varint(data, position, 5)
        if raw < 0:
            raise invalid("the value length of a record header is a varint of more than 5 bytes")
        if not raw & 1:
            position += raw >> 1
    return position


def walk_records(
    data: bytes,
    position: int,
    end: int,
    *,
    limit: int,
    base_timestamp: int,
    result: WalkResult,
    strict: bool,
    length_error: ErrorCode = ErrorCode.INVALID_RECORD,
) -> int:
    """Passes whole records of ``data[position:end]`` until ``result.index`` is ``limit``.

    Returns the position after the last record passed; it is where the next record begins when
    that one does not end within the data. ``end`` must be ``len(data)``. Raises KafkaError
    INVALID_RECORD for what no further byte can mend, ``length_error`` for a record length of more
    than 5 bytes. One long loop on purpose: a call a field would double what a record costs.
    """
    first = result.index
    passed = first
    # Deltas are compared, and added to the base once at the end. Those that would overflow it are
    # wrapped first; they lie beyond every other, so they always come by here.
    upper, lower = _MAX_INT64 - base_timestamp, _MIN_INT64 - base_timestamp
    no_timestamp = NO_TIMESTAMP - base_timestamp
    max_delta, min_delta = lower - 1, upper + 1
    index_of_max = first
    has_null_key = False
    last_raw = -1
    cursor = position
    for index in range(first, limit):
        try:
            # The length: a zigzag varint, mostly of one or two bytes.
            raw = data[cursor]
            if raw < 0x80:
                cursor += 1
            elif (byte := data[cursor + 1]) < 0x80:
                raw += (byte - 1) << 7
                cursor += 2
            else:
                raw, cursor = _raw_varint(data, cursor, 5)
                if raw < 0:
                    raise KafkaError(
                        length_error, "the length of a record is a varint of more than 5 bytes"
                    )
            record_end = cursor + (raw >> 1)
            if strict and (raw & 1 or record_end > end):
                if raw & 1:
                    raise invalid("a record has a negative length")
                break
            # Attributes are one byte that says nothing; the timestamp delta has 64 bits.
            if data[cursor]:
                result.plain = False
            raw_timestamp = data[cursor + 1]
            if raw_timestamp < 0x80:
                cursor += 2
            elif (byte := data[cursor + 2]) < 0x80:
                raw_timestamp += (byte - 1) << 7
                cursor += 3
            else:
                raw_timestamp, cursor = _raw_varint(data, cursor + 1, 10)
                if raw_timestamp < 0:
                    raise invalid("a timestamp delta is a varint of more than 10 bytes")
            # The offset delta: compared in its zigzag form.
            raw = data[cursor]
            if raw < 0x80:
                cursor += 1
            elif (byte := data[cursor + 1]) < 0x80:
                raw += (byte - 1) << 7
                cursor += 2
            else:
                raw, cursor = _raw_varint(data, cursor, 5)
                if raw < 0:
                    raise invalid("an offset delta is a varint of more than 5 bytes")
            if raw != index + index:
                result.contiguous = False
            # Key and value: a length, and as many bytes when it is not negative.
            raw_key = data[cursor]
            if raw_key < 0x80:
                cursor += 1
            else:
                raw_key, cursor = _raw_varint(data, cursor, 5)
                if raw_key < 0:
                    raise invalid("a key length is a varint of more than 5 bytes")
            if not raw_key & 1:
                cursor += raw_key >> 1
            raw = data[cursor]
            if raw < 0x80:
                cursor += 1
            elif (byte := data[cursor + 1]) < 0x80:
                raw += (byte - 1) << 7
                cursor += 2
            else:
                raw, cursor = _raw_varint(data, cursor, 5)
                if raw < 0:
                    raise invalid("a value length is a varint of more than 5 bytes")
            if not raw & 1:
                cursor += raw >> 1
            if data[cursor]:
                raw, cursor = _raw_varint(data, cursor, 5)
                if raw < 0 or raw & 1:
                    raise invalid("the count of record headers is negative or unreadable")
                cursor = _skip_headers(data, cursor, end, raw >> 1, strict=strict)
            else:
                cursor += 1
        except IndexError:
            if strict and _holds_a_record(data, position, end):
                raise invalid("a record is shorter than its fields") from None
            break
        if cursor != record_end or record_end > end:
            if strict:
                raise invalid("the fields of a record do not end where its length says")
            if cursor > end:
                break
        position = cursor
        passed = index + 1
        if raw_key & 1:
            has_null_key = True
        if raw_timestamp != last_raw:
            last_raw = raw_timestamp
            delta = ~(raw_timestamp >> 1) if raw_timestamp & 1 else raw_timestamp >> 1
            if delta > max_delta or delta < min_delta:
                if delta > upper:
                    delta -= 0x10000000000000000
                elif delta < lower:
                    delta += 0x10000000000000000
                if delta > max_delta:
                    max_delta = delta
                    index_of_max = index
                if delta < min_delta and delta != no_timestamp:
                    min_delta = delta
            if index == 0:
                result.first_timestamp = base_timestamp + delta
    if passed == first:
        return position
    result.index = passed
    if has_null_key:
        result.has_null_key = True
    if base_timestamp + max_delta > result.max_timestamp:
        result.max_timestamp = base_timestamp + max_delta
        result.index_of_max_timestamp = index_of_max
    if base_timestamp + min_delta < result.min_timestamp:
        result.min_timestamp = base_timestamp + min_delta
    return position


def _holds_a_record(data: bytes, position: int, end: int) -> bool:
    """Whether the length at ``position`` is readable and the data goes on for as long."""
    try:
        raw, position = _raw_varint(data, position, 5)
    except IndexError:
        return False
    return position + (raw >> 1) <= end


def check_end(result: WalkResult, position: int, end: int, record_count: int) -> None:
    """All announced records were there, and nothing after them; else KafkaError INVALID_RECORD."""
    if result.index < record_count:
        raise invalid(
            f"{record_count} records are announced, the data ends after {result.index} or within "
            "the next"
        )
    if position != end:
        raise invalid(f"{end - position} bytes follow the {record_count} announced records")
