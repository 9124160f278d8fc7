"""Compaction of transactions: records of aborted ones go at once, markers when nothing is left."""

import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.record.batch import RecordBatchHeader, build_end_transaction_marker, iter_batches
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_cleaner import find_dirty_range
from kbroker.storage.log_loader import load_log
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.cleaner_fixture import NOW, clean, compacted_log, pairs, put
from tests.unit.storage.log_fixture import append, append_marker, batch, environment

RETENTION_S = 5


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(time_ms=NOW)


@pytest.fixture
def log(clock: ManualClock) -> UnifiedLog:
    return compacted_log(clock, delete_retention_ms=RETENTION_S * 1000, segment_bytes=2000)


def write(log: UnifiedLog, producer_id: int, *keys: bytes, sequence: int = 0) -> None:
    """One transactional batch a key; the value is the offset."""
    for number, key in enumerate(keys):
        value = b"%d" % log.log_end_offset
        put(
            log,
            key,
            value,
            producer_id=producer_id,
            base_sequence=sequence + number,
            transactional=True,
        )


def kinds(log: UnifiedLog) -> list[tuple[int, str]]:
    """(offset, what it is) of every batch: record, marker, empty."""
    data = memoryview(b"".join(map(bytes, log.read_batches(0))))
    found = []
    for header in iter_batches(data):
        kind = "marker" if header.is_control else "record"
        found.append((header.base_offset, kind if header.record_count else f"empty {kind}"))
    return found


def clean_all(log: UnifiedLog, dirty: int | None = None) -> int:
    log.roll()
    return clean(log, dirty)


def filler(log: UnifiedLog) -> int:
    """A plain record of its own key, so that there is something to clean; its offset."""
    offset = log.log_end_offset
    put(log, b"filler %d" % offset, b"v")
    return offset


@pytest.mark.parametrize("commit", [True, False])
def test_a_marker_goes_two_retentions_after_its_records(
    log: UnifiedLog, clock: ManualClock, commit: bool
) -> None:
    """The round that sees the last record go keeps the marker, the next one gives it a horizon,
    and the first one after that takes it away."""
    write(log, 1, b"a", b"b")
    append_marker(log, commit=commit, producer_id=1)  # 2
    write(log, 1, b"a", b"b", sequence=2)
    append_marker(log, commit=True, producer_id=1)  # 5
    filler(log)
    dirty = clean_all(log)
    records = [(3, "record"), (4, "record"), (5, "marker"), (6, "record")]
    assert kinds(log) == [(2, "marker"), *records]
    clock.advance(RETENTION_S + 1)
    fillers = [(filler(log), "record")]
    dirty = clean_all(log, dirty)
    assert kinds(log) == [(2, "marker"), *records, *fillers]
    horizons = [
        header.delete_horizon_ms
        for header in iter_batches(memoryview(b"".join(map(bytes, log.read_batches(0)))))
        if header.is_control
    ]
    assert horizons == [clock.time_ms() + RETENTION_S * 1000, None]
    clock.advance(RETENTION_S - 0.001)
    fillers.append((filler(log), "record"))
    dirty = clean_all(log, dirty)
    assert kinds(log) == [(2, "marker"), *records, *fillers]
    clock.advance(0.001)
    fillers.append((filler(log), "record"))
    clean_all(log, dirty)
    assert kinds(log) == [*records, *fillers]


@pytest.mark.parametrize("commit", [True, False])
def test_a_marker_stays_while_an_empty_batch_of_its_transaction_does(
    log: UnifiedLog, clock: ManualClock, commit: bool
) -> None:
    """The empty batch keeps the producer's sequence; without its marker it would be undecided."""
    write(log, 1, b"a", b"a")
    append_marker(log, commit=commit, producer_id=1)
    put(log, b"a", b"newer")
    dirty = clean_all(log)
    assert kinds(log) == [(1, "empty record"), (2, "marker"), (3, "record")]
    expected = kinds(log)
    for _ in range(3):
        clock.advance(RETENTION_S + 1)
        expected.append((filler(log), "record"))
        dirty = clean_all(log, dirty)
        assert kinds(log) == expected
    # The producer goes on: the batch is not its last any more.
    write(log, 1, b"other", sequence=2)
    expected.append((log.log_end_offset - 1, "record"))
    append_marker(log, commit=True, producer_id=1)
    expected.append((log.log_end_offset - 1, "marker"))
    for _ in range(3):
        clock.advance(RETENTION_S + 1)
        expected.append((filler(log), "record"))
        dirty = clean_all(log, dirty)
    assert kinds(log) == expected[2:]


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_over_several_segments(log: UnifiedLog, commit: bool) -> None:
    write(log, 1, b"a", b"b")
    log.roll()
    write(log, 1, b"c", sequence=2)
    put(log, b"a", b"plain")
    log.roll()
    filler(log)
    append_marker(log, commit=commit, producer_id=1)
    clean_all(log)
    left = {(offset, key) for offset, key, _ in pairs(log)}
    if commit:
        assert left == {(1, b"b"), (2, b"c"), (3, b"a"), (4, b"filler 4")}
    else:
        assert left == {(3, b"a"), (4, b"filler 4")}
        assert [kind for _, kind in kinds(log) if "empty" in kind] == ["empty record"]
    assert kinds(log)[-1] == (5, "marker")


