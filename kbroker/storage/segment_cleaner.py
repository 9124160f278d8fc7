"""Compaction of a group of segments into one, and putting it in their place.

The new segment is written beside the old ones as ``.cleaned``, synced, renamed to ``.swap`` and
then takes their names. A kill before the last file is ``.swap`` leaves the old segments; one after
it leaves the new one, which the next start puts in place.
"""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial

from kbroker.common.files import File, remove_if_exists
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader, verify_crc
from kbroker.record.record import Record
from kbroker.storage.batch_filter import BatchRetention, FilteredBatch, filter_batch
from kbroker.storage.batch_scan import iter_whole_batches
from kbroker.storage.cleaned_transactions import CleanedTransactions
from kbroker.storage.indexes import NO_TIMESTAMP, OffsetIndex, TimeIndex
from kbroker.storage.log_segment import (
    CLEANED_SUFFIX,
    INDEX_SUFFIX,
    LOG_SUFFIX,
    TIME_INDEX_SUFFIX,
    TXN_INDEX_SUFFIX,
    LogSegment,
)
from kbroker.storage.log_validator import inflated_limit
from kbroker.storage.offset_map import OffsetMap
from kbroker.storage.transaction_index import AbortedTxn, TransactionIndex
from kbroker.storage.unified_log import UnifiedLog

SWAP_SUFFIX = ".swap"
_MUCH_DATA = 64 * 1024
_MUCH_COMPRESSED_DATA = 8 * 1024
_MANY_RECORDS = 2000


class LogCleaningAborted(Exception):
    """The log changed under the cleaner (truncated, deleted); what it wrote is dropped."""


def is_much_work(header: RecordBatchHeader) -> bool:
    """Whether to look at the batch's records in a worker thread: they may take a millisecond."""
    much = _MUCH_COMPRESSED_DATA if header.codec else _MUCH_DATA
    return header.size > much or header.record_count > _MANY_RECORDS


class CleanedSegment:
    """The files of the segment that will take the place of a group."""

    def __init__(self, log: UnifiedLog, base_offset: int) -> None:
        """Makes the ``.cleaned`` files, over leftovers of an earlier try. OSError."""
        self._log = log
        self._files = log.env.files
        self.base_offset = base_offset
        self._plain = LogSegment(log.env, log.directory, base_offset, size=0)
        self._file: File = self._files.open(self._path(LOG_SUFFIX), create=True)
        self._file.truncate(0)
        self._offsets = OffsetIndex(self._path(INDEX_SUFFIX), base_offset, stale=True)
        self._times = TimeIndex(self._path(TIME_INDEX_SUFFIX), base_offset, stale=True)
        self._since_entry = 0
        self._largest = (NO_TIMESTAMP, base_offset)
        self.size = 0
        self.has_transactions = False

    def _path(self, suffix: str, state: str = CLEANED_SUFFIX) -> str:
        return self._plain.path(suffix) + state

    @property
    def _suffixes(self) -> list[str]:
        suffixes = [LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX]
        return [*suffixes, TXN_INDEX_SUFFIX] if self.has_transactions else suffixes

    def append(self, batch: FilteredBatch) -> None:
        """Write a batch and note it in the indexes as an append does. OSError."""
        self._file.write_at(batch.data, self.size)
        if batch.max_timestamp > self._largest[0]:
            self._largest = (batch.max_timestamp, batch.last_offset)
        if self._since_entry > self._log.config.index_interval_bytes:
            self._offsets.append(batch.last_offset, self.size)
            self._times.maybe_append(*self._largest)
            self._since_entry = 0
        self._since_entry += len(batch.data)
        self.size += len(batch.data)

    def finish(self, transactions: CleanedTransactions) -> Callable[[], None]:
        """Complete the index files; returns the syncing, for a worker thread. OSError."""
        self._times.maybe_append(*self._largest)
        self._offsets.save(self._files)
        self._times.save(self._files)
        if transactions.kept:
            path = self._path(TXN_INDEX_SUFFIX)
            remove_if_exists(self._files, path)
            index = TransactionIndex(path, self.base_offset)
            for transaction in transactions.kept:
                index.append(self._files, transaction)
            transactions.kept.clear()
            self.has_transactions = True
        return partial(self._sync, [self._path(suffix) for suffix in self._suffixes])

    def _sync(self, paths: list[str]) -> None:
        for path in paths:
            file = self._files.open(path)
            try:
                file.sync()
            finally:
                file.close()

    def discard(self) -> None:
        """Remove what was written."""
        self._file.close()
        for suffix in (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX):
            for state in (CLEANED_SUFFIX, SWAP_SUFFIX):
                remove_if_exists(self._files, self._path(suffix, state))

    def replace(self, segments: list[LogSegment]) -> None:
        """Take the place of these segments, in one step as readers see it.

        An OSError before the ``.swap`` names are complete changes nothing. After that there is no
        way back: the log takes no more appends until a restart finishes what was begun.
        """
        self._file.close()
        for suffix in self._suffixes:
            self._files.rename(self._path(suffix), self._path(suffix, SWAP_SUFFIX))
        log = self._log
        try:
            log.delete_segments(segments[:0:-1])
            first = segments[0]
            first.abandon()
            if first.has_transaction_index and not self.has_transactions:
                remove_if_exists(self._files, first.path(TXN_INDEX_SUFFIX))
            for suffix in self._suffixes:
                self._files.rename(self._path(suffix, SWAP_SUFFIX), self._plain.path(suffix))
            log.segments.remove(first)
            log.segments.add(
                LogSegment(
                    log.env,
                    log.directory,
                    self.base_offset,
                    size=self.size,
                    has_transaction_index=self.has_transactions,
                    created_ms=segments[-1].created_ms,
                    modified_ms=segments[-1].modified_ms,
                    is_closed=True,
                )
            )
            log.producer_state.remove_snapshots([each.base_offset for each in segments[1:]])
        except OSError as error:
            log.failure = error
            raise


