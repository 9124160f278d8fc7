"""Append, read, roll, offsets, epochs and truncation of a log.

Restates UnifiedLogTest, LocalLogTest and LogSegmentTest where they apply.
"""

import errno

import anyio
import anyio.lowlevel
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.faults import Faults
from kbroker.common.files import MemoryFileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, iter_batches, verify_crc
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.checkpoints import read_partition_metadata
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    TOPIC_ID,
    append,
    append_marker,
    append_values,
    batch,
    config,
    environment,
    marker,
    new_log,
    read_all,
    read_bytes,
    records_of,
    reload,
    validated,
)

HW = FetchIsolation.HIGH_WATERMARK
END = FetchIsolation.LOG_END
COMMITTED = FetchIsolation.TXN_COMMITTED


def small_segments() -> UnifiedLog:
    """About five one-record batches a segment."""
    return new_log(log_config=config(segment_bytes=400, index_interval_bytes=100))


def bases(log: UnifiedLog) -> list[int]:
    return log.segments.base_offsets


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


# Reading


def test_reads_begin_at_the_batch_that_holds_the_offset() -> None:
    log = small_segments()
    for number in range(6):
        append(log, batch(b"%d" % number, b"b", b"c"))
    for offset in range(18):
        records = records_of(read_bytes(log, offset))
        assert records[0].offset == offset - offset % 3


def test_reads_stop_at_the_end_of_a_segment() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 13)
    assert [record.offset for record in records_of(read_bytes(log, 3))] == [3, 4]
    assert [record.offset for record in records_of(read_bytes(log, 12))] == [12]


def test_reads_outside_the_log_are_refused() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    assert read_bytes(log, 7) == b""
    log.maybe_increment_log_start_offset(2)
    for offset in (-1, 1, 8):
        with pytest.raises(KafkaError) as caught:
            read_bytes(log, offset)
        assert caught.value.error_code is ErrorCode.OFFSET_OUT_OF_RANGE


def test_limits_on_what_a_read_returns() -> None:
    log = new_log()
    append_values(log, *[b"v" * 100] * 4)
    size = len(batch(b"v" * 100))
    assert len(read_bytes(log, 0, max_bytes=2 * size)) == 2 * size
    assert len(read_bytes(log, 0, max_bytes=2 * size + 7)) == 2 * size + 7
    # The first batch whole when it is asked for, else nothing that does not fit.
    assert len(read_bytes(log, 1, max_bytes=1)) == size
    assert len(read_bytes(log, 1, max_bytes=0)) == size
    for max_bytes in (0, 1, size - 1):
        info = log.read(1, max_bytes=max_bytes, isolation=END, min_one_message=False)
        assert len(info.records) == 0
        assert info.first_entry_incomplete is (max_bytes > 0)
    assert len(read_bytes(log, 1, max_bytes=size, min_one_message=False)) == size
    with pytest.raises(KafkaError) as caught:
        read_bytes(log, 0, max_bytes=-1)
    assert caught.value.error_code is ErrorCode.UNKNOWN_SERVER_ERROR
    assert read_bytes(log, 4, max_bytes=-1) == b""


def test_reads_are_bounded_by_the_high_watermark() -> None:
    log = small_segments()
    for _ in range(9):
        log.append_as_leader(validated(batch(b"v", b"w")), leader_epoch=0)
    for watermark in range(19):
        log.update_high_watermark(watermark)
        seen = [
            record.offset
            for offset in range(0, 18, 2)
            for record in records_of(read_bytes(log, offset, isolation=HW))
        ]
        # Whole batches below the watermark: the batch that holds it is not shown.
        assert sorted(set(seen)) == list(range(watermark - watermark % 2))
    assert len(read_bytes(log, 16, isolation=END)) > 0


def test_the_high_watermark_stays_inside_the_log() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    log.update_high_watermark(99)
    assert log.high_watermark == 7
    log.maybe_increment_log_start_offset(3)
    log.update_high_watermark(1)
    assert log.high_watermark == 3
    append_values(log, b"v")
    assert log.high_watermark == 8


