"""A file system that refuses to rename or remove a file somebody has open, as Windows does."""

import errno
from collections import Counter
from collections.abc import Sequence

from kbroker.common.files import File
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.parts import Buffer


class ClosedFilesOnly(MemoryFileSystem):
    """Handles count until they are closed; nobody closes them by forgetting them."""

    renames_open_files = False

    def __init__(self) -> None:
        super().__init__()
        self.open_handles: Counter[str] = Counter()

    def open(self, path: str, *, create: bool = False) -> File:
        return CountedFile(self, super().open(path, create=create))

    def _must_be_closed(self, path: str) -> None:
        below = path + "/"
        for opened, count in self.open_handles.items():
            if count and (opened == path or opened.startswith(below)):
                raise PermissionError(errno.EACCES, "the file is open", opened)

    def remove(self, path: str) -> None:
        self._must_be_closed(path)
        super().remove(path)

    def remove_tree(self, path: str) -> None:
        self._must_be_closed(path)
        super().remove_tree(path)

    def rename(self, source: str, target: str) -> None:
        self._must_be_closed(source)
        self._must_be_closed(target)
        super().rename(source, target)


class CountedFile:
    """A handle of a ``ClosedFilesOnly``; of no use once it is closed."""

    def __init__(self, files: ClosedFilesOnly, inner: File) -> None:
        self._files = files
        self._inner = inner
        self._is_open = True
        self.path = inner.path
        files.open_handles[self.path] += 1

    def _file(self) -> File:
        if not self._is_open:
            raise OSError(errno.EBADF, "the file is closed", self.path)
        return self._inner

    def write_at(self, data: Buffer, position: int) -> None:
        self._file().write_at(data, position)

    def writev_at(self, parts: Sequence[Buffer], position: int) -> None:
        self._file().writev_at(parts, position)

    def read_at(self, size: int, position: int) -> bytes:
        return self._file().read_at(size, position)

    def read_into(self, buffer: bytearray | memoryview, position: int) -> int:
        return self._file().read_into(buffer, position)

    def truncate(self, size: int) -> None:
        self._file().truncate(size)

    def sync(self) -> None:
        """As ``OsFile``: closed while the sync waited means that it is being removed."""

    def size(self) -> int:
        return self._file().size()

    def fileno(self) -> int | None:
        return None

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._files.open_handles[self.path] -= 1
