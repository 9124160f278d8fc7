"""The files of one partition's log: segments, reads, rolls, truncation, syncing.

``UnifiedLog`` adds what Kafka's log knows beyond its bytes: leader epochs, producers, watermarks.
"""

import contextlib
import os
from collections.abc import Iterator

import anyio

from kbroker.common.files import File
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.batch_scan import iter_runs, iter_whole_batches
from kbroker.storage.fetch_info import (
    EMPTY_SLICE,
    AbortedTransaction,
    FetchDataInfo,
    TimestampAndOffset,
)
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_segments import LogSegments
from kbroker.storage.timestamp_search import find_max_timestamp, find_offset_by_timestamp


class LocalLog:
    """Segments on disk, from ``log_start_offset`` to ``log_end_offset``, synced up to
    ``recovery_point``."""

    def __init__(
        self,
        env: LogEnvironment,
        directory: str,
        topic: str,
        partition: int,
        config: LogConfig,
    ) -> None:
        """Nothing is touched: the directory comes with the first segment."""
        self.env = env
        self.directory = directory
        self.topic = topic
        self.partition = partition
        self.config = config
        self.log_start_offset = 0
        self.log_end_offset = 0
        self.recovery_point = 0
        self.failure: OSError | None = None
        """Set when syncing failed: what the device holds is unknown, appends are refused."""
        self._flushing: anyio.Event | None = None
        self._is_dirty = False
        self._new_names = False  # files were created since the directory was last synced

    def forget_files(self) -> None:
        """Begin without segments; the constructor of a whole log calls it."""
        self.segments = LogSegments()
        self._active: LogSegment | None = None
        # Where the batch begins that a reader below the end was last kept from: (offset, place).
        self._bound_position: tuple[int, LogSegment, int] | None = None

    @property
    def name(self) -> str:
        """``topic-partition``, the directory's name."""
        return f"{self.topic}-{self.partition}"

    @property
    def size(self) -> int:
        """Bytes of record batches on disk."""
        return self.segments.size

    @property
    def first_base_offset(self) -> int:
        """Where the first segment begins; the log's start while there is none."""
        first = self.segments.first
        return first.base_offset if first is not None else self.log_start_offset

    @property
    def has_files(self) -> bool:
        """The partition's directory exists."""
        return self._active is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {self.log_start_offset}..{self.log_end_offset})"

    def storage_error(self, action: str, error: OSError, *, is_lasting: bool = False) -> KafkaError:
        """Log it and give the error that clients are told; the directory may go offline.

        ``is_lasting``: whatever the error, this log cannot go on.
        """
        self.env.log.error("%s-%d: error while %s: %s", self.topic, self.partition, action, error)
        self.env.on_storage_error(self, error, is_lasting)
        return KafkaError(
            ErrorCode.KAFKA_STORAGE_ERROR, f"Error while {action} {self.name}: {error}"
        )

    # Segments

    def make_first_segment(self, base_offset: int) -> LogSegment:
        """The directory and an empty segment. OSError leaves the log without segments."""
        self.env.files.make_directory(self.directory)
        segment = LogSegment.create(self.env, self.directory, base_offset, self.config)
        self.segments.add(segment)
        self._active = segment
        self._new_names = True
        self.log_end_offset = max(self.log_end_offset, base_offset)
        return segment

    def roll_to_new_segment(self, base_offset: int) -> LogSegment:
        """An empty segment becomes the active one, and the log ends where it begins: not below
        its end as it was. OSError changes nothing."""
        segment = LogSegment.create(self.env, self.directory, base_offset, self.config)
        self.segments.add(segment)
        self._active = segment
        self._new_names = True
        self.log_end_offset = base_offset
        return segment

    def adopt_segments(self) -> None:
        """The loader has filled ``segments``."""
        self._active = self.segments.active

    def delete_segments(self, segments: list[LogSegment]) -> None:
        """Rename the segments' files away in this order; they are removed later. OSError."""
        for segment in segments:
            paths = segment.mark_deleted()
            self.segments.remove(segment)
            self.env.remove_later(paths, self.config.file_delete_delay_ms)
        self._bound_position = None

    def truncate_segments(self, offset: int) -> None:
        """After an OSError the log is what is left so far."""
        for segment in self.segments.above(offset)[::-1]:
            self.delete_segments([segment])
            self.end_at(segment.base_offset)
        active = self.segments.active
        assert active is not None
        size = active.size
        try:
            active.truncate_to(offset)
        except OSError:
            if active.size != size:
                self.end_at(offset)
            raise
        self.end_at(offset)

    def end_at(self, offset: int) -> None:
        """The log ends at ``offset`` now, lower than before."""
        self._active = self.segments.active
        self._bound_position = None
        self.log_end_offset = offset
        self.recovery_point = min(self.recovery_point, offset)
        self.log_start_offset = min(self.log_start_offset, offset)

    # Reading

    def read_below(
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
        known = self._bound_position
        if known is not None and known[0] == offset:
            return known[1], known[2]
        segment = self.segments.floor(offset)
        while segment is not None:
            found = segment.translate_offset(offset)
            if found is not None:
                segment.remember(offset, found[0])
                self._bound_position = (offset, segment, found[0])
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
        for segment, position, limit in self._stretches(start_offset, end_offset):
            try:
                yield from iter_whole_batches(segment.file(), position, limit)
            except OSError as error:
                raise self.storage_error("reading from", error) from error

    def read_runs(self, start_offset: int) -> Iterator[bytes]:
        """As ``read_batches``, many batches at once where they are small."""
        for segment, position, limit in self._stretches(start_offset, None):
            try:
                yield from iter_runs(segment.file(), position, limit)
            except OSError as error:
                raise self.storage_error("reading from", error) from error

    def _stretches(
        self, start_offset: int, end_offset: int | None
    ) -> Iterator[tuple[LogSegment, int, int]]:
        """(segment, first position, position behind the last) of what lies between offsets."""
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
                    yield segment, found[0], limit
                if segment is bound_segment:
                    return
        except OSError as error:
            raise self.storage_error("reading from", error) from error

    def offset_for_timestamp(self, timestamp: int) -> TimestampAndOffset | None:
        """The first record at or after log start whose timestamp is ``timestamp`` or later.

        Exact to the record, compressed batches included; looks at the whole log, so the caller
        compares with the high watermark. None when there is none; KAFKA_STORAGE_ERROR.
        """
        from kbroker.storage.log_validator import inflated_limit

        limit = inflated_limit(self.config)
        try:
            return find_offset_by_timestamp(
                self.segments, timestamp, self.log_start_offset, inflated_limit=limit
            )
        except OSError as error:
            raise self.storage_error("searching", error) from error

    def max_timestamp_offset(self) -> TimestampAndOffset | None:
        """The first record that carries the log's largest timestamp; None in an empty log."""
        from kbroker.storage.log_validator import inflated_limit

        limit = inflated_limit(self.config)
        try:
            return find_max_timestamp(self.segments, inflated_limit=limit)
        except OSError as error:
            raise self.storage_error("searching", error) from error

    # Syncing and closing

    @property
    def unflushed_messages(self) -> int:
        """Offsets that were appended since the last flush."""
        return self.log_end_offset - self.recovery_point

    @property
    def is_flushing(self) -> bool:
        """A sync is under way."""
        return self._flushing is not None

    @property
    def is_in_use(self) -> bool:
        """A segment's file is open, or was used since idle ones were last closed."""
        return any(segment.is_open or segment.recently_used for segment in self.segments)

    async def flush(self) -> None:
        """Return when everything appended before this call is on the device.

        Group commit: one flush runs at a time and covers all that was there when it began; those
        who come meanwhile share the next one. KAFKA_STORAGE_ERROR, for good: after a failed sync
        nobody knows what the device holds, so it is never tried again.
        """
        target = self.log_end_offset
        while self.recovery_point < min(target, self.log_end_offset):
            if self.failure is not None:
                raise self.storage_error("flushing", self.failure)
            if self._flushing is not None:
                await self._flushing.wait()
            else:
                await self._flush_once()

    def note_synced(self) -> None:
        """All that was written is on the device: somebody synced the whole volume."""
        self.recovery_point = self.log_end_offset
        self._is_dirty = False
        self._new_names = False

    async def _flush_once(self) -> None:
        self._flushing = finished = anyio.Event()
        try:
            end = self.log_end_offset
            try:
                work = self._sync_work()
            except OSError as error:  # an index file: nothing is lost, the next flush tries again
                raise self.storage_error("flushing", error) from error
            self._is_dirty = False
            try:
                await self.env.offload.run(work)
            except OSError as error:
                self.failure = error
                raise self.storage_error("flushing", error, is_lasting=True) from error
            self.recovery_point = max(self.recovery_point, min(end, self.log_end_offset))
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
            with contextlib.suppress(FileNotFoundError):  # the log was deleted meanwhile
                self._env.files.sync_directory(directory)
