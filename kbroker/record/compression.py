"""The codecs of record data: bounded streams to read, one call to write.

Reading is always a stream with an output limit: a chunk is made when it is asked for, so neither a
bomb (1 MiB of zstd may stand for 32 GiB) nor a lying header takes memory or time beyond the limit.
Whatever a codec finds wrong becomes ``UndecodableDataError``; which bytes are wrong follows the
decoders of Apache Kafka's Java client, for a batch that Kafka refuses must be refused here and the
other way round:

* gzip: several members are one stream; what follows the last and is no member is ignored;
* snappy: xerial framing, several streams in a row too, or one raw block;
* lz4: the first frame only, independent blocks, what follows is ignored. Kafka never looks at the
  checksum of the whole content; liblz4 does, so a wrong one is refused here;
* zstd: several frames, nothing else after them, windows up to 128 MiB.

Codec libraries are imported at first use.
"""

import struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

NONE: Final = 0
GZIP: Final = 1
SNAPPY: Final = 2
LZ4: Final = 3
ZSTD: Final = 4
CODEC_NAMES: Final = ("none", "gzip", "snappy", "lz4", "zstd")
CODEC_IDS: Final = {name: codec for codec, name in enumerate(CODEC_NAMES)}

MAX_ZSTD_WINDOW: Final = 1 << 27
"""Kafka's decoder takes windows of 128 MiB (level 22 of a stream of unknown size asks for that).
Pages of a window are touched as output is made, so the output limit bounds the memory as well."""

Buffer = bytes | bytearray | memoryview

_INPUT_STEP = 64 * 1024  # compressed bytes handed to a decoder that copies what it leaves over
_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER = struct.Struct(">8sii")
_XERIAL_BLOCK_SIZE = 32 * 1024
_MAX_SNAPPY_RATIO = 22  # a copy of 64 bytes takes 3: no honest block announces more
_INT32 = struct.Struct(">i")
_GZIP_TRAILER = struct.Struct("<II")
_GZIP_MIN_MEMBER = 18  # header and trailer; fewer bytes after a member are no member
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_SKIPPABLE_MAGIC = 0x184D2A50
_LZ4_MAGIC = 0x184D2204
_LZ4_BLOCK_ID_64K = 4


class UndecodableDataError(KafkaError):
    """Compressed data that its codec cannot read, or an unknown codec (Kafka answers -1)."""

    def __init__(self, message: str) -> None:
        super().__init__(ErrorCode.UNKNOWN_SERVER_ERROR, message)


class OutputLimitError(KafkaError):
    """Data that inflates beyond the limit.

    Kafka has no such limit and no error for it; of its errors MESSAGE_TOO_LARGE is the one after
    which a Java producer splits the batch and sends the halves.
    """

    def __init__(self, limit: int) -> None:
        super().__init__(
            ErrorCode.MESSAGE_TOO_LARGE, f"the records inflate to more than {limit} bytes"
        )


