"""The time from a Produce request of one record to its answer, over a plain socket.

The request is built once, by hand: what is measured is the broker and the loopback, not a client.
"""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

import crc32c

from tests.peers.probe import split_address

if TYPE_CHECKING:
    from benchmarks.brokers import MeasuredBroker

PRODUCE = 0
PRODUCE_VERSION = 7
ACKS_ALL = -1
VALUE = bytes(100)


@dataclass(frozen=True)
class RoundTrips:
    """Latencies in microseconds."""

    p50_us: float
    p99_us: float


def measure(broker: MeasuredBroker, topic: str, *, count: int) -> RoundTrips:
    """``count`` requests, one after the other, to partition 0 of a topic that is there."""
    request = produce_request(topic)
    latencies = []
    with socket.create_connection(split_address(broker.bootstrap), timeout=30) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(count):
            started = time.perf_counter()
            peer.sendall(request)
            answer = _receive_frame(peer)
            latencies.append((time.perf_counter() - started) * 1e6)
            check_answer(answer, topic)
    percentiles = quantiles(latencies, n=100)
    return RoundTrips(percentiles[49], percentiles[98])


def produce_request(topic: str) -> bytes:
    """A framed Produce v7 request with acks=all and one record of 100 bytes for partition 0."""
    name = topic.encode()
    batch = _record_batch()
    body = struct.pack(">hhih", PRODUCE, PRODUCE_VERSION, 1, 5) + b"bench"
    body += struct.pack(">hhii", -1, ACKS_ALL, 30_000, 1)
    body += struct.pack(">h", len(name)) + name
    body += struct.pack(">iii", 1, 0, len(batch)) + batch
    return struct.pack(">i", len(body)) + body


def check_answer(answer: bytes, topic: str) -> None:
    """Raises ValueError unless the one partition answered without an error."""
    # correlation id, one topic, its name, one partition: index, error code
    position = 4 + 4 + 2 + len(topic.encode()) + 4
    partition, error_code = struct.unpack_from(">ih", answer, position)
    if partition != 0 or error_code != 0:
        raise ValueError(f"Produce answered {error_code=} for {partition=}")


def _record_batch() -> bytes:
    """One record without key, headers or compression, in record batch format v2."""
    fields = b"\x00\x00\x00" + b"\x01" + _varint(len(VALUE)) + VALUE + b"\x00"
    record = _varint(len(fields)) + fields
    now_ms = int(time.time() * 1000)
    behind_crc = struct.pack(">hiqqqhii", 0, 0, now_ms, now_ms, -1, -1, -1, 1) + record
    checked = struct.pack(">ibI", -1, 2, crc32c.crc32c(behind_crc)) + behind_crc
    return struct.pack(">qi", 0, len(checked)) + checked


def _varint(value: int) -> bytes:
    """A zigzag varint, for values from 0 to 8191."""
    zigzag = value << 1
    return bytes([zigzag]) if zigzag < 0x80 else bytes([zigzag & 0x7F | 0x80, zigzag >> 7])


def _receive_frame(peer: socket.socket) -> bytes:
    received = bytearray()
    while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
        piece = peer.recv(65536)
        if not piece:
            raise ConnectionError("the broker closed the connection")
        received += piece
    return bytes(received[4:])
