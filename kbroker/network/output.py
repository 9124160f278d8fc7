"""Answers on their way out: parts in order, log slices read no earlier than they can be sent."""

import os
from struct import Struct

from kbroker.common.parts import Buffer, LogSlice, Part

_SIZE = Struct(">i")
_PREAD = getattr(os, "pread", None)
_BUFFERS = (bytes, memoryview, bytearray)
_JOINED_BELOW = 16_384


FileRange = tuple[int, int, int]
"""Descriptor, position, size."""


class ShortSliceError(Exception):
    """A log slice gave fewer bytes than the answer has announced; the stream can not go on."""


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

    def add_frame(self, frame: bytes) -> None:
        """The same for a frame that is whole, its size in front."""
        self._parts.append(frame)
        self.size += len(frame)

    def take(self) -> list[Buffer]:
        """The next buffers, ``chunk_bytes`` of them or one slice more; small ones joined to one.

        Empty when there is nothing to take. Slices are read here, large ones piece by piece.
        Raises ShortSliceError, OSError.
        """
        taken: list[Buffer]
        if not self._slices:
            taken = self._parts[self._next :] if self._next else self._parts  # type: ignore[assignment]
            self._parts = []
            size, self.size = self.size, 0
            self._next = 0
        else:
            taken, size, _ = self._take_chunk(stop_at_files=False)
        if size < _JOINED_BELOW and len(taken) > 1:
            return [b"".join(taken)]
        return taken

    def take_to_file(self) -> tuple[list[Buffer], FileRange | None]:
        """The same up to a slice that lies in a file and is not small, and what is left of that.

        It stays the next until ``sent_from_file`` has told of all of it.
        """
        if not self._slices:
            return self.take(), None
        taken, size, found = self._take_chunk(stop_at_files=True)
        if size < _JOINED_BELOW and len(taken) > 1:
            taken = [b"".join(taken)]
        return taken, found

    def _rest_in_file(self, part: LogSlice) -> FileRange | None:
        """Where what is left of the next part, a slice, lies."""
        file_range = part.file_range()
        if file_range is None:
            return None
        descriptor, position, size = file_range
        if size != len(part):
            raise ShortSliceError(f"a slice of {len(part)} bytes has a file range of {size}")
        done = self._done
        return (descriptor, position + done, size - done) if done else file_range

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

    def _take_chunk(self, *, stop_at_files: bool) -> tuple[list[Buffer], int, FileRange | None]:
        """(buffers, their size, the file range that they stop at)"""
        taken: list[Buffer] = []
        taken_size = 0
        found: FileRange | None = None
        parts = self._parts
        while taken_size < self.chunk_bytes and self._next < len(parts):
            part = parts[self._next]
            if isinstance(part, _BUFFERS):
                self._next += 1
                taken.append(part)
                size = len(part)
            else:
                if stop_at_files and len(part) >= _JOINED_BELOW:
                    found = self._rest_in_file(part)
                    if found is not None:
                        break
                pieces = self._read(part)
                taken += pieces
                size = sum(map(len, pieces))
            taken_size += size
            self.size -= size
        if self._next == len(parts):
            self._parts = []
            self._next = 0
        return taken, taken_size, found

    def _slice_taken(self) -> None:
        self._parts[self._next] = b""  # what it holds of its file may go
        self._next += 1
        self._slices -= 1
        self._done = 0

    def _read(self, part: LogSlice) -> list[Buffer]:
        """Bytes of the next part, a slice: all of them, or a chunk where there are more."""
        size = len(part)
        if self._done or (size > self.chunk_bytes and _PREAD is not None):
            file_range = self._rest_in_file(part)
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
