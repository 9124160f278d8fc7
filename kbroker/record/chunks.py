"""Inflated data in chunks: what a walk is fed with."""

from typing import Final

from kbroker.protocol.errors import KafkaError
from kbroker.record.compression import Inflater

CHUNK_SIZE: Final = 1_152 * 1024
"""Inflated bytes that are held at a time: the records of most batches, a thread's work at once."""


class ChunkReader:
    """Inflated data in chunks of about CHUNK_SIZE; an error comes after what preceded it."""

    __slots__ = ("_error", "_inflater", "_ready", "is_at_end")

    def __init__(self, inflater: Inflater | None, ready: list[memoryview]) -> None:
        self._inflater = inflater
        self._ready = ready
        self._error: KafkaError | None = None
        self.is_at_end = False
        """The data has ended, soundly: ``next`` would give nothing more."""

    def next(self) -> bytes | memoryview:
        """The next chunk, b"" at the end."""
        if self._ready:
            return self._ready.pop()
        if self._error is not None:
            raise self._error
        if self._inflater is None:
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            while size < CHUNK_SIZE:
                part = self._inflater.read(CHUNK_SIZE - size)
                if not part:
                    self.is_at_end = True
                    break
                parts.append(part)
                size += len(part)
        except KafkaError as error:
            if not parts:
                raise
            self._error = error
        return parts[0] if len(parts) == 1 else b"".join(parts)


class SmallData:
    """Output that is small enough to be at hand, and the error that ended it, if any."""

    __slots__ = ("chunks", "error")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.error: KafkaError | None = None


def inflate_small(inflater: Inflater, size: int) -> SmallData | None:
    """The whole output when it is at most ``size`` bytes (up to an error), else None."""
    small = SmallData()
    left = size
    try:
        while chunk := inflater.read(left + 1):
            left -= len(chunk)
            if left < 0:
                return None
            small.chunks.append(chunk)
    except KafkaError as error:
        small.error = error
    return small
