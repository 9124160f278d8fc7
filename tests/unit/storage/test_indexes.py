"""Offset and time index: lookups, truncation, Kafka's file format, damaged files.

Restates OffsetIndexTest and TimeIndexTest where they apply.
"""

import random
import struct

import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.storage.indexes import CorruptIndexError, OffsetIndex, TimeIndex, TimestampOffset
from tests.unit.storage.faulty_files import FaultyFileSystem

BASE = 45


@pytest.fixture
def files() -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.make_directory("/d")
    return files


def offset_index(entries: int = 0) -> OffsetIndex:
    index = OffsetIndex("/d/i", BASE)
    for number in range(entries):
        index.append(BASE + 10 * (number + 1), 100 * (number + 1))
    return index


def test_an_empty_index_points_at_the_start() -> None:
    index = offset_index()
    assert index.last_offset == BASE
    assert index.last_position == 0
    assert index.lookup(BASE) == 0
    assert index.lookup(10**9) == 0
    assert index.offset_above_position(0) is None
    assert index.offset_at(0) is None


def test_lookup_gives_the_entry_at_or_below() -> None:
    index = offset_index(5)
    assert [index.lookup(offset) for offset in (BASE, 54, 55, 64, 65, 95, 10**9)] == [
        0, 0, 100, 100, 200, 500, 500,
    ]  # fmt: skip
    assert index.lookup(BASE - 10) == 0
    assert index.last_offset == 95
    assert index.last_position == 500


def test_lookup_agrees_with_a_plain_search() -> None:
    random.seed(5)
    index = OffsetIndex("/d/i", BASE)
    entries: list[tuple[int, int]] = []
    offset, position = BASE, 0
    for _ in range(200):
        offset += random.randint(1, 9)
        position += random.randint(1, 900)
        index.append(offset, position)
        entries.append((offset, position))
    for target in range(BASE - 2, offset + 3):
        expected = max((place for at, place in entries if at <= target), default=0)
        assert index.lookup(target) == expected
    for target in range(0, position + 50, 13):
        assert index.offset_above_position(target) == min(
            (at for at, place in entries if place >= target), default=None
        )
    assert index.entries() == entries


def test_entries_ascend() -> None:
    index = offset_index(2)
    with pytest.raises(AssertionError, match="ascend"):
        index.append(BASE + 20, 500)


def test_entries_found_by_position_and_by_count() -> None:
    index = offset_index(5)
    assert index.offset_at(300) == BASE + 30
    assert index.offset_at(301) is None
    assert index.position_before(BASE + 45, 2) == 200
    assert index.position_before(BASE + 45, 4) == 0


def test_truncation_by_offset_and_by_position() -> None:
    index = offset_index(5)
    index.truncate_to(BASE + 51)
    assert len(index) == 5
    index.truncate_to(BASE + 50)
    assert len(index) == 4
    index.truncate_to(BASE + 39)
    assert index.last_offset == BASE + 30
    index.truncate_to_position(200)
    assert index.entries() == [(BASE + 10, 100)]
    index.append(BASE + 11, 150)
    index.truncate_to(0)
    assert len(index) == 0


def test_the_file_is_kafkas(files: MemoryFileSystem) -> None:
    index = offset_index(2)
    index.save(files)
    assert files.read("/d/i") == struct.pack(">IIII", 10, 100, 20, 200)
    reopened = OffsetIndex("/d/i", BASE, files.read("/d/i"))
    assert reopened.entries() == index.entries()
    assert reopened.is_saved


def test_save_writes_what_is_new_and_cuts_what_is_gone(files: MemoryFileSystem) -> None:
    index = offset_index(3)
    index.save(files)
    index.append(BASE + 40, 400)
    assert not index.is_saved
    index.save(files)
    index.truncate_to(BASE + 15)
    assert not index.is_saved
    index.append(BASE + 17, 170)
    index.save(files)
    assert OffsetIndex("/d/i", BASE, files.read("/d/i")).entries() == [
        (BASE + 10, 100),
        (BASE + 17, 170),
    ]


