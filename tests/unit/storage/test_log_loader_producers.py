"""Producers and transactions of a log, as the next process finds them."""

import anyio
import pytest

from kbroker.common.faults import Faults
from kbroker.common.files import write_atomically
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import patch
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_loader import load_log
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    append,
    append_marker,
    append_values,
    batch,
    config,
    copy_of,
    environment,
    filled,
    marker,
    new_log,
    path,
    reload,
)

SETTINGS = config(segment_bytes=400, index_interval_bytes=100)


def idempotent(log: UnifiedLog, first: int, count: int, producer_id: int = 5) -> None:
    for sequence in range(first, first + count):
        append(log, batch(b"%d" % sequence, producer_id=producer_id, base_sequence=sequence))


@pytest.mark.parametrize("recovery_point", [0, 3, 8, 12, 17, 99])
def test_producers_are_known_after_a_kill(recovery_point: int) -> None:
    log = new_log(log_config=SETTINGS)
    idempotent(log, 0, 17)
    again = reload(log, recovery_point=recovery_point)
    for sequence in range(12, 17):
        info = append(again, batch(b"x", producer_id=5, base_sequence=sequence))
        assert (info.duplicate, info.first_offset) == (True, sequence)
    assert append(again, batch(b"x", producer_id=5, base_sequence=17)).first_offset == 17


@pytest.mark.parametrize("is_clean", [True, False])
def test_the_last_five_batches_are_known_after_several_restarts(is_clean: bool) -> None:
    log = new_log()
    idempotent(log, 0, 9)
    idempotent(log, 0, 3, producer_id=6)
    for _ in range(3):
        if is_clean:
            log.close()
        log = reload(log, is_clean=is_clean, recovery_point=log.log_end_offset)
    for sequence in range(4, 9):
        info = append(log, batch(b"x", producer_id=5, base_sequence=sequence))
        assert (info.duplicate, info.first_offset) == (True, sequence)
    assert append(log, batch(b"x", producer_id=6, base_sequence=0)).first_offset == 9
    assert append(log, batch(b"x", producer_id=6, base_sequence=3)).first_offset == 12


@pytest.mark.parametrize("damage", ["all", "last", "corrupt"])
def test_lost_snapshots_are_made_up_for_by_the_log(damage: str) -> None:
    log = new_log(log_config=SETTINGS)
    idempotent(log, 0, 17)
    log.close()
    files = log.env.files
    names = sorted(each.name for each in files.list(DIRECTORY) if "snapshot" in each.name)
    assert len(names) > 3
    for name in names if damage == "all" else names[-1:]:
        if damage == "corrupt":
            files.open(f"{DIRECTORY}/{name}").write_at(b"\xff", 12)
        else:
            files.remove(f"{DIRECTORY}/{name}")
    again = reload(log)
    assert again.producer_state.producers[5].last_sequence == 16
    if damage != "all":
        assert reload(log, is_clean=True).producer_state.producers[5].last_sequence == 16


def test_snapshots_above_the_log_are_removed() -> None:
    log = filled()
    log.close()
    assert log.producer_state.snapshot_offsets == [5, 10, 13]
    log.env.files.open(path(10, ".log")).truncate(len(batch(b"10")))
    again = reload(log)
    assert again.log_end_offset == 11
    assert again.producer_state.snapshot_offsets == [5, 10]
    again.take_producer_snapshot()
    assert again.producer_state.snapshot_offsets == [5, 10, 11]


def test_transactions_are_known_after_a_kill() -> None:
    log = new_log(log_config=SETTINGS)
    for producer_id in (1, 2):
        data = batch(b"v", producer_id=producer_id, base_sequence=0, transactional=True)
        append(log, data)
    append_values(log, *[b"plain"] * 9)
    append_marker(log, commit=False, producer_id=1)
    for recovery_point in (0, 2, 11, 12):
        again = reload(log, recovery_point=recovery_point)
        again.update_high_watermark(again.log_end_offset)
        assert again.last_stable_offset == 1
        assert again.producer_state.producers[2].current_txn_first_offset == 1
        assert again.producer_state.producers[1].current_txn_first_offset == -1
        marker_segment = again.segments.floor(11)
        assert marker_segment is not None
        assert [txn.first_offset for txn in marker_segment.transaction_index] == [0]
        append_marker(again, commit=True, producer_id=2)
        assert again.last_stable_offset == 13
        again.truncate_to(12)


