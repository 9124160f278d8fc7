"""Walking a log file front to back, whatever it holds: batches, old messages, damage.

One buffer for the whole file, so that the walk over 10 GB costs the memory of the largest batch.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from kbroker.common.files import File
from kbroker.log_tools.read_only import CHUNK_SIZE, Window
from kbroker.record.batch import (
    ATTRIBUTES_POSITION,
    HEADER,
    HEADER_SIZE,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_POSITION,
)
from kbroker.record.crc import crc32c
from kbroker.storage.batch_scan import BatchHeader

HELD_BATCH_LIMIT = 256 * 1024 * 1024
"""Batches above this are checked in pieces and not decoded: nobody writes such, damage may."""

_LEGACY_PREFIX = struct.Struct(">qiIbb")  # offset, size, CRC-32, magic, attributes
_LEGACY_TIMESTAMP = struct.Struct(">q")
_LEGACY_CRC_END = 16
_SMALLEST = {0: 26, 1: 34, MAGIC: HEADER_SIZE}
"""Bytes of the smallest entry of each message format, offset and size included."""


class Batch(NamedTuple):
    """A batch of message format 2. ``data`` is the whole of it until the walk goes on."""

    header: BatchHeader
    is_valid: bool
    """The checksum holds."""
    data: memoryview | None
    """None for a batch that is too large to be held."""

    @property
    def position(self) -> int:
        return self.header.position

    @property
    def size(self) -> int:
        return self.header.size

    @property
    def base_offset(self) -> int:
        return self.header.base_offset

    @property
    def last_offset(self) -> int:
        return self.header.last_offset

    @property
    def max_timestamp(self) -> int:
        return self.header.max_timestamp


class LegacyMessage(NamedTuple):
    """A message of format 0 or 1 (Kafka before 0.11); a compressed one wraps others."""

    last_offset: int
    position: int
    size: int
    magic: int
    crc: int
    attributes: int
    max_timestamp: int
    """-1 in format 0, which has none."""
    is_valid: bool
    data: memoryview

    @property
    def base_offset(self) -> int:
        """The format does not say it without being unpacked; never above the first one's."""
        return self.last_offset


class Damage(NamedTuple):
    """Where no batch begins; nothing behind it can be read."""

    position: int
    text: str


def scan_log(file: File, start: int, end: int) -> Iterator[Batch | LegacyMessage | Damage]:
    """What the file holds from ``start`` up to ``end``; a ``Damage`` is the last. OSError."""
    window = Window(file, end)
    position = start
    while position < end:
        prefix = window.view(position, HEADER_SIZE)
        found = _damage(prefix, position, end)
        if found is not None:
            if not _is_zero(window, position, end):
                yield found
            else:
                yield Damage(position, f"{end - position} zero bytes, as preallocation leaves them")
            return
        if prefix[MAGIC_POSITION] == MAGIC:
            entry: Batch | LegacyMessage = _read_batch(window, prefix, position)
        else:
            entry = _read_legacy(window, prefix, position)
        size = entry.size
        yield entry
        position += size


def _damage(prefix: memoryview, position: int, end: int) -> Damage | None:
    if len(prefix) < MAGIC_POSITION + 1:
        return Damage(position, f"{end - position} bytes are too few for a batch")
    length = int.from_bytes(prefix[8:12], "big", signed=True)
    magic = prefix[MAGIC_POSITION]
    if magic not in _SMALLEST:
        return Damage(position, f"no batch begins here: message format {magic}, length {length}")
    size = length + LOG_OVERHEAD
    if size < _SMALLEST[magic]:
        return Damage(position, f"no batch begins here: a length of {length} is too small")
    if position + size > end:
        return Damage(
            position, f"a batch of {size} bytes is cut short: {end - position} bytes are left"
        )
    return None


def _is_zero(window: Window, position: int, end: int) -> bool:
    while position < end:
        piece = window.view(position, min(CHUNK_SIZE, end - position))
        if not len(piece) or piece.tobytes().strip(b"\0"):
            return False
        position += len(piece)
    return True


def _read_batch(window: Window, prefix: memoryview, position: int) -> Batch:
    header = BatchHeader._make((*HEADER.unpack_from(prefix), position))
    if header.size > HELD_BATCH_LIMIT:
        return Batch(header, _crc_in_pieces(window, position, header.size) == header.crc, None)
    data = window.view(position, header.size)
    is_whole = len(data) == header.size  # unless the file has become shorter meanwhile
    return Batch(header, is_whole and crc32c(data[ATTRIBUTES_POSITION:]) == header.crc, data)


def _crc_in_pieces(window: Window, position: int, size: int) -> int:
    at = position + ATTRIBUTES_POSITION
    end = position + size
    crc = 0
    while at < end:
        piece = window.view(at, min(CHUNK_SIZE, end - at))
        if not len(piece):
            return -1
        crc = crc32c(piece, crc)
        at += len(piece)
    return crc


def _read_legacy(window: Window, prefix: memoryview, position: int) -> LegacyMessage:
    offset, length, crc, magic, attributes = _LEGACY_PREFIX.unpack_from(prefix)
    timestamp = -1
    if magic:
        (timestamp,) = _LEGACY_TIMESTAMP.unpack_from(prefix, _LEGACY_PREFIX.size)
    size = length + LOG_OVERHEAD
    data = window.view(position, size)
    return LegacyMessage(
        last_offset=offset,
        position=position,
        size=size,
        magic=magic,
        crc=crc,
        attributes=attributes,
        max_timestamp=timestamp,
        is_valid=len(data) == size and zlib.crc32(data[_LEGACY_CRC_END:]) == crc,
        data=data,
    )
