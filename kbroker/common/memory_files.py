"""A ``FileSystem`` that leaves nothing behind (``--memory``, tests)."""

import errno
import os
from collections.abc import Sequence

from kbroker.common.files import (
    AlreadyLockedError,
    DirectoryEntry,
    DiskSpace,
    File,
    FileLock,
    Stamp,
)
from kbroker.common.parts import Buffer


class MemoryContent(bytearray):
    """The bytes of a file in memory, and how often they were changed."""

    changes = 0


class MemoryFile:
    """A file of a ``MemoryFileSystem``; handles on the same file share its bytes."""

    __slots__ = ("_data", "path")

    def __init__(self, path: str, data: MemoryContent) -> None:
        self.path = path
        self._data = data

    def write_at(self, data: Buffer, position: int) -> None:
        held = self._data
        held.changes += 1
        if position == len(held):
            held += data
            return
        if position > len(held):
            held += bytes(position - len(held))
        held[position : position + len(data)] = data

    def writev_at(self, parts: Sequence[Buffer], position: int) -> None:
        for part in parts:
            self.write_at(part, position)
            position += len(part)

    def read_at(self, size: int, position: int) -> bytes:
        with memoryview(self._data) as held:  # released at once: the file must stay resizable
            return bytes(held[position : position + size])

    def read_into(self, buffer: bytearray | memoryview, position: int) -> int:
        data = self.read_at(len(buffer), position)
        memoryview(buffer)[: len(data)] = data
        return len(data)

    def truncate(self, size: int) -> None:
        held = self._data
        held.changes += 1
        if size < len(held):
            del held[size:]
        else:
            held += bytes(size - len(held))

    def sync(self) -> None:
        """Nothing outlives the process, so nothing needs syncing."""

    def size(self) -> int:
        return len(self._data)

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        """A handle holds nothing that must be given back."""


class MemoryFileLock:
    """A lock among the users of one ``MemoryFileSystem``."""

    __slots__ = ("_locked", "_path")

    def __init__(self, locked: set[str], path: str) -> None:
        if path in locked:
            raise AlreadyLockedError(path)
        locked.add(path)
        self._locked = locked
        self._path = path

    def release(self) -> None:
        self._locked.discard(self._path)


class MemoryFileSystem:
    """Files in a dict: the same behaviour, nothing on a disk."""

    renames_open_files = True
    blocks = False

    def __init__(self) -> None:
        self._files: dict[str, MemoryContent] = {}
        # Directory -> names in it; a directory that was made is a key, however empty.
        self._directories: dict[str, set[str]] = {}
        self._changes: dict[str, int] = {}  # of the names in a directory
        self._locked: set[str] = set()

    def _names_of_parent(self, path: str) -> tuple[set[str], str]:
        """For a change of them."""
        parent, name = os.path.split(path)
        names = self._directories.get(parent)
        if names is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", parent)
        self._changes[parent] = self._changes.get(parent, 0) + 1
        return names, name

    def _data(self, path: str) -> MemoryContent:
        data = self._files.get(path)
        if data is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return data

    def open(self, path: str, *, create: bool = False) -> File:
        data = self._files.get(path)
        if data is None:
            if path in self._directories:
                raise IsADirectoryError(errno.EISDIR, "is a directory", path)
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            names, name = self._names_of_parent(path)
            names.add(name)
            data = self._files[path] = MemoryContent()
        return MemoryFile(path, data)

    def exists(self, path: str) -> bool:
        return path in self._files or path in self._directories

    def size(self, path: str) -> int:
        return len(self._data(path))

    def stamp(self, path: str) -> Stamp:
        if path in self._directories:
            return Stamp(0, self._changes.get(path, 0))
        data = self._data(path)
        return Stamp(len(data), data.changes)

    def memory_id(self) -> str:
        return "memory"

    def read(self, path: str) -> bytes:
        return bytes(self._data(path))

    def read_stamped(self, path: str, limit: int) -> tuple[Stamp, bytes]:
        return self.stamp(path), self.read(path)[:limit]

    def names(self, path: str) -> set[str]:
        return {entry.name for entry in self.list(path)}

    def list(self, path: str) -> list[DirectoryEntry]:
        names = self._directories.get(path)
        if names is None:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        entries = []
        for name in names:
            data = self._files.get(os.path.join(path, name))
            entries.append(
                DirectoryEntry(name, True, 0)
                if data is None
                else DirectoryEntry(name, False, len(data))
            )
        return entries

    def make_directory(self, path: str) -> None:
        if path in self._files:
            raise FileExistsError(errno.EEXIST, "is a file", path)
        if path in self._directories:
            return
        parent, name = os.path.split(path)
        if name:
            self.make_directory(parent)
            self._directories[parent].add(name)
        self._directories[path] = set()

    def remove(self, path: str) -> None:
        self._data(path)
        names, name = self._names_of_parent(path)
        del self._files[path]
        names.discard(name)

    def remove_tree(self, path: str) -> None:
        names = self._directories.get(path)
        if names is None:
            return
        for name in list(names):
            child = os.path.join(path, name)
            if child in self._directories:
                self.remove_tree(child)
            else:
                self.remove(child)
        del self._directories[path]
        parent, name = os.path.split(path)
        self._directories.get(parent, set()).discard(name)

    def rename(self, source: str, target: str) -> None:
        if source in self._directories:
            self._rename_directory(source, target)
            return
        data = self._data(source)
        names, name = self._names_of_parent(target)
        if target in self._directories:
            raise IsADirectoryError(errno.EISDIR, "is a directory", target)
        self.remove(source)
        self._files[target] = data
        names.add(name)

    def _rename_directory(self, source: str, target: str) -> None:
        if self._directories.get(target) or target in self._files:
            raise OSError(errno.ENOTEMPTY, "the target is not empty", target)
        self.make_directory(target)
        for name in list(self._directories[source]):
            self.rename(os.path.join(source, name), os.path.join(target, name))
        self.remove_tree(source)

    def sync_directory(self, path: str) -> None:
        """Nothing outlives the process, so nothing needs syncing."""

    def sync_volume(self, path: str) -> bool:
        return True

    def lock(self, path: str) -> FileLock:
        self.open(path, create=True)
        return MemoryFileLock(self._locked, path)

    def disk_space(self, path: str) -> DiskSpace:
        return DiskSpace(total=-1, usable=-1)
