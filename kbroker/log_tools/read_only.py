"""Looking at other people's files: opened for reading only, locked against nobody but writers."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from kbroker.common.files import AlreadyLockedError, File, OsFile

CHUNK_SIZE = 4 * 1024 * 1024
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def opened(path: str) -> Iterator[File]:
    """The file, for reading; a read-only disk will do. OSError."""
    file = OsFile(path, os.open(path, _READ_FLAGS))
    try:
        yield file
    finally:
        file.close()


def read_small(path: str, limit: int = 64 * 1024 * 1024) -> bytes:
    """A whole file that is meant to be small. OSError, also for one above ``limit`` bytes."""
    with opened(path) as file:
        size = file.size()
        if size > limit:
            raise OSError(errno.EFBIG, f"{size} bytes are more than such a file can have", path)
        return file.read_at(size, 0)


class Window:
    """A view that moves over a file: one read a chunk, one buffer for all of them.

    What ``view`` gives is valid until its next call.
    """

    __slots__ = ("_buffer", "_end", "_file", "_filled", "_position")

    def __init__(self, file: File, end: int) -> None:
        self._file = file
        self._end = end
        self._buffer = memoryview(bytearray(min(CHUNK_SIZE, max(end, 1))))
        self._position = 0
        self._filled = 0

    def view(self, position: int, size: int) -> memoryview:
        """``size`` bytes from ``position`` on; fewer only where the file ends."""
        at = position - self._position
        if at < 0 or at + size > self._filled:
            wanted = min(max(size, CHUNK_SIZE), self._end - position)
            if wanted > len(self._buffer):
                self._buffer = memoryview(bytearray(wanted))
            self._filled = self._file.read_into(self._buffer[: max(wanted, 0)], position)
            self._position = position
            at = 0
        return self._buffer[at : min(at + size, self._filled)]


@contextmanager
def held_for_reading(directory: str) -> Iterator[None]:
    """Keep brokers out of a data directory meanwhile, without writing to it.

    AlreadyLockedError when a broker, kbroker or Apache Kafka, has it in use. A directory without a
    lock file was never in use, and where the system has no such locks nothing can be told.
    """
    try:
        descriptor = os.open(os.path.join(directory, ".lock"), _READ_FLAGS)
    except FileNotFoundError:
        yield
        return
    try:
        _lock_shared(descriptor, directory)
        yield
    finally:
        os.close(descriptor)


def _lock_shared(descriptor: int, directory: str) -> None:
    """Both kinds of locks, as ``OsFileLock``: kbroker holds both, Java holds fcntl's."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.lockf(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise AlreadyLockedError(directory) from error
        raise