class Inflater(Protocol):
    """Compressed data as a stream of output."""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes, b"" only at the end. Raises UndecodableDataError."""
        ...


class _GzipInflater:
    """Members by hand: the output of a member is handed out before its checksum is looked at.

    So a record that is wrong is found before the checksum that is wrong, as in Java.
    """

    __slots__ = ("_checksum", "_data", "_decoder", "_module", "_pending", "_position", "_size")

    def __init__(self, data: memoryview) -> None:
        self._module = _gzip_module()
        self._data = data
        self._position = 0
        self._pending: Buffer = b""
        self._checksum = self._size = 0
        start = _gzip_header_end(data, 0)
        if start is None:
            raise UndecodableDataError("data that is not in gzip format")
        self._begin_member(start)

    def _begin_member(self, start: int) -> None:
        self._decoder: Any = self._module.decompressobj(-15)
        self._position = start
        self._pending = b""
        self._checksum = self._size = 0

    def read(self, size: int) -> bytes:
        while True:
            if self._decoder.eof and not self._next_member():
                return b""
            source = self._pending
            if not source:
                source = self._data[self._position : self._position + _INPUT_STEP]
                self._position += len(source)
            try:
                output: bytes = self._decoder.decompress(source, size)
            except (self._module.error, ValueError) as error:
                raise UndecodableDataError(f"gzip: {error}") from None
            self._pending = self._decoder.unconsumed_tail
            if output:
                self._checksum = self._module.crc32(output, self._checksum)
                self._size += len(output)
                return output
            if not source and not self._decoder.eof:
                raise UndecodableDataError("gzip data ends too early")

    def _next_member(self) -> bool:
        """Checks the trailer of the member that has ended; False when no other follows."""
        if self._position < 0:
            return False
        self._position -= len(self._decoder.unused_data)
        trailer = self._data[self._position : self._position + _GZIP_TRAILER.size]
        if len(trailer) < _GZIP_TRAILER.size:
            raise UndecodableDataError("gzip data ends too early")
        if _GZIP_TRAILER.unpack(trailer) != (self._checksum, self._size & 0xFFFFFFFF):
            raise UndecodableDataError("gzip data with a wrong checksum or size")
        position = self._position + len(trailer)
        start = None
        if len(self._data) - position >= _GZIP_MIN_MEMBER:
            start = _gzip_header_end(self._data, position)
        if start is None:
            self._position = -1
            return False
        self._begin_member(start)
        return True


def _gzip_header_end(data: memoryview, position: int) -> int | None:
    """Where the deflated data of the member at ``position`` begins; None: no member (RFC 1952)."""
    if len(data) - position < 10 or bytes(data[position : position + 3]) != b"\x1f\x8b\x08":
        return None
    flags = data[position + 3]
    position += 10
    try:
        if flags & 0x04:  # extra field
            position += 2 + data[position] + (data[position + 1] << 8)
        for flag in (0x08, 0x10):  # name, comment: each ends with a zero
            if flags & flag:
                while data[position]:
                    position += 1
                position += 1
    except IndexError:
        return None
    if flags & 0x02:  # checksum of the header
        position += 2
    return position


class _BlockInflater:
    """Hands out blocks that are decoded one at a time, in pieces of the size asked for."""

    __slots__ = ("_block", "_start")

    def __init__(self) -> None:
        self._block: Buffer = b""
        self._start = 0

    def _next_block(self) -> Buffer:
        """The next block's output, b"" at the end."""
        raise NotImplementedError

    def read(self, size: int) -> bytes:
        while self._start == len(self._block):
            self._block = self._next_block()
            self._start = 0
            if not self._block:
                return b""
        piece = bytes(self._block[self._start : self._start + size])
        self._start += len(piece)
        return piece


class _SnappyInflater(_BlockInflater):
    """Xerial framing (magic, two versions, then blocks with an int32 size), or one raw block."""

    __slots__ = ("_data", "_decode", "_error", "_limit", "_position", "_raw")

    def __init__(self, data: memoryview, limit: int) -> None:
        super().__init__()
        import snappy

        self._decode: Callable[[Buffer], bytes] = snappy.decompress
        self._error: type[Exception] = snappy.UncompressError
        self._data = data
        self._limit = limit
        self._position = 0
        if not data:
            raise UndecodableDataError("empty snappy data")
        self._raw = data[: len(_XERIAL_MAGIC)] != _XERIAL_MAGIC
        if not self._raw:
            self._skip_header()

    def _skip_header(self) -> None:
        """The two versions in it may be any, as in Java."""
        if len(self._data) - self._position < _XERIAL_HEADER.size:
            raise UndecodableDataError("a xerial header is cut short")
        self._position += _XERIAL_HEADER.size

    def _next_block(self) -> Buffer:
        if self._raw:
            block = self._data[self._position :]
            self._position = len(self._data)
            return self._inflate(block) if block else b""
        while len(self._data) - self._position >= _INT32.size:
            if self._data[self._position : self._position + 4] == _XERIAL_MAGIC[:4]:
                self._skip_header()  # another stream begins
                continue
            size: int = _INT32.unpack_from(self._data, self._position)[0]
            start = self._position + _INT32.size
            if size < 0 or size > len(self._data) - start:
                raise UndecodableDataError(f"a snappy block of {size} bytes")
            self._position = start + size
            if output := self._inflate(self._data[start : start + size]):
                return output
        return b""

    def _inflate(self, block: memoryview) -> bytes:
        announced, shift = 0, 0
        for byte in block[:5]:
            announced |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if announced > len(block) * _MAX_SNAPPY_RATIO:
            raise UndecodableDataError(
                f"a snappy block of {len(block)} bytes announces {announced}"
            )
        if announced > self._limit:
            raise OutputLimitError(self._limit)
        try:
            return self._decode(block)
        except self._error as error:
            raise UndecodableDataError(f"snappy: {error.__cause__ or error}") from None


