"""Walking the batch headers of a segment file.

Chunks are read with one call each and headers unpacked from them, so that a file of small batches
costs little more than its headers and one of large batches is mostly skipped over.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kbroker.common.files import File
from kbroker.record.batch import HEADER, HEADER_SIZE, LOG_OVERHEAD, MAGIC

WALK_CHUNK_SIZE = 64 * 1024
LOCATE_CHUNK_SIZE = 4096
BATCH_CHUNK_SIZE = 1024 * 1024
RUN_SIZE = 64 * 1024
_PREFIX = struct.Struct(">qiib")  # base offset, length, leader epoch, magic
_LOCATE = struct.Struct(">qi11xi")  # base offset, length, last offset delta


class BatchHeader(NamedTuple):
    """The fields of ``record.batch.HEADER``, and where the batch lies."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    record_count: int
    position: int

    @property
    def size(self) -> int:
        """Bytes of the whole batch."""
        return self.length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta


def iter_headers(file: File, position: int, end: int) -> Iterator[BatchHeader]:
    """The whole batches of a file from ``position`` up to ``end``.

    Ends at ``end``, at a cut batch, and at bytes that are no batch; only headers are looked at.
    """
    chunk = b""
    chunk_position = position
    while position + HEADER_SIZE <= end:
        at = position - chunk_position
        if at + HEADER_SIZE > len(chunk):
            chunk = file.read_at(min(WALK_CHUNK_SIZE, end - position), position)
            chunk_position, at = position, 0
            if len(chunk) < HEADER_SIZE:
                return
        header = BatchHeader._make((*HEADER.unpack_from(chunk, at), position))
        size = header.length + LOG_OVERHEAD
        if size < HEADER_SIZE or header.magic != MAGIC or position + size > end:
            return
        yield header
        position += size


def locate(file: File, offset: int, position: int, end: int) -> tuple[int, int, int] | None:
    """The first batch at or behind ``position`` whose last offset is not below ``offset``.

    Returns (position, size, last offset) of the batch; None when all below ``end`` are below.
    """
    while position + HEADER_SIZE <= end:
        chunk = file.read_at(min(LOCATE_CHUNK_SIZE, end - position), position)
        limit = len(chunk) - HEADER_SIZE
        at = 0
        while at <= limit:
            base_offset, length, last_offset_delta = _LOCATE.unpack_from(chunk, at)
            if length < HEADER_SIZE - LOG_OVERHEAD:
                return None  # no batch: the bytes behind a torn write, found by recovery
            if base_offset + last_offset_delta >= offset:
                return position + at, length + LOG_OVERHEAD, base_offset + last_offset_delta
            at += length + LOG_OVERHEAD
        if not at:
            return None  # the file is shorter than it should be
        position += at
    return None


def iter_whole_batches(file: File, position: int, end: int) -> Iterator[memoryview]:
    """The batches of a file from ``position`` up to ``end``, each whole; a cut one ends it."""
    chunk = memoryview(b"")
    while position + HEADER_SIZE <= end:
        if len(chunk) < HEADER_SIZE:
            chunk = memoryview(file.read_at(min(BATCH_CHUNK_SIZE, end - position), position))
            if len(chunk) < HEADER_SIZE:
                return
        _, length, _, magic = _PREFIX.unpack_from(chunk)
        size = length + LOG_OVERHEAD
        if size < HEADER_SIZE or magic != MAGIC or position + size > end:
            return
        if len(chunk) < size:
            chunk = memoryview(
                file.read_at(min(max(size, BATCH_CHUNK_SIZE), end - position), position)
            )
            if len(chunk) < size:
                return
        yield chunk[:size]
        chunk = chunk[size:]
        position += size


def iter_runs(file: File, position: int, end: int) -> Iterator[bytes]:
    """What ``iter_whole_batches`` gives, as many batches in a row as a chunk holds, one at least.

    For who reads them all and gives way in between: no object is made for a single batch.
    """
    wanted = RUN_SIZE
    while True:
        chunk = file.read_at(min(wanted, end - position), position)
        taken, needed = _whole_batches_in(chunk, end - position)
        if taken:
            yield chunk[:taken]
            position += taken
        elif len(chunk) < needed <= wanted:
            return  # the file ends before the batch does
        if not needed:
            return
        wanted = max(needed, RUN_SIZE)


def _whole_batches_in(chunk: bytes, limit: int) -> tuple[int, int]:
    """(bytes of the whole batches it begins with, bytes needed for the next one or 0 for none)."""
    position = 0
    have = len(chunk)
    unpack_prefix = _PREFIX.unpack_from
    while position + HEADER_SIZE <= limit:
        if position + HEADER_SIZE > have:
            return position, HEADER_SIZE
        _, length, _, magic = unpack_prefix(chunk, position)
        size = length + LOG_OVERHEAD
        if size < HEADER_SIZE or magic != MAGIC or position + size > limit:
            return position, 0
        if position + size > have:
            return position, size
        position += size
    return position, 0
