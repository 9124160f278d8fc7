"""The ends of a log: its start, its leader epochs, and truncation."""

import pytest

from kbroker.common.clock import ManualClock
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.storage.log_fixture import (
    COMMITTED,
    DIRECTORY,
    append,
    append_marker,
    append_values,
    bases,
    batch,
    config,
    environment,
    filled,
    new_log,
    path,
    read_all,
    read_bytes,
    records_of,
    reload,
    small_segments,
    transactional,
    validated,
)


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


def test_truncation_opens_the_transaction_whose_marker_it_cuts_off() -> None:
    log = new_log()
    append_values(log, b"plain")
    transactional(log, 1, 0, b"a")
    append_values(log, b"plain")
    append_marker(log, commit=True, producer_id=1)
    assert log.last_stable_offset == 4
    log.truncate_to(3)
    assert (log.high_watermark, log.last_stable_offset) == (3, 1)
    assert [record.offset for record in records_of(read_bytes(log, isolation=COMMITTED))] == [0]
    append_marker(log, commit=True, producer_id=1)
    assert log.last_stable_offset == 4


@pytest.mark.parametrize("fully", [True, False])
def test_truncation_below_an_open_transaction_forgets_it(fully: bool) -> None:
    log = new_log()
    append_values(log, b"a", b"b")
    transactional(log, 1, 0, b"c")
    append_values(log, b"d")
    assert log.last_stable_offset == 2
    if fully:
        log.truncate_fully_and_start_at(1)
    else:
        log.truncate_to(1)
    assert log.producer_state.first_unstable_offset == -1
    append_values(log, b"e", b"f", b"g")
    assert log.last_stable_offset == log.high_watermark == log.log_end_offset


def test_the_last_stable_offset_does_not_go_back_after_a_truncation() -> None:
    log = new_log()
    transactional(log, 1, 0, b"a")
    append_marker(log, commit=True, producer_id=1)
    append_values(log, b"b", b"c", b"d")
    log.truncate_to(4)
    assert log.last_stable_offset == 4
    log.append_as_leader(
        validated(batch(b"e", producer_id=2, base_sequence=0, transactional=True)), leader_epoch=0
    )
    assert log.last_stable_offset == 4


def test_the_file_of_epochs_follows_a_truncation() -> None:
    log = new_log()
    for epoch, count in ((0, 10), (1, 6), (2, 4)):
        append_values(log, *[b"v"] * count, leader_epoch=epoch)
    file = f"{DIRECTORY}/leader-epoch-checkpoint"
    for offset, rows in (
        (20, "3 0-0 1-10 2-16"),
        (17, "3 0-0 1-10 2-16"),
        (16, "2 0-0 1-10"),
        (11, "2 0-0 1-10"),
        (10, "1 0-0"),
        (0, "0"),
    ):
        log.truncate_to(offset)
        text = "0\n" + "".join(f"{row.replace('-', ' ')}\n" for row in rows.split(" "))
        assert log.env.files.read(file).decode() == text, offset


@pytest.mark.parametrize("beyond", [0, 1])
def test_an_epoch_without_records_goes_with_a_truncation_at_the_end(beyond: int) -> None:
    log = new_log()
    append_values(log, b"a", b"b", leader_epoch=3)
    log.maybe_assign_epoch_start_offset(10, 2)
    assert log.latest_epoch == 10
    assert not log.truncate_to(2 + beyond)
    assert (log.latest_epoch, log.log_end_offset) == (3, 2)


def test_truncation_at_an_offset_that_was_compacted_away() -> None:
    for target, kept in ((25, [0, 10, 20]), (20, [0, 10]), (11, [0, 10]), (1, [0])):
        log = new_log(log_config=config(index_interval_bytes=1))
        for offset in (0, 10, 20, 30):
            log.append_as_follower(memoryview(batch(b"v", base_offset=offset)))
        log.truncate_to(target)
        assert [offset for offset, _ in read_all(log)] == kept
        assert log.log_end_offset == target
        assert [offset for offset, _ in read_all(reload(log))] == kept
        log.append_as_follower(memoryview(batch(b"w", base_offset=40)))
        assert [offset for offset, _ in read_all(log)] == [*kept, 40]


def test_the_largest_timestamp_after_a_truncation() -> None:
    log = new_log(log_config=config(index_interval_bytes=250))
    for timestamp in (100, 300, 200, 500, 400):
        append(log, batch(b"v", timestamps=[timestamp]))
    active = log.segments.active
    assert active is not None
    for offset, largest in ((4, (500, 3)), (3, (300, 1)), (1, (100, 0)), (0, (-1, 0))):
        log.truncate_to(offset)
        assert active.largest_timestamp == largest
        assert active.read_next_offset() == offset
        found = log.max_timestamp_offset()
        assert (found and found[:2]) == (None if offset == 0 else largest[::-1])


def test_a_segment_that_was_emptied_begins_its_time_anew() -> None:
    clock = ManualClock(time_ms=10_000)
    log = new_log(environment(clock=clock), config(segment_ms=1000))
    append(log, batch(b"v", timestamps=[5000]))
    clock.advance(0.9)
    log.truncate_to(0)
    clock.advance(0.9)
    append(log, batch(b"v", timestamps=[-1]))
    append(log, batch(b"v", timestamps=[9000]))
    assert bases(log) == [0]
    clock.advance(0.2)
    append(log, batch(b"v", timestamps=[-1]))
    assert bases(log) == [0, 2]


def test_truncation_without_snapshots_finds_the_producers_in_the_log() -> None:
    log = small_segments()
    for sequence in range(12):
        append(log, batch(b"v", producer_id=1, base_sequence=sequence))
    for offset in log.producer_state.snapshot_offsets:
        log.env.files.remove(path(offset, ".snapshot"))
    log.truncate_to(8)
    assert log.producer_state.producers[1].last_sequence == 7
    log.truncate_to(1)
    assert log.producer_state.producers[1].last_sequence == 0


@pytest.mark.parametrize("is_clean", [False, True])
def test_truncation_after_a_restart(is_clean: bool) -> None:
    log = filled()
    log.close()
    again = reload(log, is_clean=is_clean)
    assert again.truncate_to(3)
    assert (bases(again), again.log_end_offset) == ([0], 3)
    assert read_all(again) == [(each, b"%d" % each) for each in range(3)]