def test_reads_across_a_gap() -> None:
    log = new_log()
    view = memoryview(batch(b"a", base_offset=0) + batch(b"b", base_offset=10))
    log.append_as_follower(view)
    log.append_as_follower(memoryview(batch(b"c", base_offset=20)))
    for offset, expected in ((0, 0), (1, 10), (10, 10), (11, 20), (20, 20)):
        assert records_of(read_bytes(log, offset))[0].offset == expected
    log.roll()
    log.append_as_follower(memoryview(batch(b"d", base_offset=40)))
    assert bases(log) == [0, 21]
    assert records_of(read_bytes(log, 25))[0].offset == 40


def test_a_read_whose_segment_was_compacted_to_its_end_goes_on_in_the_next() -> None:
    log = new_log()
    log.append_as_follower(memoryview(batch(b"a", base_offset=0)))
    log.roll()
    log.log_end_offset = 30  # the records 1 to 29 were removed
    log.roll()
    log.append_as_follower(memoryview(batch(b"b", base_offset=30)))
    assert [record.offset for record in records_of(read_bytes(log, 5))] == [30]


def test_a_slice_outlives_its_segment() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    expected = b"".join(info.records.parts())
    log.truncate_fully_and_start_at(50)
    assert b"".join(info.records.parts()) == expected
    assert len(info.records) == len(expected)


def test_a_slice_of_what_was_truncated_says_so() -> None:
    log = new_log()
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    log.truncate_to(3)
    with pytest.raises(OSError, match="are left"):
        info.records.parts()


def test_reads_where_open_files_cannot_be_renamed() -> None:
    files = MemoryFileSystem()
    files.renames_open_files = False
    log = new_log(environment(files), config(segment_bytes=400))
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    log.truncate_fully_and_start_at(0)
    assert len(records_of(b"".join(info.records.parts()))) == 5


def test_batches_for_a_loader() -> None:
    log = small_segments()
    for number in range(9):
        append(log, batch(b"%d" % number, b"x" * 50))
    log.maybe_increment_log_start_offset(5)
    found = [RecordBatchHeader(view).base_offset for view in log.read_batches(0)]
    assert found == [4, 6, 8, 10, 12, 14, 16]
    found = [RecordBatchHeader(view).base_offset for view in log.read_batches(7, 12)]
    assert found == [6, 8, 10]
    batches = log.read_batches(0)
    next(batches)
    append(log, batch(b"later"))
    assert len(list(batches)) == 6
    assert list(log.read_batches(99)) == []


def test_a_read_error_is_a_storage_error() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    log.env.open_files.close_idle()
    log.env.open_files.close_idle()
    log.env.files.remove(f"{DIRECTORY}/00000000000000000000.log")
    for search in (
        lambda: read_bytes(log, 0),
        lambda: log.offset_for_timestamp(5) and None,
        lambda: list(log.read_batches(0)),
    ):
        with pytest.raises(KafkaError) as caught:
            search()
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert len(read_bytes(log, 5)) > 0


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


# Log start, epochs, truncation


def test_the_log_start_moves_up_to_the_high_watermark() -> None:
    log = small_segments()
    changed: list[object] = []
    log.env.on_log_start_changed = changed.append
    append_values(log, *[b"v"] * 7)
    log.append_as_leader(validated(batch(b"v")), leader_epoch=0)
    with pytest.raises(KafkaError) as caught:
        log.maybe_increment_log_start_offset(8)
    assert caught.value.error_code is ErrorCode.OFFSET_OUT_OF_RANGE
    assert log.maybe_increment_log_start_offset(6)
    assert not log.maybe_increment_log_start_offset(6)
    assert not log.maybe_increment_log_start_offset(2)
    assert log.log_start_offset == 6
    assert changed == [log]
    assert [offset for offset, _ in read_all(log)] == [6, 7]
    assert log.epochs.earliest_entry == (0, 6)


def test_epochs_follow_the_batches() -> None:
    log = small_segments()
    append_values(log, b"a", b"b", leader_epoch=1)
    append_values(log, b"c", leader_epoch=3)
    log.maybe_assign_epoch_start_offset(5, 3)
    assert log.latest_epoch == 5
    assert log.end_offset_for_epoch(1) == (1, 2)
    assert log.end_offset_for_epoch(2) == (1, 2)
    assert log.end_offset_for_epoch(3) == (3, 3)
    assert log.end_offset_for_epoch(5) == (5, 3)
    assert log.end_offset_for_epoch(6) == (-1, -1)
    assert log.end_offset_for_epoch(-2) == (-2, 0)
    log.truncate_to(2)
    assert log.latest_epoch == 1
    assert log.end_offset_for_epoch(1) == (1, 2)


