"""Sequence numbers, duplicates, epochs, transactions and snapshots of one partition.

Restates ProducerStateManagerTest where it applies.
"""

import os

import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.files import write_atomically
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.producer_state_entry import BatchMetadata, ProducerStateEntry
from kbroker.storage.producer_state_manager import (
    MAX_VERIFYING,
    CompletedTxn,
    ProducerStateManager,
)
from tests.unit.storage.log_fixture import environment

DIRECTORY = "/p"
PID = 17
MAX = 2**31 - 1


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time_ms=100_000)


@pytest.fixture
def env(clock: ManualClock) -> LogEnvironment:
    env = environment(clock=clock)
    env.files.make_directory(DIRECTORY)
    return env


@pytest.fixture
def state(env: LogEnvironment) -> ProducerStateManager:
    return ProducerStateManager(env, DIRECTORY, "topic-0")


def check(
    state: ProducerStateManager,
    epoch: int,
    first: int,
    last: int | None = None,
    *,
    transactional: bool = False,
    origin: AppendOrigin = AppendOrigin.CLIENT,
    producer_id: int = PID,
) -> BatchMetadata | None:
    return state.check_data_batch(
        producer_id,
        epoch,
        first,
        first if last is None else last,
        is_transactional=transactional,
        origin=origin,
    )


def append(
    state: ProducerStateManager,
    epoch: int,
    first: int,
    offset: int,
    *,
    count: int = 1,
    timestamp: int = 99_000,
    transactional: bool = False,
    producer_id: int = PID,
) -> BatchMetadata:
    last = (first + count - 1) % (MAX + 1)
    assert (
        check(state, epoch, first, last, transactional=transactional, producer_id=producer_id)
        is None
    )
    batch = BatchMetadata(first, last, offset, offset + count - 1, timestamp)
    state.append_data_batch(producer_id, epoch, batch, is_transactional=transactional)
    state.map_end_offset = offset + count
    return batch


def end_txn(
    state: ProducerStateManager,
    offset: int,
    *,
    epoch: int = 0,
    abort: bool = False,
    coordinator_epoch: int = 1,
    producer_id: int = PID,
) -> CompletedTxn | None:
    state.check_marker(producer_id, epoch, coordinator_epoch)
    completed = state.append_marker(
        producer_id,
        epoch,
        coordinator_epoch=coordinator_epoch,
        offset=offset,
        timestamp=99_000,
        is_abort=abort,
    )
    if completed is not None:
        state.complete_txn(completed)
    state.map_end_offset = offset + 1
    return completed


def refused(state: ProducerStateManager, code: ErrorCode, epoch: int, first: int) -> None:
    with pytest.raises(KafkaError) as caught:
        check(state, epoch, first)
    assert caught.value.error_code is code


def test_sequences_follow_each_other(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0)
    append(state, 0, 1, 1)
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, 3)
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 1, 5)
    append(state, 1, 0, 2)
    refused(state, ErrorCode.INVALID_PRODUCER_EPOCH, 0, 2)


def test_a_check_changes_nothing(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0)
    before = repr(state.producers[PID])
    check(state, 0, 1)
    check(state, 1, 0)
    assert repr(state.producers[PID]) == before


def test_an_unknown_producer_may_begin_anywhere(state: ProducerStateManager) -> None:
    append(state, 3, 12345, 0)
    append(state, 3, 12346, 1)


def test_sequences_wrap_around(state: ProducerStateManager) -> None:
    append(state, 0, MAX, 0)
    append(state, 0, 0, 1)
    append(state, 0, 1, 2, count=MAX - 3)
    batch = append(state, 0, MAX - 2, MAX, count=9)
    assert batch.last_sequence == 5
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, 7)
    append(state, 0, 6, MAX + 9)


def test_only_the_largest_sequence_is_followed_by_zero(state: ProducerStateManager) -> None:
    append(state, 0, MAX - 1, 0)
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, 0)


def test_the_last_five_batches_are_recognised(state: ProducerStateManager) -> None:
    batches = [append(state, 0, number * 2, number * 2, count=2) for number in range(7)]
    for batch in batches[2:]:
        assert check(state, 0, batch.first_sequence, batch.last_sequence) == batch
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, batches[1].first_sequence)
    # The same first sequence number with another length is no duplicate.
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, batches[6].first_sequence)


def test_a_duplicate_has_the_epoch_of_the_original(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0)
    append(state, 1, 0, 1)
    refused(state, ErrorCode.INVALID_PRODUCER_EPOCH, 0, 0)


