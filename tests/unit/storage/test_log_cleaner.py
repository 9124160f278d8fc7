"""Compaction: what stays, what goes, when, and what a crash leaves.

Restates LogCleanerTest and LogCleanerManagerTest where they apply.
"""

import random

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.timer import Timer
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_batch, iter_batches
from kbroker.record.record import Record, iter_records
from kbroker.storage.batch_scan import iter_headers
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_cleaner import LogCleaner, find_dirty_range, group_segments
from kbroker.storage.offset_map import BYTES_PER_KEY
from tests.sizes import size
from tests.unit.storage.cleaner_fixture import (
    NOW,
    SETTINGS,
    clean,
    committed_values,
    compacted_log,
    fill,
    newest,
    pairs,
    put,
    transaction,
)
from tests.unit.storage.faulty_files import FaultyFileSystem, Killed
from tests.unit.storage.log_fixture import (
    append,
    batch,
    config,
    environment,
    new_log,
    read_all,
    read_bytes,
    records_of,
    reload,
)


def test_only_the_newest_value_of_a_key_stays() -> None:
    log = compacted_log()
    fill(log, keys=3, rounds=6)
    log.roll()
    put(log, b"key0", b"in the active segment")
    before = newest(log)
    end = clean(log)
    assert end == 18
    assert newest(log) == before
    assert [offset for offset, _, _ in pairs(log)] == [15, 16, 17, 18]
    assert log.log_end_offset == 19
    assert [offset for offset, _ in read_all(log)] == [15, 16, 17, 18]


def test_what_a_consumer_reads_is_the_same_from_any_offset() -> None:
    log = compacted_log()
    fill(log, keys=5, rounds=9)
    log.roll()
    expected = {key: value for _, key, value in pairs(log)}
    clean(log)
    for offset in range(log.log_end_offset):
        records = records_of(read_bytes(log, offset, max_bytes=1))
        fresh = [each for each in records if each.offset >= offset]
        following = [each for each, _, _ in pairs(log) if each >= offset]
        assert bool(fresh) is bool(following)
        if fresh:
            assert fresh[0].offset == following[0]
    assert newest(log) == expected


def test_the_active_segment_and_what_is_not_stable_stay() -> None:
    log = compacted_log()
    fill(log, keys=1, rounds=8)
    assert len(log.segments) == 2
    clean(log)
    active = log.segments.active
    assert active is not None
    assert [offset for offset, _, _ in pairs(log) if offset >= active.base_offset] == list(
        range(active.base_offset, 8)
    )
    unstable = compacted_log()
    put(unstable, b"k", b"1", producer_id=3, transactional=True)
    fill(unstable, keys=1, rounds=20)
    assert unstable.last_stable_offset == 0
    assert find_dirty_range(unstable, None, NOW) is None


def test_a_second_round_has_less_to_do() -> None:
    log = compacted_log()
    fill(log, keys=4, rounds=9)
    end = clean(log)
    assert find_dirty_range(log, end, NOW) is None
    fill(log, keys=2, rounds=9)
    found = find_dirty_range(log, end, NOW)
    assert found is not None and found.first_dirty_offset == end
    before = newest(log)
    clean(log, end)
    assert newest(log) == before


def test_records_without_a_key_go() -> None:
    log = compacted_log()
    append(log, batch(b"no key"))
    fill(log, keys=1, rounds=10)
    clean(log)
    assert all(key is not None for _, key, _ in pairs(log))


@pytest.mark.parametrize("compression", [0, 1, 3])
def test_batches_of_several_records_keep_their_offsets(compression: int) -> None:
    log = compacted_log(segment_bytes=300)
    for number in range(12):
        data = batch(
            b"a%d" % number,
            b"b%d" % number,
            b"c%d" % number,
            keys=[b"a", b"b%d" % (number % 2), b"c%d" % number],
            timestamps=[1000 + number, 900, 800],
            compression=compression,
        )
        append(log, data)
    log.roll()
    before = newest(log)
    clean(log)
    assert newest(log) == before
    by_key = {key: offset for offset, key, _ in pairs(log)}
    assert by_key[b"a"] == 33
    assert by_key[b"c4"] == 14
    first = next(iter(iter_batches(memoryview(read_bytes(log)))))
    assert (first.base_offset, first.last_offset_delta, first.record_count) == (0, 2, 1)
    assert first.max_timestamp == 800
    assert first.codec == compression


