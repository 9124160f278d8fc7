"""Records by time, exact to the record."""

import random

import pytest

from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import LOG_APPEND_TIME_BIT, patch_timestamps
from kbroker.storage import log_validator
from kbroker.storage.timestamp_search import read_end_transaction_marker
from kbroker.storage.unified_log import UnifiedLog
from tests.sizes import size
from tests.unit.storage.log_fixture import (
    append,
    batch,
    config,
    marker,
    new_log,
    reload,
    validated,
)


def log_of(*batches: list[int], compression: int = 0, segment_bytes: int = 400) -> UnifiedLog:
    log = new_log(log_config=config(segment_bytes=segment_bytes, index_interval_bytes=100))
    for epoch, timestamps in enumerate(batches):
        data = batch(*[b"v"] * len(timestamps), timestamps=timestamps, compression=compression)
        append(log, data, leader_epoch=epoch)
    return log


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_the_first_record_at_or_after_a_time(compression: int) -> None:
    log = log_of([10, 20, 30], [25, 5, 40], [50], compression=compression, segment_bytes=10_000)
    expected = {0: 0, 10: 0, 11: 1, 20: 1, 21: 2, 30: 2, 31: 5, 40: 5, 41: 6, 50: 6}
    for timestamp, offset in expected.items():
        found = log.offset_for_timestamp(timestamp)
        assert found is not None and found.offset == offset
    assert log.offset_for_timestamp(31) == (5, 40, 1)
    assert log.offset_for_timestamp(51) is None


def test_the_log_start_hides_records() -> None:
    log = log_of([10, 20, 30], [40])
    log.maybe_increment_log_start_offset(2)
    assert log.offset_for_timestamp(0) == (2, 30, 0)
    log.maybe_increment_log_start_offset(4)
    assert log.offset_for_timestamp(0) is None


def test_the_largest_timestamp_is_the_first_record_that_has_it() -> None:
    log = log_of([10, 70, 30], [70], [60], segment_bytes=10_000)
    assert log.max_timestamp_offset() == (1, 70, 0)
    append(log, batch(b"v", timestamps=[71]), leader_epoch=8)
    assert log.max_timestamp_offset() == (5, 71, 8)


def test_a_batch_is_inflated_as_far_as_the_topic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_validator, "MIN_INFLATED_LIMIT", 1000)
    for max_message_bytes, is_found in ((100, True), (10, False)):
        log = new_log(log_config=config(max_message_bytes=max_message_bytes))
        append(log, batch(bytes(1500), timestamps=[7], compression=4))
        for search in (log.max_timestamp_offset, lambda log=log: log.offset_for_timestamp(5)):
            if is_found:
                assert search() == (0, 7, 0)
            else:
                with pytest.raises(KafkaError):
                    search()


def test_records_without_a_time() -> None:
    log = log_of([-1], [-1])
    assert log.offset_for_timestamp(0) is None
    assert log.max_timestamp_offset() == (0, -1, 0)


def test_a_segment_without_times_counts_as_old_as_its_last_write() -> None:
    """The search goes no further than there, though a later segment would have the record."""
    log = log_of([-1], [-1])
    log.roll()
    append(log, batch(b"v", timestamps=[3_000_000]))
    now = log.env.clock.time_ms()
    assert log.offset_for_timestamp(now) is None
    assert log.offset_for_timestamp(now + 1) == (2, 3_000_000, 0)
    assert log.max_timestamp_offset() == (2, 3_000_000, 0)


def test_log_append_time_counts_for_every_record() -> None:
    log = new_log()
    data = batch(b"a", b"b", timestamps=[1, 2])
    patch_timestamps(data, 0, len(data), attributes=LOG_APPEND_TIME_BIT, max_timestamp=500)
    log.append_as_leader(validated(data, log_append_time_ms=500), leader_epoch=0)
    assert log.offset_for_timestamp(3) == (0, 500, 0)
    assert log.max_timestamp_offset() == (0, 500, 0)


@pytest.mark.parametrize("seed", range(size(ci=3, full=30)))
def test_search_agrees_with_a_plain_look_at_every_record(seed: int) -> None:
    random.seed(seed)
    batches = [[random.randint(0, 300) for _ in range(random.randint(1, 5))] for _ in range(60)]
    log = log_of(*batches, compression=seed % 2)
    flat = [timestamp for timestamps in batches for timestamp in timestamps]
    ends = [*log.segments.base_offsets[1:], len(flat)]

    def expected(target: int, start: int) -> int | None:
        """Kafka searches the first segment that reaches the time, and only that."""
        base = 0
        for end in ends:
            if max(flat[base:end]) >= target:
                for offset in range(max(base, start), end):
                    if flat[offset] >= target:
                        return offset
                return None
            base = end
        return None

    for log_start in (0, 7, 50):
        log.maybe_increment_log_start_offset(log_start)
        for each in (log, reload(log, log_start_offset=log_start)):
            for target in range(0, 302, 7):
                found = each.offset_for_timestamp(target)
                assert (None if found is None else found.offset) == expected(target, log_start)
            largest = each.max_timestamp_offset()
            assert largest is not None
            assert largest.timestamp == max(flat)


def test_transaction_markers_are_read() -> None:
    commit = marker(commit=True, producer_id=1, coordinator_epoch=7)
    abort = marker(commit=False, producer_id=1, coordinator_epoch=8)
    assert read_end_transaction_marker(commit) == (False, 7)
    assert read_end_transaction_marker(abort) == (True, 8)
    later_version = batch(b"\0\1\0\0\0\x09 and more", keys=[b"\0\0\0\1"])
    assert read_end_transaction_marker(later_version) == (False, 9)
    for other in (batch(b"no marker"), batch(b"x"), batch(b"long enough", keys=[b"k"])):
        with pytest.raises(KafkaError):
            read_end_transaction_marker(other)