def test_a_duplicate_is_found_whatever_its_transactional_flag(
    state: ProducerStateManager,
) -> None:
    batch = append(state, 0, 0, 0)
    assert check(state, 0, 0, transactional=True) == batch


def test_an_epoch_of_minus_one_is_deduplicated_and_never_out_of_order(
    state: ProducerStateManager,
) -> None:
    batch = append(state, -1, 0, 0)
    assert check(state, -1, 0) == batch
    append(state, -1, 7, 1)


def test_a_coordinator_has_no_sequence_numbers(state: ProducerStateManager) -> None:
    for offset in range(3):
        assert check(state, 1, -1, origin=AppendOrigin.COORDINATOR) is None
        batch = BatchMetadata(-1, -1, offset, offset, 0)
        state.append_data_batch(PID, 1, batch, is_transactional=False)
    with pytest.raises(KafkaError) as caught:
        check(state, 0, -1, origin=AppendOrigin.COORDINATOR)
    assert caught.value.error_code is ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_transaction_bounds_what_is_stable(state: ProducerStateManager) -> None:
    assert state.first_unstable_offset == -1
    append(state, 0, 0, 10, transactional=True)
    append(state, 0, 0, 11, transactional=True, producer_id=PID + 1)
    append(state, 0, 1, 12, transactional=True)
    assert state.first_unstable_offset == 10
    completed = end_txn(state, 13)
    assert completed == CompletedTxn(PID, 10, 13, False)
    assert state.first_unstable_offset == 10  # until its marker is replicated
    state.on_high_watermark_updated(13)
    assert state.first_unstable_offset == 10
    state.on_high_watermark_updated(14)
    assert state.first_unstable_offset == 11
    assert end_txn(state, 14, producer_id=PID + 1, abort=True) == CompletedTxn(
        PID + 1, 11, 14, True
    )
    state.on_high_watermark_updated(15)
    assert state.first_unstable_offset == -1
    assert not state.has_transactions()


def test_the_last_stable_offset_of_a_completed_transaction(state: ProducerStateManager) -> None:
    append(state, 0, 0, 10, transactional=True)
    append(state, 0, 0, 11, transactional=True, producer_id=PID + 1)
    assert state.last_stable_offset(CompletedTxn(PID, 10, 20, False)) == 11
    assert state.last_stable_offset(CompletedTxn(PID + 1, 11, 20, False)) == 10
    end_txn(state, 12)
    assert state.last_stable_offset(CompletedTxn(PID + 1, 11, 20, False)) == 21


def test_an_empty_transaction_completes_nothing(state: ProducerStateManager) -> None:
    assert end_txn(state, 0) is None
    with pytest.raises(ValueError, match="not started"):
        state.complete_txn(CompletedTxn(PID, 0, 1, False))


def test_a_plain_write_inside_a_transaction_is_refused(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0, transactional=True)
    refused(state, ErrorCode.INVALID_TXN_STATE, 0, 1)


def test_a_marker_bumps_the_epoch_and_forgets_the_sequences(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0)
    end_txn(state, 1, epoch=1)
    assert state.producers[PID].producer_epoch == 1
    refused(state, ErrorCode.INVALID_PRODUCER_EPOCH, 0, 1)
    refused(state, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 1, 2)
    append(state, 1, 0, 2)


def test_a_marker_of_the_same_epoch_keeps_the_sequences(state: ProducerStateManager) -> None:
    append(state, 0, 0, 0, transactional=True)
    end_txn(state, 1)
    append(state, 0, 1, 2, transactional=True)


def test_a_marker_alone_tells_the_epoch(state: ProducerStateManager, env: LogEnvironment) -> None:
    """What the producer wrote may have been deleted, or it never wrote here."""
    assert end_txn(state, 1, epoch=4) is None
    state.take_snapshot()
    for known in (state, restored(env, 2)):
        entry = known.producers[PID]
        assert (entry.producer_epoch, entry.coordinator_epoch, entry.batches) == (4, 1, [])
        refused(known, ErrorCode.INVALID_PRODUCER_EPOCH, 3, 0)
        refused(known, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 4, 17)
        append(known, 4, 0, 2)


