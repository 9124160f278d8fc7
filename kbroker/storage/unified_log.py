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

import os

from kbroker.common.files import write_atomically
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.batch import (
    NO_SEQUENCE,
    increment_sequence,
    patch,
)
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.checkpoints import (
    LEADER_EPOCH_CHECKPOINT,
    EpochEntry,
    encode_leader_epoch_checkpoint,
    write_partition_metadata,
)
from kbroker.storage.fetch_info import (
    EMPTY_SLICE,
    FetchDataInfo,
    FetchIsolation,
)
from kbroker.storage.follower_append import check_follower_records
from kbroker.storage.indexes import MAX_RELATIVE_OFFSET
from kbroker.storage.leader_epoch_cache import LeaderEpochCache
from kbroker.storage.local_log import LocalLog
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_validator import ValidatedRecords
from kbroker.storage.producer_replay import load_history, replay_batch, replay_producers
from kbroker.storage.producer_state_entry import BatchMetadata, ProducerStateEntry
from kbroker.storage.producer_state_manager import CompletedTxn, ProducerStateManager
from kbroker.storage.timestamp_search import (
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


class UnifiedLog(LocalLog):
    """One partition's log. Its directory and files come into being at the first append.

    The offsets are plain attributes: ``log_start_offset <= last_stable_offset <= high_watermark <=
    log_end_offset``; ``recovery_point`` is the offset up to which everything is on the device.
    """

    is_moving = False
    """It is being copied to another data directory: the cleaner leaves it alone until that ends."""

    is_dormant = False
    """It answers from what a checkpoint says of it; its files are not open."""

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
        super().__init__(env, directory, topic, partition, config or LogConfig())
        self.topic_id = topic_id
        self.high_watermark = 0
        self.last_stable_offset = 0
        self._has_failpoint = bool(env.faults.failpoint)
        self.forget_files()

    def forget_files(self) -> None:
        """A log that knows of no file, as a new one or one that is about to be loaded."""
        super().forget_files()
        self.producer_state = ProducerStateManager(
            self.env, self.directory, self.name, self._load_history
        )
        self.epochs = LeaderEpochCache((), self._write_epochs)

    def _load_history(self, entry: ProducerStateEntry) -> None:
        load_history(self.segments, entry)

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
                _, _, first, last, timestamp = duplicate
                return LogAppendInfo(first, last, timestamp, self.log_start_offset, True, False)
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
                or leader_epoch != self.epochs.saved_epoch
                or segment.size + size > config.segment_bytes
                or max_timestamp > segment.fits_until_timestamp
                or last_offset > segment.fits_until_offset
            ):
                segment = self._segment_for(
                    size, max_timestamp, first_offset, last_offset, leader_epoch
                )
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
            self.env.on_dirty(self, config.flush_ms)
        must_flush = end_offset - self.recovery_point >= config.flush_messages
        append_time_ms = records.log_append_time_ms
        return LogAppendInfo(
            first_offset, last_offset, append_time_ms, self.log_start_offset, False, must_flush
        )

    def _segment_for(
        self, size: int, max_timestamp: int, first_offset: int, last_offset: int, leader_epoch: int
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
        if self.epochs.saved_epoch != self.epochs.latest_epoch:
            self.epochs.write()
        if segment.should_roll(size, max_timestamp, last_offset, config):
            segment = self._roll(segment, first_offset)
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

        Batches that lie too far behind the first one to share a segment with it are left for the
        next call. None when not even one batch is whole. KafkaError CORRUPT_MESSAGE (CRC, lengths)
        or KAFKA_STORAGE_ERROR; ValueError for offsets that do not continue this log. Nothing was
        appended then.
        """
        if self.failure is not None:
            raise self.storage_error("appending to", self.failure)
        batches = check_follower_records(view, self.log_end_offset)
        if not batches:
            return None
        first = batches[0]
        while batches[-1].last_offset - first.base_offset > MAX_RELATIVE_OFFSET:
            batches.pop()
        last = batches[-1]
        max_timestamp = max(batch.max_timestamp for batch in batches)
        try:
            if self._active is None:
                self._make_files(first.base_offset)
                self.log_start_offset = max(self.log_start_offset, first.base_offset)
            segment = self._segment_for(
                last.position + last.size, max_timestamp, first.base_offset, last.last_offset, -1
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
            completed = replay_batch(self.producer_state, batch, view[batch.position :])
            if completed is not None:
                self._complete_txn(completed, segment)
        self.producer_state.map_end_offset = self.log_end_offset
        if not self._is_dirty:
            self._is_dirty = True
            self.env.on_dirty(self, self.config.flush_ms)
        return LogAppendInfo(
            first.base_offset,
            last.last_offset,
            -1,
            self.log_start_offset,
            must_flush=self.unflushed_messages >= self.config.flush_messages,
        )

    # Files and segments

    def _make_files(self, base_offset: int) -> LogSegment:
        """Topic id, first segment and leader epochs. OSError.

        The topic id comes before any data: what is recovered is known to be of this topic.
        """
        self.env.files.make_directory(self.directory)
        if self.topic_id != ZERO_UUID:
            write_partition_metadata(self.env.files, self.directory, self.topic_id)
        segment = self.make_first_segment(base_offset)
        self.epochs.write()
        return segment

    def make_files(self) -> None:
        """The files of a log that begins where another one did. KAFKA_STORAGE_ERROR."""
        try:
            self._make_files(self.log_end_offset)
        except OSError as error:
            raise self.storage_error("making the files of", error) from error

    def move_to(self, directory: str) -> None:
        """A log without files will have them elsewhere."""
        assert not self.has_files
        self.directory = directory
        entries = self.epochs.entries()
        self.forget_files()
        self.restore_epochs(entries)

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
                self._roll(self._active, self.log_end_offset)
            except OSError as error:
                raise self.storage_error("rolling", error) from error

    def _roll(self, segment: LogSegment, base_offset: int) -> LogSegment:
        """Finish the active segment and begin the next one. OSError leaves the old one active.

        ``base_offset`` is above the log's end where a follower's next batch lies behind a gap.
        A kill after the index files: they are rebuilt from the recovery point on, or found whole.
        After the snapshot: it lies at the log's end and is used. After the new files: an empty
        active segment. Syncing the old segment is left to the background.
        """
        segment.on_become_inactive()
        self.producer_state.map_end_offset = base_offset
        self.producer_state.take_snapshot()
        if self._has_failpoint:
            self.env.faults.hit("roll.mid")
        fresh = self.roll_to_new_segment(base_offset)
        self.env.flush_later(self)
        return fresh

    def update_config(self, config: LogConfig) -> None:
        """The topic's settings changed; they act from the next append, roll or retention on."""
        if config.flush_ms < self.config.flush_ms and self._is_dirty:
            self.env.on_dirty(self, config.flush_ms)  # sooner than it was asked for
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

    @property
    def earliest_epoch(self) -> EpochEntry | None:
        """The first epoch that this log knows."""
        return self.epochs.earliest_entry

    def maybe_assign_epoch_start_offset(self, epoch: int, offset: int) -> None:
        """A leader was elected: its epoch begins at ``offset``. KafkaError KAFKA_STORAGE_ERROR.

        At the log's end it is written with its first record: there are brokers that come to lead
        ten thousand partitions at once.
        """
        try:
            self.epochs.assign(epoch, offset, persist=offset < self.log_end_offset)
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
            return self.read_below(bound, fetch_offset, max_bytes, min_one_message, committed)
        except OSError as error:
            raise self.storage_error("reading from", error) from error

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
            self.truncate_segments(offset)
            self.epochs.truncate_from_end(offset)
        except OSError as error:
            raise self.storage_error("truncating", error) from error
        self._rebuild_producer_state()
        return True

    def end_at(self, offset: int) -> None:
        super().end_at(offset)
        self.update_high_watermark(min(self.high_watermark, offset))

    def truncate_fully_and_start_at(self, offset: int) -> None:
        """Drop everything; the next record gets ``offset``. KAFKA_STORAGE_ERROR."""
        try:
            for segment in list(self.segments)[::-1]:
                self.delete_segments([segment])
                self.end_at(segment.base_offset)
            self.log_start_offset = self.log_end_offset = self.recovery_point = offset
            self.epochs.clear()
            self.producer_state.truncate_fully_and_start_at(offset)
            if self.env.files.exists(self.directory):
                self._make_files(offset)
        except OSError as error:
            raise self.storage_error("truncating", error) from error
        self.update_high_watermark(offset)

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
            replay_producers(state, self.segments, state.map_end_offset, self.log_end_offset)
            state.map_end_offset = self.log_end_offset
            state.take_snapshot()
        except OSError as error:
            self.failure = error
            raise self.storage_error(
                "rebuilding the producer state of", error, is_lasting=True
            ) from error
        self.update_high_watermark(self.high_watermark)  # a transaction may be open again

    def take_producer_snapshot(self) -> None:
        """Write the producer state as of now, unless that is done. KAFKA_STORAGE_ERROR."""
        if self.has_files:
            try:
                self.producer_state.map_end_offset = self.log_end_offset
                self.producer_state.take_snapshot()
            except OSError as error:
                raise self.storage_error("taking a producer snapshot of", error) from error

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