def test_tombstones_stay_for_delete_retention_ms_after_they_were_cleaned() -> None:
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock, delete_retention_ms=10_000)
    put(log, b"gone", b"value")
    put(log, b"gone", None)
    fill(log, keys=1, rounds=8)
    end = clean(log)
    assert (1, b"gone", None) in pairs(log)
    stored = next(iter_batches(memoryview(read_bytes(log, 1))))
    assert stored.delete_horizon_ms == NOW + 10_000
    assert [each.timestamp for each in records_of(read_bytes(log, 1)) if each.offset == 1] == [1000]
    clock.advance(9.9)
    fill(log, keys=1, rounds=8)
    end = clean(log, end)
    assert (1, b"gone", None) in pairs(log)
    clock.advance(0.2)
    fill(log, keys=1, rounds=8)
    clean(log, end)
    assert b"gone" not in newest(log)


def test_the_last_batch_of_a_producer_stays_as_its_header() -> None:
    log = compacted_log()
    for sequence in range(3):
        put(log, b"k", b"%d" % sequence, producer_id=5, base_sequence=sequence)
    fill(log, keys=1, rounds=2)
    for number in range(10):
        put(log, b"k", b"newer %d" % number)
    log.roll()
    clean(log)
    headers = list(iter_batches(memoryview(read_bytes(log))))
    kept = [header for header in headers if header.producer_id == 5]
    assert [(each.base_offset, each.record_count, each.base_sequence) for each in kept] == [
        (2, 0, 2)
    ]
    again = reload(log)
    assert again.producer_state.producers[5].last_sequence == 2
    info = append(again, batch(b"x", keys=[b"k"], producer_id=5, base_sequence=2))
    assert (info.duplicate, info.first_offset) == (True, 2)


def test_aborted_records_go_and_committed_ones_stay() -> None:
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock, delete_retention_ms=5000)
    transaction(log, 1, b"committed", b"also", commit=True)
    transaction(log, 2, b"aborted", b"too", commit=False)
    fill(log, keys=1, rounds=8)
    expected = committed_values(log)
    assert expected[b"t0"] == b"committed"
    end = clean(log)
    assert committed_values(log) == expected
    assert b"aborted" not in [value for _, _, value in pairs(log)]
    # The markers go once their transactions are empty and the horizon is over.
    for _ in range(4):
        clock.advance(6)
        transaction(log, 1, b"newer", b"newest", commit=True)
        fill(log, keys=1, rounds=8)
        expected = committed_values(log)
        end = clean(log, end)
        assert committed_values(log) == expected
    again = reload(log)
    again.update_high_watermark(again.log_end_offset)
    assert committed_values(again) == expected
    markers = [
        header.base_offset
        for header in iter_batches(memoryview(b"".join(map(bytes, log.read_batches(0)))))
        if header.is_control and header.producer_id == 2 and header.record_count
    ]
    assert len(markers) <= 1


def test_lags_hold_back_and_force() -> None:
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock, min_compaction_lag_ms=5000)
    for number in range(20):
        put(log, b"k", b"v", timestamps=[NOW - 10_000 + number * 500])
    found = find_dirty_range(log, None, NOW)
    assert found is not None
    held = [each for each in log.segments if each.base_offset >= found.first_uncleanable_offset]
    assert held[0].largest_timestamp.timestamp > NOW - 5000
    log.update_config(config(**{**SETTINGS, "max_compaction_lag_ms": 3000}))
    found = find_dirty_range(log, None, NOW)
    assert found is not None and found.must_clean
    log.update_config(config(**{**SETTINGS, "min_cleanable_dirty_ratio": 1.0}))
    cleaner = LogCleaner(log.env)
    assert cleaner.choose([log], lambda _: None) is None
    log.update_config(config(**{**SETTINGS, "max_compaction_lag_ms": 3000}))
    assert cleaner.choose([log], lambda _: None) is not None


def test_records_without_a_time_are_as_old_as_the_last_write() -> None:
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock, min_compaction_lag_ms=5000, max_compaction_lag_ms=8000)
    for time in (-1, 0):
        put(log, b"k", b"v", timestamps=[time])
        log.roll()
    assert [each.first_timestamp for each in log.segments][:2] == [-1, 0]
    assert find_dirty_range(log, None, NOW + 4999) is None
    clock.advance(5)
    found = find_dirty_range(log, None, clock.time_ms())
    assert found is not None and found.first_uncleanable_offset == 2
    clock.advance(1000)
    found = find_dirty_range(log, None, clock.time_ms())
    assert found is not None and not found.must_clean


def test_how_dirty_a_log_is() -> None:
    log = compacted_log()
    for _ in range(3):
        put(log, b"k", b"v")
        put(log, b"l", b"v")
        log.roll()
    ratios = [find_dirty_range(log, cleaned, NOW) for cleaned in (None, 2, 4)]
    assert [each and round(each.dirty_ratio, 3) for each in ratios] == [1.0, 0.667, 0.333]
    # Of a segment that was cleaned to its middle both parts count whole, as in Kafka.
    middle = find_dirty_range(log, 3, NOW)
    assert middle is not None and middle.dirty_ratio == 0.5
    assert find_dirty_range(log, 6, NOW) is None