class SegmentCleaner:
    """One pass over a log: the keys that are known, the time, the transactions on the way."""

    def __init__(
        self,
        log: UnifiedLog,
        offsets: OffsetMap,
        *,
        end_of_round: int,
        give_way: Callable[[int], Awaitable[None]],
    ) -> None:
        """``end_of_round``: the first offset that is not cleaned. ``give_way(bytes)`` is awaited
        between batches; it raises LogCleaningAborted when the log is not ours any more."""
        self._log = log
        self._offsets = offsets
        self._end_of_round = end_of_round
        self._give_way = give_way
        self._now_ms = log.env.clock.time_ms()
        self._transactions = CleanedTransactions()

    async def clean(self, segments: list[LogSegment]) -> None:
        """Compact the group. LogCleaningAborted, KafkaError or OSError: the old segments stand."""
        sizes = [each.size for each in segments]
        cleaned = CleanedSegment(self._log, segments[0].base_offset)
        try:
            for segment in segments:
                self._transactions.add_aborted(aborted_transactions_of(self._log, segment))
                for data in iter_all_batches(segment):
                    batch = await self._filter(data)
                    moved = len(data)
                    if batch is not None:
                        cleaned.append(batch)
                        moved += len(batch.data)
                    await self._give_way(moved)
            await self._log.env.offload.run(cleaned.finish(self._transactions))
            self._check_still_there(segments, sizes)
        except BaseException:
            cleaned.discard()
            raise
        try:
            cleaned.replace(segments)
        except OSError:
            if self._log.failure is None:
                cleaned.discard()
            raise

    def _check_still_there(self, segments: list[LogSegment], sizes: list[int]) -> None:
        present = list(self._log.segments)
        if (
            self._log.failure is not None
            or self._log.is_moving
            or any(each not in present for each in segments)
            or [each.size for each in segments] != sizes  # truncated: what was cut must not return
        ):
            raise LogCleaningAborted(self._log.name)

    async def _filter(self, data: memoryview) -> FilteredBatch | None:
        """Small batches here and now, large ones in a worker thread."""
        header = RecordBatchHeader(data)
        if header.is_control:
            may_go = self._transactions.on_control_batch(header, data)
            horizon = header.delete_horizon_ms
            discards = may_go and horizon is not None and horizon <= self._now_ms
        else:
            discards = self._transactions.on_data_batch(header)
            may_go = False
        work = partial(
            filter_batch,
            data,
            retention=self._retention(header, discards=discards),
            keep=partial(self._keeps, header, discards),
            has_marker_of_empty_transaction=may_go,
            delete_horizon_ms=self._now_ms + self._log.config.delete_retention_ms,
            inflated_limit=inflated_limit(self._log.config),
        )
        if is_much_work(header):
            return await self._log.env.offload.run(work)
        return work()

    def _retention(self, header: RecordBatchHeader, *, discards: bool) -> BatchRetention:
        if header.has_producer_id and self._is_last_of_producer(header):
            return BatchRetention.RETAIN_EMPTY
        if header.next_offset == self._end_of_round:
            return BatchRetention.RETAIN_EMPTY
        return BatchRetention.DELETE if discards else BatchRetention.DELETE_EMPTY

    def _is_last_of_producer(self, header: RecordBatchHeader) -> bool:
        """It tells the producer's last sequence number, or its epoch, after a recovery."""
        entry = self._log.producer_state.producers.get(header.producer_id)
        if entry is None:
            return False
        if entry.batches:
            return header.last_offset == entry.last_data_offset
        return header.is_control and header.producer_epoch == entry.producer_epoch

    def _keeps(self, header: RecordBatchHeader, discards: bool, record: Record) -> bool:
        if discards:
            return False
        if header.is_control or record.offset > self._offsets.latest_offset:
            return True
        if record.key is None:
            return False
        if record.offset < self._offsets.get(record.key):
            return False
        horizon = header.delete_horizon_ms
        return record.value is not None or horizon is None or self._now_ms < horizon


def iter_all_batches(segment: LogSegment) -> Iterator[memoryview]:
    """Every batch of a segment that is not appended to.

    KafkaError CORRUPT_MESSAGE where bytes are no batch: what lies behind them would be lost; and
    for a batch whose CRC is wrong, which Kafka rewrites with a right one, if it can read it.
    LogCleaningAborted when the segment was truncated meanwhile.
    """
    position, end = 0, segment.size
    for data in iter_whole_batches(segment.file(), 0, end):
        if not verify_crc(data, 0, len(data)):
            break
        yield data
        position += len(data)
    if segment.size != end:
        raise LogCleaningAborted(segment.log_path)
    if position != end:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE,
            f"no sound batch at position {position} of {segment.log_path}",
        )


def aborted_transactions_of(log: UnifiedLog, segment: LogSegment) -> list[AbortedTxn]:
    """The aborted transactions with records in this segment; their markers may lie behind it.

    As in Kafka not those that lie below the log's start as a whole: nobody reads their records.
    """
    following = log.segments.higher(segment.base_offset)
    end = following.base_offset if following is not None else log.log_end_offset
    found: list[AbortedTxn] = []
    for each in log.segments.starting_from(segment.base_offset):
        transactions, is_complete = each.transaction_index.collect(segment.base_offset, end)
        found += [one for one in transactions if one.last_offset >= log.log_start_offset]
        if is_complete:
            break
    return found
