"""Whole lz4 and zstd data inflated by few calls, into a buffer that is used again.

A stream of ``kbroker.record.compression`` gives new objects, and fresh memory costs more than what
is put there: a page is faulted in for each 4 KiB, and a megabyte that the allocator gave back is
faulted in again for the next batch. Here nothing is allocated that grows with the data.

What is inflated here is a subset of what a stream takes, byte for byte the same. Whatever is not
sound, not whole or not small is left to the stream, which knows the error that belongs to it. So
is lz4 with checksums of blocks or of the content, which only the library's own stream looks at.

The work is bounded by the size of the buffer, and by the size of what is inflated.
"""

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from kbroker.record.chunks import CHUNK_SIZE
from kbroker.record.compression import LZ4, ZSTD, zstd_frames_are_whole

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE: Final = frozenset({LZ4, ZSTD})
"""Codecs that are inflated here: of gzip and snappy a small input may take long."""

_MAX_WINDOW: Final = 1 << 23
"""Windows of zstd's level 19 and below; the decoder is kept, and with it the window's memory."""

_MOST_BLOCKS: Final = 64
"""Blocks are full but for the last one of a frame: a buffer takes 18 of the smallest kind. More may
be as small as they like, and each costs as much as a large one."""

_END: Final = 16
"""Bytes that tell one batch from another well enough not to try twice."""

_LZ4_LARGEST_HEADER: Final = 15
_LZ4_SMALLEST_HEADER: Final = 7
_LZ4_HAS_CONTENT_SIZE: Final = 0x08
_LZ4_TAKEN_FLAGS: Final = frozenset({0x60, 0x60 | _LZ4_HAS_CONTENT_SIZE})
"""Version 1, independent blocks, no checksums, no dictionary; the content size may be there."""
_LZ4_STORED: Final = 0x80000000
_BLOCK_SIZE: Final = Struct("<I")


def buffer_of(inflated: memoryview) -> bytearray | None:
    """What holds what was inflated, from its first byte on: columns of it cost less."""
    buffer = inflated.obj
    return buffer if type(buffer) is bytearray else None


class AtOnceInflater:
    """One buffer and one decoder of each codec, for one user at a time: never for two threads.

    ``inflate`` gives a view of the buffer; whoever has it has the buffer until ``give_back``.
    Meanwhile ``inflate`` takes another buffer. A view that never comes back is only memory.
    """

    __slots__ = (
        "_block_error",
        "_buffer",
        "_declined",
        "_inflate_block",
        "_read_lz4_header",
        "_zstd",
    )

    def __init__(self) -> None:
        self._buffer: bytearray | None = None
        self._declined = (0, 0, b"")  # most, size and end of what was left to the stream last
        self._inflate_block: Callable[[memoryview, memoryview, int], int] | None = None
        self._block_error: type[Exception] = Exception
        self._read_lz4_header: Callable[[bytes], dict[str, Any]] | None = None
        self._zstd: Any = None

    def inflate(self, codec: int, data: memoryview, most: int = CHUNK_SIZE) -> memoryview | None:
        """All of the output when it is less than ``most`` bytes, None otherwise: ask a stream.

        ``most`` is at most CHUNK_SIZE; data that is itself larger is not looked at.
        """
        if codec not in AT_ONCE or len(data) > most:
            return None
        end = bytes(data[-_END:])
        if self._declined[1:] == (len(data), end) and most <= self._declined[0]:
            return None  # who was told so asks another way to validate, which asks here again
        buffer, self._buffer = self._buffer, None
        if buffer is None:
            buffer = bytearray(CHUNK_SIZE)
        target = memoryview(buffer)[:most]
        inflate = self._inflate_lz4 if codec == LZ4 else self._inflate_zstd
        size = inflate(data, target)
        if size is None or size == most:
            self._buffer = buffer
            self._declined = (most, len(data), end)
            return None
        return target[:size]

    def give_back(self, inflated: memoryview) -> None:
        """Nobody looks at what ``inflate`` gave any more."""
        buffer = inflated.obj
        inflated.release()
        if isinstance(buffer, bytearray):
            self._buffer = buffer

    def _inflate_zstd(self, data: memoryview, target: memoryview) -> int | None:
        if not zstd_frames_are_whole(data, most_blocks=_MOST_BLOCKS):
            return None
        import zstandard

        if self._zstd is None:
            self._zstd = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        reader = self._zstd.stream_reader(data, read_across_frames=True)
        try:
            size: int = reader.readinto(target)
        except (zstandard.ZstdError, MemoryError):
            return None
        return size

    def _inflate_lz4(self, data: memoryview, target: memoryview) -> int | None:
        header = self._lz4_header(data)
        if header is None:
            return None
        position, block_size, content_size = header
        inflate_block = self._inflate_block
        if inflate_block is None:
            from cramjam import DecompressionError, lz4

            inflate_block = self._inflate_block = lz4.decompress_block_into
            self._block_error = DecompressionError
        size_at = _BLOCK_SIZE.unpack_from
        filled, room, end = 0, len(target), len(data)
        for _ in range(_MOST_BLOCKS):
            if position + 4 > end:
                return None
            (size,) = size_at(data, position)
            position += 4
            if not size:  # the end; what follows is ignored
                return filled if content_size in (None, filled) else None
            stored = size & _LZ4_STORED
            size &= ~_LZ4_STORED
            block = data[position : position + size]
            if size > block_size or len(block) < size:
                return None
            if not stored:
                most = min(block_size, room - filled)
                try:
                    filled += inflate_block(block, target[filled : filled + most], most)
                except self._block_error:
                    return None
            elif filled + size <= room:
                target[filled : filled + size] = block
                filled += size
            else:
                return None
            position += size
        return None

    def _lz4_header(self, data: memoryview) -> tuple[int, int, int | None] | None:
        """(its length, largest block, content size) of a frame that is inflated here."""
        if len(data) < _LZ4_LARGEST_HEADER or data[4] not in _LZ4_TAKEN_FLAGS:
            return None
        read = self._read_lz4_header
        if read is None:
            import lz4.frame

            read = self._read_lz4_header = lz4.frame.get_frame_info
        try:
            info = read(bytes(data[:_LZ4_LARGEST_HEADER]))
        except RuntimeError:
            return None
        if info["skippable"]:
            return None
        if data[4] & _LZ4_HAS_CONTENT_SIZE:
            return _LZ4_LARGEST_HEADER, info["block_size"], info["content_size"]
        return _LZ4_SMALLEST_HEADER, info["block_size"], None