def test_the_dirtiest_log_comes_first_and_others_are_left_alone() -> None:
    cleaner = LogCleaner(environment())
    dirty, cleaner_one, plain = compacted_log(), compacted_log(), new_log()
    fill(dirty, keys=1, rounds=20)
    fill(cleaner_one, keys=1, rounds=20)
    for _ in range(20):
        append(plain, batch(b"v"))
    chosen = cleaner.choose(
        [plain, cleaner_one, dirty], lambda log: 10 if log is cleaner_one else None
    )
    assert chosen is not None and chosen.log is dirty
    assert cleaner.choose([plain], lambda _: None) is None
    assert cleaner.choose([compacted_log()], lambda _: None) is None


@pytest.mark.parametrize("segment_bytes", [500, 2000, 100_000])
def test_more_keys_than_the_map_takes_are_cleaned_in_several_rounds(segment_bytes: int) -> None:
    log = compacted_log(segment_bytes=segment_bytes)
    fill(log, keys=30, rounds=3)
    log.roll()
    before = newest(log)
    cleaner = LogCleaner(log.env, dedupe_buffer_size=7 * BYTES_PER_KEY)
    dirty, rounds = 0, 0
    while find_dirty_range(log, dirty, NOW) is not None:
        reached = clean(log, dirty, cleaner)
        assert reached > dirty
        dirty = reached
        rounds += 1
        assert newest(log) == before
    assert rounds > 5
    assert dirty == 90


def test_segments_are_grouped_to_the_size_of_one() -> None:
    log = compacted_log()
    fill(log, keys=1, rounds=30)
    sealed = list(log.segments)[:-1]
    assert len(sealed) > 3
    assert [len(group) for group in group_segments(log, sealed)] == [1] * len(sealed)
    clean(log)
    log.update_config(config(**{**SETTINGS, "segment_bytes": 5000}))
    (group,) = group_segments(log, list(log.segments)[:-1])
    assert len(group) == len(sealed)
    put(log, b"key0", b"x")
    log.roll()
    clean(log)
    assert len(log.segments) == 2


def test_indexes_and_snapshots_of_a_cleaned_segment_are_sound() -> None:
    log = compacted_log()
    for number in range(60):
        put(log, b"k%d" % (number % 20), b"v", timestamps=[1000 + number])
    log.roll()
    clean(log)
    assert any(len(segment.offset_index) for segment in log.segments)
    for segment in log.segments:
        headers = list(iter_headers(segment.file(), 0, segment.size))
        places = {header.last_offset: header.position for header in headers}
        assert all(places[at] == position for at, position in segment.offset_index.entries())
        if headers:
            largest = max((each.max_timestamp, -each.last_offset) for each in headers)
            assert segment.largest_timestamp == (largest[0], -largest[1])
            assert segment.time_index.last_entry == segment.largest_timestamp
    found = log.offset_for_timestamp(1045)
    assert found is not None and found.offset == 45
    assert set(log.producer_state.snapshot_offsets) <= set(log.segments.base_offsets)


def test_a_log_that_changes_meanwhile_is_left_alone() -> None:
    log = compacted_log()
    fill(log, keys=3, rounds=9)
    found = find_dirty_range(log, None, NOW)
    assert found is not None

    class Truncating(LogCleaner):
        async def _give_way(self, moved: int) -> None:
            if log.log_end_offset > 5:
                log.truncate_to(5)

    assert anyio.run(Truncating(log.env).clean, found) is None
    assert [offset for offset, _ in read_all(log)] == [0, 1, 2, 3, 4]
    names = [each.name for each in log.env.files.list(log.directory)]
    assert not [name for name in names if name.endswith((".cleaned", ".swap"))]


def test_a_log_with_an_unreadable_batch_is_not_tried_again() -> None:
    log = compacted_log()
    fill(log, keys=3, rounds=9)
    log.env.files.open(log.segments.first.log_path).write_at(b"\xff" * 3, 62)  # type: ignore[union-attr]
    cleaner = LogCleaner(log.env)
    found = cleaner.choose([log], lambda _: None)
    assert found is not None
    with pytest.raises(KafkaError):
        anyio.run(cleaner.clean, found)
    assert cleaner.choose([log], lambda _: None) is None