def with_aborts() -> UnifiedLog:
    """One segment; transactions of producer 1 are aborted at 3, 7, 11, ..."""
    log = new_log(log_config=config(index_interval_bytes=100))
    for sequence in range(0, 30, 3):
        for number in range(3):
            data = batch(b"v", producer_id=1, base_sequence=sequence + number, transactional=True)
            append(log, data)
        append_marker(log, commit=False, producer_id=1)
    return log


def aborts_of(log: UnifiedLog) -> list[tuple[int, int]]:
    return [
        (transaction.first_offset, transaction.last_offset)
        for segment in log.segments
        for transaction in segment.transaction_index
    ]


EXPECTED_ABORTS = [(first, first + 3) for first in range(0, 40, 4)]


@pytest.mark.parametrize("recovery_point", [0, 1, 6, 17, 39, 40])
def test_aborted_transactions_are_indexed_once_wherever_recovery_begins(
    recovery_point: int,
) -> None:
    log = with_aborts()
    anyio.run(log.flush)
    again = reload(log, recovery_point=recovery_point)
    assert aborts_of(again) == EXPECTED_ABORTS
    again.update_high_watermark(again.log_end_offset)
    assert again.last_stable_offset == 40


@pytest.mark.parametrize("is_clean", [True, False])
@pytest.mark.parametrize("recovery_point", [0, 25])
def test_a_damaged_transaction_index_is_rebuilt(is_clean: bool, recovery_point: int) -> None:
    log = with_aborts()
    log.close()
    anyio.run(log.flush)
    log.env.files.open(path(0, ".txnindex")).write_at(b"\xff" * 5, 40)
    again = reload(log, is_clean=is_clean, recovery_point=recovery_point)
    assert aborts_of(again) == EXPECTED_ABORTS
    assert again.log_end_offset == 40


def test_planted_faults_do_what_they_say() -> None:
    log = new_log()
    idempotent(log, 0, 5)
    log.env.files.open(path(0, ".log")).write_at(b"\xff", log.size - 2)
    for planted, end, known in (
        ("", 4, True),
        ("tail_without_crc", 5, True),
        ("producer_state_not_restored", 4, False),
    ):
        again = load_log(
            environment(copy_of(log.env.files), faults=Faults(planted=planted)),
            DIRECTORY,
            "topic",
            0,
            config=SETTINGS,
            is_clean=False,
        )
        assert again.log_end_offset == end
        assert bool(again.producer_state.producers) is known


def test_transactions_are_known_without_any_snapshot() -> None:
    """Recovery of the last segment needs producers that only the segments before it tell of."""
    log = new_log(log_config=SETTINGS)
    for sequence in range(9):
        data = batch(b"v", producer_id=1, base_sequence=sequence, transactional=True)
        append(log, data)
    append_marker(log, commit=False, producer_id=1)
    base = log.segments.base_offsets[-1]
    for offset in log.producer_state.snapshot_offsets:
        log.env.files.remove(path(offset, ".snapshot"))
    log.env.files.remove(path(base, ".txnindex"))
    log.env.files.remove(path(base, ".index"))
    again = reload(log, recovery_point=base)
    assert aborts_of(again) == [(0, 9)]


def test_a_coordinator_epoch_that_went_back_is_taken_as_it_is() -> None:
    """Kafka once let coordinators write such markers (KAFKA-9144)."""
    log = new_log()
    for offset, epoch in enumerate((5, 2)):
        data = marker(commit=True, producer_id=1, coordinator_epoch=epoch)
        patch(memoryview(data), 0, offset, 0)
        log.append_as_follower(memoryview(data))
    for found in (log, reload(log)):
        assert found.producer_state.producers[1].coordinator_epoch == 2
    log.close()
    assert reload(log, is_clean=True).producer_state.producers[1].coordinator_epoch == 2


