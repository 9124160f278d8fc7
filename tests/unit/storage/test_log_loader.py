"""What the next process finds: torn tails, damaged and missing files, leftovers.

Restates LogLoaderTest and the recovery scenarios of LogSegmentTest where they apply.
"""

import struct
from collections.abc import Callable

import anyio
import pytest

from kbroker.common.files import FileSystem, write_atomically
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.record.batch import build_batch, patch
from kbroker.record.record import Record
from kbroker.storage.indexes import OffsetIndex, TimeIndex
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_loader import load_log
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    TOPIC_ID,
    append,
    append_values,
    batch,
    config,
    copy_of,
    environment,
    filled,
    new_log,
    path,
    read_all,
    read_bytes,
    reload,
)

SETTINGS = config(segment_bytes=400, index_interval_bytes=100)


def test_a_torn_write_at_every_byte_of_the_last_batch() -> None:
    log = new_log()
    append_values(log, b"first", b"second")
    kept = read_bytes(log)
    append(log, batch(b"the third", b"and a fourth record", producer_id=4, base_sequence=9))
    whole = read_bytes(log)
    assert read_all(reload(log))[-1] == (3, b"and a fourth record")
    for size in range(len(kept), len(whole)):
        for zeros in (0, len(whole) - size, 500):
            files = copy_of(log.env.files)
            file = files.open(path(0, ".log"))
            file.truncate(size)
            file.truncate(size + zeros)
            if files.read(path(0, ".log"))[: len(whole)] == whole:
                continue  # the bytes that were cut off were zeros themselves
            again = reload(log, files=files)
            assert read_bytes(again) == kept, (size, zeros)
            assert files.size(path(0, ".log")) == len(kept)
            assert again.producer_state.producers == {}
            append_values(again, b"next")
            assert read_all(again)[-1] == (2, b"next")


def test_a_flipped_bit_anywhere_in_the_last_batch() -> None:
    log = new_log()
    append_values(log, b"first", b"second")
    kept = read_bytes(log)
    append_values(log, b"third")
    whole = read_bytes(log)
    for position in range(len(kept), len(whole)):
        if len(kept) + 12 <= position < len(kept) + 16:
            continue  # the leader epoch is not under the CRC
        files = copy_of(log.env.files)
        file = files.open(path(0, ".log"))
        file.write_at(bytes([whole[position] ^ 0x01]), position)
        again = reload(log, files=files)
        if position < len(kept) + 8:
            # The base offset is not under the CRC either: an offset that is too large passes,
            # as it does in Kafka; one that is too small does not.
            assert read_bytes(again)[: len(kept)] == kept
        else:
            assert read_bytes(again) == kept, position


def test_garbage_behind_the_last_batch_is_cut_off() -> None:
    log = filled(3)
    size = log.size
    log.env.files.open(path(0, ".log")).write_at(b"garbage" * 99, size)
    again = reload(log)
    assert again.size == size
    assert read_all(again) == read_all(log)


def test_an_unsound_batch_takes_the_segments_behind_it_with_it() -> None:
    log = filled()
    log.env.files.open(path(5, ".log")).write_at(b"\xff", len(batch(b"5")) + 65)
    again = reload(log)
    assert read_all(again) == [(offset, b"%d" % offset) for offset in range(6)]
    assert again.segments.base_offsets == [0, 5]
    assert again.log_end_offset == 6
    append_values(again, b"next")
    assert read_all(reload(again))[-1] == (6, b"next")


def test_what_lies_below_the_recovery_point_is_not_looked_at() -> None:
    log = filled()
    log.env.files.open(path(5, ".log")).write_at(b"\xff", len(batch(b"5")) + 65)
    again = reload(log, recovery_point=10)
    assert again.log_end_offset == 13
    assert again.recovery_point == 10
    assert again.segments.base_offsets == [0, 5, 10]


def test_recovery_begins_in_the_middle_of_a_segment() -> None:
    log = new_log(log_config=config(index_interval_bytes=100))
    append_values(log, *[b"%02d" % number for number in range(20)])
    anyio.run(log.flush)
    append_values(log, *[b"%02d" % number for number in range(20, 30)])
    size = len(batch(b"xx"))
    # Damage below the recovery point stays unseen, damage above it does not.
    damaged = copy_of(log.env.files)
    damaged.open(path(0, ".log")).write_at(b"\xff", 3 * size + 65)
    assert reload(log, files=copy_of(damaged), recovery_point=20).log_end_offset == 30
    assert reload(log, files=copy_of(damaged), recovery_point=0).log_end_offset == 3
    log.env.files.open(path(0, ".log")).write_at(b"\xff", log.size - 3)
    again = reload(log, recovery_point=20)
    assert again.log_end_offset == 29
    assert read_all(again) == [(each, b"%02d" % each) for each in range(29)]
    assert again.segments.active is not None
    entries = again.segments.active.offset_index.entries()
    assert len(entries) > 10
    assert all(position == offset * size for offset, position in entries)


