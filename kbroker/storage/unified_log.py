"""The log of one partition: append, read, roll, truncate, and the offsets that bound them.

Order on the write path, and what a ``kill -9`` after each step leaves:

1. Checks (failure, sequence numbers, size): nothing was touched.
2. Leader epoch into ``leader-epoch-checkpoint`` (first batch of an epoch only): an epoch that
   begins at the log's end. Recovery drops it, the next leader assigns it again.
3. Roll, when due: see ``_roll``.
4. Base offset and leader epoch are patched into the batch: memory only.
5. One write at the segment's end. A kill inside leaves a prefix of the batch, or all its length
   with bytes missing: recovery finds the length or the CRC wrong and cuts it off. A kill after it
   leaves a batch that was not acknowledged: it stays, as after Kafka's; an idempotent producer that
   sends it again is told its offset, because recovery replays producer state from the log.
   An error instead of a kill cuts the tail off again and raises KAFKA_STORAGE_ERROR.
6. State in memory: end offset, indexes, producer state. From here on readers can see the batch.
   Nothing awaits between 5 and 6, and nobody is answered before 6.

Index files, snapshots and the checkpoints of the data directory are written later (roll, flush,
close); each is rebuilt or recomputed from the segments when it is missing or older than them.
"""

import contextlib
import os
from collections.abc import Iterator

import anyio

from kbroker.common.files import File, write_atomically
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.batch import (
    CONTROL_BIT,
    NO_SEQUENCE,
    RecordBatchHeader,
    increment_sequence,
    patch,
)
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.batch_scan import iter_headers, iter_whole_batches
from kbroker.storage.checkpoints import (
    LEADER_EPOCH_CHECKPOINT,
    EpochEntry,
    encode_leader_epoch_checkpoint,
    write_partition_metadata,
)
from kbroker.storage.fetch_info import (
    EMPTY_SLICE,
    AbortedTransaction,
    FetchDataInfo,
    FetchIsolation,
    TimestampAndOffset,
)
from kbroker.storage.follower_append import batch_metadata, check_follower_records
from kbroker.storage.leader_epoch_cache import LeaderEpochCache
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_segments import LogSegments
from kbroker.storage.log_validator import ValidatedRecords
from kbroker.storage.producer_state_entry import (
    BATCHES_TO_RETAIN,
    BatchMetadata,
    ProducerStateEntry,
)
from kbroker.storage.producer_state_manager import CompletedTxn, ProducerStateManager
from kbroker.storage.timestamp_search import (
    find_max_timestamp,
    find_offset_by_timestamp,
    read_end_transaction_marker,
)
from kbroker.storage.transaction_index import AbortedTxn

_HISTORY_INDEX_ENTRIES = 512


class LogAppendInfo:
    """What became of an append. Offsets are the original ones when it was a ``duplicate``."""

    __slots__ = (
        "duplicate",
        "first_offset",
        "last_offset",
        "log_append_time_ms",
        "log_start_offset",
        "must_flush",
    )

    def __init__(
        self,
        first_offset: int,
        last_offset: int,
        log_append_time_ms: int,
        log_start_offset: int,
        duplicate: bool = False,
        must_flush: bool = False,
    ) -> None:
        self.first_offset = first_offset
        self.last_offset = last_offset
        self.log_append_time_ms = log_append_time_ms
        """-1 on a CreateTime topic; a duplicate carries the original batch's largest timestamp."""
        self.log_start_offset = log_start_offset
        self.duplicate = duplicate
        self.must_flush = must_flush
        """flush.messages is reached: ``await log.flush()`` before the producer is answered."""


def _last_sequence(records: ValidatedRecords) -> int:
    if records.base_sequence < 0:
        return NO_SEQUENCE
    return increment_sequence(records.base_sequence, records.last_offset_delta)


