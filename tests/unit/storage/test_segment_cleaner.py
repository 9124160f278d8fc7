"""Which batches and records of a segment stay: damage, gaps, transactions, producers."""

import random
from collections.abc import Callable
from typing import TypeVar

import anyio
import pytest

from kbroker.common.offload import InlineOffload
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader
from kbroker.storage import log_validator
from kbroker.storage.log_cleaner import LogCleaner, find_dirty_range, group_segments
from kbroker.storage.segment_cleaner import aborted_transactions_of
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.cleaner_fixture import (
    NOW,
    clean,
    compacted_log,
    fill,
    pairs,
    put,
    transaction,
)
from tests.unit.storage.log_fixture import append, batch, read_all, reload

T = TypeVar("T")


def damage(log: UnifiedLog, position: int, data: bytes) -> None:
    first = log.segments.first
    assert first is not None
    log.env.files.open(first.log_path).write_at(data, position)


@pytest.mark.parametrize(
    ("at", "data"),
    [
        pytest.param(16, b"\x07", id="magic"),
        pytest.param(16, b"\x00", id="old magic"),
        pytest.param(8, b"\x7f\xff\x00\x00", id="length beyond the segment"),
        pytest.param(8, b"\x00\x00\x00\x05", id="length below a header"),
        pytest.param(8, b"\xff\xff\xff\xff", id="negative length"),
    ],
)
def test_what_lies_behind_a_damaged_header_is_never_dropped(at: int, data: bytes) -> None:
    log = compacted_log()
    fill(log, keys=30, rounds=1)
    log.roll()
    first = log.segments.first
    assert first is not None
    header = RecordBatchHeader(memoryview(log.env.files.read(first.log_path)))
    damage(log, header.size + at, data)
    before = log.env.files.read(first.log_path)
    with pytest.raises(KafkaError):
        clean(log)
    assert log.segments.first is first
    assert log.env.files.read(first.log_path) == before


@pytest.mark.parametrize("compression", [0, 4])
def test_a_rotten_batch_is_not_made_sound(compression: int) -> None:
    """Whatever byte under the CRC has changed: the log is left as it is."""
    log = compacted_log(segment_bytes=10_000)
    append(log, batch(b"a", b"b", keys=[b"k", b"l"], compression=compression))
    put(log, b"k", b"newer")
    log.roll()
    first = log.segments.first
    assert first is not None
    sound = log.env.files.read(first.log_path)
    for at in range(17, RecordBatchHeader(memoryview(sound)).size):
        damage(log, at, bytes([sound[at] ^ 1]))
        rotten = log.env.files.read(first.log_path)
        with pytest.raises(KafkaError):
            clean(log)
        assert log.env.files.read(first.log_path) == rotten
        damage(log, at, sound[at : at + 1])
    clean(log)
    assert [offset for offset, _, _ in pairs(log)] == [1, 2]


def test_a_gap_before_the_next_segment_is_clean() -> None:
    """Offsets may be missing between segments; a round that stopped there would come again."""
    log = compacted_log(segment_bytes=100)
    fill(log, keys=1, rounds=9)
    gone = log.segments.base_offsets[-2]
    for name in [each.name for each in log.env.files.list(log.directory)]:
        if name.startswith(f"{gone:020d}."):
            log.env.files.remove(f"{log.directory}/{name}")
    log = reload(log, is_clean=True)
    active = log.segments.active
    assert active is not None and gone not in log.segments.base_offsets
    log.update_high_watermark(log.log_end_offset)
    assert clean(log) == active.base_offset
    assert find_dirty_range(log, active.base_offset, NOW) is None
    assert [offset for offset, _ in read_all(log)] == [gone - 1, 8]


