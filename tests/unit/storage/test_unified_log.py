"""Append, roll and flush of a log, and what is left when a write fails.

Restates UnifiedLogTest, LocalLogTest and LogSegmentTest where they apply.
"""

import errno

import anyio
import anyio.lowlevel
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.faults import Faults
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_batch, iter_batches, verify_crc
from kbroker.record.record import Record
from kbroker.storage.checkpoints import read_partition_metadata
from kbroker.storage.producer_state_entry import decode_snapshot
from kbroker.storage.transaction_index import AbortedTxn, TransactionIndex
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    END,
    TOPIC_ID,
    aborted,
    append,
    append_values,
    bases,
    batch,
    config,
    copy_of,
    environment,
    new_log,
    path,
    read_all,
    read_bytes,
    reload,
    small_segments,
    validated,
)


def test_a_log_has_no_files_before_its_first_append() -> None:
    log = new_log()
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (0, 0, 0)
    log.maybe_assign_epoch_start_offset(3, 0)
    assert log.end_offset_for_epoch(3) == (3, 0)
    info = log.read(0, max_bytes=100, isolation=END, min_one_message=True)
    assert len(info.records) == 0
    assert log.offset_for_timestamp(0) is None
    assert log.max_timestamp_offset() is None
    assert list(log.read_batches(0)) == []
    assert not log.has_files
    assert not log.env.files.exists(DIRECTORY)
    log.close()
    append_values(log, b"one", leader_epoch=3)
    assert sorted(entry.name for entry in log.env.files.list(DIRECTORY)) == [
        "00000000000000000000.index",
        "00000000000000000000.log",
        "00000000000000000000.timeindex",
        "leader-epoch-checkpoint",
        "partition.metadata",
    ]
    assert read_partition_metadata(log.env.files, DIRECTORY) == TOPIC_ID
    assert log.env.files.read(f"{DIRECTORY}/leader-epoch-checkpoint") == b"0\n1\n3 0\n"


def test_append_assigns_offsets_and_epoch_in_place() -> None:
    log = new_log()
    first = batch(b"a", b"b", b"c")
    info = append(log, first, leader_epoch=4)
    assert (info.first_offset, info.last_offset, info.duplicate) == (0, 2, False)
    assert (info.log_append_time_ms, info.log_start_offset) == (-1, 0)
    second = batch(b"d", b"e")
    info = append(log, second, leader_epoch=4)
    assert (info.first_offset, info.last_offset) == (3, 4)
    data = read_bytes(log)
    assert data == bytes(first) + bytes(second)
    headers = list(iter_batches(memoryview(data)))
    assert [(header.base_offset, header.leader_epoch) for header in headers] == [(0, 4), (3, 4)]
    assert all(verify_crc(bytearray(data), each.position, each.size) for each in headers)
    assert log.latest_epoch == 4
    assert log.end_offset_for_epoch(4) == (4, 5)


def test_log_append_time_is_passed_on() -> None:
    log = new_log()
    info = log.append_as_leader(validated(batch(b"a"), log_append_time_ms=77), leader_epoch=0)
    assert info.log_append_time_ms == 77


def test_a_batch_larger_than_a_segment_is_refused() -> None:
    log = new_log(log_config=config(segment_bytes=100))
    with pytest.raises(KafkaError) as caught:
        append(log, batch(b"x" * 100))
    assert caught.value.error_code is ErrorCode.RECORD_LIST_TOO_LARGE
    assert not log.has_files
    append(log, batch(b"x"))


def test_duplicates_are_answered_with_their_first_offsets() -> None:
    log = new_log()
    for sequence in range(6):
        append(log, batch(b"v", producer_id=5, base_sequence=sequence, timestamps=[50 + sequence]))
    info = append(log, batch(b"v", producer_id=5, base_sequence=3))
    assert (info.first_offset, info.last_offset, info.duplicate) == (3, 3, True)
    assert info.log_append_time_ms == 53
    assert log.log_end_offset == 6
    with pytest.raises(KafkaError) as caught:
        append(log, batch(b"v", producer_id=5, base_sequence=0))
    assert caught.value.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    log.maybe_increment_log_start_offset(6)
    assert append(log, batch(b"v", producer_id=5, base_sequence=4)).first_offset == 4


def test_rolls_by_size() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 13)
    assert bases(log) == [0, 5, 10]
    assert [offset for offset, _ in read_all(log)] == list(range(13))
    assert log.size == sum(len(batch(b"v")) for _ in range(13))


