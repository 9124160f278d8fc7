"""Transactions in a log: the last stable offset, and what readers are told of aborted ones."""

import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_retention import delete_old_segments
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.faulty_files import FaultyFileSystem
from tests.unit.storage.log_fixture import (
    COMMITTED,
    HW,
    aborted,
    append,
    append_marker,
    append_values,
    batch,
    environment,
    marker,
    new_log,
    path,
    read_bytes,
    records_of,
    reload,
    small_segments,
    transactional,
    validated,
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


def committed_end(log: UnifiedLog) -> int:
    """Behind the last record that a read_committed reader gets."""
    offset = log.log_start_offset
    while records := records_of(read_bytes(log, offset, isolation=COMMITTED)):
        offset = records[-1].offset + 1
    return offset


def test_a_committed_read_ends_at_the_last_stable_offset_step_by_step() -> None:
    log = small_segments()
    stable: list[tuple[int, int]] = []

    def note() -> None:
        assert committed_end(log) == log.last_stable_offset
        stable.append((log.last_stable_offset, log.log_end_offset))

    transactional(log, 1, 0, b"a", b"b")
    note()
    append_values(log, b"plain")
    note()
    transactional(log, 2, 0, b"c")
    note()
    append_marker(log, commit=False, producer_id=1)
    note()
    transactional(log, 1, 2, b"d")
    note()
    append_values(log, b"plain")
    note()
    append_marker(log, commit=True, producer_id=2)
    note()
    append_marker(log, commit=True, producer_id=1)
    note()
    assert stable == [(0, 2), (0, 3), (0, 4), (3, 5), (3, 6), (3, 7), (5, 8), (9, 9)]


def test_the_stable_offset_follows_the_log_start_over_deleted_segments() -> None:
    log = new_log()
    transactional(log, 1, 0, *[b"v"] * 5)
    append_values(log, *[b"plain"] * 3)
    log.roll()
    transactional(log, 1, 5, *[b"v"] * 5)
    assert log.last_stable_offset == 0
    log.maybe_increment_log_start_offset(8)
    assert log.last_stable_offset == 8
    assert delete_old_segments(log) == 1
    assert log.last_stable_offset == 8
    append_marker(log, commit=False, producer_id=1)
    assert log.last_stable_offset == 14
    assert aborted(log, 8) == [(1, 0)]


def test_an_empty_transaction_ends_nothing() -> None:
    log = new_log()
    append_marker(log, commit=False, producer_id=1)
    append_marker(log, commit=False, producer_id=1)
    assert log.last_stable_offset == 2
    assert aborted(log, 0) == []
    assert not log.env.files.exists(path(0, ".txnindex"))


def test_a_marker_that_ends_nothing_is_remembered_against_zombies() -> None:
    log = new_log()

    def end(*, producer_epoch: int, coordinator_epoch: int) -> None:
        data = marker(
            commit=False,
            producer_id=1,
            producer_epoch=producer_epoch,
            coordinator_epoch=coordinator_epoch,
        )
        append(log, data, origin=AppendOrigin.COORDINATOR)

    end(producer_epoch=5, coordinator_epoch=2)
    end(producer_epoch=5, coordinator_epoch=2)
    for epochs, error in (
        ((5, 1), ErrorCode.TRANSACTION_COORDINATOR_FENCED),
        ((4, 2), ErrorCode.INVALID_PRODUCER_EPOCH),
    ):
        with pytest.raises(KafkaError) as caught:
            end(producer_epoch=epochs[0], coordinator_epoch=epochs[1])
        assert caught.value.error_code is error
    assert log.log_end_offset == 2