def test_a_stale_file_is_overwritten(files: MemoryFileSystem) -> None:
    offset_index(5).save(files)
    fresh = OffsetIndex("/d/i", BASE, stale=True)
    fresh.append(BASE + 3, 33)
    fresh.save(files)
    assert files.read("/d/i") == struct.pack(">II", 3, 33)


@pytest.mark.parametrize("fail_at", [1, 2, 3])
def test_a_save_that_failed_is_done_again(files: MemoryFileSystem, fail_at: int) -> None:
    offset_index(5).save(files)
    fresh = OffsetIndex("/d/i", BASE, stale=True)
    fresh.append(BASE + 3, 33)
    fresh.append(BASE + 4, 44)
    faulty = FaultyFileSystem(files, fail_at=fail_at, mode="short")
    if fail_at < 3:
        with pytest.raises(OSError, match="injected"):
            fresh.save(faulty)
        assert not fresh.is_saved
    fresh.save(faulty)
    assert OffsetIndex("/d/i", BASE, files.read("/d/i")).entries() == fresh.entries()


@pytest.mark.parametrize(
    "data",
    [
        b"1234567",
        struct.pack(">IIII", 20, 100, 10, 200),
        struct.pack(">IIII", 10, 200, 20, 100),
        struct.pack(">IIII", 10, 100, 0, 0),
        struct.pack(">II", 2**31, 5),
    ],
)
def test_a_damaged_offset_index_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptIndexError):
        OffsetIndex("/d/i", BASE, data)


def test_an_entry_at_the_base_offset_is_sound() -> None:
    assert OffsetIndex("/d/i", BASE, struct.pack(">II", 0, 0)).last_offset == BASE


def time_index(entries: int = 0) -> TimeIndex:
    index = TimeIndex("/d/t", BASE)
    for number in range(1, entries + 1):
        index.maybe_append(number * 10, BASE + number)
    return index


def test_time_lookup_gives_the_entry_at_or_below() -> None:
    index = time_index()
    assert index.lookup(100) == TimestampOffset(-1, BASE)
    index = time_index(5)
    assert index.lookup(9) == TimestampOffset(-1, BASE)
    assert index.lookup(10) == TimestampOffset(10, BASE + 1)
    assert index.lookup(25) == TimestampOffset(20, BASE + 2)
    assert index.lookup(10**12) == index.last_entry == TimestampOffset(50, BASE + 5)


def test_only_larger_timestamps_become_entries() -> None:
    index = time_index(2)
    index.maybe_append(20, BASE + 9)
    index.maybe_append(15, BASE + 9)
    assert len(index) == 2
    index.maybe_append(21, BASE + 9)
    assert index.last_entry == TimestampOffset(21, BASE + 9)
    with pytest.raises(AssertionError, match="ascend"):
        index.maybe_append(30, BASE + 8)


def test_records_without_timestamps_give_no_entry() -> None:
    index = time_index()
    index.maybe_append(-1, BASE + 1)
    assert len(index) == 0
    assert index.last_entry == TimestampOffset(-1, BASE)


def test_time_truncation(files: MemoryFileSystem) -> None:
    index = time_index(5)
    index.save(files)
    index.truncate_to(BASE + 6)
    assert len(index) == 5
    index.truncate_to(BASE + 4)
    assert index.last_entry == TimestampOffset(30, BASE + 3)
    index.save(files)
    assert files.read("/d/t") == b"".join(
        struct.pack(">qI", number * 10, number) for number in (1, 2, 3)
    )
    assert TimeIndex("/d/t", BASE, files.read("/d/t")).entries() == index.entries()


@pytest.mark.parametrize(
    "data",
    [
        b"12345678901",
        struct.pack(">qIqI", 20, 1, 10, 2),
        struct.pack(">qIqI", 10, 2, 20, 1),
        struct.pack(">qIqI", 10, 1, 0, 0),
        struct.pack(">qI", 10, 2**32 - 1),
    ],
)
def test_a_damaged_time_index_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptIndexError):
        TimeIndex("/d/t", BASE, data)