class _Lz4Inflater:
    __slots__ = ("_data", "_decoder", "_position")

    def __init__(self, data: memoryview) -> None:
        import lz4.frame

        if len(data) < 7 or int.from_bytes(data[:4], "little") != _LZ4_MAGIC:
            raise UndecodableDataError("no lz4 frame")
        flags = data[4]
        if flags >> 6 != 1 or flags & 0x03 or not flags & 0x20:
            raise UndecodableDataError(
                f"an lz4 frame with flags 0x{flags:02x}: version 1, independent blocks and no "
                "dictionary are required"
            )
        self._data = data
        self._position = 0
        self._decoder = lz4.frame.LZ4FrameDecompressor()

    def read(self, size: int) -> bytes:
        decoder = self._decoder
        while not decoder.eof:
            source: Buffer = b""
            if decoder.needs_input:
                source = self._data[self._position : self._position + _INPUT_STEP]
                self._position += len(source)
                if not source:
                    raise UndecodableDataError("lz4 data ends too early")
            try:
                output: bytes = decoder.decompress(source, max_length=size)
            except (RuntimeError, ValueError, MemoryError) as error:
                raise UndecodableDataError(f"lz4: {error}") from None
            if output:
                return output
        return b""


class _ZstdInflater:
    __slots__ = ("_data", "_error", "_reader")

    def __init__(self, data: memoryview) -> None:
        import zstandard

        decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        self._data = data
        self._error: type[Exception] = zstandard.ZstdError
        self._reader: Any = decompressor.stream_reader(data, read_across_frames=True)

    def read(self, size: int) -> bytes:
        try:
            output: bytes = self._reader.read(size)
        except (self._error, MemoryError) as error:
            raise UndecodableDataError(f"zstd: {error}") from None
        if not output and not zstd_frames_are_whole(self._data):
            raise UndecodableDataError("zstd data ends too early")
        return output


def zstd_frames_are_whole(data: memoryview, *, most_blocks: int | None = None) -> bool:
    """Whether the last frame ends where the data ends; the library's reader does not tell.

    Follows the block headers of RFC 8878, which are valid as far as they go when the data can be
    decoded. False too where there are more than ``most_blocks`` blocks or frames.
    """
    position, end = 0, len(data)
    left = -1 if most_blocks is None else most_blocks
    while position < end:
        magic = int.from_bytes(data[position : position + 4], "little")
        if not left:
            return False
        if magic & 0xFFFFFFF0 == _ZSTD_SKIPPABLE_MAGIC:
            left -= 1
            position += 8 + int.from_bytes(data[position + 4 : position + 8], "little")
            continue
        if magic != _ZSTD_MAGIC or position + 5 > end:
            return False
        descriptor = data[position + 4]
        single_segment = descriptor & 0x20
        content_size = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
        dictionary_id = (0, 1, 2, 4)[descriptor & 0x03]
        position += 5 + (0 if single_segment else 1) + dictionary_id + content_size
        last = 0
        while not last:
            if not left or position + 3 > end:
                return False
            left -= 1
            block = data[position] | data[position + 1] << 8 | data[position + 2] << 16
            last = block & 1
            run_length = block & 0x06 == 0x02  # one byte stands for the whole block
            position += 3 + (1 if run_length else block >> 3)
        if descriptor & 0x04:
            position += 4
    return position == end


class _LimitedInflater:
    """Any inflater, with the end of patience."""

    __slots__ = ("_inflater", "_left", "_limit")

    def __init__(self, inflater: Inflater, limit: int) -> None:
        self._inflater = inflater
        self._limit = limit
        self._left = limit

    def read(self, size: int) -> bytes:
        output = self._inflater.read(min(size, self._left + 1))
        self._left -= len(output)
        if self._left < 0:
            raise OutputLimitError(self._limit)
        return output


def open_inflater(codec: int, data: Buffer, *, limit: int) -> Inflater:
    """A stream over compressed ``data`` that yields at most ``limit`` bytes.

    Raises UndecodableDataError for an unknown codec or data that does not begin as it must; the
    stream's ``read`` raises it, or OutputLimitError, later.
    """
    view = memoryview(data)
    inflater: Inflater
    if codec == GZIP:
        inflater = _GzipInflater(view)
    elif codec == SNAPPY:
        inflater = _SnappyInflater(view, limit)
    elif codec == LZ4:
        inflater = _Lz4Inflater(view)
    elif codec == ZSTD:
        inflater = _ZstdInflater(view)
    else:
        raise UndecodableDataError(f"unknown compression type id: {codec}")
    return _LimitedInflater(inflater, limit)


