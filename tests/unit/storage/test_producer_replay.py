"""Batches that are in the log already, as the producer state takes them."""

import pytest

from kbroker.common.clock import ManualClock
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.batch_filter import BatchRetention, filter_batch
from kbroker.storage.producer_replay import replay_batch
from kbroker.storage.producer_state_manager import CompletedTxn, ProducerStateManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import append, batch, environment, marker, new_log, reload

PID = 9


@pytest.fixture
def state() -> ProducerStateManager:
    return ProducerStateManager(environment(clock=ManualClock(time_ms=5000)), "/p", "topic-0")


def replay(state: ProducerStateManager, data: bytearray, offset: int) -> CompletedTxn | None:
    data[:8] = offset.to_bytes(8, "big")
    completed = replay_batch(state, RecordBatchHeader(data), memoryview(data))
    if completed is not None:
        state.complete_txn(completed)
    return completed


def test_a_marker_that_the_cleaner_emptied_ends_nothing(state: ProducerStateManager) -> None:
    emptied = filter_batch(
        memoryview(marker(commit=False, producer_id=PID)),
        retention=BatchRetention.RETAIN_EMPTY,
        keep=lambda record: False,
        has_marker_of_empty_transaction=True,
        delete_horizon_ms=0,
    )
    assert emptied is not None
    assert replay(state, bytearray(emptied.data), 3) is None
    assert state.producers == {}
    replay(state, batch(b"v", producer_id=PID, transactional=True), 4)
    assert replay(state, bytearray(emptied.data), 5) is None
    assert state.first_unstable_offset == 4
    assert replay(state, marker(commit=True, producer_id=PID), 6) == CompletedTxn(PID, 4, 6, False)


def test_a_batch_that_the_cleaner_emptied_still_tells_the_sequence(
    state: ProducerStateManager,
) -> None:
    data = batch(b"a", b"b", producer_id=PID, producer_epoch=2, base_sequence=4)
    emptied = filter_batch(
        memoryview(data),
        retention=BatchRetention.RETAIN_EMPTY,
        keep=lambda record: False,
        has_marker_of_empty_transaction=False,
        delete_horizon_ms=0,
    )
    assert emptied is not None
    replay(state, bytearray(emptied.data), 10)
    entry = state.producers[PID]
    assert (entry.producer_epoch, entry.last_sequence, entry.last_data_offset) == (2, 5, 11)


def test_what_has_no_producer_leaves_no_trace(state: ProducerStateManager) -> None:
    assert replay(state, batch(b"v"), 0) is None
    assert state.producers == {}


def follow(log: UnifiedLog, offset: int, data: bytearray) -> None:
    data[:8] = offset.to_bytes(8, "big")
    log.append_as_follower(memoryview(data))
    log.update_high_watermark(log.log_end_offset)


def test_a_follower_takes_what_its_leader_took() -> None:
    """Neither a producer that it does not know nor a gap of sequence numbers is its business; as a
    leader it goes on from there."""
    log = new_log()
    follow(log, 0, batch(b"v", producer_id=PID, producer_epoch=3, base_sequence=15))
    follow(log, 1, batch(b"v", producer_id=PID, producer_epoch=3, base_sequence=19))
    assert log.producer_state.producers[PID].last_sequence == 19
    with pytest.raises(KafkaError) as caught:
        append(log, batch(b"v", producer_id=PID, producer_epoch=3, base_sequence=21))
    assert caught.value.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    append(log, batch(b"v", producer_id=PID, producer_epoch=3, base_sequence=20))
    again = reload(log)
    assert again.producer_state.producers[PID].last_sequence == 20


def test_offset_commits_all_have_the_same_sequence_and_are_taken() -> None:
    """A coordinator's transactional batches carry none; only their epoch is looked at."""
    log = new_log()
    for number in range(7):
        data = batch(b"%d" % number, producer_id=PID, base_sequence=0, transactional=True)
        info = append(log, data, origin=AppendOrigin.COORDINATOR)
        assert (info.first_offset, info.duplicate) == (number, False)
    assert log.last_stable_offset == 0
