"""Compaction of topics with cleanup.policy=compact: which log, how far, and its checkpoint.

A log has a clean front, already compacted, and a dirty rest. A round notes the newest offset of
every key in the dirty part, as many keys as the map takes, and then rewrites everything below the
last offset it noted. What was reached is the log's next first dirty offset, kept in
``cleaner-offset-checkpoint``; losing it costs a round over what is clean already.

Rounds run on the event loop in slices of about 2 ms, large batches in worker threads; appends and
reads never wait; log.cleaner.io.max.bytes.per.second holds what is read and written together.
Memory is bounded by the map (``OffsetMap``) and one batch.
"""

import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import anyio
import anyio.lowlevel

from kbroker.record.batch import RecordBatchHeader
from kbroker.record.record import iter_records
from kbroker.storage.cleaned_transactions import CleanedTransactions
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_validator import inflated_limit
from kbroker.storage.offset_map import BYTES_PER_KEY, OffsetMap
from kbroker.storage.segment_cleaner import (
    LogCleaningAborted,
    SegmentCleaner,
    aborted_transactions_of,
    is_much_work,
    iter_all_batches,
)
from kbroker.storage.unified_log import UnifiedLog

SLICE_S = 0.002
DEDUPE_BUFFER_SIZE = 128 * 1024 * 1024


class LogToClean(NamedTuple):
    """A log, the range of offsets that is dirty and may be cleaned, and how dirty that makes it."""

    log: UnifiedLog
    first_dirty_offset: int
    first_uncleanable_offset: int
    dirty_ratio: float
    must_clean: bool
    """Records are older than max.compaction.lag.ms."""


def find_dirty_range(log: UnifiedLog, last_cleaned: int | None, now_ms: int) -> LogToClean | None:
    """What a round over the log would look at; None when there is nothing to clean.

    Only whole segments are cleaned, and neither the active one, nor one that is not stable to its
    end, nor one with records younger than min.compaction.lag.ms. A checkpoint outside the log
    counts as none.
    """
    active = log.segments.active
    if active is None:
        return None
    first_dirty = log.log_start_offset if last_cleaned is None else last_cleaned
    if not log.log_start_offset <= first_dirty <= log.log_end_offset:
        first_dirty = log.log_start_offset
    end = active.base_offset
    if log.last_stable_offset < end:
        undecided = log.segments.floor(log.last_stable_offset)
        end = log.log_start_offset if undecided is None else undecided.base_offset
    dirty = [
        segment
        for segment in log.segments.starting_from(first_dirty)
        if segment.base_offset < end and segment is not active
    ]
    lag_ms = log.config.min_compaction_lag_ms
    if lag_ms > 0:
        for segment in dirty:
            if segment.largest_time_ms > now_ms - lag_ms:
                end = min(end, segment.base_offset)
                break
    dirty = [segment for segment in dirty if segment.base_offset < end]
    dirty_bytes = sum(segment.size for segment in dirty)
    if end <= first_dirty or not dirty_bytes:
        return None
    # A segment that is clean in its front counts on both sides, as in Kafka.
    clean_bytes = sum(segment.size for segment in log.segments if segment.base_offset < first_dirty)
    # Neither -1, which is none, nor 0 says how old a record is.
    oldest = min((each.first_timestamp for each in dirty if each.first_timestamp > 0), default=None)
    must_clean = oldest is not None and now_ms - oldest > log.config.max_compaction_lag_ms
    ratio = dirty_bytes / (clean_bytes + dirty_bytes)
    return LogToClean(log, first_dirty, end, ratio, must_clean)


