"""Primitives of Kafka's wire format; the place where every length and count is bounded.

Readers are ``read_x(buffer, position) -> (value, position after it)``, writers append to a list of
parts. Nothing is sized by a number from the wire before that many bytes are known to be there.
Running off the end of the buffer raises DecodeError, IndexError or ``struct.error``; the functions
of ``kbroker.protocol.registry`` turn all of them into DecodeError.

Integers are big-endian. A compact length is an unsigned varint of length + 1, 0 meaning null
(KIP-482); otherwise any negative length means null, as in Apache Kafka.
"""

import re
from codecs import utf_8_decode
from collections.abc import Sequence
from struct import Struct, pack, unpack_from
from typing import Any, Final, TypeVar

Buffer = bytes | bytearray | memoryview
TaggedFields = tuple[tuple[int, bytes], ...]  # those that the schema does not know: (tag, bytes)
Records = Any  # read: a slice of the buffer; written: anything with a length, e.g. a log slice

ZERO_UUID: Final = bytes(16)
MAX_STRING_SIZE: Final = 32767
# A request of 100 MB can hold 50 million topics of 2 bytes, and an object each would take minutes
# and gigabytes. No client has a use for arrays of structs, strings or bytes longer than this.
MAX_ELEMENTS: Final = 1 << 18
NO_LIMIT: Final = 1 << 31  # numbers are cheap, and what we wrote ourselves is as long as it is
JOIN_BELOW: Final = 4096  # parts smaller than this are copied together, larger ones stand alone

_ENCODED_SURROGATE: Final = rb"\xed[\xa0-\xbf][\x80-\xbf]?"
_REPLACEMENT: Final = b"\xef\xbf\xbd"
_ONE_BYTE: Final = tuple(bytes((value,)) for value in range(256))

# Partition and broker ids come in short lists, and the ``struct`` module looks formats up slowly.
_INT32S: Final = tuple(Struct(f">{count}i") for count in range(9))

_unpack_int16: Final = Struct(">h").unpack_from
_unpack_int32: Final = Struct(">i").unpack_from
_pack_int16: Final = Struct(">h").pack
_pack_int32: Final = Struct(">i").pack

T = TypeVar("T")

new: Final = (
    object.__new__
)  # ``new(Message)``: without its ``__init__``; the reader sets all fields


class DecodeError(Exception):
    """The bytes are not a message of the expected kind and version."""


class EncodeError(Exception):
    """The message cannot be written in the asked version."""