@pytest.mark.parametrize(
    "damage",
    [
        lambda files: files.remove(path(0, ".index")),
        lambda files: files.remove(path(0, ".timeindex")),
        lambda files: files.open(path(0, ".index")).truncate(13),
        lambda files: files.open(path(0, ".index")).write_at(b"\xff" * 16, 8),
        lambda files: files.open(path(0, ".index")).write_at(struct.pack(">II", 5, 7), 8),
        lambda files: files.open(path(0, ".timeindex")).write_at(b"\x00" * 24, 12),
        lambda files: files.open(path(0, ".index")).truncate(0),
    ],
)
@pytest.mark.parametrize("is_clean", [True, False])
def test_a_damaged_index_is_rebuilt(damage: Callable[[FileSystem], None], is_clean: bool) -> None:
    log = new_log(log_config=config(index_interval_bytes=100))
    for number in range(30):
        append(log, batch(b"%d" % number, timestamps=[1000 + number]))
    log.close()
    anyio.run(log.flush)
    damage(log.env.files)
    again = reload(log, is_clean=is_clean, recovery_point=20)
    assert read_all(again) == [(each, b"%d" % each) for each in range(30)]
    found = again.offset_for_timestamp(1017)
    assert found is not None and found.offset == 17
    append_values(again, b"next")
    again.close()
    offsets = OffsetIndex("", 0, log.env.files.read(path(0, ".index")))
    times = TimeIndex("", 0, log.env.files.read(path(0, ".timeindex")))
    size = len(batch(b"10"))
    assert len(offsets) or is_clean
    assert all(at <= offset * size for offset, at in offsets.entries())
    assert times.last_entry == (1029, 29)


def test_indexes_without_a_log_file_are_removed() -> None:
    log = filled()
    log.close()
    files = log.env.files
    for suffix in (".index", ".timeindex", ".txnindex"):
        write_atomically(files, path(77, suffix), b"")
    again = reload(log, is_clean=True)
    assert not any(files.exists(path(77, each)) for each in (".index", ".timeindex", ".txnindex"))
    assert again.log_end_offset == 13


def test_leftovers_are_removed() -> None:
    log = filled()
    log.close()
    names = [
        "00000000000000000000.log.deleted",
        "00000000000000000003.snapshot.deleted",
        "00000000000000000000.log.cleaned",
        "leader-epoch-checkpoint.tmp",
    ]
    for name in names:
        write_atomically(log.env.files, f"{DIRECTORY}/{name}", b"x")
    write_atomically(log.env.files, f"{DIRECTORY}/notes.txt", b"x")
    again = reload(log, is_clean=True)
    assert read_all(again) == read_all(log)
    left = {entry.name for entry in log.env.files.list(DIRECTORY)}
    assert not left & set(names)
    assert "notes.txt" in left


def swapped(base_offset: int, *values: bytes) -> MemoryFileSystem:
    """``filled()`` with a compacted segment that waits to take the place of others."""
    log = filled()
    log.close()
    files = copy_of(log.env.files)
    data = b"".join(
        bytes(batch(value, base_offset=base_offset + number * 3, leader_epoch=0))
        for number, value in enumerate(values)
    )
    write_atomically(files, path(base_offset, ".log.swap"), data)
    write_atomically(files, path(base_offset, ".index.swap"), b"")
    write_atomically(files, path(base_offset, ".timeindex.swap"), b"")
    return files


@pytest.mark.parametrize("is_clean", [True, False])
def test_an_interrupted_swap_is_finished(is_clean: bool) -> None:
    # Holds 0, 3, 6 and 9: it replaces the segments at 0 and at 5.
    files = swapped(0, b"A", b"B", b"C", b"D")
    again = reload(filled(), files=files, is_clean=is_clean)
    assert again.segments.base_offsets == [0, 10]
    assert read_all(again) == [
        (0, b"A"), (3, b"B"), (6, b"C"), (9, b"D"), (10, b"10"), (11, b"11"), (12, b"12"),
    ]  # fmt: skip
    assert not [each.name for each in files.list(DIRECTORY) if each.name.endswith(".swap")]