def decompress(codec: int, data: Buffer, *, limit: int) -> bytes:
    """All of the output, at most ``limit`` bytes; errors as ``open_inflater``."""
    if codec == NONE:
        if len(data) > limit:
            raise OutputLimitError(limit)
        return bytes(data)
    inflater = open_inflater(codec, data, limit=limit)
    chunks = []
    while chunk := inflater.read(_INPUT_STEP * 4):
        chunks.append(chunk)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class Deflater(Protocol):
    """Output as a stream of compressed data."""

    def write(self, data: Buffer) -> bytes:
        """What is ready of the compressed form, maybe nothing."""
        ...

    def finish(self) -> bytes:
        """The rest."""
        ...


class _CompressObject:
    """zlib's way: compress, then flush."""

    __slots__ = ("_encoder",)

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder

    def write(self, data: Buffer) -> bytes:
        output: bytes = self._encoder.compress(data)
        return output

    def finish(self) -> bytes:
        output: bytes = self._encoder.flush()
        return output


class _Lz4Deflater:
    __slots__ = ("_begun", "_encoder")

    def __init__(self, level: int | None) -> None:
        import lz4.frame

        self._begun = False
        self._encoder = lz4.frame.LZ4FrameCompressor(
            block_size=_LZ4_BLOCK_ID_64K,
            block_linked=False,
            compression_level=0 if level is None else level,
        )

    def write(self, data: Buffer) -> bytes:
        begin = b"" if self._begun else self._encoder.begin()
        self._begun = True
        output: bytes = begin + self._encoder.compress(data)
        return output

    def finish(self) -> bytes:
        begin = b"" if self._begun else self._encoder.begin()
        output: bytes = begin + self._encoder.flush()
        return output


class _XerialDeflater:
    __slots__ = ("_encode", "_pending")

    def __init__(self) -> None:
        import snappy

        self._encode: Callable[[Buffer], bytes] = snappy.compress
        self._pending = bytearray()

    def _blocks(self, *, all_of_it: bool) -> bytes:
        parts: list[bytes] = []
        pending = self._pending
        while len(pending) >= _XERIAL_BLOCK_SIZE or (all_of_it and pending):
            block = self._encode(bytes(pending[:_XERIAL_BLOCK_SIZE]))
            del pending[:_XERIAL_BLOCK_SIZE]
            parts.append(_INT32.pack(len(block)))
            parts.append(block)
        return b"".join(parts)

    def write(self, data: Buffer) -> bytes:
        self._pending += data
        return self._blocks(all_of_it=False)

    def finish(self) -> bytes:
        return self._blocks(all_of_it=True)


class _ZstdDeflater:
    """Flushes before it ends the frame, as Java's stream does: the last block is an empty one."""

    def __init__(self, encoder: Any, flush_block: int) -> None:
        self._encoder = encoder
        self._flush_block = flush_block

    def write(self, data: Buffer) -> bytes:
        return bytes(self._encoder.compress(data))

    def finish(self) -> bytes:
        return bytes(self._encoder.flush(self._flush_block) + self._encoder.flush())


def open_deflater(codec: int, level: int | None = None) -> Deflater:
    """A stream that compresses; ``level`` None (or gzip's -1) is the codec's default.

    Snappy's stream begins with ``xerial_header()``, which the caller writes. Raises ValueError for
    a codec that is none.
    """
    if codec == GZIP:
        import zlib

        # 31: a window of 32 KiB and gzip's header, without a time: equal input, equal output.
        encoder = zlib.compressobj(-1 if level is None else level, zlib.DEFLATED, 31)
        return _CompressObject(encoder)
    if codec == SNAPPY:
        return _XerialDeflater()
    if codec == LZ4:
        return _Lz4Deflater(level)
    if codec == ZSTD:
        import zstandard

        compressor = zstandard.ZstdCompressor(level=3 if level is None else level)
        return _ZstdDeflater(compressor.compressobj(), zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    raise ValueError(f"no such compression codec: {codec}")


def stream_header(codec: int) -> bytes:
    """What precedes a deflater's output: xerial's 16 bytes for snappy, else nothing."""
    return _XERIAL_HEADER.pack(_XERIAL_MAGIC, 1, 1) if codec == SNAPPY else b""


def compress(codec: int, data: Buffer, level: int | None = None) -> bytes:
    """``data`` as one compressed stream."""
    deflater = open_deflater(codec, level)
    return b"".join((stream_header(codec), deflater.write(data), deflater.finish()))


def _gzip_module() -> "ModuleType":
    """isal's zlib where it is installed (2.5 times as fast), else the standard library's."""
    try:
        from isal import isal_zlib
    except ImportError:
        import zlib

        return zlib
    module: ModuleType = isal_zlib
    return module