def test_rolls_by_the_records_time_and_takes_the_clock_where_they_have_none() -> None:
    clock = ManualClock(time_ms=10_000)
    log = new_log(environment(clock=clock), config(segment_ms=1000))
    for timestamp in (5000, 5500, 6000):
        append(log, batch(b"v", timestamps=[timestamp]))
    clock.advance(3600)
    append(log, batch(b"v", timestamps=[4000]))
    assert bases(log) == [0]
    append(log, batch(b"v", timestamps=[6001]))
    assert bases(log) == [0, 4]
    log.roll()
    append(log, batch(b"v", timestamps=[-1]))
    clock.advance(1.0)
    append(log, batch(b"v", timestamps=[-1]))
    assert bases(log) == [0, 4, 5]
    clock.advance(0.001)
    append(log, batch(b"v", timestamps=[-1]))
    assert bases(log) == [0, 4, 5, 7]


def test_jitter_rolls_earlier() -> None:
    log = new_log(log_config=config(segment_ms=1000, segment_jitter_ms=900))
    append(log, batch(b"v", timestamps=[0]))
    active = log.segments.active
    assert active is not None and 0 < active.roll_jitter_ms < 900
    append(log, batch(b"v", timestamps=[1000 - active.roll_jitter_ms]))
    assert bases(log) == [0]
    append(log, batch(b"v", timestamps=[1001 - active.roll_jitter_ms]))
    assert bases(log) == [0, 2]


def test_rolls_when_an_index_is_full() -> None:
    log = new_log(log_config=config(index_interval_bytes=0, segment_index_bytes=8 * 4))
    for _ in range(8):
        append(log, batch(b"v", timestamps=[-1]))
    # The first batch has no entry; a full index takes four. A time index keeps one entry free.
    assert bases(log) == [0, 5]
    times = new_log(log_config=config(index_interval_bytes=0, segment_index_bytes=12 * 4))
    for timestamp in range(8):
        append(times, batch(b"v", timestamps=[timestamp]))
    assert bases(times) == [0, 4]


def test_rolls_before_an_offset_that_an_index_entry_cannot_hold() -> None:
    log = new_log()
    append_values(log, b"first")
    log.log_end_offset = 2**31 - 1
    append_values(log, b"fits")
    assert bases(log) == [0]
    append_values(log, b"does not")
    assert bases(log) == [0, 2**31]


def test_a_roll_of_an_empty_segment_does_nothing() -> None:
    log = small_segments()
    log.roll()
    append_values(log, b"v")
    log.roll()
    log.roll()
    assert bases(log) == [0, 1]


def test_a_roll_completes_the_index_files_and_takes_a_snapshot() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 5)
    log.roll()
    files = log.env.files
    assert files.size(f"{DIRECTORY}/00000000000000000000.index") == 8 * 2
    assert files.size(f"{DIRECTORY}/00000000000000000000.timeindex") == 12
    assert files.exists(f"{DIRECTORY}/00000000000000000005.snapshot")


def test_a_changed_setting_acts_at_the_next_append() -> None:
    log = new_log()
    append_values(log, *[b"v"] * 9)
    log.update_config(config(segment_bytes=400))
    append_values(log, b"v")
    assert bases(log) == [0, 9]


def test_preallocated_files_are_cut_when_they_are_rolled_or_closed() -> None:
    log = new_log(log_config=config(segment_bytes=1000, preallocate=True))
    append_values(log, b"v")
    files = log.env.files
    assert files.size(f"{DIRECTORY}/00000000000000000000.log") == 1000
    assert read_all(reload(log)) == [(0, b"v")]
    log = reload(log)
    append_values(log, b"w")
    log.roll()
    append_values(log, b"x")
    log.close()
    assert files.size(f"{DIRECTORY}/00000000000000000000.log") == 2 * len(batch(b"v"))
    assert files.size(f"{DIRECTORY}/00000000000000000002.log") == len(batch(b"x"))


# Failed writes


@pytest.mark.parametrize("mode", ["error", "short"])
def test_a_failed_write_leaves_the_log_as_it_was(mode: str) -> None:
    files = FaultyFileSystem(MemoryFileSystem(), mode=mode)
    log = new_log(environment(files))
    append_values(log, b"one")
    before = read_bytes(log)
    files.fail_at = files.calls + 1
    data = batch(b"two", producer_id=3, base_sequence=0)
    with pytest.raises(KafkaError) as caught:
        append(log, data)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert (log.log_end_offset, read_bytes(log)) == (1, before)
    assert files.inner.size(f"{DIRECTORY}/00000000000000000000.log") == len(before)
    assert log.producer_state.producers == {}
    assert append(log, data).first_offset == 1
    assert [value for _, value in read_all(log)] == [b"one", b"two"]
    assert read_all(reload(log, files=files.inner)) == read_all(log)