def test_an_abort_that_fences_is_restored(state: ProducerStateManager, env: LogEnvironment) -> None:
    append(state, 0, 5, 0, transactional=True)
    assert end_txn(state, 1, epoch=1, abort=True) == CompletedTxn(PID, 0, 1, True)
    state.take_snapshot()
    again = restored(env, 2)
    assert again.first_unstable_offset == -1
    assert (again.producers[PID].producer_epoch, again.producers[PID].last_data_offset) == (1, -1)
    refused(again, ErrorCode.INVALID_PRODUCER_EPOCH, 0, 6)
    append(again, 1, 0, 2, transactional=True)


def test_a_restored_coordinator_epoch_fences(
    state: ProducerStateManager, env: LogEnvironment
) -> None:
    append(state, 0, 0, 0, transactional=True)
    end_txn(state, 1, coordinator_epoch=9)
    state.take_snapshot()
    again = restored(env, 2)
    with pytest.raises(KafkaError) as caught:
        again.check_marker(PID, 0, 8)
    assert caught.value.error_code is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    again.check_marker(PID, 0, 9)
    assert check(again, 0, 1, transactional=True) is None


def test_truncation_takes_open_transactions_along(
    state: ProducerStateManager, env: LogEnvironment
) -> None:
    append(state, 0, 0, 9)
    state.take_snapshot()
    append(state, 0, 1, 10, transactional=True)
    assert state.first_unstable_offset == 10
    state.truncate_and_load(0, 10)
    assert (state.first_unstable_offset, state.map_end_offset) == (-1, 10)
    append(state, 0, 1, 10, transactional=True)
    state.take_snapshot()
    state.truncate_and_load(0, 11)
    assert state.first_unstable_offset == 10


def test_snapshots_of_removed_segments_go(state: ProducerStateManager, env: LogEnvironment) -> None:
    for offset in range(1, 4):
        state.map_end_offset = offset
        state.take_snapshot()
    env.files.remove(os.path.join(DIRECTORY, f"{2:020d}.snapshot"))
    state.remove_snapshots([1, 2, 7])
    assert state.snapshot_offsets == [3]
    assert [each.name for each in env.files.list(DIRECTORY)] == [f"{3:020d}.snapshot"]


def test_zombies_markers_are_refused(state: ProducerStateManager) -> None:
    append(state, 5, 0, 0, transactional=True)
    with pytest.raises(KafkaError) as caught:
        end_txn(state, 1, epoch=4)
    assert caught.value.error_code is ErrorCode.INVALID_PRODUCER_EPOCH
    end_txn(state, 1, epoch=5, coordinator_epoch=9)
    with pytest.raises(KafkaError) as caught:
        end_txn(state, 2, epoch=5, coordinator_epoch=8)
    assert caught.value.error_code is ErrorCode.TRANSACTION_COORDINATOR_FENCED
    state.check_marker(PID + 5, 0, 0)


def test_a_marker_of_level_2_is_above_its_records(state: ProducerStateManager) -> None:
    """KIP-890: one of the records' own epoch belongs to the transaction before."""
    append(state, 5, 0, 0, transactional=True)
    for epoch in (4, 5):
        with pytest.raises(KafkaError) as caught:
            state.check_marker(PID, epoch, 1, ends_epoch=True)
        assert caught.value.error_code is ErrorCode.INVALID_PRODUCER_EPOCH
    state.check_marker(PID, 6, 1, ends_epoch=True)
    assert end_txn(state, 1, epoch=6) is not None
    state.check_marker(PID, 6, 1, ends_epoch=True)  # asked again, nothing is open
    append(state, 6, 0, 2, transactional=True)
    with pytest.raises(KafkaError):
        state.check_marker(PID, 6, 1, ends_epoch=True)
    state.check_marker(PID, 6, 1)


def test_a_producer_at_the_end_of_its_epochs_can_be_aborted(state: ProducerStateManager) -> None:
    append(state, 32767, 0, 0, transactional=True)
    state.check_marker(PID, 32767, 1, ends_epoch=True)


def verify(state: ProducerStateManager, epoch: int, sequence: int, *, level: int = 1) -> None:
    state.start_verification(PID, epoch, sequence, begins_at_zero=level == 2)


def may_begin_at(state: ProducerStateManager, epoch: int, sequence: int) -> bool:
    try:
        check(state, epoch, sequence, transactional=True)
    except KafkaError as error:
        assert error.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
        return False
    return True


