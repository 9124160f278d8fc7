"""Requests made by hand: what is measured is the broker and the loopback, not a client."""

from __future__ import annotations

import struct
import time

import crc32c

PRODUCE, FETCH, METADATA = 0, 1, 3
PRODUCE_VERSION, FETCH_VERSION, METADATA_VERSION = 7, 11, 1
ACKS_ALL = -1
LEADER_ONLY = 1
CLIENT_ID = b"bench"
VALUE = bytes(100)


def produce_request(topic: str, batch: bytes, *, acks: int) -> bytes:
    """A framed Produce v7 request with one batch for partition 0."""
    body = struct.pack(">hhii", -1, acks, 30_000, 1)
    body += _string(topic) + struct.pack(">iii", 1, 0, len(batch))
    return _frame(PRODUCE, PRODUCE_VERSION, body + batch)


def check_produced(answer: memoryview | bytes, topic: str) -> int:
    """The base offset; ValueError unless the one partition answered without an error."""
    # correlation id, one topic, its name, one partition: index, error code, base offset
    position = 4 + 4 + 2 + len(topic.encode()) + 4
    partition, error_code = struct.unpack_from(">ih", answer, position)
    if partition != 0 or error_code != 0:
        raise ValueError(f"Produce answered {error_code=} for {partition=}")
    (base_offset,) = struct.unpack_from(">q", answer, position + 6)
    return int(base_offset)


def fetch_request(topic: str, offset: int, *, max_bytes: int, max_wait_ms: int = 500) -> bytes:
    """A framed Fetch v11 request without a session, for partition 0 from ``offset`` on."""
    body = struct.pack(">iiiibiii", -1, max_wait_ms, 1, max_bytes, 0, 0, -1, 1) + _string(topic)
    body += struct.pack(">iiiqqi", 1, 0, -1, offset, -1, max_bytes)
    return _frame(FETCH, FETCH_VERSION, body + struct.pack(">i", 0) + _string(""))


def check_fetched(answer: memoryview | bytes, topic: str) -> int:
    """How many bytes of records it carries; ValueError unless it is one partition without error."""
    # correlation id, throttle time, error, session id, topics, name, partitions, index
    name = len(topic.encode())
    (error,) = struct.unpack_from(">h", answer, 8)
    partition_error, _, _, _, aborted = struct.unpack_from(">hqqqi", answer, 18 + 2 + name + 8)
    if error or partition_error or aborted > 0:
        raise ValueError(f"Fetch answered {error=} {partition_error=} {aborted=}")
    (size,) = struct.unpack_from(">i", answer, 18 + 2 + name + 8 + 30 + 4)
    return int(size)


def metadata_request(topic: str) -> bytes:
    """A framed Metadata v1 request for one topic."""
    return _frame(METADATA, METADATA_VERSION, struct.pack(">i", 1) + _string(topic))


def check_metadata(answer: memoryview | bytes, topic: str) -> None:
    """ValueError unless the topic is among it."""
    if topic.encode() not in bytes(answer):
        raise ValueError("Metadata answered without the topic")


def record_batch(values: list[bytes]) -> bytes:
    """Records without keys and headers, uncompressed, in record batch format v2."""
    records = b"".join(_record(delta, value) for delta, value in enumerate(values))
    count, now_ms = len(values), int(time.time() * 1000)
    behind_crc = struct.pack(">hiqqqhii", 0, count - 1, now_ms, now_ms, -1, -1, -1, count)
    behind_crc += records
    checked = struct.pack(">ibI", -1, 2, crc32c.crc32c(behind_crc)) + behind_crc
    return struct.pack(">qi", 0, len(checked)) + checked


def _record(delta: int, value: bytes) -> bytes:
    fields = b"\x00\x00" + _varint(delta) + b"\x01" + _varint(len(value)) + value + b"\x00"
    return _varint(len(fields)) + fields


def _varint(value: int) -> bytes:
    """A zigzag varint of a number that is not negative."""
    zigzag = value << 1
    encoded = bytearray()
    while zigzag >= 0x80:
        encoded.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    encoded.append(zigzag)
    return bytes(encoded)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack(">h", len(raw)) + raw


def _frame(key: int, version: int, body: bytes) -> bytes:
    head = struct.pack(">hhih", key, version, 1, len(CLIENT_ID)) + CLIENT_ID
    return struct.pack(">i", len(head) + len(body)) + head + body