def clean_under_faults(fail_at: int, mode: str) -> int:
    """Counts the changes of a round, or lets one go wrong and checks what is left."""
    inner = MemoryFileSystem()
    log = compacted_log(files=inner)
    transaction(log, 1, b"aborted", b"too", commit=False)
    fill(log, keys=3, rounds=9)
    expected = newest(log)
    expected_committed = committed_values(log)
    faulty = FaultyFileSystem(inner, fail_at=fail_at, mode=mode)
    log.env.files = faulty
    for segment in log.segments:
        segment.abandon()
    log.env.open_files._files = faulty
    died = False
    try:
        clean(log)
    except Killed:
        died = True
    except OSError:
        died = log.failure is not None
    if not died and fail_at:
        assert committed_values(log) == expected_committed
        assert {**expected, **newest(log)} == expected
    again = reload(log, files=inner)
    again.update_high_watermark(again.log_end_offset)
    assert committed_values(again) == expected_committed
    append(again, batch(b"next", keys=[b"next"]))
    assert newest(again)[b"next"] == b"next"
    return faulty.calls


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["error", "short", "kill", "kill_mid", "kill_after"])
def test_a_fault_at_every_change_of_a_round(mode: str) -> None:
    calls = clean_under_faults(0, mode)
    assert calls > 20
    for fail_at in range(1, calls + 1):
        try:
            clean_under_faults(fail_at, mode)
        except AssertionError as error:
            raise AssertionError(f"{mode} at change {fail_at}: {error}") from error


@pytest.mark.parametrize("seed", range(size(ci=6, full=200)))
def test_compaction_never_changes_the_newest_values(seed: int) -> None:
    rng = random.Random(seed)
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock, delete_retention_ms=1000, segment_bytes=rng.choice([300, 700, 3000]))
    model: dict[bytes, bytes | None] = {}
    dirty: int | None = None
    for step in range(150):
        key = b"key %d" % rng.randint(0, 12) * rng.choice([1, 5])
        if rng.random() < 0.15:
            put(log, key, None)
            model[key] = None
        else:
            value = b"%d" % step
            put(log, key, value, compression=rng.choice([0, 1]))
            model[key] = value
        if rng.random() < 0.06 and find_dirty_range(log, dirty, clock.time_ms()):
            budget = rng.choice([3, 1000]) * BYTES_PER_KEY
            dirty = clean(log, dirty, LogCleaner(log.env, dedupe_buffer_size=budget))
            clock.advance(rng.choice([0, 0.7]))
        if rng.random() < 0.04:
            log = reload(log, is_clean=False)
            log.env.clock = clock
            log.update_high_watermark(log.log_end_offset)
        live = {key: value for key, value in newest(log).items() if value is not None}
        assert live == {key: value for key, value in model.items() if value is not None}


@pytest.mark.slow
def test_many_keys_take_several_rounds_of_bounded_memory() -> None:
    keys = size(ci=5_000, full=2_000_000)
    per_round = keys // 5
    log = compacted_log(segment_bytes=64 * 1024, index_interval_bytes=4096)
    for generation in range(2):
        for first in range(0, keys, 1000):
            records = [
                Record(key=b"%d" % key, value=b"%d" % generation, timestamp=1000)
                for key in range(first, first + 1000)
            ]
            append(log, build_batch(records))
    log.roll()

    class Watched(LogCleaner):
        most_keys = 0

        async def _build_offset_map(self, to_clean):  # type: ignore[no-untyped-def]
            offsets = await super()._build_offset_map(to_clean)
            self.most_keys = max(self.most_keys, len(offsets))
            return offsets

    cleaner = Watched(log.env, dedupe_buffer_size=per_round * BYTES_PER_KEY)
    reached, rounds = 0, 0
    while (found := find_dirty_range(log, reached, NOW)) is not None:
        following = anyio.run(cleaner.clean, found)
        assert following is not None and following > reached
        reached, rounds = following, rounds + 1
    assert cleaner.most_keys <= per_round
    assert rounds >= 10
    left = {}
    for data in log.read_batches(0):
        for record in iter_records(data):
            assert record.key not in left
            left[record.key] = record.value
    assert len(left) == keys
    assert set(left.values()) == {b"1"}


def test_a_round_waits_for_what_it_moves_and_appends_do_not() -> None:
    clock = ManualClock(time_ms=NOW)
    log = compacted_log(clock)
    fill(log, 5, 10)
    timer = Timer(clock)
    cleaner = LogCleaner(log.env, throttle=IoThrottle(clock, timer, 1000))
    found = find_dirty_range(log, None, NOW)
    assert found is not None
    read_twice = 2 * sum(each.size for each in log.segments if each is not log.segments.active)

    async def main() -> float:
        started = clock.monotonic()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cleaner.clean, found)
            while True:
                for _ in range(5):
                    await anyio.lowlevel.checkpoint()
                if not timer.pending:
                    return clock.monotonic() - started
                put(log, b"beside", b"it")
                clock.advance(0.05)
                timer.run_due()

    took = anyio.run(main)
    assert read_twice / 1000 * 0.9 < took < read_twice / 1000 * 1.6
    assert len({key for _, key, _ in pairs(log)}) == 6
