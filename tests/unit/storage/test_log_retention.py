"""Which segments go: by time, by size, behind the log start."""

from kbroker.common.clock import ManualClock
from kbroker.storage.log_retention import delete_old_segments
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    append,
    append_values,
    batch,
    config,
    environment,
    new_log,
    read_all,
    reload,
    validated,
)

NOW = 2_000_000


def filled(clock: ManualClock | None = None, **settings: object) -> UnifiedLog:
    """Segments at 0, 5, 10 and 15; each record a second older than the next, the last is now."""
    log = new_log(environment(clock=clock), config(segment_bytes=400, **settings))
    for number in range(20):
        append(log, batch(b"v", timestamps=[NOW - (19 - number) * 1000]))
    assert log.segments.base_offsets == [0, 5, 10, 15]
    return log


def test_nothing_goes_without_a_reason() -> None:
    log = filled()
    assert delete_old_segments(log) == 0
    assert delete_old_segments(new_log()) == 0


def test_segments_whose_last_record_is_too_old_go() -> None:
    log = filled(retention_ms=9_000)
    assert delete_old_segments(log) == 2
    assert (log.log_start_offset, log.segments.base_offsets) == (10, [10, 15])
    assert delete_old_segments(log) == 0
    assert [offset for offset, _ in read_all(log)] == list(range(10, 20))


def test_exactly_as_old_as_allowed_stays() -> None:
    log = filled(retention_ms=15_000)
    assert delete_old_segments(log) == 0
    log.update_config(config(retention_ms=14_999))
    assert delete_old_segments(log) == 1


def test_the_active_segment_goes_too_and_an_empty_one_takes_its_place() -> None:
    clock = ManualClock(time_ms=NOW)
    log = filled(clock, retention_ms=50_000)
    clock.advance(100)
    assert delete_old_segments(log) == 4
    assert (log.log_start_offset, log.log_end_offset) == (20, 20)
    assert log.segments.base_offsets == [20]
    assert delete_old_segments(log) == 0
    append_values(log, b"next")
    assert read_all(reload(log)) == [(20, b"next")]


def test_a_record_from_the_future_holds_its_segment_and_all_behind_it() -> None:
    clock = ManualClock(time_ms=NOW)
    log = new_log(environment(clock=clock), config(segment_bytes=400, retention_ms=1000))
    for number in range(12):
        append(log, batch(b"v", timestamps=[NOW + 3_600_000 if number == 7 else NOW]))
    clock.advance(60)
    assert delete_old_segments(log) == 1
    assert log.log_start_offset == 5


def test_records_without_a_time_age_with_their_segment() -> None:
    clock = ManualClock(time_ms=NOW)
    log = new_log(environment(clock=clock), config(segment_bytes=400, retention_ms=1000))
    for _ in range(7):
        append(log, batch(b"v", timestamps=[-1]))
    assert delete_old_segments(log) == 0
    clock.advance(1.5)
    assert delete_old_segments(log) == 2


def test_size_keeps_at_least_what_was_asked_for() -> None:
    log = filled(retention_ms=-1)
    size = len(batch(b"v"))
    for retention_bytes, kept in ((21 * size, 4), (20 * size, 4), (15 * size + 1, 4)):
        log.update_config(config(retention_ms=-1, retention_bytes=retention_bytes))
        assert delete_old_segments(log) == 0
        assert len(log.segments) == kept
    log.update_config(config(retention_ms=-1, retention_bytes=15 * size))
    assert delete_old_segments(log) == 1
    log.update_config(config(retention_ms=-1, retention_bytes=0))
    assert delete_old_segments(log) == 3
    assert log.log_start_offset == 20


def test_compacted_topics_keep_everything_but_what_lies_below_the_start() -> None:
    log = filled(retention_ms=1, retention_bytes=1, cleanup_policy=("compact",))
    assert delete_old_segments(log) == 0
    log.maybe_increment_log_start_offset(12)
    assert delete_old_segments(log) == 2
    assert log.segments.base_offsets == [10, 15]
    log.update_config(config(retention_bytes=0, cleanup_policy=("compact", "delete")))
    assert delete_old_segments(log) == 2


def test_deleted_records_take_their_segments() -> None:
    log = filled()
    log.maybe_increment_log_start_offset(20)
    assert delete_old_segments(log) == 3
    assert log.segments.base_offsets == [15]
    assert log.log_start_offset == 20


def test_nothing_at_or_above_the_high_watermark_goes() -> None:
    log = new_log(log_config=config(segment_bytes=400, retention_bytes=0))
    for _ in range(20):
        log.append_as_leader(validated(batch(b"v")), leader_epoch=0)
    log.update_high_watermark(9)
    assert delete_old_segments(log) == 1
    assert log.log_start_offset == 5
    log.update_high_watermark(10)
    assert delete_old_segments(log) == 1


def test_snapshots_go_with_their_segments() -> None:
    log = filled(retention_ms=9_000)
    assert log.producer_state.snapshot_offsets == [5, 10, 15]
    delete_old_segments(log)
    assert log.producer_state.snapshot_offsets == [10, 15]
    assert log.epochs.entries() == [(0, 10)]
