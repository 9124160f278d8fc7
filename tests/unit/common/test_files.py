"""Both file systems, and the disk with the newer system calls hidden, behave alike."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import kbroker.common.files as files_module
from kbroker.common.files import (
    AlreadyLockedError,
    DirectoryEntry,
    FileSystem,
    OsFileSystem,
    remove_if_exists,
    write_atomically,
)
from kbroker.common.memory_files import MemoryFileSystem

HIDDEN = ("pwrite", "pread", "pwritev", "preadv", "writev", "fdatasync", "posix_fallocate")


def import_with_hidden_calls(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module as a system without these calls would import it."""
    for name in HIDDEN:
        monkeypatch.delattr(os, name, raising=False)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    spec = importlib.util.spec_from_file_location("files_without_calls", files_module.__file__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["os", "memory", "os_with_hidden_calls"])
def files(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> FileSystem:
    if request.param == "os":
        return OsFileSystem()
    if request.param == "memory":
        return MemoryFileSystem()
    system: FileSystem = import_with_hidden_calls(monkeypatch).OsFileSystem()
    return system


@pytest.fixture
def root(files: FileSystem, tmp_path: Path) -> str:
    path = str(tmp_path / "data")
    files.make_directory(path)
    return path


@pytest.fixture
def path(root: str) -> str:
    return os.path.join(root, "file")


def test_writes_and_reads_at_positions(files: FileSystem, path: str) -> None:
    file = files.open(path, create=True)
    file.write_at(b"hello world", 0)
    file.write_at(memoryview(b"WORLD!"), 6)
    assert file.read_at(100, 0) == b"hello WORLD!"
    assert file.read_at(5, 6) == b"WORLD"
    assert file.read_at(5, 50) == b""
    buffer = bytearray(20)
    assert file.read_into(buffer, 6) == 6
    assert buffer[:7] == b"WORLD!\0"
    assert file.size() == files.size(path) == 12
    file.sync()
    file.close()
    file.close()
    assert files.read(path) == b"hello WORLD!"


def test_a_gap_is_zeros_and_truncate_goes_both_ways(files: FileSystem, path: str) -> None:
    file = files.open(path, create=True)
    file.write_at(b"x", 3)
    assert files.read(path) == b"\0\0\0x"
    file.truncate(6)
    assert files.read(path) == b"\0\0\0x\0\0"
    file.truncate(1)
    assert files.read(path) == b"\0"
    file.close()


def test_gathers_more_parts_than_one_call_takes(files: FileSystem, path: str) -> None:
    file = files.open(path, create=True)
    parts = [bytes([number % 251]) * (number % 5) for number in range(2500)]
    file.write_at(b"head", 0)
    file.writev_at(parts, 4)
    assert files.read(path) == b"head" + b"".join(parts)
    file.close()


def test_open_needs_the_file_unless_told_to_create(files: FileSystem, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.open(path)
    with pytest.raises(FileNotFoundError):
        files.size(path)
    with pytest.raises(FileNotFoundError):
        files.open(os.path.join(path, "below"), create=True)
    files.open(path, create=True).close()
    assert files.exists(path)


def test_lists_names_kinds_and_sizes(files: FileSystem, root: str) -> None:
    file = files.open(os.path.join(root, "a"), create=True)
    file.write_at(b"abc", 0)
    file.close()
    files.make_directory(os.path.join(root, "d", "e"))
    files.make_directory(os.path.join(root, "d"))
    listed = sorted(files.list(root))
    assert [each._replace(modified_ms=None) for each in listed] == [
        DirectoryEntry("a", False, 3),
        DirectoryEntry("d", True, 0),
    ]
    assert listed[1].modified_ms is None
    with pytest.raises(FileNotFoundError):
        files.list(os.path.join(root, "none"))


def test_a_listing_tells_when_files_on_disk_were_written_to(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    os.utime(tmp_path / "a", ns=(0, 1_234_567_890_123_456_789))
    assert OsFileSystem().list(str(tmp_path)) == [DirectoryEntry("a", False, 3, 1_234_567_890_123)]


def test_rename_replaces_a_file_and_moves_a_directory(files: FileSystem, root: str) -> None:
    first, second = os.path.join(root, "1"), os.path.join(root, "2")
    for name, text in ((first, b"one"), (second, b"second")):
        file = files.open(name, create=True)
        file.write_at(text, 0)
        file.close()
    files.rename(first, second)
    assert not files.exists(first)
    assert files.read(second) == b"one"
    directory, moved = os.path.join(root, "d"), os.path.join(root, "m")
    files.make_directory(os.path.join(directory, "sub"))
    files.rename(second, os.path.join(directory, "sub", "f"))
    files.rename(directory, moved)
    assert not files.exists(directory)
    assert files.read(os.path.join(moved, "sub", "f")) == b"one"
    with pytest.raises(FileNotFoundError):
        files.rename(first, second)


def test_remove_and_remove_tree(files: FileSystem, root: str) -> None:
    directory = os.path.join(root, "d")
    files.make_directory(os.path.join(directory, "sub"))
    write_atomically(files, os.path.join(directory, "sub", "f"), b"x")
    files.remove_tree(directory)
    files.remove_tree(directory)
    assert files.list(root) == []
    with pytest.raises(FileNotFoundError):
        files.remove(directory)
    remove_if_exists(files, directory)


def test_an_atomic_write_replaces_and_overwrites_an_old_temporary(
    files: FileSystem, path: str
) -> None:
    leftover = files.open(path + ".tmp", create=True)
    leftover.write_at(b"something long from before a crash", 0)
    leftover.close()
    write_atomically(files, path, b"one")
    write_atomically(files, path, b"two", sync=False)
    assert files.read(path) == b"two"
    assert not files.exists(path + ".tmp")


def test_a_removed_file_stays_readable_through_its_handle(files: FileSystem, path: str) -> None:
    file = files.open(path, create=True)
    file.write_at(b"still here", 0)
    files.remove(path)
    assert not files.exists(path)
    assert file.read_at(10, 0) == b"still here"
    file.close()


def test_disk_space_and_directory_sync(files: FileSystem, root: str) -> None:
    files.sync_directory(root)
    space = files.disk_space(root)
    assert space.usable <= space.total


@pytest.mark.parametrize("make", [OsFileSystem, MemoryFileSystem])
def test_a_lock_is_held_once(make: type[Any], tmp_path: Path) -> None:
    files: FileSystem = make()
    files.make_directory(str(tmp_path))
    path = str(tmp_path / ".lock")
    lock = files.lock(path)
    with pytest.raises(AlreadyLockedError):
        files.lock(path)
    lock.release()
    lock.release()
    files.lock(path).release()


class ShortCalls:
    """Stands for a system that takes and gives at most three bytes a call."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        write, read = os.pwrite, os.pread
        monkeypatch.setattr(
            files_module, "_write_some", lambda fd, data, at: write(fd, data[:3], at)
        )
        monkeypatch.setattr(
            files_module, "_read_some", lambda fd, size, at: read(fd, min(size, 3), at)
        )
        monkeypatch.setattr(
            files_module,
            "_writev_some",
            lambda fd, parts, at: os.pwritev(fd, [b"".join(parts)[:3]], at),
        )
        monkeypatch.setattr(
            files_module, "_readv_some", lambda fd, views, at: os.preadv(fd, [views[0][:3]], at)
        )


@pytest.fixture
def short_calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ShortCalls(monkeypatch)
    yield


@pytest.mark.skipif(not hasattr(os, "pwritev"), reason="the system has no positional writes")
@pytest.mark.usefixtures("short_calls")
def test_short_writes_and_reads_are_continued(tmp_path: Path) -> None:
    files = OsFileSystem()
    file = files.open(str(tmp_path / "f"), create=True)
    file.write_at(b"0123456789", 0)
    file.writev_at([b"ab", b"", b"cdefg", b"h"], 10)
    assert file.read_at(100, 0) == b"0123456789abcdefgh"
    buffer = bytearray(7)
    assert file.read_into(buffer, 2) == 7
    assert buffer == b"2345678"
    file.close()


def test_a_write_that_makes_no_progress_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files_module, "_write_some", lambda fd, data, at: 0)
    file = OsFileSystem().open(str(tmp_path / "f"), create=True)
    with pytest.raises(OSError, match="takes no more bytes"):
        file.write_at(b"x", 0)
    file.close()


def test_the_descriptor_closes_with_the_last_reference(tmp_path: Path) -> None:
    file = OsFileSystem().open(str(tmp_path / "f"), create=True)
    descriptor = file.fileno()
    assert descriptor is not None
    os.fstat(descriptor)
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_a_volume_is_synced_or_it_is_said_that_it_was_not(tmp_path: Path) -> None:
    files = OsFileSystem()
    write_atomically(files, str(tmp_path / "file"), b"data", sync=False)
    assert files.sync_volume(str(tmp_path)) is sys.platform.startswith("linux")
    if sys.platform.startswith("linux"):
        with pytest.raises(FileNotFoundError):
            files.sync_volume(str(tmp_path / "missing"))
    assert MemoryFileSystem().sync_volume("/anything")


@pytest.mark.parametrize("on_disk", [False, True])
def test_stamps_change_with_every_change(on_disk: bool, tmp_path: Path) -> None:
    files = OsFileSystem() if on_disk else MemoryFileSystem()
    folder = str(tmp_path) if on_disk else "/data"
    path = os.path.join(folder, "file")

    def age(path: str) -> None:
        """Some file systems' clocks tick slowly."""
        if on_disk:
            os.utime(path, ns=(1, 1))

    files.make_directory(folder)
    file = files.open(path, create=True)
    file.write_at(b"abc", 0)
    age(path)
    stamp = files.stamp(path)
    assert stamp.size == 3
    assert files.stamp(path) == stamp
    file.write_at(b"xyz", 0)
    file.close()
    changed = files.stamp(path)
    assert changed.size == 3 and changed != stamp
    with pytest.raises(FileNotFoundError):
        files.stamp(os.path.join(folder, "missing"))
    age(folder)
    assert files.read_stamped(path, 100) == (changed, files.read(path))
    assert files.read_stamped(path, 2) == (changed, files.read(path)[:2])
    with pytest.raises(FileNotFoundError):
        files.read_stamped(os.path.join(folder, "missing"), 2)

    names = files.stamp(folder)
    assert names.size == 0
    files.rename(path, path + "2")
    assert files.stamp(folder) != names
    assert files.names(folder) == {"file2"}
    assert files.memory_id() == files.memory_id()
