"""Varints and the bytes of one record of a version 2 batch.

Source: the record layout of Kafka's message format v2 (KIP-98); numbers are zigzag varints of at
most 5 bytes (32 bits) or 10 bytes (64 bits).
"""

from collections.abc import Sequence

Bytes = bytes | bytearray | memoryview
Header = tuple[str, bytes | None]

_MAX_VARINT_BYTES = 5
_MAX_VARLONG_BYTES = 10
_NULL = b"\x01"  # varint -1


class VarintTooLongError(ValueError):
    """The byte that must be the last one of a varint announces yet another."""


def write_varint(value: int) -> bytes:
    """A signed number of at most 64 bits as a zigzag varint."""
    raw = (value << 1) ^ (value >> 63)
    if raw < 0x80:
        return _ONE_BYTE[raw]
    out = bytearray()
    while raw > 0x7F:
        out.append(raw & 0x7F | 0x80)
        raw >>= 7
    out.append(raw)
    return bytes(out)


_ONE_BYTE = [bytes((value,)) for value in range(128)]


def read_varint(data: Bytes, position: int) -> tuple[int, int]:
    """(value, next position) of a 32-bit varint; bits beyond the 32nd are dropped, as in Kafka.

    Raises IndexError at the end of the data, VarintTooLongError after 5 bytes.
    """
    raw, position = _read_raw(data, position, _MAX_VARINT_BYTES)
    raw &= 0xFFFFFFFF
    return (raw >> 1) ^ -(raw & 1), position


def read_varlong(data: Bytes, position: int) -> tuple[int, int]:
    """(value, next position) of a 64-bit varint; errors as ``read_varint``, after 10 bytes."""
    raw, position = _read_raw(data, position, _MAX_VARLONG_BYTES)
    raw &= 0xFFFFFFFFFFFFFFFF
    return (raw >> 1) ^ -(raw & 1), position


def _read_raw(data: Bytes, position: int, max_bytes: int) -> tuple[int, int]:
    raw = 0
    for shift in range(0, 7 * max_bytes, 7):
        byte = data[position]
        position += 1
        if byte < 0x80:
            return raw | byte << shift, position
        raw |= (byte & 0x7F) << shift
    raise VarintTooLongError(f"a varint of more than {max_bytes} bytes")


def wrap_int64(value: int) -> int:
    """The value that a 64-bit signed addition overflows to."""
    return ((value + 0x8000000000000000) & 0xFFFFFFFFFFFFFFFF) - 0x8000000000000000


def encode_record(
    *,
    timestamp_delta: int,
    offset_delta: int,
    key: Bytes | None,
    value: Bytes | None,
    headers: Sequence[Header] = (),
) -> bytes:
    """One record, its length in front; a null key or value is None, header keys are text."""
    parts: list[Bytes] = [b"\x00", write_varint(timestamp_delta), write_varint(offset_delta)]
    for part in (key, value):
        if part is None:
            parts.append(_NULL)
        else:
            parts.append(write_varint(len(part)))
            parts.append(part)
    parts.append(write_varint(len(headers)))
    for name, content in headers:
        encoded = name.encode()
        parts.append(write_varint(len(encoded)))
        parts.append(encoded)
        if content is None:
            parts.append(_NULL)
        else:
            parts.append(write_varint(len(content)))
            parts.append(content)
    body = b"".join(parts)
    return write_varint(len(body)) + body