def test_a_tail_that_could_not_be_cut_is_cut_before_the_next_write() -> None:
    class NoTruncate(FaultyFileSystem):
        def before(self) -> bool:
            if self.is_full:
                raise OSError(errno.EIO, "no truncate either")
            return False

        is_full = False

    files = NoTruncate(MemoryFileSystem(), mode="short")
    log = new_log(environment(files))
    append_values(log, b"one")
    files.fail_at = files.calls + 1
    files.is_full = True
    with pytest.raises(KafkaError):
        append_values(log, b"x" * 500)
    with pytest.raises(KafkaError):
        append_values(log, b"y")
    files.is_full = False
    append_values(log, b"two")
    size = len(batch(b"one")) + len(batch(b"two"))
    assert files.inner.size(f"{DIRECTORY}/00000000000000000000.log") == size
    assert read_all(reload(log, files=files.inner)) == [(0, b"one"), (1, b"two")]


def test_a_full_disk_keeps_serving_reads_and_recovers() -> None:
    class FullDisk(FaultyFileSystem):
        is_full = False

        def _is_due(self) -> bool:
            return self.is_full

    files = FullDisk(MemoryFileSystem(), mode="short")
    log = new_log(environment(files), config(segment_bytes=400))
    append_values(log, *[b"v"] * 4)
    files.is_full = True
    for _ in range(3):
        with pytest.raises(KafkaError) as caught:
            append_values(log, b"w", leader_epoch=1)
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
        assert len(read_all(log)) == 4
    files.is_full = False
    append_values(log, *[b"w"] * 4, leader_epoch=1)
    assert len(read_all(log)) == 8
    assert len(read_all(reload(log, files=files.inner))) == 8


class Died(Exception):
    pass


class Recorder(Faults):
    """A failpoint that raises instead of killing the test."""

    def die(self) -> None:
        raise Died


@pytest.mark.parametrize(
    ("failpoint", "kept"),
    [("append.before_write", 3), ("append.torn_write", 3), ("append.after_write", 4)],
)
def test_what_a_failpoint_leaves(failpoint: str, kept: int) -> None:
    log = new_log(environment(faults=Recorder(failpoint=failpoint, passes=4)))
    append_values(log, *[b"v"] * 3)
    with pytest.raises(Died):
        append_values(log, b"fourth")
    size = log.env.files.size(f"{DIRECTORY}/00000000000000000000.log")
    assert size >= 3 * len(batch(b"v"))
    assert len(read_all(reload(log))) == kept


def test_a_failpoint_in_the_middle_of_a_roll() -> None:
    env = environment(faults=Recorder(failpoint="roll.mid"))
    log = new_log(env, config(segment_bytes=400))
    with pytest.raises(Died):
        append_values(log, *[b"v"] * 9)
    assert len(read_all(reload(log))) == 5


# Flush


def test_a_flush_moves_the_recovery_point_and_syncs_names_once() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 13)
    assert log.unflushed_messages == 13
    anyio.run(log.flush)
    assert (log.recovery_point, log.unflushed_messages) == (13, 0)
    anyio.run(log.flush)


def test_flush_messages_asks_for_a_flush_before_the_answer() -> None:
    log = new_log(log_config=config(flush_messages=3))
    assert [append(log, batch(b"v")).must_flush for _ in range(4)] == [False, False, True, True]
    anyio.run(log.flush)
    assert not append(log, batch(b"v")).must_flush


def test_one_flush_serves_all_who_wait() -> None:
    log = new_log()
    runs: list[int] = []

    class CountingOffload:
        async def run(self, work):  # type: ignore[no-untyped-def]
            runs.append(log.log_end_offset)
            await anyio.lowlevel.checkpoint()
            return work()

    log.env.offload = CountingOffload()

    async def main() -> None:
        append_values(log, b"a")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(log.flush)
            await anyio.lowlevel.checkpoint()
            append_values(log, b"b")
            for _ in range(5):
                tasks.start_soon(log.flush)
        assert log.recovery_point == 2

    anyio.run(main)
    assert runs == [1, 2]


def test_after_a_failed_sync_the_log_takes_no_more() -> None:
    class NoSync(FaultyFileSystem):
        def before(self) -> bool:
            return False

    files = NoSync(MemoryFileSystem())
    log = new_log(environment(files))
    append_values(log, b"a")

    def fail() -> None:
        raise OSError(errno.EIO, "the device is gone")

    log._sync_work = lambda: fail  # type: ignore[assignment,method-assign,return-value]
    for _ in range(2):
        with pytest.raises(KafkaError) as caught:
            anyio.run(log.flush)
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    with pytest.raises(KafkaError):
        append_values(log, b"b")
    with pytest.raises(KafkaError):
        log.append_as_follower(memoryview(batch(b"b", base_offset=1)))
    assert read_all(log) == [(0, b"a")]


