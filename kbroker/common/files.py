"""Files: everything the log does to a disk goes through a ``FileSystem``.

``OsFileSystem`` is the disk, ``memory_files`` behaves alike and leaves nothing behind. Both can be
wrapped, which is how the fault tests fail the n-th call.

Writes are positional: a writer says where its bytes go and keeps count of the size itself, so a
write that failed half-way has moved nothing and the next one may simply overwrite it. What differs
between operating systems is chosen once, when this module is imported.
"""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import Protocol

from kbroker.common.named_tuple import NamedTuple
from kbroker.common.parts import Buffer

_MAX_PARTS = 1024  # IOV_MAX of Linux and macOS
_OPEN_FLAGS = os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_READ_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class AlreadyLockedError(Exception):
    """Another process, or another broker of this process, holds the lock."""


class DirectoryEntry(NamedTuple):
    """One name in a directory; ``size`` is in bytes, 0 for a directory."""

    name: str
    is_directory: bool
    size: int
    modified_ms: int | None = None
    """When a file was last written to; None where nobody keeps that, and for a directory."""


class Stamp(NamedTuple):
    """What changes with every change of a file; of a directory, with every change of its names."""

    size: int
    """Bytes; 0 for a directory."""
    modified_ns: int


class DiskSpace(NamedTuple):
    """Bytes of the volume that holds a path."""

    total: int
    usable: int


class File(Protocol):
    """An open file. Every call may raise OSError. Closed at the latest when nobody refers to it."""

    path: str

    def write_at(self, data: Buffer, position: int) -> None:
        """Write all of ``data`` at ``position``; after an error any prefix may be there."""
        ...

    def writev_at(self, parts: Sequence[Buffer], position: int) -> None:
        """Write the parts one after the other, in one call where the system has it."""
        ...

    def read_at(self, size: int, position: int) -> bytes:
        """Up to ``size`` bytes; fewer only where the file ends."""
        ...

    def read_into(self, buffer: bytearray | memoryview, position: int) -> int:
        """Fill ``buffer``; returns the bytes read, fewer only where the file ends."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file, or extend it with zeros."""
        ...

    def sync(self) -> None:
        """Return when the file's bytes are on the device (fdatasync)."""
        ...

    def size(self) -> int:
        """Bytes in the file now."""
        ...

    def fileno(self) -> int | None:
        """The descriptor for sendfile; None where there is none."""
        ...

    def close(self) -> None:
        """Close now, whoever still refers to it; a second call does nothing."""
        ...


class FileLock(Protocol):
    """A lock that is held until released or until the process ends."""

    def release(self) -> None: ...


class FileSystem(Protocol):
    """What the log needs of a disk. Paths are strings; calls raise OSError as ``os`` does."""

    renames_open_files: bool
    """False where a file must be closed before it is renamed or removed (Windows)."""
    blocks: bool
    """Calls may wait for a device, so long ones belong into a thread."""

    def open(self, path: str, *, create: bool = False) -> File:
        """Open for reading and writing; ``create`` makes the file when it is missing."""
        ...

    def exists(self, path: str) -> bool: ...

    def size(self, path: str) -> int:
        """Bytes of the file; FileNotFoundError when there is none."""
        ...

    def stamp(self, path: str) -> Stamp:
        """Of a file or a directory; FileNotFoundError when there is none.

        The clock behind it may tick slowly: two changes within 20 ms may carry the same time.
        """
        ...

    def memory_id(self) -> str:
        """The same for as long as written data that was not synced is certain to be there: until
        the machine starts anew. Empty where nobody knows."""
        ...

    def read(self, path: str) -> bytes:
        """A whole small file."""
        ...

    def read_stamped(self, path: str, limit: int) -> tuple[Stamp, bytes]:
        """A file's stamp and what it begins with, up to ``limit`` bytes, read at one moment."""
        ...

    def names(self, path: str) -> set[str]:
        """The names in a directory: cheaper than ``list``."""
        ...

    def list(self, path: str) -> list[DirectoryEntry]:
        """What is in a directory, in no particular order."""
        ...

    def make_directory(self, path: str) -> None:
        """Make the directory and its parents; no error when it is there."""
        ...

    def remove(self, path: str) -> None: ...

    def remove_tree(self, path: str) -> None:
        """Remove a directory and all below it; no error when it is not there."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Atomic; a file at ``target`` is replaced."""
        ...

    def sync_directory(self, path: str) -> None:
        """Return when the names in the directory are on the device."""
        ...

    def sync_volume(self, path: str) -> bool:
        """Return when all that was written to the volume of ``path``, names included, is on the
        device. False, with nothing done, where the system cannot say whether that went well."""
        ...

    def lock(self, path: str) -> FileLock:
        """Take the lock of this file, making the file. AlreadyLockedError when it is taken."""
        ...

    def disk_space(self, path: str) -> DiskSpace: ...