class LogCleaner:
    """Cleans one log at a time, the dirtiest first."""

    def __init__(
        self,
        env: LogEnvironment,
        *,
        dedupe_buffer_size: int = DEDUPE_BUFFER_SIZE,
        throttle: IoThrottle | None = None,
        uncleanable: "weakref.WeakSet[UnifiedLog] | None" = None,
    ) -> None:
        """``dedupe_buffer_size``: bytes that the map of one round may take; ``throttle`` is told
        what is read and written; ``uncleanable`` are logs that are left alone, which cleaners
        share."""
        self._throttle = throttle
        self._env = env
        self._max_keys = max(1, dedupe_buffer_size // BYTES_PER_KEY)
        self._slice_ends = 0.0
        self._uncleanable = weakref.WeakSet() if uncleanable is None else uncleanable

    def choose(
        self, logs: Iterable[UnifiedLog], last_cleaned: Callable[[UnifiedLog], int | None]
    ) -> LogToClean | None:
        """The log that is most in need of a round; None when none is dirty enough."""
        now_ms = self._env.clock.time_ms()
        best: LogToClean | None = None
        for log in logs:
            if not log.config.compact or log.failure is not None or log.is_moving:
                continue
            if log in self._uncleanable:
                continue
            found = find_dirty_range(log, last_cleaned(log), now_ms)
            if found is None:
                continue
            if found.dirty_ratio > log.config.min_cleanable_dirty_ratio or found.must_clean:
                rank = (found.must_clean, found.dirty_ratio)
                if best is None or rank > (best.must_clean, best.dirty_ratio):
                    best = found
        return best

    async def clean(self, to_clean: LogToClean) -> int | None:
        """One round; returns the log's next first dirty offset.

        None when the log was truncated or deleted meanwhile. KafkaError for a batch that cannot be
        read, after which, as after any unexpected error, the log is left alone; OSError.
        """
        log = to_clean.log
        segments = [each for each in log.segments if each is not log.segments.active]
        self._slice_ends = self._env.clock.monotonic() + SLICE_S
        try:
            offsets = await self._build_offset_map(to_clean)
            end = offsets.latest_offset + 1
            cleaner = SegmentCleaner(
                log,
                offsets,
                end_of_round=to_clean.first_uncleanable_offset,
                give_way=self._give_way,
            )
            below = [each for each in segments if each.base_offset < end]
            for group in group_segments(log, below):
                await cleaner.clean(group)
                segments = [each for each in segments if each not in group]
        except LogCleaningAborted:
            return None
        except OSError:
            if log.is_moving or any(each not in list(log.segments) for each in segments):
                return None  # a segment was deleted, or the log moved: its file is gone
            raise
        except Exception:  # a batch that cannot be read, or whatever nobody thought of
            self._uncleanable.add(log)
            raise
        return end

    async def _build_offset_map(self, to_clean: LogToClean) -> OffsetMap:
        """The newest offset of every key in the dirty range, or in its front when they are many."""
        log = to_clean.log
        offsets = OffsetMap(self._max_keys)
        transactions = CleanedTransactions()
        for segment in log.segments.starting_from(to_clean.first_dirty_offset):
            if segment.base_offset >= to_clean.first_uncleanable_offset:
                break
            transactions.add_aborted(aborted_transactions_of(log, segment))
            for data in iter_all_batches(segment):
                header = RecordBatchHeader(data)
                start = to_clean.first_dirty_offset
                note = partial(self._note_keys, log, offsets, transactions, header, data, start)
                fits = await log.env.offload.run(note) if is_much_work(header) else note()
                if not fits:
                    return offsets
                offsets.latest_offset = max(header.last_offset, offsets.latest_offset)
                await self._give_way(len(data))
            # Offsets may be missing before the next segment; the round reaches over them.
            following = log.segments.higher(segment.base_offset)
            if following is not None:
                offsets.latest_offset = following.base_offset - 1
        return offsets

    def _note_keys(
        self,
        log: UnifiedLog,
        offsets: OffsetMap,
        transactions: CleanedTransactions,
        header: RecordBatchHeader,
        data: memoryview,
        start: int,
    ) -> bool:
        """Note the keys of records from ``start`` on. False when the map is full: what follows
        waits for the next round, which begins with the record that did not fit."""
        if header.is_control:
            transactions.on_control_batch(header, data)
            return True
        if transactions.on_data_batch(header):
            return True
        if header.last_offset < start:
            return True  # clean already
        for record in iter_records(data, header, limit=inflated_limit(log.config)):
            if record.key is None or record.offset < start:
                continue
            if not offsets.put(record.key, record.offset):
                offsets.latest_offset = max(offsets.latest_offset, record.offset - 1)
                return False
        return True

    async def _give_way(self, moved: int) -> None:
        if self._throttle is not None:
            await self._throttle.moved(moved)
        if self._env.clock.monotonic() >= self._slice_ends:
            await anyio.lowlevel.checkpoint()
            self._slice_ends = self._env.clock.monotonic() + SLICE_S


def group_segments(log: UnifiedLog, segments: list[LogSegment]) -> list[list[LogSegment]]:
    """Neighbours that fit into one segment together, also as offsets in its index."""
    groups: list[list[LogSegment]] = []
    size = 0
    for segment in segments:
        following = log.segments.higher(segment.base_offset)
        end = following.base_offset if following is not None else log.log_end_offset
        fits = (
            bool(groups)
            and size + segment.size <= log.config.segment_bytes
            and (not segment.size or end - 1 - groups[-1][0].base_offset <= MAX_RELATIVE_OFFSET)
        )
        if fits:
            groups[-1].append(segment)
            size += segment.size
        else:
            groups.append([segment])
            size = segment.size
    return groups
