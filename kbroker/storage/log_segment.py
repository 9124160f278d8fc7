"""One segment of a log: a ``.log`` file of record batches and its indexes.

The file is opened when somebody reads or writes and may be closed at any time between. Appends go
to the position that memory knows as the size; nothing behind it counts, so a failed write leaves
at most bytes that the next write overwrites.
"""

import contextlib
import os

from kbroker.common.files import File, remove_if_exists
from kbroker.common.parts import Buffer, LogSlice
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader
from kbroker.storage.batch_scan import iter_headers, locate
from kbroker.storage.fetch_info import EMPTY_SLICE, BytesSlice, FileSlice
from kbroker.storage.indexes import (
    MAX_RELATIVE_OFFSET,
    NO_TIMESTAMP,
    OFFSET_ENTRY_SIZE,
    TIME_ENTRY_SIZE,
    CorruptIndexError,
    OffsetIndex,
    TimeIndex,
    TimestampOffset,
)
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.transaction_index import AbortedTxn, TransactionIndex

LOG_SUFFIX = ".log"
INDEX_SUFFIX = ".index"
TIME_INDEX_SUFFIX = ".timeindex"
TXN_INDEX_SUFFIX = ".txnindex"
SNAPSHOT_SUFFIX = ".snapshot"
DELETED_SUFFIX = ".deleted"
CLEANED_SUFFIX = ".cleaned"
SEGMENT_SUFFIXES = (LOG_SUFFIX, INDEX_SUFFIX, TIME_INDEX_SUFFIX, TXN_INDEX_SUFFIX)
INDEX_INTERVAL_BYTES = 4096
"""Between entries of an index that is rebuilt (the default of index.interval.bytes)."""
_REMEMBERED_POSITIONS = 8
_UNKNOWN_LIMIT = -(2**63)


def segment_file_name(base_offset: int, suffix: str) -> str:
    """Kafka's name of a segment's file: the base offset with 20 digits, and what it is."""
    return f"{base_offset:020d}{suffix}"