def test_a_segment_with_undecided_records_waits_as_a_whole() -> None:
    log = compacted_log()
    fill(log, keys=1, rounds=4)
    log.roll()
    fill(log, keys=1, rounds=2)
    put(log, b"t", b"1", producer_id=3, transactional=True)
    log.roll()
    assert log.last_stable_offset == 6
    found = find_dirty_range(log, None, NOW)
    assert found is not None
    assert found.first_uncleanable_offset == 4
    clean(log)
    assert [offset for offset, _, _ in pairs(log)] == [3, 4, 5, 6]
    assert find_dirty_range(log, 4, NOW) is None


def test_what_was_truncated_under_the_cleaner_does_not_return() -> None:
    log = compacted_log()
    fill(log, keys=5, rounds=1)
    log.roll()
    found = find_dirty_range(log, None, NOW)
    assert found is not None

    class Truncating(LogCleaner):
        given_way = 0

        async def _give_way(self, moved: int) -> None:
            self.given_way += 1
            if self.given_way == 8:
                log.truncate_to(2)

    assert anyio.run(Truncating(log.env).clean, found) is None
    assert [offset for offset, _ in read_all(log)] == [0, 1]
    assert len(log.segments) == 1
    fill(log, keys=1, rounds=1)
    assert [offset for offset, _ in read_all(log)] == [0, 1, 2]


class CountingOffload(InlineOffload):
    def __init__(self) -> None:
        self.names: list[str] = []

    async def run(self, work: Callable[[], T]) -> T:
        self.names.append(getattr(getattr(work, "func", work), "__name__", "?"))
        return await super().run(work)


@pytest.mark.parametrize(
    ("values", "compression"),
    [([b"v" * 70_000], 0), ([random.Random(1).randbytes(9000)], 4), ([b"v"] * 2001, 0)],
)
def test_batches_that_are_much_work_are_looked_at_in_a_thread(
    values: list[bytes], compression: int
) -> None:
    log = compacted_log(segment_bytes=100_000)
    log.env.offload = offload = CountingOffload()
    keys = [b"%d" % number for number in range(len(values))]
    append(log, batch(*values, keys=keys, compression=compression))
    log.roll()
    clean(log)
    assert offload.names == ["_note_keys", "filter_batch", "_sync"]
    offload.names.clear()
    fill(log, keys=3, rounds=1)
    log.roll()
    clean(log, len(values))
    assert offload.names.count("_note_keys") == 0


def test_batches_may_inflate_to_what_the_topic_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic of large messages takes batches that are longer than others when inflated."""
    monkeypatch.setattr(log_validator, "MIN_INFLATED_LIMIT", 1000)
    for length, max_message_bytes in ((900, 1), (1500, 100), (1700, 100)):
        log = compacted_log(max_message_bytes=max_message_bytes)
        append(log, batch(bytes(length), keys=[b"k"], compression=4))
        log.roll()
        if length > 1600:
            with pytest.raises(KafkaError):
                clean(log)
        else:
            clean(log)


def test_empty_segments_join_any_group() -> None:
    log = compacted_log()
    put(log, b"k", b"1")
    log.roll()
    log.append_as_follower(memoryview(batch(b"v", keys=[b"l"], base_offset=2**31 + 9)))
    log.roll()
    sealed = list(log.segments)[:-1]
    assert [(each.base_offset, bool(each.size)) for each in sealed] == [
        (0, True),
        (1, False),
        (2**31 + 9, True),
    ]
    assert [len(group) for group in group_segments(log, sealed)] == [2, 1]
    sealed[2].size = 0
    assert [len(group) for group in group_segments(log, sealed)] == [3]


def test_aborted_transactions_below_the_log_start_are_not_looked_for() -> None:
    log = compacted_log(segment_bytes=1000)
    transaction(log, 1, b"a", commit=False)
    transaction(log, 2, b"b", commit=False)
    log.roll()
    first = log.segments.first
    assert first is not None
    assert [each.producer_id for each in aborted_transactions_of(log, first)] == [1, 2]
    log.maybe_increment_log_start_offset(1)
    assert [each.producer_id for each in aborted_transactions_of(log, first)] == [1, 2]
    log.maybe_increment_log_start_offset(2)
    assert [each.producer_id for each in aborted_transactions_of(log, first)] == [2]
