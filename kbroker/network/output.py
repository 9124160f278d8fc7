"""Answers on their way out: parts in order, log slices read no earlier than they can be sent."""

import os
from struct import Struct

from kbroker.common.parts import Buffer, LogSlice, Part

_SIZE = Struct(">i")
_PREAD = getattr(os, "pread", None)
_BUFFERS = (bytes, memoryview, bytearray)
_JOINED_BELOW = 16_384


class ShortSliceError(Exception):
    """A log slice gave fewer bytes than the answer has announced; the stream can not go on."""


def _goes_by_file(part: LogSlice) -> bool:
    """Whether sendfile is worth its own system call."""
    return len(part) >= _JOINED_BELOW and part.file_range() is not None


class Output:
    """The bytes that a connection has still to hand to its transport."""

    __slots__ = ("_done", "_next", "_parts", "_slices", "chunk_bytes", "size")

    def __init__(self, chunk_bytes: int) -> None:
        self.chunk_bytes = chunk_bytes
        self.size = 0
        """Bytes in all parts together, those of unread slices included."""
        self._parts: list[Part] = []
        self._next = 0  # parts before it have been taken
        self._slices = 0
        self._done = 0  # bytes of the next part, a slice, that have been taken

    def add_answer(self, parts: list[Part]) -> None:
        """Append the frame that an answer makes: its size, then its parts."""
        size = 0
        for part in parts:
            size += len(part)
            if type(part) is not bytes and not isinstance(part, _BUFFERS):
                self._slices += 1
        self._parts.append(_SIZE.pack(size))
        self._parts += parts
        self.size += size + 4

    def take(self, *, stop_at_files: bool = False) -> list[Buffer]:
        """The next buffers, ``chunk_bytes`` of them or one slice more; small ones joined to one.

        Empty when there is nothing to take. Slices are read here, large ones piece by piece. With
        ``stop_at_files`` a slice that lies in a file ends the list, unless it is small: it is for
        ``first_file_range``. Raises ShortSliceError, OSError.
        """
        taken: list[Buffer]
        if not self._slices:
            taken = self._parts[self._next :] if self._next else self._parts  # type: ignore[assignment]
            self._parts = []
            size, self.size = self.size, 0
            self._next = 0
        else:
            before = self.size
            taken = self._take_chunk(stop_at_files=stop_at_files)
            size = before - self.size
        if size < _JOINED_BELOW and len(taken) > 1:
            return [b"".join(taken)]
        return taken

    @property
    def file_is_next(self) -> bool:
        """Whether ``take`` stopped at a file."""
        if not self._slices:
            return False
        part = self._parts[self._next]
        return not isinstance(part, _BUFFERS) and _goes_by_file(part)

    def first_file_range(self) -> tuple[int, int, int] | None:
        """(descriptor, position, size) of what is left of the next part, when it is in a file."""
        if not self._slices:
            return None
        part = self._parts[self._next]
        if isinstance(part, _BUFFERS):
            return None
        file_range = part.file_range()
        if file_range is None:
            return None
        descriptor, position, size = file_range
        if size != len(part):
            raise ShortSliceError(f"a slice of {len(part)} bytes has a file range of {size}")
        return descriptor, position + self._done, size - self._done

    def sent_from_file(self, size: int) -> None:
        """``size`` bytes of the next part, a slice, have been sent by other means."""
        self.size -= size
        self._done += size
        if self._done == len(self._parts[self._next]):
            self._slice_taken()

    def clear(self) -> None:
        """Forget everything; slices release their files."""
        self._parts = []
        self._next = self._slices = self._done = self.size = 0

    def _take_chunk(self, *, stop_at_files: bool) -> list[Buffer]:
        taken: list[Buffer] = []
        left = self.chunk_bytes
        while left > 0 and self._next < len(self._parts):
            part = self._parts[self._next]
            if isinstance(part, _BUFFERS):
                self._next += 1
                pieces: list[Buffer] = [part]
            elif stop_at_files and _goes_by_file(part):
                break
            else:
                pieces = self._read(part)
            taken += pieces
            size = sum(map(len, pieces))
            left -= size
            self.size -= size
        if self._next == len(self._parts):
            self._parts = []
            self._next = 0
        return taken

    def _slice_taken(self) -> None:
        self._parts[self._next] = b""  # what it holds of its file may go
        self._next += 1
        self._slices -= 1
        self._done = 0

    def _read(self, part: LogSlice) -> list[Buffer]:
        """Bytes of the next part, a slice: all of them, or a chunk where there are more."""
        size = len(part)
        if self._done or (size > self.chunk_bytes and _PREAD is not None):
            file_range = self.first_file_range()
            if file_range is not None:
                return [self._read_piece(*file_range)]
            if self._done:
                raise ShortSliceError("a slice that was in a file is no longer")
        pieces: list[Buffer] = list(part.parts())
        if (given := sum(map(len, pieces))) != size:
            raise ShortSliceError(f"a slice of {size} bytes gave {given}")
        self._slice_taken()
        return pieces

    def _read_piece(self, descriptor: int, position: int, size: int) -> bytes:
        assert _PREAD is not None
        wanted = min(size, self.chunk_bytes)
        data: bytes = _PREAD(descriptor, wanted, position)
        if len(data) != wanted:
            raise ShortSliceError(f"{len(data)} bytes at {position} instead of {wanted}")
        self._done += wanted
        if wanted == size:
            self._slice_taken()
        return data