def test_a_new_producer_of_level_2_begins_at_zero(state: ProducerStateManager) -> None:
    verify(state, 0, 4)
    assert may_begin_at(state, 0, 4), "of level 1 it may have been known and be forgotten"
    other = PID + 1
    state.start_verification(other, 0, 4, begins_at_zero=True)
    with pytest.raises(KafkaError) as caught:
        check(state, 0, 4, producer_id=other, transactional=True)
    assert caught.value.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    check(state, 0, 0, producer_id=other, transactional=True)


def test_nothing_overtakes_a_batch_that_is_being_verified(
    state: ProducerStateManager, clock: ManualClock, env: LogEnvironment
) -> None:
    """Kafka's VerificationStateEntry: the least sequence of an epoch, until one is appended."""
    verify(state, 0, 5)
    assert [may_begin_at(state, 0, each) for each in (4, 5, 6)] == [True, True, False]
    verify(state, 0, 3)
    verify(state, 0, 4)
    assert [may_begin_at(state, 0, each) for each in (3, 4)] == [True, False]
    verify(state, 1, 7)  # a later epoch begins anew
    verify(state, 0, 2)  # of an earlier one nothing is noted
    assert [may_begin_at(state, 1, each) for each in (7, 8)] == [True, False]
    append(state, 1, 7, 0, transactional=True)
    append(state, 1, 8, 1, transactional=True)
    verify(state, 2, 0)
    clock.advance(env.producer_id_expiration_ms / 1000 + 1)
    state.remove_expired(clock.time_ms())
    end_txn(state, 2, epoch=1)
    state.remove_expired(clock.time_ms())
    assert may_begin_at(state, 2, 9), "all is forgotten"


def test_ids_that_somebody_makes_up_are_forgotten(state: ProducerStateManager) -> None:
    state.start_verification(PID, 0, 0, begins_at_zero=False)
    assert state.may_expire()
    for producer_id in range(PID + 1, PID + 1 + MAX_VERIFYING):
        state.start_verification(producer_id, 0, 0, begins_at_zero=False)
    assert may_begin_at(state, 0, 1)


def test_even_a_known_producer_waits_for_what_it_asked_for_first(
    state: ProducerStateManager,
) -> None:
    """As in Kafka: the sequence of a batch that was refused is kept, though nobody sends it."""
    append(state, 0, 0, 0, count=8, transactional=True)
    end_txn(state, 8)
    verify(state, 0, 6)
    assert not may_begin_at(state, 0, 8)
    end_txn(state, 9)
    assert may_begin_at(state, 0, 8), "a marker ends it"


def test_a_marker_of_level_2_leaves_what_the_next_epoch_asked_for(
    state: ProducerStateManager,
) -> None:
    append(state, 0, 0, 0, transactional=True)
    verify(state, 1, 0, level=2)
    end_txn(state, 1, epoch=1)
    assert not may_begin_at(state, 1, 1)
    assert may_begin_at(state, 1, 0)
    end_txn(state, 2, epoch=2)
    append(state, 2, 0, 3, transactional=True)


def test_producers_expire_unless_a_transaction_is_open(
    state: ProducerStateManager, env: LogEnvironment, clock: ManualClock
) -> None:
    append(state, 0, 0, 0, timestamp=100_000)
    append(state, 0, 0, 1, timestamp=100_000, producer_id=PID + 1, transactional=True)
    state.remove_expired(100_000 + env.producer_id_expiration_ms - 1)
    assert len(state.producers) == 2
    state.remove_expired(100_000 + env.producer_id_expiration_ms)
    assert list(state.producers) == [PID + 1]
    append(state, 0, 99, 2)  # forgotten: any sequence number


def restored(env: LogEnvironment, end: int, start: int = 0) -> ProducerStateManager:
    state = ProducerStateManager(env, DIRECTORY, "topic-0")
    names = [entry.name for entry in env.files.list(DIRECTORY)]
    offsets = [int(name.split(".")[0]) for name in names if name.endswith(".snapshot")]
    state.set_snapshots(offsets, offsets)
    state.truncate_and_load(start, end)
    return state


def test_a_snapshot_restores_the_last_batch(
    state: ProducerStateManager, env: LogEnvironment
) -> None:
    append(state, 2, 0, 0, count=3)
    append(state, 2, 3, 3, count=2)
    append(state, 0, 9, 5, producer_id=PID + 1, transactional=True)
    state.take_snapshot(sync=True)
    again = restored(env, 6)
    assert again.map_end_offset == again.last_snapshot_offset == 6
    assert again.producers[PID].batches == [BatchMetadata(3, 4, 3, 4, 99_000)]
    assert again.first_unstable_offset == 5
    append(again, 2, 5, 6)
    assert end_txn(again, 7, producer_id=PID + 1) == CompletedTxn(PID + 1, 5, 7, False)