def test_truncation_in_the_middle_of_everything() -> None:
    for target in range(14):
        log = small_segments()
        append_values(log, *[b"%d" % number for number in range(13)])
        assert log.truncate_to(target) is (target < 13)
        assert log.log_end_offset == log.high_watermark == min(target, 13)
        assert read_all(log) == [(each, b"%d" % each) for each in range(log.log_end_offset)]
        assert read_all(reload(log)) == read_all(log)
        append_values(log, b"after", b"after too")
        assert len(read_all(log)) == log.log_end_offset
        log.close()
        assert read_all(reload(log, is_clean=True)) == read_all(log)
    with pytest.raises(ValueError, match="-1"):
        log.truncate_to(-1)


def test_truncation_takes_a_whole_batch() -> None:
    log = new_log()
    append(log, batch(b"a", b"b"))
    append(log, batch(b"c", b"d"))
    log.truncate_to(3)
    # The batch 2..3 is gone, the next record is 3 all the same: a follower's leader decides.
    assert [offset for offset, _ in read_all(log)] == [0, 1]
    assert log.log_end_offset == 3


def test_truncation_below_the_first_segment_begins_anew() -> None:
    log = small_segments()
    log.truncate_fully_and_start_at(20)
    append_values(log, b"a", b"b")
    assert [offset for offset, _ in read_all(log)] == [20, 21]
    assert log.truncate_to(7)
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (7, 7, 7)
    append_values(log, b"c")
    assert read_all(log) == [(7, b"c")]
    assert read_all(reload(log)) == [(7, b"c")]


def test_full_truncation_forgets_everything() -> None:
    log = small_segments()
    for sequence in range(9):
        append(log, batch(b"v", producer_id=1, base_sequence=sequence), leader_epoch=2)
    log.truncate_fully_and_start_at(100)
    assert (log.log_start_offset, log.log_end_offset, log.high_watermark) == (100, 100, 100)
    assert log.latest_epoch == -1
    assert log.producer_state.producers == {}
    assert append(log, batch(b"v", producer_id=1, base_sequence=77)).first_offset == 100


def test_truncation_rebuilds_the_producer_state() -> None:
    log = small_segments()
    for sequence in range(12):
        append(log, batch(b"v", producer_id=1, base_sequence=sequence))
    log.truncate_to(7)
    assert log.producer_state.producers[1].last_sequence == 6
    with pytest.raises(KafkaError):
        append(log, batch(b"v", producer_id=1, base_sequence=12))
    assert append(log, batch(b"v", producer_id=1, base_sequence=7)).first_offset == 7


# Transactions


def transactional(log: UnifiedLog, producer_id: int, sequence: int, *values: bytes) -> None:
    append(
        log,
        batch(*values, producer_id=producer_id, base_sequence=sequence, transactional=True),
    )


def test_the_last_stable_offset_waits_for_open_transactions() -> None:
    log = small_segments()
    append_values(log, b"plain")
    transactional(log, 1, 0, b"a", b"b")
    append_values(log, b"plain")
    transactional(log, 2, 0, b"c")
    assert (log.high_watermark, log.last_stable_offset) == (5, 1)
    assert [record.offset for record in records_of(read_bytes(log, isolation=COMMITTED))] == [0]
    assert read_bytes(log, 1, isolation=COMMITTED) == b""
    append_marker(log, commit=True, producer_id=1)
    assert log.last_stable_offset == 4
    append_marker(log, commit=False, producer_id=2)
    assert log.last_stable_offset == log.high_watermark == 7


def test_a_marker_counts_once_it_is_replicated() -> None:
    log = new_log()
    transactional(log, 1, 0, b"a")
    data = batch(b"x")
    log.append_as_leader(validated(data), leader_epoch=0)
    log.append_as_leader(
        validated(marker(commit=True, producer_id=1)),
        leader_epoch=0,
        origin=AppendOrigin.COORDINATOR,
    )
    log.update_high_watermark(2)
    assert log.last_stable_offset == 0
    log.update_high_watermark(3)
    assert log.last_stable_offset == 3


def test_the_stable_offset_is_not_below_the_log_start() -> None:
    log = small_segments()
    transactional(log, 1, 0, b"a", b"b")
    append_values(log, b"v", b"v")
    log.maybe_increment_log_start_offset(3)
    assert log.last_stable_offset == 3


