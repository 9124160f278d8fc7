"""What a partition remembers of one producer, and the snapshot file of all of them.

Snapshot: ProducerSnapshot.json, version 1: int16 version, uint32 CRC-32C of what follows, an array
of entries. Only the last batch of each producer is in it; the four before it are read back from
the log when a producer repeats one of them after a restart.
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from kbroker.record.batch import NO_PRODUCER_EPOCH, NO_SEQUENCE, NO_TIMESTAMP
from kbroker.record.crc import crc32c

BATCHES_TO_RETAIN = 5
MAX_SEQUENCE = 0x7FFFFFFF
_SNAPSHOT_VERSION = 1
_PREFIX = struct.Struct(">hIi")  # version, CRC, number of entries
_CRC_END = 6  # the CRC covers what follows itself
_ENTRY = struct.Struct(">qhiqiqiq")


class CorruptSnapshotError(Exception):
    """A snapshot file that must not be used."""


class BatchMetadata(NamedTuple):
    """A batch that was appended: its sequence numbers, offsets and largest timestamp."""

    first_sequence: int
    last_sequence: int
    first_offset: int
    last_offset: int
    timestamp: int


class ProducerStateEntry:
    """The last batches of a producer, oldest first, and its open transaction, if any."""

    __slots__ = (
        "batches",
        "coordinator_epoch",
        "current_txn_first_offset",
        "is_restored",
        "last_timestamp",
        "producer_epoch",
        "producer_id",
    )

    def __init__(
        self,
        producer_id: int,
        *,
        producer_epoch: int = NO_PRODUCER_EPOCH,
        coordinator_epoch: int = -1,
        last_timestamp: int = NO_TIMESTAMP,
        current_txn_first_offset: int = -1,
        batches: Iterable[BatchMetadata] = (),
    ) -> None:
        self.producer_id = producer_id
        self.producer_epoch = producer_epoch
        self.coordinator_epoch = coordinator_epoch
        self.last_timestamp = last_timestamp
        self.current_txn_first_offset = current_txn_first_offset
        """-1 without an open transaction."""
        self.batches: list[BatchMetadata] = list(batches)
        self.is_restored = False
        """Came from a snapshot, which holds one batch; earlier ones can be read from the log."""

    @property
    def first_sequence(self) -> int:
        return self.batches[0].first_sequence if self.batches else NO_SEQUENCE

    @property
    def last_sequence(self) -> int:
        return self.batches[-1].last_sequence if self.batches else NO_SEQUENCE

    @property
    def last_data_offset(self) -> int:
        return self.batches[-1].last_offset if self.batches else -1

    def add_batch(self, producer_epoch: int, batch: BatchMetadata) -> None:
        """Remember a batch; those of another epoch are forgotten."""
        if producer_epoch != self.producer_epoch:
            self.producer_epoch = producer_epoch
            self.batches.clear()
        elif len(self.batches) >= BATCHES_TO_RETAIN:
            del self.batches[0]
        self.batches.append(batch)
        self.last_timestamp = batch.timestamp

    def find_duplicate(
        self, producer_epoch: int, first_sequence: int, last_sequence: int
    ) -> BatchMetadata | None:
        """The remembered batch with exactly these sequence numbers and this epoch."""
        if producer_epoch == self.producer_epoch:
            for batch in self.batches:
                if batch.first_sequence == first_sequence and batch.last_sequence == last_sequence:
                    return batch
        return None

    def __repr__(self) -> str:
        return (
            f"ProducerStateEntry(producer_id={self.producer_id}, "
            f"producer_epoch={self.producer_epoch}, batches={self.batches}, "
            f"current_txn_first_offset={self.current_txn_first_offset}, "
            f"coordinator_epoch={self.coordinator_epoch}, last_timestamp={self.last_timestamp})"
        )


def decrement_sequence(sequence: int, decrement: int) -> int:
    """Sequence numbers run from 0 to 2^31 - 1 and around."""
    return sequence - decrement if sequence >= decrement else sequence - decrement + 2**31


def encode_snapshot(entries: Iterable[ProducerStateEntry]) -> bytes:
    """The content of a snapshot file."""
    rows = []
    for entry in entries:
        last = entry.batches[-1] if entry.batches else None
        rows.append(
            _ENTRY.pack(
                entry.producer_id,
                entry.producer_epoch,
                NO_SEQUENCE if last is None else last.last_sequence,
                -1 if last is None else last.last_offset,
                0 if last is None else last.last_offset - last.first_offset,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.current_txn_first_offset,
            )
        )
    data = bytearray(_PREFIX.pack(_SNAPSHOT_VERSION, 0, len(rows)) + b"".join(rows))
    struct.pack_into(">I", data, 2, crc32c(memoryview(data)[_CRC_END:]))
    return bytes(data)


def decode_snapshot(data: bytes) -> list[ProducerStateEntry]:
    """The entries of a snapshot file. CorruptSnapshotError when it is damaged or unknown."""
    if len(data) < _PREFIX.size:
        raise CorruptSnapshotError(f"{len(data)} bytes are too few for a snapshot")
    version, crc, count = _PREFIX.unpack_from(data)
    if version != _SNAPSHOT_VERSION:
        raise CorruptSnapshotError(f"version {version} is unknown")
    if len(data) != _PREFIX.size + count * _ENTRY.size:
        raise CorruptSnapshotError(f"{len(data)} bytes do not hold {count} entries")
    if crc32c(memoryview(data)[_CRC_END:]) != crc:
        raise CorruptSnapshotError("the CRC does not match")
    return [
        _decode_entry(fields) for fields in _ENTRY.iter_unpack(memoryview(data)[_PREFIX.size :])
    ]


def _decode_entry(fields: tuple[int, ...]) -> ProducerStateEntry:
    (
        producer_id,
        producer_epoch,
        last_sequence,
        last_offset,
        offset_delta,
        timestamp,
        coordinator_epoch,
        current_txn_first_offset,
    ) = fields
    batches = []
    if last_offset >= 0:
        batches.append(
            BatchMetadata(
                decrement_sequence(last_sequence, offset_delta),
                last_sequence,
                last_offset - offset_delta,
                last_offset,
                timestamp,
            )
        )
    return ProducerStateEntry(
        producer_id,
        producer_epoch=producer_epoch,
        coordinator_epoch=coordinator_epoch,
        last_timestamp=timestamp,
        current_txn_first_offset=current_txn_first_offset,
        batches=batches,
    )