def test_a_swap_of_an_unfinished_split_is_dropped() -> None:
    files = swapped(5, b"A", b"B")
    write_atomically(files, path(5, ".log.cleaned"), b"half made")
    again = reload(filled(), files=files)
    assert read_all(again) == [(each, b"%d" % each) for each in range(13)]
    assert not [each.name for each in files.list(DIRECTORY) if ".swap" in each.name]


def test_a_clean_close_is_opened_without_a_look_at_the_batches() -> None:
    log = filled()
    log.close()
    log.env.files.open(path(0, ".log")).write_at(b"\xff", 70)
    again = reload(log, is_clean=True)
    assert (again.log_start_offset, again.log_end_offset, again.recovery_point) == (0, 13, 13)
    assert again.topic_id == TOPIC_ID
    assert again.latest_epoch == 0
    assert again.high_watermark == 0
    append_values(again, b"next")
    assert read_all(again, 5)[-1] == (13, b"next")


def test_appending_after_a_clean_reopen_keeps_the_indexes_sound() -> None:
    log = new_log(log_config=config(index_interval_bytes=100))
    for round_number in range(4):
        for number in range(7):
            append(log, batch(b"v", timestamps=[1000 - number + round_number]))
        log.close()
        log = reload(log, is_clean=True)
    files = log.env.files
    offsets = OffsetIndex("", 0, files.read(path(0, ".index"))).entries()
    size = len(batch(b"v"))
    assert offsets and all(position == offset * size for offset, position in offsets)
    times = TimeIndex("", 0, files.read(path(0, ".timeindex"))).entries()
    assert times == [(1000, 0), (1001, 7), (1002, 14), (1003, 21)]


def test_an_empty_directory_is_an_empty_log() -> None:
    env = environment()
    env.files.make_directory(DIRECTORY)
    log = load_log(env, DIRECTORY, "topic", 0, config=SETTINGS, is_clean=False, log_start_offset=7)
    assert (log.log_start_offset, log.log_end_offset, log.has_files) == (7, 7, False)
    append_values(log, b"v")
    assert read_all(reload(log)) == [(7, b"v")]


def test_a_log_that_ends_below_its_start_begins_anew() -> None:
    log = filled()
    again = reload(log, log_start_offset=50)
    assert (again.log_start_offset, again.log_end_offset) == (50, 50)
    append_values(again, b"v")
    assert read_all(again) == [(50, b"v")]


def test_the_log_start_is_restored_and_not_below_the_first_segment() -> None:
    log = filled()
    assert read_all(reload(log, log_start_offset=7))[0] == (7, b"7")
    log.env.files.remove(path(0, ".log"))
    assert reload(log, log_start_offset=3).log_start_offset == 5


def test_partition_metadata_may_be_missing() -> None:
    log = filled()
    log.env.files.remove(f"{DIRECTORY}/partition.metadata")
    again = reload(log)
    assert again.topic_id == bytes(16)
    again.assign_topic_id(TOPIC_ID)
    assert reload(log).topic_id == TOPIC_ID


@pytest.mark.parametrize("content", [None, b"", b"garbage", b"0\n3\n0 0\n"])
@pytest.mark.parametrize("is_clean", [True, False])
def test_lost_leader_epochs_are_found_in_the_batches(content: bytes | None, is_clean: bool) -> None:
    log = new_log(log_config=SETTINGS)
    for epoch in (1, 4, 9):
        append_values(log, *[b"v"] * 4, leader_epoch=epoch)
    log.close()
    name = f"{DIRECTORY}/leader-epoch-checkpoint"
    if content is None:
        log.env.files.remove(name)
    else:
        write_atomically(log.env.files, name, content)
    again = reload(log, is_clean=is_clean)
    assert again.epochs.entries() == [(1, 0), (4, 4), (9, 8)]


def test_epochs_beyond_the_log_are_dropped() -> None:
    log = filled()
    log.maybe_assign_epoch_start_offset(7, 13)
    again = reload(log)
    assert again.epochs.entries() == [(0, 0)]
    assert reload(log, log_start_offset=6).epochs.entries() == [(0, 6)]


