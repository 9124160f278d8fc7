"""The ends of a log: its start, its leader epochs, and truncation."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.storage.log_fixture import (
    COMMITTED,
    append,
    append_marker,
    append_values,
    batch,
    new_log,
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
