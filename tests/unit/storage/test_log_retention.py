"""Which segments go: by time, by size, behind the log start."""

import os
from pathlib import Path

import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.files import OsFileSystem
from kbroker.storage.log_loader import load_log
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


def test_of_records_without_a_time_the_last_one_counts() -> None:
    clock = ManualClock(time_ms=NOW)
    log = new_log(environment(clock=clock), config(retention_ms=1000))
    append(log, batch(b"v", timestamps=[-1]))
    clock.advance(0.8)
    append(log, batch(b"v", timestamps=[-1]))
    clock.advance(0.8)
    assert delete_old_segments(log) == 0
    log.append_as_follower(memoryview(batch(b"v", base_offset=2, timestamps=[-1])))
    log.update_high_watermark(3)
    clock.advance(0.8)
    assert delete_old_segments(log) == 0
    clock.advance(0.3)
    assert delete_old_segments(log) == 1


@pytest.mark.parametrize("is_clean", [True, False])
def test_records_without_a_time_go_on_aging_after_a_restart(is_clean: bool, tmp_path: Path) -> None:
    clock = ManualClock(time_ms=NOW)
    env = environment(OsFileSystem(), clock=clock)
    log = UnifiedLog(env, str(tmp_path), "topic", 0, config=config(retention_ms=1000))
    append(log, batch(b"v", timestamps=[-1]))
    log.close()
    (path,) = tmp_path.glob("*.log")
    for age_ms, expected in ((900, 0), (1100, 1)):
        os.utime(path, ns=(0, (NOW - age_ms) * 1_000_000))
        again = load_log(
            env, str(tmp_path), "topic", 0, config=log.config, is_clean=is_clean, high_watermark=1
        )
        assert delete_old_segments(again) == expected
        again.abandon()


def test_time_and_the_log_start_together_leave_nothing_to_do() -> None:
    """A record from the future holds its segment until the log starts behind it."""
    clock = ManualClock(time_ms=NOW)
    log = new_log(environment(clock=clock), config(retention_ms=900))
    for timestamp in (NOW + 100, NOW, NOW + 100):
        log.roll()
        append(log, batch(b"v", timestamps=[timestamp]))
    clock.advance(0.901)
    log.maybe_increment_log_start_offset(1)
    assert delete_old_segments(log) == 2
    assert delete_old_segments(log) == 0
    assert log.log_start_offset == 2


def test_epochs_go_with_the_segments_they_began_in() -> None:
    log = filled(retention_ms=-1)
    append_values(log, b"w", leader_epoch=7)
    start = log.segments.base_offsets[1]
    log.maybe_increment_log_start_offset(start)
    delete_old_segments(log)
    assert log.epochs.entries() == [(0, start), (7, log.log_end_offset - 1)]
    log.update_config(config(retention_ms=0))
    log.env.clock.advance(10_000)  # type: ignore[attr-defined]
    delete_old_segments(log)
    assert log.log_start_offset == log.log_end_offset
    assert log.epochs.entries() == [(7, log.log_end_offset)]
    assert len(log.segments) == 1
    before = log.log_end_offset
    log.close()
    again = reload(log, is_clean=True)
    assert (again.log_start_offset, again.log_end_offset) == (before, before)
    assert append(again, batch(b"x")).first_offset == before


def test_a_policy_of_nothing_keeps_everything_but_what_was_deleted() -> None:
    log = filled(cleanup_policy=(), retention_ms=0, retention_bytes=0)
    assert not log.config.delete and not log.config.compact
    assert delete_old_segments(log) == 0
    start = log.segments.base_offsets[1]
    log.maybe_increment_log_start_offset(start)
    assert delete_old_segments(log) == 1


def test_compaction_and_deletion_together_delete_too() -> None:
    log = filled(cleanup_policy=("compact", "delete"), retention_ms=0, retention_bytes=-1)
    log.env.clock.advance(10_000)  # type: ignore[attr-defined]
    assert delete_old_segments(log) >= 2


def test_producers_outlive_their_segments_until_a_restart() -> None:
    log = new_log(log_config=config(retention_ms=-1))
    append(log, batch(b"a", producer_id=1))
    log.roll()
    append(log, batch(b"b", producer_id=2))
    log.maybe_increment_log_start_offset(1)
    assert delete_old_segments(log) == 1
    assert sorted(log.producer_state.producers) == [1, 2]
    log.close()
    again = reload(log, log_start_offset=1)
    assert {
        each: entry.last_sequence for each, entry in again.producer_state.producers.items()
    } == {2: 0}


def test_producers_of_deleted_records_are_known_while_their_segment_is() -> None:
    log = new_log()
    append(log, batch(b"a", producer_id=1))
    append(log, batch(b"b", producer_id=2))
    log.maybe_increment_log_start_offset(1)
    assert delete_old_segments(log) == 0
    for found in (log, reload(log, log_start_offset=1)):
        assert sorted(found.producer_state.producers) == [1, 2]