def write_atomically(files: FileSystem, path: str, data: bytes, *, sync: bool = True) -> None:
    """Replace a small file: at any time, also after a crash, it is the old one or the new one.

    Without ``sync`` that holds for the death of the process, not of the machine: right for a file
    that can be rebuilt. A leftover ``.tmp`` of an earlier crash is overwritten.
    """
    temporary = path + ".tmp"
    file = files.open(temporary, create=True)
    try:
        file.truncate(0)
        file.write_at(data, 0)
        if sync:
            file.sync()
    finally:
        file.close()
    files.rename(temporary, path)
    if sync:
        files.sync_directory(os.path.dirname(path))


def remove_if_exists(files: FileSystem, path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        files.remove(path)


# What differs between operating systems. The fallbacks move the descriptor's position, so they
# need one user at a time: the event loop is that user (sync, the only call made from worker
# threads, moves nothing).


def _seek_and_write(descriptor: int, data: Buffer, position: int) -> int:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.write(descriptor, data)


def _seek_and_read(descriptor: int, size: int, position: int) -> bytes:
    os.lseek(descriptor, position, os.SEEK_SET)
    return os.read(descriptor, size)


_write_some: Callable[[int, Buffer, int], int] = getattr(os, "pwrite", _seek_and_write)
_read_some: Callable[[int, int, int], bytes] = getattr(os, "pread", _seek_and_read)
_writev_some: Callable[[int, Sequence[Buffer], int], int] | None = getattr(os, "pwritev", None)
_readv_some: Callable[[int, Sequence[bytearray | memoryview], int], int] | None = getattr(
    os, "preadv", None
)
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class OsFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor", "path")

    def __init__(self, path: str, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def write_at(self, data: Buffer, position: int) -> None:
        written = _write_some(self._descriptor, data, position)
        if written != len(data):
            self._write_rest(memoryview(data)[written:], position + written)

    def _write_rest(self, data: memoryview, position: int) -> None:
        """A short write: the disk is filling up or a signal came; the next call tells which."""
        while data:
            written = _write_some(self._descriptor, data, position)
            if written == 0:
                raise OSError(errno.EIO, "the file takes no more bytes", self.path)
            data = data[written:]
            position += written

    def writev_at(self, parts: Sequence[Buffer], position: int) -> None:
        for start in range(0, len(parts), _MAX_PARTS):
            group = parts[start : start + _MAX_PARTS]
            written = _writev_some(self._descriptor, group, position) if _writev_some else 0
            for part in group:
                size = len(part)
                if written < size:
                    self._write_rest(memoryview(part)[written:], position + written)
                written = max(0, written - size)
                position += size

    def read_at(self, size: int, position: int) -> bytes:
        data = _read_some(self._descriptor, size, position)
        if len(data) == size or not data:
            return data
        pieces = [data]
        have = len(data)
        while have < size:
            data = _read_some(self._descriptor, size - have, position + have)
            if not data:
                break
            pieces.append(data)
            have += len(data)
        return b"".join(pieces)

    def read_into(self, buffer: bytearray | memoryview, position: int) -> int:
        view = memoryview(buffer)
        have = 0
        while have < len(view):
            if _readv_some is not None:
                count = _readv_some(self._descriptor, [view[have:]], position + have)
            else:
                data = _read_some(self._descriptor, len(view) - have, position + have)
                count = len(data)
                view[have : have + count] = data
            if count == 0:
                break
            have += count
        return have

    def truncate(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        if self._descriptor >= 0:  # else it was closed while the sync waited: it is being removed
            _sync_data(self._descriptor)

    def size(self) -> int:
        return os.fstat(self._descriptor).st_size

    def fileno(self) -> int | None:
        return self._descriptor if self._descriptor >= 0 else None

    def close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        # Log slices on their way to a socket share the file: it closes with the last of them.
        with contextlib.suppress(OSError):
            self.close()


class OsFileLock:
    """flock keeps other brokers of any process out; the POSIX lock keeps Apache Kafka out.

    Java locks with fcntl, which flock does not see; fcntl does not see a second user in the same
    process, which flock does.
    """

    __slots__ = ("_descriptor",)

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, _OPEN_FLAGS | os.O_CREAT, 0o644)
        try:
            _lock_descriptor(self._descriptor)
        except OSError as error:
            os.close(self._descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise AlreadyLockedError(path) from error
            raise

    def release(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)  # which releases both locks


def _choose_lock() -> Callable[[int], None]:
    try:
        import fcntl
    except ImportError:
        return _lock_windows

    def lock_posix(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    return lock_posix


def _lock_windows(descriptor: int) -> None:
    try:
        import msvcrt
    except ImportError:
        return  # neither family of locks: two brokers on one directory are not noticed there
    msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]


_lock_descriptor = _choose_lock()


def _file_entry(entry: "os.DirEntry[str]") -> DirectoryEntry:
    found = entry.stat()
    return DirectoryEntry(entry.name, False, found.st_size, found.st_mtime_ns // 1_000_000)


class OsFileSystem:
    """The disk."""

    renames_open_files = os.name != "nt"
    blocks = True

    def open(self, path: str, *, create: bool = False) -> File:
        flags = _OPEN_FLAGS | os.O_CREAT if create else _OPEN_FLAGS
        return OsFile(path, os.open(path, flags, 0o644))

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def stamp(self, path: str) -> Stamp:
        found = os.stat(path)
        is_file = found.st_mode & 0o170000 == 0o100000  # stat.S_ISREG
        return Stamp(found.st_size if is_file else 0, found.st_mtime_ns)

    def memory_id(self) -> str:
        try:
            with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
                return file.read().strip()
        except OSError:  # not Linux
            return ""

    def read(self, path: str) -> bytes:
        file = OsFile(path, os.open(path, _READ_FLAGS))
        try:
            return file.read_at(file.size(), 0)
        finally:
            file.close()

    def read_stamped(self, path: str, limit: int) -> tuple[Stamp, bytes]:
        # Ten thousand times at a start after a crash: no object for the file.
        descriptor = os.open(path, _READ_FLAGS)
        try:
            found = os.fstat(descriptor)
            data = _read_some(descriptor, min(found.st_size, limit), 0)
        finally:
            os.close(descriptor)
        return Stamp(found.st_size, found.st_mtime_ns), data

    def names(self, path: str) -> set[str]:
        return set(os.listdir(path))

    def list(self, path: str) -> list[DirectoryEntry]:
        with os.scandir(path) as entries:
            return [
                DirectoryEntry(entry.name, True, 0) if entry.is_dir() else _file_entry(entry)
                for entry in entries
            ]

    def make_directory(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def remove_tree(self, path: str) -> None:
        import shutil  # 5 ms that a start does not need

        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            if os.path.lexists(path):  # something below went away meanwhile: not all is removed
                raise

    def rename(self, source: str, target: str) -> None:
        os.replace(source, target)

    def sync_directory(self, path: str) -> None:
        if os.name == "nt":
            return  # directories cannot be opened there; the file system journals names
        descriptor = os.open(path or ".", os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sync_volume(self, path: str) -> bool:
        if not sys.platform.startswith("linux"):
            return False
        import ctypes  # which only a large broker's end needs

        try:
            syncfs = ctypes.CDLL(None, use_errno=True).syncfs
        except (OSError, AttributeError):  # another C library
            return False
        descriptor = os.open(path, os.O_RDONLY)
        try:
            if syncfs(descriptor) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), path)
        finally:
            os.close(descriptor)
        return True

    def lock(self, path: str) -> FileLock:
        return OsFileLock(path)

    def disk_space(self, path: str) -> DiskSpace:
        import shutil

        usage = shutil.disk_usage(path)
        return DiskSpace(usage.total, usage.free)
