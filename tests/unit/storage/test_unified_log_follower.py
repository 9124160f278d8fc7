"""Appending what a leader sent."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.storage.log_fixture import (
    aborted,
    append_marker,
    batch,
    new_log,
    read_bytes,
    transactional,
)


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
