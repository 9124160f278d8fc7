"""A file system whose n-th change fails, or is the last thing that the process does."""

import errno
from collections.abc import Sequence

from kbroker.common.files import DirectoryEntry, DiskSpace, File, FileLock, FileSystem, Stamp
from kbroker.common.parts import Buffer


class Killed(BaseException):
    """The process died here; whatever is called afterwards never happens."""


class FaultyFileSystem:
    """Counts calls that change something and lets one of them go wrong.

    ``mode``: "error" fails the call with EIO, nothing done; "full" with ENOSPC; "short" does half
    of a write, then fails with ENOSPC; "kill" ends the process before the call, "kill_mid" in the
    middle of a write, "kill_after" right after the call.
    """

    blocks = False

    def __init__(
        self, inner: FileSystem, *, fail_at: int = 0, mode: str = "error", count_reads: bool = False
    ) -> None:
        self.inner = inner
        self.renames_open_files = inner.renames_open_files
        self.calls = 0
        self.fail_at = fail_at
        self.mode = mode
        self.is_dead = False
        self.is_full = False  # every write fails after its first half, and nothing new is made

    def _check_alive(self) -> None:
        if self.is_dead:
            raise Killed

    def _is_due(self) -> bool:
        self._check_alive()
        self.calls += 1
        return self.calls == self.fail_at

    def _die(self) -> None:
        self.is_dead = True
        raise Killed

    def before(self) -> bool:
        """Before a call without parts; True when the process dies after it."""
        if self._is_due():
            if self.mode == "kill_after":
                return True
            if self.mode.startswith("kill"):
                self._die()
            raise self._error()
        return False

    def _error(self) -> OSError:
        return OSError(errno.ENOSPC if self.mode == "full" else errno.EIO, "injected")

    def write(self, file: File, data: Buffer, position: int) -> None:
        due = self._is_due()
        if self.is_full:
            file.write_at(bytes(data)[: len(data) // 2], position)
            raise OSError(errno.ENOSPC, "the disk is full")
        if due and self.mode in ("short", "kill_mid"):
            file.write_at(bytes(data)[: len(data) // 2], position)
            if self.mode == "kill_mid":
                self._die()
            raise OSError(errno.ENOSPC, "injected")
        if due and self.mode == "kill":
            self._die()
        if due and self.mode in ("error", "full"):
            raise self._error()
        file.write_at(data, position)
        if due:
            self._die()

    def _after(self, dies: bool) -> None:
        if dies:
            self._die()

    def open(self, path: str, *, create: bool = False) -> File:
        self._check_alive()
        if create and not self.inner.exists(path):
            if self.is_full:
                raise OSError(errno.ENOSPC, "the disk is full")
            dies = self.before()
            file = self.inner.open(path, create=True)
            self._after(dies)
        else:
            file = self.inner.open(path)
        return FaultyFile(self, file)

    def exists(self, path: str) -> bool:
        self._check_alive()
        return self.inner.exists(path)

    def size(self, path: str) -> int:
        self._check_alive()
        return self.inner.size(path)

    def stamp(self, path: str) -> Stamp:
        self._check_alive()
        return self.inner.stamp(path)

    def memory_id(self) -> str:
        return self.inner.memory_id()

    def read(self, path: str) -> bytes:
        self._check_alive()
        return self.inner.read(path)

    def read_stamped(self, path: str, limit: int) -> tuple[Stamp, bytes]:
        self._check_alive()
        return self.inner.read_stamped(path, limit)

    def names(self, path: str) -> set[str]:
        return {entry.name for entry in self.list(path)}

    def list(self, path: str) -> list[DirectoryEntry]:
        self._check_alive()
        return self.inner.list(path)

    def make_directory(self, path: str) -> None:
        if not self.inner.exists(path):
            dies = self.before()
            self.inner.make_directory(path)
            self._after(dies)

    def remove(self, path: str) -> None:
        self._must_exist(path)
        dies = self.before()
        self.inner.remove(path)
        self._after(dies)

    def _must_exist(self, path: str) -> None:
        """A call that finds nothing changes nothing, so it does not count."""
        self._check_alive()
        if not self.inner.exists(path):
            raise FileNotFoundError(errno.ENOENT, "no such file", path)

    def remove_tree(self, path: str) -> None:
        dies = self.before()
        self.inner.remove_tree(path)
        self._after(dies)

    def rename(self, source: str, target: str) -> None:
        self._must_exist(source)
        dies = self.before()
        self.inner.rename(source, target)
        self._after(dies)

    def sync_directory(self, path: str) -> None:
        dies = self.before()
        self.inner.sync_directory(path)
        self._after(dies)

    def sync_volume(self, path: str) -> bool:
        dies = self.before()
        done = self.inner.sync_volume(path)
        self._after(dies)
        return done

    def lock(self, path: str) -> FileLock:
        self._check_alive()
        return self.inner.lock(path)

    def disk_space(self, path: str) -> DiskSpace:
        return self.inner.disk_space(path)


class FaultyFile:
    """A file of a ``FaultyFileSystem``."""

    def __init__(self, files: FaultyFileSystem, inner: File) -> None:
        self._files = files
        self._inner = inner
        self.path = inner.path

    def write_at(self, data: Buffer, position: int) -> None:
        self._files.write(self._inner, data, position)

    def writev_at(self, parts: Sequence[Buffer], position: int) -> None:
        for part in parts:
            self.write_at(part, position)
            position += len(part)

    def read_at(self, size: int, position: int) -> bytes:
        self._files._check_alive()
        return self._inner.read_at(size, position)

    def read_into(self, buffer: bytearray | memoryview, position: int) -> int:
        self._files._check_alive()
        return self._inner.read_into(buffer, position)

    def truncate(self, size: int) -> None:
        if size == self._inner.size():
            return
        dies = self._files.before()
        self._inner.truncate(size)
        self._files._after(dies)

    def sync(self) -> None:
        dies = self._files.before()
        self._inner.sync()
        self._files._after(dies)

    def size(self) -> int:
        return self._inner.size()

    def fileno(self) -> int | None:
        return self._inner.fileno()

    def close(self) -> None:
        self._inner.close()