# Files that are in the way


def test_a_roll_takes_the_place_of_files_that_were_left_there() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 5)
    files = log.env.files
    stale = TransactionIndex(f"{DIRECTORY}/{5:020d}.txnindex", 5)
    stale.append(files, AbortedTxn(7, 5, 6, 5))
    for suffix in (".log", ".index", ".timeindex", ".snapshot"):
        files.open(f"{DIRECTORY}/{5:020d}{suffix}", create=True).write_at(b"left over" * 50, 0)
    append_values(log, b"w", b"x")
    assert bases(log) == [0, 5]
    assert [value for _, value in read_all(log)] == [b"v"] * 5 + [b"w", b"x"]
    log.close()
    again = reload(log, is_clean=True)
    again.update_high_watermark(7)
    assert read_all(again) == read_all(log)
    assert aborted(again, 0) == aborted(again, 5) == []


def test_records_without_key_or_value() -> None:
    log = new_log()
    append(log, build_batch([Record(key=None, value=None, timestamp=1)]))
    assert read_all(log) == [(0, None)]


def test_a_snapshot_of_a_roll_does_not_know_the_batch_that_caused_it() -> None:
    log = new_log(log_config=config(segment_bytes=200))
    for sequence in range(4):
        append(log, batch(b"v", producer_id=1, base_sequence=sequence))
    assert bases(log) == [0, 2]
    (entry,) = decode_snapshot(log.env.files.read(path(2, ".snapshot")))
    assert entry.last_sequence == 1
    assert log.producer_state.producers[1].last_sequence == 3


def test_every_roll_keeps_a_snapshot_and_a_flush_keeps_them_all() -> None:
    log = new_log()
    for _ in range(3):
        append_values(log, b"v")
        log.roll()
    anyio.run(log.flush)
    append_values(log, b"v")
    anyio.run(log.flush)
    assert log.producer_state.snapshot_offsets == [1, 2, 3]
    assert all(log.env.files.exists(path(each, ".snapshot")) for each in (1, 2, 3))


def test_a_flush_covers_an_empty_active_segment() -> None:
    log = new_log()
    append_values(log, b"v")
    log.roll()
    anyio.run(log.flush)
    assert log.recovery_point == 1
    again = reload(log, recovery_point=1)
    assert (bases(again), again.log_end_offset, again.recovery_point) == ([0, 1], 1, 1)
    assert again.producer_state.snapshot_offsets == [1]
    append_values(again, b"w")
    assert read_all(again) == [(0, b"v"), (1, b"w")]


def test_what_overlaps_an_earlier_batch_is_no_duplicate() -> None:
    log = new_log()
    append(log, batch(b"a", b"b", b"c", producer_id=5, base_sequence=0))
    append(log, batch(b"d", b"e", producer_id=5, base_sequence=3))
    again = append(log, batch(b"a", b"b", b"c", producer_id=5, base_sequence=0))
    assert (again.first_offset, again.last_offset, again.duplicate) == (0, 2, True)
    for sequence, count in ((0, 2), (1, 2), (2, 3), (4, 1), (4, 2), (7, 1)):
        with pytest.raises(KafkaError) as caught:
            append(log, batch(*[b"v"] * count, producer_id=5, base_sequence=sequence))
        assert caught.value.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert log.log_end_offset == 5


def test_an_older_epoch_of_a_producer_is_refused() -> None:
    log = new_log()
    append(log, batch(b"a", producer_id=5, producer_epoch=1))
    with pytest.raises(KafkaError) as caught:
        append(log, batch(b"a", producer_id=5, producer_epoch=0))
    assert caught.value.error_code is ErrorCode.INVALID_PRODUCER_EPOCH
    assert log.log_end_offset == 1


def test_a_log_can_be_closed_twice() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    log.close()
    before = copy_of(log.env.files)
    log.close()
    for entry in before.list(DIRECTORY):
        name = f"{DIRECTORY}/{entry.name}"
        assert log.env.files.read(name) == before.read(name)


def test_a_flush_of_a_directory_that_is_gone() -> None:
    """Removed by hand, or by a deletion: an error of the storage, and the end of this log."""
    files = MemoryFileSystem()
    log = new_log(environment(files))
    append_values(log, b"v")
    log.env.open_files.close_idle()
    log.env.open_files.close_idle()
    files.remove_tree(DIRECTORY)
    with pytest.raises(KafkaError) as caught:
        anyio.run(log.flush)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
