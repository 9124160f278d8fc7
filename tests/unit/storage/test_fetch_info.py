"""Slices of log files."""

import os
from pathlib import Path

import pytest

from kbroker.common.files import OsFileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.parts import LogSlice
from kbroker.storage.fetch_info import EMPTY_SLICE, BytesSlice, FileSlice


def test_a_slice_of_a_file_on_disk(tmp_path: Path) -> None:
    file = OsFileSystem().open(str(tmp_path / "f"), create=True)
    file.write_at(b"0123456789", 0)
    part = FileSlice(file, 2, 5)
    assert isinstance(part, LogSlice)
    assert (len(part), part.parts()) == (5, [b"23456"])
    place = part.file_range()
    assert place is not None
    descriptor, position, size = place
    assert os.pread(descriptor, size, position) == b"23456"
    file.truncate(4)
    with pytest.raises(OSError, match="2 are left"):
        part.parts()


def test_a_slice_keeps_the_descriptor_open(tmp_path: Path) -> None:
    file = OsFileSystem().open(str(tmp_path / "f"), create=True)
    file.write_at(b"0123456789", 0)
    part = FileSlice(file, 2, 5)
    os.unlink(tmp_path / "f")
    del file
    assert part.parts() == [b"23456"]


def test_a_slice_of_memory_has_no_descriptor() -> None:
    files = MemoryFileSystem()
    files.make_directory("/d")
    file = files.open("/d/f", create=True)
    file.write_at(b"0123456789", 0)
    part = FileSlice(file, 2, 5)
    assert part.parts() == [b"23456"]
    assert part.file_range() is None


def test_bytes_and_nothing() -> None:
    part = BytesSlice(b"abc")
    assert isinstance(part, LogSlice)
    assert (len(part), part.parts(), part.file_range()) == (3, [b"abc"], None)
    assert (len(EMPTY_SLICE), EMPTY_SLICE.parts(), EMPTY_SLICE.file_range()) == (0, [], None)