class Unset:
    """The type of an argument that was not given, where None has a meaning of its own."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


# What a message does not hold -------------------------------------------------------------------


def unsupported_version(message: str, version: int) -> str:
    """The text of the error for a version that a message does not have."""
    return f"{message} has no version {version}"


def absent_field(field: str, version: int) -> EncodeError:
    """A value would be lost without a trace: the field does not exist in this version."""
    return EncodeError(f"{field} is set, but version {version} has no such field")


def misplaced_tag(struct: str, tag: int, version: int) -> DecodeError:
    """A known tag in a version that does not define it."""
    return DecodeError(f"tag {tag} of {struct} is not valid in version {version}")


def required(value: T | None, field: str) -> T:
    """``value``, which must not be null in this version."""
    if value is None:
        raise EncodeError(f"{field} must not be null in this version")
    return value


# Unsigned varints -------------------------------------------------------------------------------


def read_uvarint(buffer: Buffer, position: int) -> tuple[int, int]:
    """An unsigned varint of at most 5 bytes.

    As in Apache Kafka the value is a signed 32-bit int, 2**32 - 1 is read as -1, and bits of the
    fifth byte that find no room are dropped.
    """
    value = buffer[position]
    if value < 128:
        return value, position + 1
    value &= 127
    shift = 7
    while shift < 35:
        position += 1
        byte = buffer[position]
        value |= (byte & 127) << shift
        if byte < 128:
            if value >= 1 << 31:
                value &= 0xFFFFFFFF
                if value >= 1 << 31:
                    value -= 1 << 32
            return value, position + 1
        shift += 7
    raise DecodeError("a varint is longer than 5 bytes")


def uvarint(value: int) -> bytes:
    """The unsigned varint of ``value``, at least 0 and below 2**32."""
    if value < 128:
        return _ONE_BYTE[value]
    if value < 16384:
        return bytes((value & 127 | 128, value >> 7))
    encoded = bytearray()
    while value > 127:
        encoded.append(value & 127 | 128)
        value >>= 7
    encoded.append(value)
    if len(encoded) > 5 or (len(encoded) == 5 and value > 15):
        raise EncodeError("a varint does not fit 32 bits")
    return bytes(encoded)


# Strings ----------------------------------------------------------------------------------------


def _beyond(end: int, buffer: Buffer) -> DecodeError:
    return DecodeError(f"a field ends {end - len(buffer)} bytes after the message")


def _replaced(raw: Buffer) -> str:
    """Text that is not UTF-8: Java replaces an encoded surrogate as a whole, Python its bytes."""
    return re.sub(_ENCODED_SURROGATE, _REPLACEMENT, bytes(raw)).decode("utf-8", "replace")


def read_nullable_string(buffer: Buffer, position: int) -> tuple[str | None, int]:
    """int16 length and UTF-8; bytes that are not UTF-8 are replaced, as Apache Kafka does."""
    (length,) = _unpack_int16(buffer, position)
    position += 2
    if length < 0:
        return None, position
    end = position + length
    if end > len(buffer):
        raise _beyond(end, buffer)
    try:
        return utf_8_decode(buffer[position:end], "strict", True)[0], end
    except UnicodeDecodeError:
        return _replaced(buffer[position:end]), end


def read_string(buffer: Buffer, position: int) -> tuple[str, int]:
    """Like ``read_nullable_string``; null is an error."""
    (length,) = _unpack_int16(buffer, position)
    if length < 0:
        raise DecodeError("a string that must be present is null")
    position += 2
    end = position + length
    if end > len(buffer):
        raise _beyond(end, buffer)
    try:
        return utf_8_decode(buffer[position:end], "strict", True)[0], end
    except UnicodeDecodeError:
        return _replaced(buffer[position:end]), end


def _compact_length(buffer: Buffer, position: int) -> tuple[int, int]:
    length, position = read_uvarint(buffer, position)
    if length == -(1 << 31):
        raise DecodeError("a length does not fit 31 bits")
    return length - 1, position


def read_compact_nullable_string(buffer: Buffer, position: int) -> tuple[str | None, int]:
    """Compact length and UTF-8, at most 32767 bytes."""
    length = buffer[position] - 1
    if -1 <= length < 127:  # almost always: one byte
        position += 1
    else:
        length, position = _compact_length(buffer, position)
        if length > MAX_STRING_SIZE:
            raise DecodeError(f"a string of {length} bytes is longer than {MAX_STRING_SIZE}")
    if length < 0:
        return None, position
    end = position + length
    if end > len(buffer):
        raise _beyond(end, buffer)
    try:
        return utf_8_decode(buffer[position:end], "strict", True)[0], end
    except UnicodeDecodeError:
        return _replaced(buffer[position:end]), end


def read_compact_string(buffer: Buffer, position: int) -> tuple[str, int]:
    """Like ``read_compact_nullable_string``; null is an error."""
    length = buffer[position] - 1
    if 0 <= length < 127:  # almost always: one byte
        position += 1
    else:
        length, position = _compact_length(buffer, position)
        if length < 0:
            raise DecodeError("a string that must be present is null")
        if length > MAX_STRING_SIZE:
            raise DecodeError(f"a string of {length} bytes is longer than {MAX_STRING_SIZE}")
    end = position + length
    if end > len(buffer):
        raise _beyond(end, buffer)
    try:
        return utf_8_decode(buffer[position:end], "strict", True)[0], end
    except UnicodeDecodeError:
        return _replaced(buffer[position:end]), end


def read_short_nullable_string(buffer: bytes, position: int) -> tuple[str | None, int]:
    """``read_compact_nullable_string``, quicker for the short strings that almost all are.

    One that ends after the buffer may be cut: for readers that go on to read what follows it.
    """
    size = buffer[position]
    if 1 < size < 128:
        end = position + size
        try:
            return buffer[position + 1 : end].decode(), end
        except UnicodeDecodeError:
            pass
    elif size < 2:
        return "" if size else None, position + 1
    return read_compact_nullable_string(buffer, position)


def read_short_string(buffer: bytes, position: int) -> tuple[str, int]:
    """Like ``read_short_nullable_string``; null is an error."""
    size = buffer[position]
    if 1 < size < 128:
        end = position + size
        try:
            return buffer[position + 1 : end].decode(), end
        except UnicodeDecodeError:
            pass
    elif size == 1:
        return "", position + 1
    return read_compact_string(buffer, position)


def _utf8(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > MAX_STRING_SIZE:
        raise EncodeError(f"a string of {len(raw)} bytes is longer than {MAX_STRING_SIZE}")
    return raw


def write_string(parts: list[Any], value: str) -> None:
    raw = _utf8(value)
    parts.append(_pack_int16(len(raw)) + raw)


def write_nullable_string(parts: list[Any], value: str | None) -> None:
    if value is None:
        parts.append(b"\xff\xff")
    else:
        write_string(parts, value)


def write_compact_string(parts: list[Any], value: str) -> None:
    raw = value.encode()
    size = len(raw)
    if size < 127:
        parts.append(_ONE_BYTE[size + 1] + raw)
    elif size <= MAX_STRING_SIZE:
        parts.append(uvarint(size + 1) + raw)
    else:
        raise EncodeError(f"a string of {size} bytes is longer than {MAX_STRING_SIZE}")


def write_compact_nullable_string(parts: list[Any], value: str | None) -> None:
    if value is None:
        parts.append(b"\0")
    else:
        write_compact_string(parts, value)


# Bytes and records ------------------------------------------------------------------------------


def _slice(buffer: Buffer, start: int, length: int) -> Buffer:
    end = start + length
    if end > len(buffer):
        raise _beyond(end, buffer)
    return buffer[start:end]


def read_nullable_bytes(buffer: Buffer, position: int) -> tuple[bytes | None, int]:
    """int32 length and bytes, copied."""
    (length,) = _unpack_int32(buffer, position)
    position += 4
    if length < 0:
        return None, position
    return bytes(_slice(buffer, position, length)), position + length


def read_bytes(buffer: Buffer, position: int) -> tuple[bytes, int]:
    """Like ``read_nullable_bytes``; null is an error."""
    (length,) = _unpack_int32(buffer, position)
    if length < 0:
        raise DecodeError("bytes that must be present are null")
    position += 4
    return bytes(_slice(buffer, position, length)), position + length


def read_compact_nullable_bytes(buffer: Buffer, position: int) -> tuple[bytes | None, int]:
    """Compact length and bytes, copied."""
    length, position = _compact_length(buffer, position)
    if length < 0:
        return None, position
    return bytes(_slice(buffer, position, length)), position + length


def read_compact_bytes(buffer: Buffer, position: int) -> tuple[bytes, int]:
    """Like ``read_compact_nullable_bytes``; null is an error."""
    length, position = _compact_length(buffer, position)
    if length < 0:
        raise DecodeError("bytes that must be present are null")
    return bytes(_slice(buffer, position, length)), position + length


def read_nullable_records(buffer: Buffer, position: int) -> tuple[Records, int]:
    """int32 length and a slice of ``buffer``: no copy where the buffer is a memoryview."""
    (length,) = _unpack_int32(buffer, position)
    position += 4
    if length < 0:
        return None, position
    return _slice(buffer, position, length), position + length


def read_records(buffer: Buffer, position: int) -> tuple[Records, int]:
    """Like ``read_nullable_records``; null is an error."""
    records, position = read_nullable_records(buffer, position)
    if records is None:
        raise DecodeError("records that must be present are null")
    return records, position


def read_compact_nullable_records(buffer: Buffer, position: int) -> tuple[Records, int]:
    """Compact length and a slice of ``buffer``."""
    length, position = _compact_length(buffer, position)
    if length < 0:
        return None, position
    return _slice(buffer, position, length), position + length


def read_compact_records(buffer: Buffer, position: int) -> tuple[Records, int]:
    """Like ``read_compact_nullable_records``; null is an error."""
    records, position = read_compact_nullable_records(buffer, position)
    if records is None:
        raise DecodeError("records that must be present are null")
    return records, position


def write_bytes(parts: list[Any], value: Buffer) -> None:
    parts.append(_pack_int32(len(value)))
    parts.append(value)


def write_nullable_bytes(parts: list[Any], value: Buffer | None) -> None:
    if value is None:
        parts.append(b"\xff\xff\xff\xff")
    else:
        parts.append(_pack_int32(len(value)))
        parts.append(value)


def write_compact_bytes(parts: list[Any], value: Buffer) -> None:
    parts.append(uvarint(len(value) + 1))
    parts.append(value)


def write_compact_nullable_bytes(parts: list[Any], value: Buffer | None) -> None:
    if value is None:
        parts.append(b"\0")
    else:
        parts.append(uvarint(len(value) + 1))
        parts.append(value)


def write_records(parts: list[Any], value: Records) -> None:
    parts.append(_pack_int32(len(value)))
    parts.append(value)


def write_nullable_records(parts: list[Any], value: Records) -> None:
    if value is None:
        parts.append(b"\xff\xff\xff\xff")
    else:
        write_records(parts, value)


def write_compact_records(parts: list[Any], value: Records) -> None:
    parts.append(uvarint(len(value) + 1))
    parts.append(value)


def write_compact_nullable_records(parts: list[Any], value: Records) -> None:
    if value is None:
        parts.append(b"\0")
    else:
        write_compact_records(parts, value)


# Arrays -----------------------------------------------------------------------------------------


def _too_many(count: int, buffer: Buffer, position: int) -> DecodeError:
    left = len(buffer) - position
    return DecodeError(f"{count} elements are too many, or cannot fit the {left} bytes left")


def read_nullable_count(
    buffer: Buffer, position: int, smallest: int, most: int = NO_LIMIT
) -> tuple[int, int]:
    """int32 element count, -1 for null, never above ``most``.

    ``smallest``: bytes of the smallest possible element.
    """
    (count,) = _unpack_int32(buffer, position)
    position += 4
    if count < 0:
        return -1, position
    if count * smallest > len(buffer) - position or count > most:
        raise _too_many(count, buffer, position)
    return count, position


def read_count(
    buffer: Buffer, position: int, smallest: int, most: int = NO_LIMIT
) -> tuple[int, int]:
    """Like ``read_nullable_count``; null is an error."""
    (count,) = _unpack_int32(buffer, position)
    if count < 0:
        raise DecodeError("an array that must be present is null")
    position += 4
    if count * smallest > len(buffer) - position or count > most:
        raise _too_many(count, buffer, position)
    return count, position


def read_compact_nullable_count(
    buffer: Buffer, position: int, smallest: int, most: int = NO_LIMIT
) -> tuple[int, int]:
    """Compact element count, -1 for null."""
    count, position = _compact_length(buffer, position)
    if count < 0:
        return -1, position
    if count * smallest > len(buffer) - position or count > most:
        raise _too_many(count, buffer, position)
    return count, position


def read_compact_count(
    buffer: Buffer, position: int, smallest: int, most: int = NO_LIMIT
) -> tuple[int, int]:
    """Like ``read_compact_nullable_count``; null is an error."""
    count = buffer[position] - 1
    if 0 <= count < 127:  # almost always: one byte
        position += 1
    else:
        count, position = _compact_length(buffer, position)
        if count < 0:
            raise DecodeError("an array that must be present is null")
    if count * smallest > len(buffer) - position or count > most:
        raise _too_many(count, buffer, position)
    return count, position


def write_count(parts: list[Any], values: Sequence[Any]) -> None:
    parts.append(_pack_int32(len(values)))


def write_nullable_count(parts: list[Any], values: Sequence[Any] | None) -> None:
    parts.append(b"\xff\xff\xff\xff" if values is None else _pack_int32(len(values)))


def write_compact_count(parts: list[Any], values: Sequence[Any]) -> None:
    count = len(values) + 1
    parts.append(_ONE_BYTE[count] if count < 128 else uvarint(count))


def write_compact_nullable_count(parts: list[Any], values: Sequence[Any] | None) -> None:
    parts.append(b"\0" if values is None else uvarint(len(values) + 1))


def read_fixed_array(
    buffer: Buffer, position: int, count: int, letter: str, size: int
) -> tuple[list[Any], int]:
    """``count`` numbers of one ``struct`` letter; the count is bounded already."""
    if letter == "i" and count < len(_INT32S):
        return list(_INT32S[count].unpack_from(buffer, position)), position + count * 4
    return list(unpack_from(f">{count}{letter}", buffer, position)), position + count * size


def write_fixed_array(parts: list[Any], values: Sequence[Any], letter: str) -> None:
    count = len(values)
    if letter == "i" and count < len(_INT32S):
        if count:
            parts.append(_INT32S[count].pack(*values))
    else:
        parts.append(pack(f">{count}{letter}", *values))


def read_uuid(buffer: bytes, position: int) -> bytes:
    """16 bytes; IndexError where they are not there."""
    uuid = buffer[position : position + 16]
    if len(uuid) < 16:
        raise IndexError("a uuid is cut short")
    return uuid


def read_uuid_array(buffer: Buffer, position: int, count: int) -> tuple[list[bytes], int]:
    """``count`` times 16 bytes; the count is bounded already."""
    end = position + 16 * count
    return [bytes(buffer[start : start + 16]) for start in range(position, end, 16)], end


def write_uuid_array(parts: list[Any], values: Sequence[bytes]) -> None:
    for value in values:
        if len(value) != 16:
            raise EncodeError(f"a uuid of {len(value)} bytes")
        parts.append(value)


# Nullable structs and tagged fields ---------------------------------------------------------------


def read_presence(buffer: Buffer, position: int) -> bool:
    """The int8 before a nullable struct: negative means null."""
    return buffer[position] < 128


def read_tagged_fields(buffer: Buffer, position: int) -> tuple[TaggedFields, int]:
    """The tagged fields of a struct that knows no tag: kept as (tag, bytes) in the order read."""
    fields: list[tuple[int, bytes]] = []
    count, position = read_uvarint(buffer, position)
    for _ in range(count):
        tag, position = read_uvarint(buffer, position)
        size, position = read_uvarint(buffer, position)
        position = keep_tagged_field(fields, buffer, position, tag, size)
    return tuple(fields), position


def keep_tagged_field(
    fields: list[tuple[int, bytes]], buffer: Buffer, position: int, tag: int, size: int
) -> int:
    """Keep a tag that the schema does not know; returns the position after it."""
    if size < 0:
        raise DecodeError("a tagged field has a negative size")
    fields.append((tag, bytes(_slice(buffer, position, size))))
    return position + size


def write_tagged_fields(parts: list[Any], fields: TaggedFields) -> None:
    """The tagged section: every (tag, bytes) in ascending order of tags."""
    if not fields:
        parts.append(b"\0")
        return
    parts.append(uvarint(len(fields)))
    for tag, value in sorted(fields, key=lambda field: field[0]):
        parts.append(uvarint(tag & 0xFFFFFFFF))  # one read as negative, too
        parts.append(uvarint(len(value)))
        parts.append(value)


# Parts ------------------------------------------------------------------------------------------


def append_joined(parts: list[Any], pieces: list[Any]) -> None:
    """Append ``pieces`` to ``parts`` with neighbouring small ones joined; large ones untouched."""
    first = 0
    for index, piece in enumerate(pieces):
        if len(piece) >= JOIN_BELOW or not isinstance(piece, (bytes, bytearray, memoryview)):
            if index > first:
                parts.append(b"".join(pieces[first:index]))
            if len(piece):
                parts.append(piece)
            first = index + 1
    if first < len(pieces):
        parts.append(b"".join(pieces[first:]))
