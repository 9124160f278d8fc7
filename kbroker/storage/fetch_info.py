"""What a read of the log asks for and gives: isolation, slices, aborted transactions."""

import enum
from typing import NamedTuple

from kbroker.common.files import File
from kbroker.common.parts import Buffer, LogSlice


class FetchIsolation(enum.Enum):
    """How far a reader may see."""

    LOG_END = enum.auto()
    """Followers: everything that was appended."""
    HIGH_WATERMARK = enum.auto()
    """READ_UNCOMMITTED consumers: what is replicated."""
    TXN_COMMITTED = enum.auto()
    """READ_COMMITTED consumers: below the first open transaction."""


class FileSlice:
    """A range of a segment file. Keeps the file open while it lives, deleted or not."""

    __slots__ = ("_file", "_position", "_size")

    def __init__(self, file: File, position: int, size: int) -> None:
        self._file = file
        self._position = position
        self._size = size

    def __len__(self) -> int:
        return self._size

    def parts(self) -> list[Buffer]:
        """The bytes, read now. OSError when a truncation took them after the read of the log.

        Only what a leader's log loses can go so, and nobody but a follower ever saw that.
        """
        data = self._file.read_at(self._size, self._position)
        if len(data) != self._size:
            raise OSError(
                f"{self._file.path}: {self._size} bytes at {self._position} were promised, "
                f"{len(data)} are left"
            )
        return [data]

    def file_range(self) -> tuple[int, int, int] | None:
        """(descriptor, position, size); hold the slice for as long as the descriptor is used."""
        descriptor = self._file.fileno()
        return None if descriptor is None else (descriptor, self._position, self._size)


class BytesSlice:
    """Bytes that were read at once: nothing, or where open files cannot be renamed."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def parts(self) -> list[Buffer]:
        return [self._data] if self._data else []

    def file_range(self) -> tuple[int, int, int] | None:
        return None


EMPTY_SLICE = BytesSlice(b"")


class AbortedTransaction(NamedTuple):
    """An aborted transaction as a READ_COMMITTED reader is told of it."""

    producer_id: int
    first_offset: int


class FetchDataInfo:
    """The outcome of ``UnifiedLog.read``.

    ``records`` starts at the batch that holds ``fetch_offset`` and may end inside a batch.
    ``aborted_transactions`` is None unless the read was TXN_COMMITTED.
    """

    __slots__ = ("aborted_transactions", "fetch_offset", "first_entry_incomplete", "records")

    def __init__(
        self,
        fetch_offset: int,
        records: LogSlice,
        *,
        first_entry_incomplete: bool = False,
        aborted_transactions: list[AbortedTransaction] | None = None,
    ) -> None:
        self.fetch_offset = fetch_offset
        self.records = records
        self.first_entry_incomplete = first_entry_incomplete
        """The first batch is larger than the limit and was not asked for whole: no records."""
        self.aborted_transactions = aborted_transactions


class TimestampAndOffset(NamedTuple):
    """A record found by its time: (offset, timestamp in ms, leader epoch or -1)."""

    offset: int
    timestamp: int
    leader_epoch: int
