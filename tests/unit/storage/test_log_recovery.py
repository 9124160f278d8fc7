"""Segments that hold more offsets than their indexes can: recovery splits them."""

import contextlib

import pytest

from kbroker.common.files import FileSystem, remove_if_exists, write_atomically
from kbroker.storage.log_segment import SEGMENT_SUFFIXES
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    append_values,
    bases,
    batch,
    config,
    environment,
    filled,
    new_log,
    path,
    read_all,
    reload,
)

FAR = 2**31
EXPECTED = [
    (0, b"a"),
    (1, b"b"),
    (FAR, b"c"),
    (FAR + 1, b"d"),
    (2 * FAR + 9, b"e"),
    (3 * FAR, b"f"),
]


def overflowing(files: FileSystem | None = None) -> UnifiedLog:
    """A segment that compaction by an old Kafka made: three would be needed; another follows."""
    log = new_log(environment(files), config(index_interval_bytes=1))
    for offset, value in EXPECTED:
        log.append_as_follower(memoryview(batch(value, base_offset=offset, producer_id=4)))
    log.roll()
    first, *others = list(log.segments)
    assert [each.base_offset for each in others] == [FAR, 2 * FAR + 9, 3 * FAR + 1]
    log.close()
    joined = b"".join(log.env.files.read(each.log_path) for each in list(log.segments))
    write_atomically(log.env.files, first.log_path, joined)
    for segment in others[:-1]:
        for suffix in SEGMENT_SUFFIXES:
            remove_if_exists(log.env.files, segment.path(suffix))
    return log


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("recovery_point", [0, FAR, 3 * FAR + 1])
def test_a_segment_with_too_many_offsets_is_split(is_clean: bool, recovery_point: int) -> None:
    log = overflowing()
    again = reload(log, is_clean=is_clean, recovery_point=recovery_point)
    assert bases(again) == [0, FAR, 2 * FAR + 9, 3 * FAR + 1]
    assert read_all(again) == EXPECTED
    assert again.producer_state.producers[4].last_data_offset == 3 * FAR
    assert again.recovery_point == 0
    for segment in again.segments:
        for offset, _ in segment.offset_index.entries():
            assert 0 <= offset - segment.base_offset < FAR
    append_values(again, b"next")
    again.close()
    assert read_all(reload(again, is_clean=True)) == [*EXPECTED, (3 * FAR + 1, b"next")]


def test_a_segment_that_begins_with_an_offset_far_from_its_name_is_split() -> None:
    log = new_log()
    log.append_as_follower(memoryview(batch(b"v", base_offset=0)))
    log.append_as_follower(memoryview(batch(b"w", base_offset=2 * FAR)))
    assert bases(log) == [0, 2 * FAR]
    write_atomically(log.env.files, path(0, ".log"), bytes(batch(b"far", base_offset=FAR + 3)))
    expected = [(FAR + 3, b"far"), (2 * FAR, b"w")]
    again = reload(log)
    assert bases(again) == [0, FAR + 3, 2 * FAR]
    assert read_all(again) == expected
    again.close()
    assert read_all(reload(again)) == read_all(reload(again, is_clean=True)) == expected


@pytest.mark.parametrize("base_offset", [5, 10])
def test_a_damaged_base_offset_is_not_believed(base_offset: int) -> None:
    """It is not under the CRC; a split must not follow it."""
    log = filled()
    log.env.files.open(path(base_offset, ".log")).write_at(b"damaged", 0)
    again = reload(log)
    assert read_all(again) == [(each, b"%d" % each) for each in range(base_offset)]
    assert again.log_end_offset == base_offset


@pytest.mark.parametrize("mode", ["kill", "kill_mid", "kill_after"])
def test_a_kill_at_every_change_of_a_split(mode: str) -> None:
    plain = overflowing()
    counting = FaultyFileSystem(plain.env.files)
    reload(plain, files=counting)
    assert counting.calls > 10
    for fail_at in range(1, counting.calls + 1):
        log = overflowing()
        with contextlib.suppress(Killed):
            reload(log, files=FaultyFileSystem(log.env.files, fail_at=fail_at, mode=mode))
        again = reload(log)
        assert read_all(again) == EXPECTED, fail_at
        assert bases(again) == [0, FAR, 2 * FAR + 9, 3 * FAR + 1]
        left = [each.name for each in log.env.files.list(DIRECTORY)]
        assert not [each for each in left if each.endswith(".cleaned")]


def test_damage_behind_the_split_is_cut_off() -> None:
    log = overflowing()
    first = log.segments.first
    assert first is not None
    data = bytearray(log.env.files.read(first.log_path))
    data[-1] ^= 1
    write_atomically(log.env.files, first.log_path, bytes(data))
    assert read_all(reload(log)) == EXPECTED[:-1]