class UnifiedLog:
    """One partition's log. Its directory and files come into being at the first append.

    The offsets are plain attributes: ``log_start_offset <= last_stable_offset <= high_watermark <=
    log_end_offset``; ``recovery_point`` is the offset up to which everything is on the device.
    """

    def __init__(
        self,
        env: LogEnvironment,
        directory: str,
        topic: str,
        partition: int,
        *,
        topic_id: bytes = ZERO_UUID,
        config: LogConfig | None = None,
    ) -> None:
        """A log without files; ``log_loader.load_log`` reads one that has."""
        self.env = env
        self.directory = directory
        self.topic = topic
        self.partition = partition
        self.topic_id = topic_id
        self.config = config or LogConfig()
        self.segments = LogSegments()
        self.producer_state = ProducerStateManager(
            env, directory, self.name, self._load_producer_history
        )
        self.epochs = LeaderEpochCache((), self._write_epochs)
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.high_watermark = 0
        self.last_stable_offset = 0
        self.recovery_point = 0
        self.failure: OSError | None = None
        """Set when syncing failed: what the device holds is unknown, appends are refused."""
        self._active: LogSegment | None = None
        self._high_watermark_position: tuple[LogSegment, int] | None = None
        self._flushing: anyio.Event | None = None
        self._is_dirty = False
        self._new_names = False  # files were created since the directory was last synced
        self._has_failpoint = bool(env.faults.failpoint)

    @property
    def name(self) -> str:
        """``topic-partition``, the directory's name."""
        return f"{self.topic}-{self.partition}"

    @property
    def size(self) -> int:
        """Bytes of record batches on disk."""
        return self.segments.size

    @property
    def has_files(self) -> bool:
        """The partition's directory exists."""
        return self._active is not None

    def __repr__(self) -> str:
        return f"UnifiedLog({self.name}, {self.log_start_offset}..{self.log_end_offset})"

    def storage_error(self, action: str, error: OSError) -> KafkaError:
        """Log it and give the error that clients are told."""
        self.env.log.error("%s: error while %s: %s", self.name, action, error)
        return KafkaError(
            ErrorCode.KAFKA_STORAGE_ERROR, f"Error while {action} {self.name}: {error}"
        )

    # Append

    def append_as_leader(
        self,
        records: ValidatedRecords,
        *,
        leader_epoch: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> LogAppendInfo:
        """Append one validated batch at the log's end, in place: its header is patched.

        KafkaError: what the producer state refuses; RECORD_LIST_TOO_LARGE; KAFKA_STORAGE_ERROR,
        after which the log is as it was.
        """
        if self.failure is not None:
            raise self.storage_error("appending to", self.failure)
        producer_id = records.producer_id
        if producer_id >= 0:
            duplicate = self._check_producer(records, origin)
            if duplicate is not None:
                return LogAppendInfo(
                    duplicate.first_offset,
                    duplicate.last_offset,
                    duplicate.timestamp,
                    self.log_start_offset,
                    True,
                    False,
                )
        data = records.data
        size = len(data)
        first_offset = self.log_end_offset
        last_offset = first_offset + records.last_offset_delta
        max_timestamp = records.max_timestamp
        config = self.config
        segment = self._active
        try:
            if (
                segment is None
                or leader_epoch != self.epochs.latest_epoch
                or segment.size + size > config.segment_bytes
                or max_timestamp > segment.fits_until_timestamp
                or last_offset > segment.fits_until_offset
            ):
                segment = self._segment_for(size, max_timestamp, last_offset, leader_epoch)
            patch(data, 0, first_offset, leader_epoch)
            if self._has_failpoint:
                self._pass_failpoints_before_write(segment, data)
            segment.append(data, last_offset, max_timestamp, config.index_interval_bytes)
        except OSError as error:
            raise self.storage_error("appending to", error) from error
        if self._has_failpoint:
            self.env.faults.hit("append.after_write")
        self.log_end_offset = end_offset = last_offset + 1
        if producer_id >= 0:
            completed = self._update_producer(records, first_offset, last_offset)
            if completed is not None:
                self._complete_txn(completed, segment)
        self.producer_state.map_end_offset = end_offset
        if not self._is_dirty:
            self._is_dirty = True
            self.env.on_dirty(self)
        return LogAppendInfo(
            first_offset,
            last_offset,
            records.log_append_time_ms,
            self.log_start_offset,
            False,
            end_offset - self.recovery_point >= config.flush_messages,
        )

    def _segment_for(
        self, size: int, max_timestamp: int, last_offset: int, leader_epoch: int
    ) -> LogSegment:
        """The segment that takes the next ``size`` bytes; rolled, or made, when due. OSError."""
        config = self.config
        if size > config.segment_bytes:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"Message batch size is {size} bytes in append to partition {self.name}, which "
                f"exceeds the maximum configured segment size of {config.segment_bytes}.",
            )
        segment = self._active
        if segment is None:
            segment = self._make_files(self.log_end_offset)
        if leader_epoch != self.epochs.latest_epoch and leader_epoch >= 0:
            self.epochs.assign(leader_epoch, self.log_end_offset)
        if segment.should_roll(size, max_timestamp, last_offset, config):
            segment = self._roll(segment)
        return segment

    def _pass_failpoints_before_write(self, segment: LogSegment, data: memoryview) -> None:
        faults = self.env.faults
        faults.hit("append.before_write")
        if faults.is_due("append.torn_write"):
            segment.write_torn(data)
            faults.die()

    def _check_producer(
        self, records: ValidatedRecords, origin: AppendOrigin
    ) -> BatchMetadata | None:
        if records.is_control:
            _, coordinator_epoch = read_end_transaction_marker(records.data)
            self.producer_state.check_marker(
                records.producer_id, records.producer_epoch, coordinator_epoch
            )
            return None
        return self.producer_state.check_data_batch(
            records.producer_id,
            records.producer_epoch,
            records.base_sequence,
            _last_sequence(records),
            is_transactional=records.is_transactional,
            origin=origin,
        )

    def _update_producer(
        self, records: ValidatedRecords, first_offset: int, last_offset: int
    ) -> CompletedTxn | None:
        if records.is_control:
            is_abort, coordinator_epoch = read_end_transaction_marker(records.data)
            return self.producer_state.append_marker(
                records.producer_id,
                records.producer_epoch,
                coordinator_epoch=coordinator_epoch,
                offset=last_offset,
                timestamp=records.max_timestamp,
                is_abort=is_abort,
            )
        self.producer_state.append_data_batch(
            records.producer_id,
            records.producer_epoch,
            BatchMetadata(
                records.base_sequence,
                _last_sequence(records),
                first_offset,
                last_offset,
                records.max_timestamp,
            ),
            is_transactional=records.is_transactional,
        )
        if records.is_transactional:
            self._update_last_stable_offset()
        return None

    def _complete_txn(self, completed: CompletedTxn, segment: LogSegment) -> None:
        """The transaction index first: what fails there leaves the transaction open, so that no
        READ_COMMITTED reader is shown aborted records; recovery puts it right."""
        try:
            self.complete_replayed_txn(completed, segment)
        except OSError as error:
            raise self.storage_error("indexing an aborted transaction of", error) from error
        self._update_last_stable_offset()

    def complete_replayed_txn(self, completed: CompletedTxn, segment: LogSegment) -> None:
        """Recovery walked over the marker of a transaction. OSError."""
        if completed.is_aborted:
            stable = self.producer_state.last_stable_offset(completed)
            segment.append_aborted_transaction(
                AbortedTxn(
                    completed.producer_id, completed.first_offset, completed.last_offset, stable
                )
            )
        self.producer_state.complete_txn(completed)

    def append_as_follower(self, view: memoryview) -> LogAppendInfo | None:
        """Append what a leader sent, offsets and epochs as they are; a cut last batch is dropped.

        None when not even one batch is whole. KafkaError CORRUPT_MESSAGE (CRC, lengths) or
        KAFKA_STORAGE_ERROR; ValueError for offsets that do not continue this log. Nothing was
        appended then.
        """
        if self.failure is not None:
            raise self.storage_error("appending to", self.failure)
        batches = check_follower_records(view, self.log_end_offset)
        if not batches:
            return None
        first, last = batches[0], batches[-1]
        max_timestamp = max(batch.max_timestamp for batch in batches)
        try:
            if self._active is None:
                self._make_files(first.base_offset)
                self.log_start_offset = max(self.log_start_offset, first.base_offset)
            segment = self._segment_for(
                last.position + last.size, max_timestamp, last.last_offset, -1
            )
            for batch in batches:
                if batch.leader_epoch > self.epochs.latest_epoch:
                    self.epochs.assign(batch.leader_epoch, batch.base_offset)
            segment.append_batches(
                view[: last.position + last.size], batches, self.config.index_interval_bytes
            )
        except OSError as error:
            raise self.storage_error("appending to", error) from error
        self.log_end_offset = last.last_offset + 1
        for batch in batches:
            completed = self.replay_batch(batch, view[batch.position :])
            if completed is not None:
                self._complete_txn(completed, segment)
        self.producer_state.map_end_offset = self.log_end_offset
        if not self._is_dirty:
            self._is_dirty = True
            self.env.on_dirty(self)
        return LogAppendInfo(
            first.base_offset,
            last.last_offset,
            -1,
            self.log_start_offset,
            must_flush=self.unflushed_messages >= self.config.flush_messages,
        )

    def replay_batch(self, batch: RecordBatchHeader, data: memoryview) -> CompletedTxn | None:
        """Bring the producer state up to a batch that is in the log; ``data`` begins with it."""
        if batch.producer_id < 0:
            return None
        if batch.is_control:
            if not batch.record_count:
                return None  # the cleaner removed the marker: the whole transaction is gone
            is_abort, coordinator_epoch = read_end_transaction_marker(data)
            return self.producer_state.append_marker(
                batch.producer_id,
                batch.producer_epoch,
                coordinator_epoch=coordinator_epoch,
                offset=batch.last_offset,
                timestamp=batch.max_timestamp,
                is_abort=is_abort,
            )
        self.producer_state.append_data_batch(
            batch.producer_id,
            batch.producer_epoch,
            batch_metadata(batch),
            is_transactional=batch.is_transactional,
        )
        if batch.is_transactional:
            self._update_last_stable_offset()
        return None

    # Files and segments

    def _make_files(self, base_offset: int) -> LogSegment:
        """Directory, topic id and first segment. OSError leaves the log without files.

        The topic id comes before any data: what is recovered is known to be of this topic.
        """
        self.env.files.make_directory(self.directory)
        if self.topic_id != ZERO_UUID:
            write_partition_metadata(self.env.files, self.directory, self.topic_id)
        segment = LogSegment.create(self.env, self.directory, base_offset, self.config)
        self.segments.add(segment)
        self._active = segment
        self._new_names = True
        self.log_end_offset = max(self.log_end_offset, base_offset)
        self.epochs.write()
        return segment

    def adopt_segments(self) -> None:
        """The loader has filled ``segments``."""
        self._active = self.segments.active

    def restore_epochs(self, entries: list[EpochEntry]) -> None:
        """The loader has read the checkpoint."""
        self.epochs = LeaderEpochCache(entries, self._write_epochs)

    def assign_topic_id(self, topic_id: bytes) -> None:
        """The metadata knows the topic's id and the directory did not. KAFKA_STORAGE_ERROR."""
        if self.topic_id != topic_id != ZERO_UUID:
            self.topic_id = topic_id
            if self.has_files:
                try:
                    write_partition_metadata(self.env.files, self.directory, topic_id)
                except OSError as error:
                    raise self.storage_error("noting the topic id of", error) from error

    def _write_epochs(self, entries: list[EpochEntry]) -> None:
        if self._active is not None:
            write_atomically(
                self.env.files,
                os.path.join(self.directory, LEADER_EPOCH_CHECKPOINT),
                encode_leader_epoch_checkpoint(entries),
                sync=False,
            )

    def roll(self) -> None:
        """Begin a new segment at the log's end, as when the active one is full."""
        if self._active is not None and self._active.size:
            try:
                self._roll(self._active)
            except OSError as error:
                raise self.storage_error("rolling", error) from error

    def _roll(self, segment: LogSegment) -> LogSegment:
        """Finish the active segment and begin the next one. OSError leaves the old one active.

        A kill after the index files: they are rebuilt from the recovery point on, or found whole.
        After the snapshot: it lies at the log's end and is used. After the new files: an empty
        active segment. Syncing the old segment is left to the background.
        """
        segment.on_become_inactive()
        self.producer_state.map_end_offset = self.log_end_offset
        self.producer_state.take_snapshot()
        if self._has_failpoint:
            self.env.faults.hit("roll.mid")
        fresh = LogSegment.create(self.env, self.directory, self.log_end_offset, self.config)
        self.segments.add(fresh)
        self._active = fresh
        self._new_names = True
        self.env.flush_later(self)
        return fresh

    def update_config(self, config: LogConfig) -> None:
        """The topic's settings changed; they act from the next append, roll or retention on."""
        self.config = config
        if self._active is not None:
            self._active.on_config_changed()

    # Offsets

    def update_high_watermark(self, offset: int) -> None:
        """Everything below ``offset`` is replicated; held between log start and log end."""
        if offset >= self.log_end_offset:
            offset = self.log_end_offset  # its position is where the active segment ends
        elif offset < self.log_start_offset:
            offset = self.log_start_offset
        if self.high_watermark != offset:
            self._high_watermark_position = None
        self.high_watermark = offset
        state = self.producer_state
        if state.has_transactions():
            state.on_high_watermark_updated(offset)
            self._update_last_stable_offset()
        else:
            self.last_stable_offset = offset

    def _update_last_stable_offset(self) -> None:
        unstable = self.producer_state.first_unstable_offset
        if unstable < 0:
            self.last_stable_offset = self.high_watermark
        else:
            self.last_stable_offset = min(self.high_watermark, max(unstable, self.log_start_offset))

    def maybe_increment_log_start_offset(self, offset: int) -> bool:
        """Records below ``offset`` do not exist any more; True when that is new.

        KafkaError OFFSET_OUT_OF_RANGE above the high watermark. Segments go at the next retention
        run; the checkpoint is written soon (a crash before that brings the records back, as it may
        in Kafka).
        """
        if offset > self.high_watermark:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"Cannot increment the log start offset to {offset} of partition {self.name} "
                f"since it is larger than the high watermark {self.high_watermark}",
            )
        if offset <= self.log_start_offset:
            return False
        self.log_start_offset = offset
        self.recovery_point = max(self.recovery_point, offset)
        try:
            self.epochs.truncate_from_start(offset)
        except OSError as error:
            raise self.storage_error("trimming the leader epochs of", error) from error
        self.producer_state.on_log_start_offset_incremented(offset)
        self._update_last_stable_offset()
        self.env.on_log_start_changed(self)
        return True

    @property
    def latest_epoch(self) -> int:
        """The latest leader epoch that this log knows, -1 when it knows none."""
        return self.epochs.latest_epoch

    def maybe_assign_epoch_start_offset(self, epoch: int, offset: int) -> None:
        """A leader was elected: its epoch begins at ``offset``. KafkaError KAFKA_STORAGE_ERROR."""
        try:
            self.epochs.assign(epoch, offset)
        except OSError as error:
            raise self.storage_error("noting a leader epoch of", error) from error

    def end_offset_for_epoch(self, epoch: int) -> tuple[int, int]:
        """(epoch, end offset) as OffsetForLeaderEpoch answers; (-1, -1) when it is not known."""
        return self.epochs.end_offset_for(epoch, self.log_end_offset)

    # Read

    def read(
        self,
        fetch_offset: int,
        *,
        max_bytes: int,
        isolation: FetchIsolation,
        min_one_message: bool,
    ) -> FetchDataInfo:
        """Batches from the one that holds ``fetch_offset``, as far as ``isolation`` lets see.

        Empty at and beyond what may be seen. KafkaError OFFSET_OUT_OF_RANGE outside the log,
        KAFKA_STORAGE_ERROR when a file cannot be read, UNKNOWN_SERVER_ERROR for negative
        ``max_bytes``.
        """
        if fetch_offset > self.log_end_offset or fetch_offset < self.log_start_offset:
            raise KafkaError(
                ErrorCode.OFFSET_OUT_OF_RANGE,
                f"Received request for offset {fetch_offset} for partition {self.name}, but we "
                f"only have log segments upto {self.log_end_offset} and starting from offset: "
                f"{self.log_start_offset}.",
            )
        committed = isolation is FetchIsolation.TXN_COMMITTED
        if isolation is FetchIsolation.HIGH_WATERMARK:
            bound = self.high_watermark
        elif committed:
            bound = self.last_stable_offset
        else:
            bound = self.log_end_offset
        if fetch_offset >= bound:
            return FetchDataInfo(
                fetch_offset, EMPTY_SLICE, aborted_transactions=[] if committed else None
            )
        try:
            return self._read_below(bound, fetch_offset, max_bytes, min_one_message, committed)
        except OSError as error:
            raise self.storage_error("reading from", error) from error

    def _read_below(
        self,
        bound: int,
        fetch_offset: int,
        max_bytes: int,
        min_one_message: bool,
        committed: bool,
    ) -> FetchDataInfo:
        bound_segment, bound_position = self._position_of(bound)
        segment = self._active
        assert segment is not None and bound_segment is not None
        if fetch_offset < segment.base_offset:
            segment = self.segments.floor(fetch_offset) or self.segments.first
        while segment is not None and segment.base_offset <= bound_segment.base_offset:
            end = bound_position if segment is bound_segment else segment.size
            found = segment.read(
                fetch_offset,
                max_bytes=max_bytes,
                max_position=end,
                min_one_message=min_one_message,
            )
            if found is not None:
                records, position, incomplete = found
                if position + len(records) == bound_position and segment is bound_segment:
                    segment.remember(bound, bound_position)
                return FetchDataInfo(
                    fetch_offset,
                    records,
                    first_entry_incomplete=incomplete,
                    aborted_transactions=self._aborted_transactions(
                        segment, fetch_offset, position + len(records)
                    )
                    if committed
                    else None,
                )
            # The rest of this segment was compacted away, or it ends at the next one's base.
            segment = self.segments.higher(segment.base_offset)
        return FetchDataInfo(
            fetch_offset, EMPTY_SLICE, aborted_transactions=[] if committed else None
        )

    def _position_of(self, offset: int) -> tuple[LogSegment | None, int]:
        """The segment and position where the batch that holds ``offset`` begins."""
        active = self._active
        if active is not None and offset == self.log_end_offset:
            return active, active.size
        if offset == self.high_watermark and self._high_watermark_position is not None:
            return self._high_watermark_position
        segment = self.segments.floor(offset)
        while segment is not None:
            found = segment.translate_offset(offset)
            if found is not None:
                segment.remember(offset, found[0])
                if offset == self.high_watermark:
                    self._high_watermark_position = (segment, found[0])
                return segment, found[0]
            segment = self.segments.higher(segment.base_offset)
        return active, active.size if active is not None else 0

    def _aborted_transactions(
        self, segment: LogSegment, fetch_offset: int, end_position: int
    ) -> list[AbortedTransaction]:
        """Those that overlap what was read, the bound taken from the sparse index as Kafka does."""
        segments = self.segments.starting_from(segment.base_offset)
        if not any(each.has_transaction_index for each in segments):
            return []
        upper = segment.offset_index.offset_above_position(end_position)
        if upper is None:
            following = self.segments.higher(segment.base_offset)
            upper = following.base_offset if following is not None else self.log_end_offset
        aborted: list[AbortedTransaction] = []
        for each in segments:
            found, complete = each.transaction_index.collect(fetch_offset, upper)
            aborted += [AbortedTransaction(txn.producer_id, txn.first_offset) for txn in found]
            if complete:
                break
        return aborted

    def read_batches(
        self, start_offset: int, end_offset: int | None = None
    ) -> Iterator[memoryview]:
        """Whole batches from the one that holds ``start_offset`` to the end as it is now.

        For loaders; between two batches the log may be appended to. KAFKA_STORAGE_ERROR.
        """
        end = self.log_end_offset if end_offset is None else min(end_offset, self.log_end_offset)
        start = max(start_offset, self.log_start_offset)
        if start >= end:
            return
        try:
            bound_segment, bound_position = self._position_of(end)
            for segment in self.segments.starting_from(start):
                limit = bound_position if segment is bound_segment else segment.size
                found = segment.translate_offset(start)
                if found is not None:
                    yield from iter_whole_batches(segment.file(), found[0], limit)
                if segment is bound_segment:
                    return
        except OSError as error:
            raise self.storage_error("reading from", error) from error

    # By time

    def offset_for_timestamp(self, timestamp: int) -> TimestampAndOffset | None:
        """The first record at or after log start whose timestamp is ``timestamp`` or later.

        Exact to the record, compressed batches included; looks at the whole log, so the caller
        compares with the high watermark. None when there is none; KAFKA_STORAGE_ERROR.
        """
        try:
            return find_offset_by_timestamp(self.segments, timestamp, self.log_start_offset)
        except OSError as error:
            raise self.storage_error("searching", error) from error

    def max_timestamp_offset(self) -> TimestampAndOffset | None:
        """The first record that carries the log's largest timestamp; None in an empty log."""
        try:
            return find_max_timestamp(self.segments)
        except OSError as error:
            raise self.storage_error("searching", error) from error

    # Truncate and remove

    def truncate_to(self, offset: int) -> bool:
        """Cut off everything from ``offset`` on; True when there was something to cut.

        Segments go from the last one down, so a kill in between leaves a shorter log without a gap.
        """
        if offset < 0:
            raise ValueError(f"cannot truncate {self.name} to {offset}")
        try:
            if offset >= self.log_end_offset:
                self.epochs.truncate_from_end(self.log_end_offset)
                return False
            first = self.segments.first
            if first is None or offset < first.base_offset:
                self.truncate_fully_and_start_at(offset)
                return True
            self._truncate_segments(offset)
            self.epochs.truncate_from_end(offset)
        except OSError as error:
            raise self.storage_error("truncating", error) from error
        self._rebuild_producer_state()
        return True

    def _truncate_segments(self, offset: int) -> None:
        """After an OSError the log is what is left so far."""
        for segment in self.segments.above(offset)[::-1]:
            self.delete_segments([segment])
            self._end_at(segment.base_offset)
        active = self.segments.active
        assert active is not None
        size = active.size
        try:
            active.truncate_to(offset)
        except OSError:
            if active.size != size:
                self._end_at(offset)
            raise
        self._end_at(offset)

    def _end_at(self, offset: int) -> None:
        """The log ends at ``offset`` now, lower than before."""
        self._active = self.segments.active
        self.log_end_offset = offset
        self.recovery_point = min(self.recovery_point, offset)
        self.log_start_offset = min(self.log_start_offset, offset)
        self.update_high_watermark(min(self.high_watermark, offset))

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop everything; the next record gets ``offset``. KAFKA_STORAGE_ERROR."""
        try:
            for segment in list(self.segments)[::-1]:
                self.delete_segments([segment])
                self._end_at(segment.base_offset)
            self.log_start_offset = self.log_end_offset = self.recovery_point = offset
            self.epochs.clear()
            self.producer_state.truncate_fully_and_start_at(offset)
            if self.env.files.exists(self.directory):
                self._make_files(offset)
        except OSError as error:
            raise self.storage_error("truncating", error) from error
        self.update_high_watermark(offset)

    def delete_segments(self, segments: list[LogSegment]) -> None:
        """Rename the segments' files away in this order; they are removed later. OSError."""
        for segment in segments:
            paths = segment.mark_deleted()
            self.segments.remove(segment)
            self.env.remove_later(paths, self.config.file_delete_delay_ms)
        self._high_watermark_position = None

    def delete_from_front(self, segments: list[LogSegment]) -> None:
        """Retention: the log starts behind these segments from now on. KAFKA_STORAGE_ERROR.

        The start moves first, so that nobody reads what is about to go; a kill in between leaves
        segments that the next run removes. The snapshot at the new start is kept.
        """
        following = self.segments.higher(segments[-1].base_offset)
        assert following is not None, "a log keeps at least one segment"
        try:
            self.maybe_increment_log_start_offset(following.base_offset)
            self.delete_segments(segments)
            self.producer_state.delete_snapshots_before(following.base_offset)
        except OSError as error:
            raise self.storage_error("deleting segments of", error) from error

    def _rebuild_producer_state(self) -> None:
        """After a truncation: back to a snapshot, and the batches behind it again.

        When that fails the state may tell of batches that are gone, so the log takes no more.
        """
        state = self.producer_state
        try:
            state.truncate_and_load(self.log_start_offset, self.log_end_offset)
            self.replay_producers(state.map_end_offset)
            state.map_end_offset = self.log_end_offset
            state.take_snapshot()
        except OSError as error:
            self.failure = error
            raise self.storage_error("rebuilding the producer state of", error) from error

    def replay_producers(self, start_offset: int, end_offset: int | None = None) -> None:
        """Replay the batches of this range of offsets into the producer state. OSError."""
        end = self.log_end_offset if end_offset is None else end_offset
        if start_offset >= end:
            return
        for segment in self.segments.starting_from(start_offset):
            found = segment.translate_offset(start_offset)
            if found is None:
                continue
            for data in iter_whole_batches(segment.file(), found[0], segment.size):
                batch = RecordBatchHeader(data)
                if batch.base_offset >= end:
                    return
                if batch.base_offset >= start_offset:
                    completed = self.replay_batch(batch, data)
                    if completed is not None:
                        self.producer_state.complete_txn(completed)

    def _load_producer_history(self, entry: ProducerStateEntry) -> None:
        """The batches of a producer before the one that a snapshot told of, so that a producer
        that repeats several after a restart is answered like one that repeats the last.

        Looks back a bounded way: the entries of the offset index tell where to begin.
        """
        entry.is_restored = False
        first_offset = entry.batches[0].first_offset
        segment = self.segments.floor(first_offset - 1)
        if segment is None:
            return
        start = segment.offset_index.position_before(first_offset, _HISTORY_INDEX_ENTRIES)
        batches: list[BatchMetadata] = []
        for header in iter_headers(segment.file(), start, segment.size):
            if header.base_offset >= first_offset:
                break
            if (header.producer_id, header.producer_epoch) == (
                entry.producer_id,
                entry.producer_epoch,
            ) and not header.attributes & CONTROL_BIT:
                batches.append(
                    BatchMetadata(
                        header.base_sequence,
                        increment_sequence(header.base_sequence, header.last_offset_delta),
                        header.base_offset,
                        header.last_offset,
                        header.max_timestamp,
                    )
                )
        entry.batches[:0] = batches[len(entry.batches) - BATCHES_TO_RETAIN :]

    # Flush and close

    @property
    def unflushed_messages(self) -> int:
        """Offsets that were appended since the last flush."""
        return self.log_end_offset - self.recovery_point

    async def flush(self) -> None:
        """Return when everything appended before this call is on the device.

        Group commit: one flush runs at a time and covers all that was there when it began; those
        who come meanwhile share the next one. KAFKA_STORAGE_ERROR, for good: after a failed sync
        nobody knows what the device holds, so it is never tried again.
        """
        target = self.log_end_offset
        while self.recovery_point < target:
            if self.failure is not None:
                raise self.storage_error("flushing", self.failure)
            if self._flushing is not None:
                await self._flushing.wait()
            else:
                await self._flush_once()

    async def _flush_once(self) -> None:
        self._flushing = finished = anyio.Event()
        try:
            end = self.log_end_offset
            self._is_dirty = False
            work = self._sync_work()
            await self.env.offload.run(work)
            self.recovery_point = max(self.recovery_point, min(end, self.log_end_offset))
        except OSError as error:
            self.failure = error
            raise self.storage_error("flushing", error) from error
        finally:
            self._flushing = None
            finished.set()

    def _sync_work(self) -> "SyncWork":
        segments = self.segments.starting_from(self.recovery_point)
        paths: list[str] = []
        files: list[File] = []
        for segment in segments:
            paths += segment.save_indexes()
            files.append(segment.file())
        directories = []
        if self._new_names:
            directories = [self.directory, os.path.dirname(self.directory)]
            self._new_names = False
        return SyncWork(self.env, files, paths, directories)

    def abandon(self) -> None:
        """Let go of every file as it is: the log is deleted, or was closed."""
        for segment in self.segments:
            segment.abandon()

    def close(self) -> None:
        """Save indexes, take a producer snapshot, close the files. Once. KAFKA_STORAGE_ERROR."""
        try:
            for segment in self.segments:
                segment.close()
            if self._active is not None:
                self.producer_state.map_end_offset = self.log_end_offset
                self.producer_state.take_snapshot(sync=bool(self.producer_state.producers))
        except OSError as error:
            raise self.storage_error("closing", error) from error


class SyncWork:
    """What a worker thread does for a flush: the files in order, then the names."""

    __slots__ = ("_directories", "_env", "_files", "_paths")

    def __init__(
        self, env: LogEnvironment, files: list[File], paths: list[str], directories: list[str]
    ) -> None:
        self._env = env
        self._files = files
        self._paths = paths
        self._directories = directories

    def __call__(self) -> None:
        for file in self._files:
            file.sync()
        for path in self._paths:
            with contextlib.suppress(FileNotFoundError):  # its segment was deleted meanwhile
                file = self._env.files.open(path)
                try:
                    file.sync()
                finally:
                    file.close()
        for directory in self._directories:
            self._env.files.sync_directory(directory)
