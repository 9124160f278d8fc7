"""Records of message formats 0 and 1, which Kafka wrote before 0.11 (KIP-31, KIP-32).

A message is ``offset i64, size i32, crc32 u32, magic i8, attributes i8, [timestamp i64], key,
value``, these with int32 lengths. A compressed one holds others as its value: with absolute offsets
in format 0; in format 1 with offsets counted from the first one, and the wrapper's offset is that
of the last.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kbroker.log_tools.log_scan import LegacyMessage
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import LOG_OVERHEAD, NO_TIMESTAMP
from kbroker.record.compression import NONE, decompress
from kbroker.record.record import DEFAULT_INFLATED_LIMIT, Record

LOG_APPEND_TIME_BIT = 0x08
CODEC_MASK = 0x07
_PREFIX = struct.Struct(">qiIbb")
_CRC_END = 16
_INT64 = struct.Struct(">q")
_INT32 = struct.Struct(">i")


class LegacyRecord(NamedTuple):
    """A record, and the checksum that its message has of its own."""

    record: Record
    crc: int
    is_valid: bool


def iter_legacy_records(message: LegacyMessage) -> Iterator[LegacyRecord]:
    """The records of one message in order, unpacked when it is compressed.

    KafkaError CORRUPT_MESSAGE for data that is no message, and what ``decompress`` raises.
    """
    outer = _read_message(message.data, 0, len(message.data))[0]
    codec = message.attributes & CODEC_MASK
    if codec == NONE:
        yield outer
        return
    if outer.record.value is None:
        raise _corrupt(message, "a compressed message without a value")
    data = decompress(codec, outer.record.value, limit=DEFAULT_INFLATED_LIMIT)
    inner = []
    position = 0
    while position < len(data):
        one, position = _read_message(data, position, len(data))
        inner.append(one)
    if not inner:
        raise _corrupt(message, "a compressed message that holds none")
    # A producer counts from 0; the broker sets the wrapper's offset and leaves the inner ones.
    shift = message.last_offset - inner[-1].record.offset if message.magic else 0
    append_time = message.attributes & LOG_APPEND_TIME_BIT
    for one in inner:
        one.record.offset += shift
        if append_time:
            one.record.timestamp = message.max_timestamp
        yield one


def _corrupt(message: LegacyMessage, text: str) -> KafkaError:
    return KafkaError(ErrorCode.CORRUPT_MESSAGE, f"{text} at offset {message.last_offset}")


def _read_message(data: bytes | memoryview, position: int, end: int) -> tuple[LegacyRecord, int]:
    """The message at ``position`` and where it ends."""
    try:
        offset, size, crc, magic, attributes = _PREFIX.unpack_from(data, position)
        message_end = position + size + LOG_OVERHEAD
        if magic not in (0, 1) or not position < message_end <= end:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"no message of format 0 or 1 at byte {position}"
            )
        is_valid = zlib.crc32(memoryview(data)[position + _CRC_END : message_end]) == crc
        position += _PREFIX.size
        timestamp = NO_TIMESTAMP
        if magic:
            (timestamp,) = _INT64.unpack_from(data, position)
            position += _INT64.size
        key, position = _read_bytes(data, position, message_end)
        value, position = _read_bytes(data, position, message_end)
    except struct.error:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "a message is cut short") from None
    record = Record(key=key, value=value, timestamp=timestamp, offset=offset, attributes=attributes)
    return LegacyRecord(record, crc, is_valid), message_end


def _read_bytes(data: bytes | memoryview, position: int, end: int) -> tuple[bytes | None, int]:
    (size,) = _INT32.unpack_from(data, position)
    position += _INT32.size
    if size < 0:
        return None, position
    if size > end - position:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a field of {size} bytes is cut short")
    return bytes(data[position : position + size]), position + size