class LogSegment:
    """Batches from ``base_offset`` on. ``size`` is the bytes that count."""

    __slots__ = (
        "_bytes_since_index_entry",
        "_directory",
        "_env",
        "_file",
        "_first_timestamp",
        "_has_empty_indexes",
        "_index_entries_left",
        "_is_appendable",
        "_is_closed",
        "_max_offset",
        "_max_timestamp",
        "_offset_index",
        "_positions",
        "_tail_may_be_dirty",
        "_time_index",
        "_transaction_index",
        "base_offset",
        "created_ms",
        "fits_until_offset",
        "fits_until_timestamp",
        "has_transaction_index",
        "is_preallocated",
        "modified_ms",
        "recently_used",
        "roll_jitter_ms",
        "size",
    )

    def __init__(
        self,
        env: LogEnvironment,
        directory: str,
        base_offset: int,
        *,
        size: int,
        has_transaction_index: bool = False,
        created_ms: int = 0,
        modified_ms: int | None = None,
        is_closed: bool = False,
    ) -> None:
        """A segment whose files exist; ``create`` makes a new one.

        ``is_closed`` says that it was rolled or closed, so that its index files are complete.
        """
        self._env = env
        self._directory = directory
        self.base_offset = base_offset
        self.size = size
        self.created_ms = created_ms
        self.modified_ms = created_ms if modified_ms is None else modified_ms
        """When it was last written to; while it is in use only records without a time count."""
        self.roll_jitter_ms = 0
        self.has_transaction_index = has_transaction_index
        self.is_preallocated = False
        self.recently_used = False
        self._file: File | None = None
        self._offset_index: OffsetIndex | None = None
        self._time_index: TimeIndex | None = None
        self._transaction_index: TransactionIndex | None = None
        self._has_empty_indexes = False  # when they are not loaded: their files hold no entry
        # The largest timestamp (None: not looked up yet) and the last offset of its batch.
        self._max_timestamp: int | None = None
        self._max_offset = base_offset
        self._first_timestamp: int | None = None  # of the first batch; -1 when it has none
        self._bytes_since_index_entry = 0
        self._index_entries_left = 0  # at least, before an index is full
        self._tail_may_be_dirty = False
        self._is_closed = is_closed  # the time index's last entry is the largest timestamp
        self._is_appendable = False  # file open, tail clean, indexes and largest timestamp known
        # A batch up to this timestamp and offset, if there is room, needs no ``should_roll``.
        self.fits_until_timestamp = _UNKNOWN_LIMIT
        self.fits_until_offset = base_offset + MAX_RELATIVE_OFFSET
        # (next offset, position) of the last reads; None while there is none.
        self._positions: dict[int, int] | None = None

    @classmethod
    def create(
        cls, env: LogEnvironment, directory: str, base_offset: int, config: LogConfig
    ) -> "LogSegment":
        """Make the files of an empty segment, in the place of any that are there.

        After an OSError none of them is left.
        """
        segment = cls(env, directory, base_offset, size=0, created_ms=env.clock.time_ms())
        segment.draw_roll_jitter(config)
        try:
            remove_if_exists(env.files, segment.path(TXN_INDEX_SUFFIX))
            segment._file = file = env.open_files.open(segment, create=True)
            file.truncate(config.segment_bytes if config.preallocate else 0)
            segment.is_preallocated = config.preallocate
            segment.reset_indexes()
            segment.save_indexes()
        except OSError:
            segment.release_file()
            env.open_files.forget(segment)
            with contextlib.suppress(OSError):
                for suffix in SEGMENT_SUFFIXES:
                    remove_if_exists(env.files, segment.path(suffix))
            raise
        return segment

    def draw_roll_jitter(self, config: LogConfig) -> None:
        """segment.jitter.ms: so that many partitions do not all roll at the same time."""
        jitter = min(config.segment_jitter_ms, config.segment_ms)
        if jitter > 0:
            self.roll_jitter_ms = self._env.entropy.randint(0, jitter - 1)

    @property
    def log_path(self) -> str:
        """Path of the log file."""
        return self.path(LOG_SUFFIX)

    @property
    def is_open(self) -> bool:
        """Its file is open."""
        return self._file is not None

    @property
    def is_closed(self) -> bool:
        """It was rolled or closed and not appended to since: the index files are complete."""
        return self._is_closed

    def path(self, suffix: str) -> str:
        """Path of one of the segment's files."""
        return os.path.join(self._directory, segment_file_name(self.base_offset, suffix))

    def file(self) -> File:
        """The open log file. OSError when it cannot be opened."""
        self.recently_used = True
        file = self._file
        if file is None:
            file = self._file = self._env.open_files.open(self)
        return file

    def release_file(self) -> None:
        """Let go of the file, and of indexes that their files hold too.

        Where open files cannot be renamed the file is closed for good; elsewhere it closes when
        the last slice of it is gone.
        """
        file, self._file = self._file, None
        self._is_appendable = False
        if file is not None and not self._env.files.renames_open_files:
            file.close()
        self._positions = None
        offset_index, time_index = self._offset_index, self._time_index
        if offset_index is None or time_index is None:
            return
        if not (offset_index.is_saved and time_index.is_saved):
            return
        # Empty ones come back without a look at their files, so short logs hold none.
        has_empty = not len(offset_index) and not len(time_index)
        if self._is_closed or has_empty:
            self._has_empty_indexes = has_empty
            self._offset_index = self._time_index = None

    # Indexes

    @property
    def offset_index(self) -> OffsetIndex:
        """Read from its file at first use; rebuilt from the log when the file is unsound."""
        index = self._offset_index
        if index is None:
            index = self._load_indexes()[0]
        return index

    def position_known_for(self, offset: int) -> int:
        """Position of the index entry at or below ``offset``, 0 when there is none."""
        if self._offset_index is None and self._has_empty_indexes:
            return 0
        return self.offset_index.lookup(offset)

    @property
    def time_index(self) -> TimeIndex:
        """As ``offset_index``."""
        index = self._time_index
        if index is None:
            index = self._load_indexes()[1]
        return index

    @property
    def transaction_index(self) -> TransactionIndex:
        """Aborted transactions of this segment. CorruptIndexError when its file is unsound."""
        index = self._transaction_index
        if index is None:
            path = self.path(TXN_INDEX_SUFFIX)
            data = self._env.files.read(path) if self.has_transaction_index else b""
            index = self._transaction_index = TransactionIndex(path, self.base_offset, data)
        return index

    def reset_indexes(self) -> None:
        """Forget what the index files hold; they are overwritten when they are next saved."""
        self._offset_index = OffsetIndex(self.path(INDEX_SUFFIX), self.base_offset, stale=True)
        self._time_index = TimeIndex(self.path(TIME_INDEX_SUFFIX), self.base_offset, stale=True)
        self._max_timestamp = NO_TIMESTAMP
        self._max_offset = self.base_offset
        self._bytes_since_index_entry = 0

    def on_config_changed(self) -> None:
        """Whether a batch fits must be looked at anew."""
        self.fits_until_timestamp = _UNKNOWN_LIMIT

    def read_index_files(self) -> None:
        """Load both indexes. CorruptIndexError or FileNotFoundError when they are not to be had."""
        files = self._env.files
        path = self.path(INDEX_SUFFIX)
        offset_index = OffsetIndex(path, self.base_offset, files.read(path))
        if len(offset_index) and offset_index.last_position >= self.size:
            raise CorruptIndexError(f"{path}: an entry points behind the segment's {self.size}")
        path = self.path(TIME_INDEX_SUFFIX)
        time_index = TimeIndex(path, self.base_offset, files.read(path))
        self._offset_index = offset_index
        self._time_index = time_index

    def _load_indexes(self) -> tuple[OffsetIndex, TimeIndex]:
        if self._has_empty_indexes:
            self._offset_index = OffsetIndex(self.path(INDEX_SUFFIX), self.base_offset)
            self._time_index = TimeIndex(self.path(TIME_INDEX_SUFFIX), self.base_offset)
            return self._offset_index, self._time_index
        try:
            self.read_index_files()
        except (CorruptIndexError, FileNotFoundError) as error:
            self._env.log.warning("rebuilding the indexes of %s: %s", self.log_path, error)
            self.rebuild_indexes()
        assert self._offset_index is not None and self._time_index is not None
        return self._offset_index, self._time_index

    def rebuild_indexes(self) -> None:
        """Make both indexes from the batch headers; the log itself is taken as it is."""
        self.reset_indexes()
        self._is_closed = self._is_appendable = False
        for header in iter_headers(self.file(), 0, self.size):
            self.add_to_indexes(
                header.size, header.position, header.last_offset, header.max_timestamp
            )

    def add_to_indexes(
        self,
        size: int,
        position: int,
        last_offset: int,
        max_timestamp: int,
        interval: int = INDEX_INTERVAL_BYTES,
    ) -> None:
        """Note a batch of ``size`` bytes at ``position``: Kafka's rule, batch by batch.

        An entry is due once more than ``interval`` bytes went by since the last one, and points at
        the batch that comes then.
        """
        assert self._max_timestamp is not None, "an appendable segment knows it"
        if max_timestamp > self._max_timestamp:
            self._max_timestamp = max_timestamp
            self._max_offset = last_offset
        if self._bytes_since_index_entry > interval:
            self._add_index_entries(last_offset, position)
        self._bytes_since_index_entry += size

    def _add_index_entries(self, last_offset: int, position: int) -> None:
        """Only memory: both indexes are loaded."""
        assert self._max_timestamp is not None
        self.offset_index.append(last_offset, position)
        self.time_index.maybe_append(self._max_timestamp, self._max_offset)
        self._bytes_since_index_entry = 0
        self._index_entries_left -= 1
        if self._index_entries_left <= 0:
            self.fits_until_timestamp = _UNKNOWN_LIMIT  # an index may be full now

    @property
    def largest_timestamp(self) -> TimestampOffset:
        """The largest timestamp and the last offset of its batch; (-1, base offset) without any."""
        if self._max_timestamp is None:
            largest = self.time_index.last_entry
        if self._max_timestamp is None:  # unless the indexes had to be rebuilt just now
            if not self._is_closed:
                position = self.offset_index.lookup(largest.offset)
                for header in iter_headers(self.file(), position, self.size):
                    if header.max_timestamp > largest.timestamp:
                        largest = TimestampOffset(header.max_timestamp, header.last_offset)
            self._max_timestamp, self._max_offset = largest
        return TimestampOffset(self._max_timestamp, self._max_offset)

    @property
    def largest_time_ms(self) -> int:
        """The largest timestamp; when it was last written to if its records have none, as Kafka."""
        timestamp = self.largest_timestamp.timestamp
        return timestamp if timestamp >= 0 else self.modified_ms

    def cut_indexes(self, position: int, offset: int) -> None:
        """Recovery begins at the batch at ``position`` with base offset ``offset``: forget what
        the indexes say of it and of what follows, but where it begins."""
        self.offset_index.truncate_to_position(position + 1)
        self.time_index.truncate_to(offset)
        self._max_timestamp, self._max_offset = self.time_index.last_entry
        if self.has_transaction_index:
            self.transaction_index.truncate_to(self._env.files, offset)

    # Appending and rolling

    def append(self, data: Buffer, last_offset: int, max_timestamp: int, interval: int) -> None:
        """Write one batch at the end; ``interval`` is index.interval.bytes.

        An OSError means that nothing of it counts: the size stands, and what may have been
        written is cut off now or, when that fails too, before the next append.
        """
        if not self._is_appendable:
            self._prepare_append()
        file = self._file
        assert file is not None and self._max_timestamp is not None
        position = self.size
        try:
            file.write_at(data, position)
        except OSError:
            self._cut_tail(file)
            raise
        # What add_to_indexes does, here without a call. From here on nothing can fail.
        size = len(data)
        self.size = position + size
        self.recently_used = True
        if max_timestamp > self._max_timestamp:
            self._max_timestamp = max_timestamp
            self._max_offset = last_offset
        elif max_timestamp < 0:
            self.modified_ms = self._env.clock.time_ms()
        if self._bytes_since_index_entry > interval:
            self._add_index_entries(last_offset, position)
        self._bytes_since_index_entry += size

    def append_batches(
        self, data: memoryview, batches: list[RecordBatchHeader], interval: int
    ) -> None:
        """``append`` for several batches with one write; their positions are those in ``data``."""
        if not self._is_appendable:
            self._prepare_append()
        position = self.size
        file = self.file()
        try:
            file.write_at(data, position)
        except OSError:
            self._cut_tail(file)
            raise
        self.size = position + len(data)
        self.modified_ms = self._env.clock.time_ms()
        for batch in batches:
            self.add_to_indexes(
                batch.size,
                position + batch.position,
                batch.last_offset,
                batch.max_timestamp,
                interval,
            )

    def _prepare_append(self) -> None:
        """Everything that may fail, before the write. OSError."""
        if self._offset_index is None or self._time_index is None:
            self._load_indexes()
        assert self.largest_timestamp  # looks it up
        file = self.file()
        if self._tail_may_be_dirty:
            file.truncate(self.size)
            self._tail_may_be_dirty = False
        self._is_closed = False
        self._is_appendable = True

    def _cut_tail(self, file: File) -> None:
        """A write failed: cut off what it left, now or before the next one."""
        self._is_appendable = False
        self._tail_may_be_dirty = True
        try:
            file.truncate(self.size)
            self._tail_may_be_dirty = False
        except OSError as error:
            self._env.log.error("%s: cannot cut off a failed write: %s", self.log_path, error)

    def write_torn(self, data: Buffer) -> None:
        """What a failpoint leaves: the first half of a batch, zeros where the rest should be.

        So a file system leaves it whose size reached the disk before the data did.
        """
        file = self.file()
        file.write_at(memoryview(data)[: len(data) // 2], self.size)
        file.truncate(self.size + len(data))

    def should_roll(
        self, size: int, max_timestamp: int, last_offset: int, config: LogConfig
    ) -> bool:
        """Whether a batch belongs into a new segment: Kafka's conditions.

        Too little room; the first batch is more than segment.ms (less jitter) older than this
        one, by the records' own times where they have one; an index is full; the offset would not
        fit into an index entry.
        """
        if not self.size:
            return last_offset - self.base_offset > MAX_RELATIVE_OFFSET
        if (
            self.size > config.segment_bytes - size
            or last_offset - self.base_offset > MAX_RELATIVE_OFFSET
        ):
            return True
        first = self._first_timestamp
        if first is None:
            first = self._first_timestamp = self._read_first_timestamp()
        if first >= 0:
            waited = max_timestamp - first
        else:
            waited = self._env.clock.time_ms() - self.created_ms
        longest_ms = config.segment_ms
        if config.compact:  # or the cleaner could not look at old records in time
            longest_ms = min(longest_ms, config.max_compaction_lag_ms)
        longest_ms -= self.roll_jitter_ms
        if waited > longest_ms:
            return True
        index_bytes = config.segment_index_bytes
        self._index_entries_left = min(
            index_bytes // OFFSET_ENTRY_SIZE - len(self.offset_index),
            index_bytes // TIME_ENTRY_SIZE - 1 - len(self.time_index),
        )
        if self._index_entries_left <= 0:
            return True
        if first >= 0:
            self.fits_until_timestamp = first + longest_ms
        return False

    def _read_first_timestamp(self) -> int:
        for header in iter_headers(self.file(), 0, self.size):
            return header.max_timestamp
        return NO_TIMESTAMP

    @property
    def first_timestamp(self) -> int:
        """Largest timestamp of the first batch, -1 without any."""
        if self._first_timestamp is None:
            self._first_timestamp = self._read_first_timestamp()
        return self._first_timestamp

    def on_become_inactive(self) -> None:
        """No more appends: the largest timestamp becomes an entry, the index files are complete.

        May raise OSError; calling it again is harmless, and so is appending after all.
        """
        largest = self.largest_timestamp
        self.time_index.maybe_append(largest.timestamp, largest.offset)
        if self.is_preallocated:
            self.file().truncate(self.size)
            self.is_preallocated = False
        self.save_indexes()
        self._is_closed = True
        self._is_appendable = False

    def save_indexes(self) -> list[str]:
        """Write what the index files lack; returns the paths that a flush has to sync."""
        paths = []
        for index in (self._offset_index, self._time_index):
            if index is not None:
                index.save(self._env.files)
                paths.append(index.path)
        if self._offset_index is None and self._has_empty_indexes:  # emptied, perhaps not synced
            paths += (self.path(INDEX_SUFFIX), self.path(TIME_INDEX_SUFFIX))
        if self.has_transaction_index:
            paths.append(self.path(TXN_INDEX_SUFFIX))
        return paths

    # Reading

    def translate_offset(self, offset: int) -> tuple[int, int, int] | None:
        """(position, size, last offset) of the batch that holds ``offset`` or comes after it."""
        position = self._positions.get(offset) if self._positions else None
        if position is None:
            position = self.offset_index.lookup(offset)
        return locate(self.file(), offset, position, self.size)

    def remember(self, next_offset: int, position: int) -> None:
        """A reader will come for ``next_offset``, whose batch is or will be at ``position``."""
        positions = self._positions
        if positions is None:
            positions = self._positions = {}
        if next_offset not in positions and len(positions) >= _REMEMBERED_POSITIONS:
            del positions[next(iter(positions))]
        positions[next_offset] = position

    def read(
        self, offset: int, *, max_bytes: int, max_position: int, min_one_message: bool
    ) -> tuple[LogSlice, int, bool] | None:
        """(records from the batch that holds ``offset``, its position, first batch incomplete).

        None when no batch reaches ``offset``. The rules of Kafka's LogSegment: at most
        ``max_bytes`` and nothing at ``max_position`` or behind; the first batch whole, however
        large, when ``min_one_message``; without that a first batch that does not fit gives no
        records at all (fetch v3+).
        """
        if max_bytes < 0:
            raise KafkaError(
                ErrorCode.UNKNOWN_SERVER_ERROR, f"Invalid max size {max_bytes} for log read"
            )
        found = self.translate_offset(offset)
        if found is None:
            return None
        position, batch_size, last_offset = found
        limit = max(max_bytes, batch_size) if min_one_message else max_bytes
        if limit < batch_size:
            return EMPTY_SLICE, position, limit > 0
        size = min(max_position - position, limit)
        if size <= 0:
            return EMPTY_SLICE, position, False
        if size <= 2 * batch_size:  # the next read begins behind this batch: no other fits
            self.remember(last_offset + 1, position + batch_size)
        return self.slice(position, size), position, False

    def slice(self, position: int, size: int) -> LogSlice:
        """A range of the file, to be read later where open files may be renamed."""
        file = self.file()
        if self._env.files.renames_open_files:
            return FileSlice(file, position, size)
        return BytesSlice(file.read_at(size, position))

    def read_next_offset(self) -> int:
        """Offset after the last batch, found from the last index entry on."""
        next_offset = self.base_offset
        for header in iter_headers(self.file(), self.offset_index.last_position, self.size):
            next_offset = header.last_offset + 1
        return next_offset

    # Truncating, renaming, removing

    def truncate_to(self, offset: int) -> int:
        """Cut off the batch that holds ``offset`` and all behind it; returns the bytes cut.

        Indexes first: an entry too few is harmless, one too many is not.
        """
        found = self.translate_offset(offset)
        self._positions = None
        self.offset_index.truncate_to(offset)
        self.time_index.truncate_to(offset)
        if self.has_transaction_index:
            self.transaction_index.truncate_to(self._env.files, offset)
        self._max_timestamp = None
        self._is_closed = False
        self._is_appendable = False
        self.fits_until_timestamp = _UNKNOWN_LIMIT
        cut = 0
        if found is not None:
            cut = self.size - found[0]
            self.size = found[0]
            self._tail_may_be_dirty = True
            self.file().truncate(self.size)
            self._tail_may_be_dirty = False
            self.is_preallocated = False
            self.modified_ms = self._env.clock.time_ms()
        if not self.size:
            self._first_timestamp = None
            self.created_ms = self._env.clock.time_ms()
        self._bytes_since_index_entry = 0
        return cut

    def set_recovered(
        self, size: int, largest: TimestampOffset, bytes_since_index_entry: int
    ) -> None:
        """Recovery walked to the end of the sound batches: cut the file there. OSError."""
        if self._env.files.size(self.log_path) != size:
            self.file().truncate(size)
        self.size = size
        self._max_timestamp, self._max_offset = largest
        self._bytes_since_index_entry = bytes_since_index_entry

    def append_aborted_transaction(self, transaction: AbortedTxn) -> None:
        """Note an aborted transaction whose marker lies here. OSError changes nothing."""
        self.transaction_index.append(self._env.files, transaction)
        self.has_transaction_index = True

    def reset_transaction_index(self) -> None:
        """Forget the aborted transactions; recovery finds them again."""
        if self.has_transaction_index:
            remove_if_exists(self._env.files, self.path(TXN_INDEX_SUFFIX))
        self.has_transaction_index = False
        self._transaction_index = None

    def close(self) -> None:
        """Bring the index files to what a closed segment's hold. OSError."""
        if not self._is_closed:
            self.on_become_inactive()

    def abandon(self) -> None:
        """Let go of the file and of all that memory holds."""
        self.release_file()
        self._env.open_files.forget(self)

    def mark_deleted(self) -> list[str]:
        """Rename the files to ``.deleted``; returns their new paths. Slices stay readable.

        The log file goes first: an OSError means that the segment is still there. Whatever else
        cannot be renamed then is an index without a log, which the next start removes.
        """
        self.abandon()
        paths = []
        for suffix in SEGMENT_SUFFIXES:
            path = self.path(suffix)
            try:
                self._env.files.rename(path, path + DELETED_SUFFIX)
            except FileNotFoundError:
                continue  # not every segment has every index
            except OSError as error:
                if suffix == LOG_SUFFIX:
                    raise
                self._env.log.warning("cannot rename %s: %s", path, error)
                continue
            paths.append(path + DELETED_SUFFIX)
        return paths

    def __repr__(self) -> str:
        return f"LogSegment({self.log_path}, size={self.size})"