def aborted(log: UnifiedLog, offset: int) -> list[tuple[int, int]] | None:
    info = log.read(offset, max_bytes=10_000, isolation=COMMITTED, min_one_message=True)
    found = info.aborted_transactions
    return None if found is None else [tuple(each) for each in found]  # type: ignore[misc]


def test_readers_are_told_of_aborted_transactions() -> None:
    log = small_segments()
    transactional(log, 1, 0, b"a")
    transactional(log, 2, 0, b"b")
    append_marker(log, commit=True, producer_id=2)
    append_marker(log, commit=False, producer_id=1)
    append_values(log, *[b"v"] * 12)
    assert len(log.segments) > 2
    assert aborted(log, 0) == [(1, 0)]
    assert aborted(log, 3) == [(1, 0)]
    assert aborted(log, log.log_end_offset - 1) == []
    assert aborted(log, log.log_end_offset) == []
    info = log.read(0, max_bytes=100, isolation=HW, min_one_message=True)
    assert info.aborted_transactions is None


def test_an_aborted_transaction_over_several_segments() -> None:
    log = small_segments()
    for sequence in range(20):
        transactional(log, 1, sequence, b"v")
    append_marker(log, commit=False, producer_id=1)
    assert len(log.segments) > 3
    assert aborted(log, 0) == [(1, 0)]
    again = reload(log)
    again.update_high_watermark(again.log_end_offset)
    assert aborted(again, 0) == [(1, 0)]
    assert again.last_stable_offset == again.log_end_offset


def test_an_abort_that_cannot_be_indexed_keeps_the_transaction_open() -> None:
    files = FaultyFileSystem(MemoryFileSystem())
    log = new_log(environment(files))
    transactional(log, 1, 0, b"a")
    files.fail_at = files.calls + 2  # the marker's write, then the index file's creation
    with pytest.raises(KafkaError) as caught:
        append_marker(log, commit=False, producer_id=1)
    assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    log.update_high_watermark(log.log_end_offset)
    assert (log.log_end_offset, log.last_stable_offset) == (2, 0)
    again = reload(log, files=files.inner)
    again.update_high_watermark(2)
    assert aborted(again, 0) == [(1, 0)]
    assert again.last_stable_offset == 2


# Followers


def test_a_follower_takes_offsets_and_epochs_as_they_are() -> None:
    log = new_log()
    data = batch(b"a", b"b", base_offset=5, leader_epoch=2) + batch(
        b"c", base_offset=9, leader_epoch=4, producer_id=3, base_sequence=6
    )
    info = log.append_as_follower(memoryview(data + b"cut batch"))
    assert info is not None
    assert (info.first_offset, info.last_offset) == (5, 9)
    assert (log.log_start_offset, log.log_end_offset) == (5, 10)
    assert read_bytes(log, 5) == bytes(data)
    assert log.end_offset_for_epoch(2) == (2, 9)
    assert log.producer_state.producers[3].last_sequence == 6
    assert log.append_as_follower(memoryview(b"")) is None


def test_a_follower_refuses_what_is_damaged_or_out_of_order() -> None:
    log = new_log()
    log.append_as_follower(memoryview(batch(b"a", b"b", base_offset=0)))
    for offset in (0, 1):
        with pytest.raises(ValueError, match="2 or above is expected"):
            log.append_as_follower(memoryview(batch(b"c", base_offset=offset)))
    with pytest.raises(ValueError, match="or above is expected"):
        log.append_as_follower(memoryview(batch(b"c", base_offset=5) + batch(b"d", base_offset=5)))
    damaged = batch(b"c", base_offset=2)
    damaged[-1] ^= 1
    with pytest.raises(KafkaError) as caught:
        log.append_as_follower(memoryview(damaged))
    assert caught.value.error_code is ErrorCode.CORRUPT_MESSAGE
    assert log.log_end_offset == 2


def test_an_aborted_transaction_reaches_a_follower() -> None:
    leader = new_log()
    transactional(leader, 1, 0, b"a")
    append_marker(leader, commit=False, producer_id=1)
    follower = new_log()
    follower.append_as_follower(memoryview(read_bytes(leader)))
    follower.update_high_watermark(2)
    assert aborted(follower, 0) == [(1, 0)]
    assert follower.last_stable_offset == 2


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