def test_an_open_transaction_holds_back_its_segment_and_all_after_it(log: UnifiedLog) -> None:
    write(log, 2, b"a", b"a")
    append_marker(log, commit=False, producer_id=2)
    log.roll()
    write(log, 1, b"a")
    log.roll()
    put(log, b"b", b"1")
    put(log, b"b", b"2")
    dirty = clean_all(log)
    assert dirty == 3
    assert kinds(log) == [(1, "empty record"), (2, "marker"), *((n, "record") for n in (3, 4, 5))]
    assert find_dirty_range(log, dirty, NOW) is None
    append_marker(log, commit=False, producer_id=1)
    clean_all(log, dirty)
    assert kinds(log) == [
        (1, "empty record"),
        (2, "marker"),
        (3, "empty record"),
        (5, "record"),
        (6, "marker"),
    ]


def test_aborted_transactions_are_told_apart_after_several_rounds(log: UnifiedLog) -> None:
    """Segments are cleaned again and again; their transaction indexes stay complete."""
    dirty: int | None = None
    aborted = []
    for number in range(4):
        first = log.log_end_offset
        write(log, 1, b"a", b"b", sequence=number * 2)
        append_marker(log, commit=False, producer_id=1)
        aborted.append((first, first + 2))
        filler(log)
        dirty = clean_all(log, dirty)
    # Only the last batch is left of what was aborted, for the sequence: its transaction is known.
    assert [each for each in kinds(log) if "empty" in each[1]] == [
        (aborted[-1][0] + 1, "empty record")
    ]
    known = [
        (each.first_offset, each.last_offset)
        for segment in log.segments
        for each in segment.transaction_index.collect(0, log.log_end_offset)[0]
    ]
    assert aborted[-1] in known
    assert [offset for offset, _, _ in pairs(log)] == [3, 7, 11, 15]


def test_keys_may_look_like_those_of_markers(log: UnifiedLog) -> None:
    header = build_end_transaction_marker(
        commit=True, producer_id=1, producer_epoch=0, coordinator_epoch=0, timestamp=0
    )
    key = bytes(header[66:70])
    assert key == b"\0\0\0\1"
    write(log, 1, key)
    append_marker(log, commit=True, producer_id=1)
    put(log, key, b"newer")
    filler(log)
    clean_all(log)
    assert kinds(log)[1:] == [(1, "marker"), (2, "record"), (3, "record")]
    assert [key for _, key, _ in pairs(log)] == [key, b"filler 3"]


def test_the_last_sequence_is_kept_even_of_an_aborted_transaction(
    log: UnifiedLog, clock: ManualClock
) -> None:
    write(log, 1, b"a", b"b", b"c")
    append_marker(log, commit=False, producer_id=1)
    clean_all(log)
    again = load_log(
        environment(log.env.files, clock=clock),
        log.directory,
        log.topic,
        log.partition,
        config=log.config,
        is_clean=False,
        recovery_point=0,
        log_start_offset=0,
    )
    assert again.producer_state.producers[1].last_sequence == 2
    assert again.producer_state.first_unstable_offset in (-1, 2)
    info = append(
        again, batch(b"c", keys=[b"c"], producer_id=1, base_sequence=2, transactional=True)
    )
    assert (info.duplicate, info.first_offset) == (True, 2)


def test_old_batches_of_a_coordinator_go_though_all_have_the_same_sequence(
    log: UnifiedLog, clock: ManualClock
) -> None:
    """The batch that keeps a producer known is told by its offset, not by its sequence."""
    for _ in range(3):
        data = batch(b"v", keys=[b"k"], producer_id=1, base_sequence=0, transactional=True)
        append(log, data, origin=AppendOrigin.COORDINATOR)
        append_marker(log, commit=False, producer_id=1)
    dirty = clean_all(log)
    assert kinds(log) == [(1, "marker"), (3, "marker"), (4, "empty record"), (5, "marker")]
    for _ in range(2):
        clock.advance(RETENTION_S + 1)
        filler(log)
        dirty = clean_all(log, dirty)
    assert kinds(log) == [(4, "empty record"), (5, "marker"), (6, "record"), (7, "record")]


def test_the_marker_that_tells_the_epoch_of_a_producer_stays_as_its_header(
    log: UnifiedLog, clock: ManualClock
) -> None:
    """Nothing else fences the epochs before, where no record of the producer is known."""
    write(log, 1, b"a")
    marker = build_end_transaction_marker(
        commit=False, producer_id=1, producer_epoch=3, coordinator_epoch=0, timestamp=NOW
    )
    append(log, marker, origin=AppendOrigin.COORDINATOR)
    assert log.producer_state.producers[1].batches == []
    filler(log)
    dirty = clean_all(log)
    for _ in range(3):
        clock.advance(RETENTION_S + 1)
        filler(log)
        dirty = clean_all(log, dirty)
    assert kinds(log)[0] == (1, "empty marker")
    header = RecordBatchHeader(next(iter(log.read_batches(0))))
    assert (header.producer_epoch, header.is_control, header.last_offset) == (3, True, 1)


def test_an_empty_last_batch_of_a_round_keeps_the_offset(log: UnifiedLog) -> None:
    """A log whose newest records are all gone still knows where it ends."""
    write(log, 1, b"a")
    append_marker(log, commit=False, producer_id=1)
    put(log, b"k", b"1")
    append(log, batch(b"no key"))
    dirty = clean_all(log)
    assert kinds(log)[-1] == (3, "empty record")
    filler(log)
    clean_all(log, dirty)
    assert kinds(log)[-2:] == [(2, "record"), (4, "record")]


def test_a_preallocated_log_has_no_room_left_after_a_round(clock: ManualClock) -> None:
    files = MemoryFileSystem()
    log = compacted_log(clock, files, preallocate=True)
    for _ in range(12):
        put(log, b"k", b"v" * 20)
    clean_all(log)
    for segment in list(log.segments)[:-1]:
        assert len(files.read(segment.log_path)) == segment.size