def test_damage_below_the_log_start_leaves_no_snapshot_of_what_is_gone() -> None:
    log = new_log()
    for number in range(9):
        append(log, batch(b"%d" % number, producer_id=1, base_sequence=number))
        log.roll()
    log.env.files.open(path(1, ".log")).write_at(b"damaged", 0)
    again = reload(log, log_start_offset=4)
    assert (again.log_start_offset, again.log_end_offset) == (4, 4)
    assert again.segments.base_offsets == [4]
    names = {entry.name for entry in log.env.files.list(DIRECTORY)}
    assert not [name for name in names if name.endswith(".snapshot")]
    assert again.producer_state.producers == {}
    for number in range(3):
        append(again, batch(b"v", producer_id=1, base_sequence=number))
        again.roll()
    assert again.producer_state.snapshot_offsets == [5, 6, 7]
    assert all(again.env.files.exists(path(offset, ".snapshot")) for offset in (5, 6, 7))


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_producer_whose_epoch_a_marker_ended_after_a_restart(is_clean: bool) -> None:
    """Its batches from before the restart are of another epoch: none is looked for."""
    log = new_log()
    append(log, batch(b"a", producer_id=1, base_sequence=0, transactional=True))
    log.close()
    again = reload(log, is_clean=is_clean, recovery_point=log.log_end_offset)
    data = marker(commit=False, producer_id=1, producer_epoch=1)
    append(again, data, origin=AppendOrigin.COORDINATOR)
    info = append(again, batch(b"b", producer_id=1, producer_epoch=1, base_sequence=0))
    assert (info.first_offset, info.duplicate) == (2, False)
    with pytest.raises(KafkaError) as caught:
        append(again, batch(b"b", producer_id=1, producer_epoch=1, base_sequence=7))
    assert caught.value.error_code is ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("how", ["truncate", "recover", "open"])
def test_the_producer_of_a_batch_that_the_log_starts_in_is_known(how: str) -> None:
    log = new_log()
    append(log, batch(b"a", b"b", b"c", producer_id=1, base_sequence=0, transactional=True))
    append(log, batch(b"d", producer_id=2, base_sequence=0))
    log.maybe_increment_log_start_offset(1)
    if how == "truncate":
        log.truncate_to(3)
    else:
        log.close()
        log.env.files.remove(path(4, ".snapshot"))
        write_atomically(log.env.files, path(0, ".snapshot"), b"")  # one that tells nothing
        log = reload(log, is_clean=how == "open", recovery_point=4, log_start_offset=1)
        log.update_high_watermark(4)
    assert log.producer_state.producers[1].last_sequence == 2
    assert log.last_stable_offset == 1
    again = append(log, batch(b"a", b"b", b"c", producer_id=1, base_sequence=0, transactional=True))
    assert (again.first_offset, again.duplicate) == (0, True)


def test_producers_of_deleted_records_are_known_wherever_recovery_begins() -> None:
    log = new_log(log_config=config(index_interval_bytes=1))
    for producer_id in range(6):
        append(log, batch(b"v", producer_id=producer_id))
    anyio.run(log.flush)
    log.maybe_increment_log_start_offset(3)
    for recovery_point in range(7):
        again = reload(log, recovery_point=recovery_point, log_start_offset=3)
        assert sorted(again.producer_state.producers) == list(range(6)), recovery_point


@pytest.mark.parametrize("is_clean", [True, False])
def test_a_transaction_index_may_be_empty(is_clean: bool) -> None:
    """A truncation leaves one, ours as well as Kafka's."""
    log = with_aborts()
    log.truncate_to(2)
    log.close()
    assert log.env.files.size(path(0, ".txnindex")) == 0
    again = reload(log, is_clean=is_clean, recovery_point=2)
    assert (again.log_end_offset, aborts_of(again)) == (2, [])
    append_marker(again, commit=False, producer_id=1)
    assert aborts_of(again) == [(0, 2)]