def test_a_batch_of_a_newer_epoch_than_the_checkpoint_is_noted() -> None:
    log = filled()
    log.append_as_follower(memoryview(batch(b"v", base_offset=13, leader_epoch=6)))
    write_atomically(log.env.files, f"{DIRECTORY}/leader-epoch-checkpoint", b"0\n1\n0 0\n")
    assert reload(log).epochs.entries() == [(0, 0), (6, 13)]


def test_batches_larger_than_the_buffer_and_many_small_ones() -> None:
    log = new_log()
    big = b"x" * (5 * 1024 * 1024)
    append_values(log, b"small", big, b"small")
    data = build_batch([Record(value=b"v", timestamp=7)], base_offset=0, leader_epoch=0)
    for offset in range(3, 2003):
        patch(data, 0, offset, 0)
        log.append_as_follower(memoryview(data))
    again = reload(log)
    assert again.log_end_offset == 2003
    assert read_bytes(again) == read_bytes(log)
    active, other = again.segments.active, log.segments.active
    assert active is not None and other is not None
    assert active.offset_index.entries() == other.offset_index.entries()
    assert active.largest_timestamp == other.largest_timestamp


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("magic", [0, 1])
def test_messages_from_before_kafka_011_are_refused_and_stay(magic: int, is_clean: bool) -> None:
    """They are no batches, but they are no damage either: nothing may be cut off."""
    files = MemoryFileSystem()
    files.make_directory(DIRECTORY)
    path = f"{DIRECTORY}/{0:020d}.log"
    message = bytes(8) + (22).to_bytes(4, "big") + bytes(4) + bytes([magic]) + bytes(17)
    files.open(path, create=True).write_at(message, 0)
    with pytest.raises(DataDirectoryError, match=f"format {magic}.*kbroker log import"):
        load_log(environment(files), DIRECTORY, "topic", 0, config=config(), is_clean=is_clean)
    assert files.read(path) == message


def test_a_preallocated_file_without_a_batch_is_an_empty_log() -> None:
    files = MemoryFileSystem()
    files.make_directory(DIRECTORY)
    files.open(f"{DIRECTORY}/{0:020d}.log", create=True).write_at(bytes(1000), 0)
    log = load_log(environment(files), DIRECTORY, "topic", 0, config=config(), is_clean=False)
    assert log.log_end_offset == 0


@pytest.mark.parametrize("is_clean", [True, False])
def test_an_index_that_waits_alone_covers_nothing(is_clean: bool) -> None:
    """A split was interrupted after the first of its logs had got its name."""
    log = filled(10)
    log.close()
    files = copy_of(log.env.files)
    whole = {base: files.read(path(base, ".log")) for base in (0, 5)}
    write_atomically(files, path(0, ".index.swap"), b"")
    write_atomically(files, path(0, ".timeindex.swap"), b"")
    files.remove(path(0, ".index"))
    files.remove(path(0, ".timeindex"))
    for suffix in (".log", ".index", ".timeindex"):
        files.rename(path(5, suffix), path(5, suffix) + ".swap")
    again = reload(log, files=files, is_clean=is_clean)
    assert {base: files.read(path(base, ".log")) for base in (0, 5)} == whole
    assert read_all(again) == read_all(log)


@pytest.mark.parametrize("recovery_point", [0, 10, 100])
def test_a_log_is_the_same_after_recovery_as_it_was_closed(recovery_point: int) -> None:
    log = new_log(log_config=config(segment_bytes=700, index_interval_bytes=300))
    for number in range(100):
        append(log, batch(b"v" * 30, timestamps=[number * 10]))
    log.close()
    suffixes = (".log", ".index", ".timeindex")
    before = {
        entry.name: log.env.files.read(f"{DIRECTORY}/{entry.name}")
        for entry in log.env.files.list(DIRECTORY)
        if entry.name.endswith(suffixes)
    }
    again = reload(log, recovery_point=recovery_point)
    assert (again.log_end_offset, again.recovery_point) == (100, recovery_point)
    again.close()
    for name, content in before.items():
        assert log.env.files.read(f"{DIRECTORY}/{name}") == content, name


def test_recovery_with_an_empty_active_segment_makes_its_indexes() -> None:
    log = filled()
    log.roll()
    anyio.run(log.flush)
    for suffix in (".index", ".timeindex"):
        log.env.files.remove(path(13, suffix))
    again = reload(log, recovery_point=13)
    assert (again.log_end_offset, again.recovery_point) == (13, 13)
    append_values(again, *[b"%d" % number for number in range(13, 20)])
    again.close()
    assert read_all(reload(again, is_clean=True)) == [(each, b"%d" % each) for each in range(20)]