def test_no_snapshot_without_news(state: ProducerStateManager, env: LogEnvironment) -> None:
    state.take_snapshot()
    assert env.files.list(DIRECTORY) == []
    append(state, 0, 0, 0)
    state.take_snapshot()
    state.take_snapshot()
    assert state.snapshot_offsets == [1]


def test_an_empty_snapshot_is_one(state: ProducerStateManager, env: LogEnvironment) -> None:
    state.map_end_offset = 5
    state.take_snapshot()
    again = restored(env, 9)
    assert again.producers == {}
    assert again.map_end_offset == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "version"])
def test_a_damaged_snapshot_gives_way_to_the_one_before(
    state: ProducerStateManager, env: LogEnvironment, damage: str
) -> None:
    append(state, 0, 0, 0)
    state.take_snapshot()
    append(state, 0, 1, 1)
    state.take_snapshot()
    path = os.path.join(DIRECTORY, f"{2:020d}.snapshot")
    data = bytearray(env.files.read(path))
    if damage == "cut":
        del data[-3:]
    elif damage == "flip":
        data[20] ^= 1
    elif damage == "empty":
        data.clear()
    else:
        data[1] = 9
    write_atomically(env.files, path, bytes(data))
    again = restored(env, 2)
    assert again.map_end_offset == 1
    assert again.producers[PID].last_sequence == 0
    assert not env.files.exists(path)


def test_expired_producers_are_not_restored(
    state: ProducerStateManager, env: LogEnvironment, clock: ManualClock
) -> None:
    append(state, 0, 0, 0)
    append(state, 0, 0, 1, producer_id=PID + 1, timestamp=100_000 + 1000)
    state.take_snapshot()
    clock.advance(env.producer_id_expiration_ms / 1000)
    assert list(restored(env, 2).producers) == [PID + 1]


def test_snapshots_out_of_range_go(state: ProducerStateManager, env: LogEnvironment) -> None:
    for offset in range(6):
        append(state, 0, offset, offset)
        state.take_snapshot()
    state.truncate_and_load(2, 4)
    assert state.snapshot_offsets == [3, 4]
    assert state.map_end_offset == 4
    assert state.producers[PID].last_sequence == 3
    assert len(env.files.list(DIRECTORY)) == 2
    state.delete_snapshots_before(4)
    assert state.snapshot_offsets == [4]


def test_strays_go_but_the_one_of_a_clean_shutdown(
    state: ProducerStateManager, env: LogEnvironment
) -> None:
    for offset in range(1, 7):
        state.map_end_offset = offset
        state.take_snapshot()
    state.set_snapshots([1, 2, 3, 4, 5, 6], [2, 4])
    assert state.snapshot_offsets == [2, 4, 6]
    state.set_snapshots([2, 4, 6], [2, 9])
    assert state.snapshot_offsets == [2]


def test_truncation_to_nothing(state: ProducerStateManager, env: LogEnvironment) -> None:
    append(state, 0, 0, 0, transactional=True)
    state.take_snapshot()
    state.truncate_fully_and_start_at(30)
    assert (state.producers, state.map_end_offset, state.snapshot_offsets) == ({}, 30, [])
    assert state.first_unstable_offset == -1
    assert env.files.list(DIRECTORY) == []


def test_history_is_asked_for_when_a_restored_producer_repeats(env: LogEnvironment) -> None:
    asked: list[int] = []

    def history(entry: ProducerStateEntry) -> None:
        asked.append(entry.producer_id)
        entry.is_restored = False
        entry.batches.insert(0, BatchMetadata(0, 1, 0, 1, 5))

    state = ProducerStateManager(env, DIRECTORY, "topic-0")
    append(state, 0, 2, 2, count=2)
    state.take_snapshot()
    again = ProducerStateManager(env, DIRECTORY, "topic-0", history)
    again.set_snapshots([4], [4])
    again.truncate_and_load(0, 4)
    assert check(again, 0, 2, 3) is not None
    assert check(again, 0, 4) is None
    assert asked == []
    assert check(again, 0, 0, 1) == BatchMetadata(0, 1, 0, 1, 5)
    refused(again, ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, 0, 9)
    assert asked == [PID]
