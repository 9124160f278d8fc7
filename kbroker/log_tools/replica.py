"""A partition's log as one broker left it: how far it goes, so that copies can be compared."""

import os
from typing import NamedTuple

from kbroker.common.files import OsFileSystem
from kbroker.log_tools.log_scan import Batch, Damage, scan_log
from kbroker.log_tools.partition_listing import INDEX, LOG, SNAPSHOT, TIME_INDEX, PartitionListing
from kbroker.log_tools.read_only import opened, read_small
from kbroker.record.batch import MAGIC, MAGIC_POSITION
from kbroker.storage.checkpoints import (
    CLEAN_SHUTDOWN,
    CLEANER_OFFSET_CHECKPOINT,
    LEADER_EPOCH_CHECKPOINT,
    LOG_START_OFFSET_CHECKPOINT,
    RECOVERY_POINT_CHECKPOINT,
    REPLICATION_OFFSET_CHECKPOINT,
    MetaProperties,
    read_leader_epoch_checkpoint,
    read_meta_properties,
    read_offset_checkpoint,
    read_partition_metadata,
)
from kbroker.storage.indexes import OFFSET_ENTRY_SIZE
from kbroker.storage.log_directory import Offsets, parse_partition_directory_name
from kbroker.storage.producer_state_entry import CorruptSnapshotError, decode_snapshot

Key = tuple[str, int]


class SourceDirectory:
    """A log directory of an Apache Kafka broker. OSError, ValueError for its meta.properties."""

    def __init__(self, path: str) -> None:
        self.path = path
        files = OsFileSystem()
        names = [entry.name for entry in files.list(path) if entry.is_directory]
        self.meta: MetaProperties | None = read_meta_properties(files, path)
        self.was_closed = files.exists(os.path.join(path, CLEAN_SHUTDOWN))
        self.recovery_points = self._checkpoint(RECOVERY_POINT_CHECKPOINT)
        self.log_starts = self._checkpoint(LOG_START_OFFSET_CHECKPOINT)
        self.high_watermarks = self._checkpoint(REPLICATION_OFFSET_CHECKPOINT)
        self.cleaner_offsets = self._checkpoint(CLEANER_OFFSET_CHECKPOINT)
        self.partitions: dict[Key, str] = {
            key: os.path.join(path, name)
            for name in sorted(names)
            if (key := parse_partition_directory_name(name)) is not None
        }

    def _checkpoint(self, name: str) -> Offsets:
        return read_offset_checkpoint(OsFileSystem(), os.path.join(self.path, name)) or {}


class ReplicaEnd(NamedTuple):
    """Compared as Kafka compares logs: what a later leader wrote outweighs what is longer."""

    leader_epoch: int
    log_end_offset: int


class Replica(NamedTuple):
    """One copy of a partition, assessed."""

    source: SourceDirectory
    key: Key
    path: str
    topic_id: bytes | None
    end: ReplicaEnd
    bytes: int
    """Of all its segments."""
    largest_producer_id: int
    """-1 without any; of the last segment and of the producers that are still remembered."""
    is_damaged: bool
    """The last segment does not end with a whole batch, and recovery is not to be blamed."""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)


def assess(source: SourceDirectory, key: Key) -> Replica:
    """Look at the epochs, the last segment and the snapshots. OSError."""
    path = source.partitions[key]
    listing = PartitionListing(path)
    last = _walk_last_segment(listing, _indexed_position(listing) if source.was_closed else 0)
    if last.is_torn and source.was_closed:
        last = _walk_last_segment(listing, 0)  # the index was no good
    end, last_epoch, producer_id, is_torn = last
    files = OsFileSystem()
    epochs = read_leader_epoch_checkpoint(files, os.path.join(path, LEADER_EPOCH_CHECKPOINT))
    known = [entry.epoch for entry in epochs or () if entry.start_offset <= end]
    recovery_point = source.recovery_points.get(key, 0)
    return Replica(
        source=source,
        key=key,
        path=path,
        topic_id=read_partition_metadata(files, path),
        end=ReplicaEnd(max([last_epoch, *known]), end),
        bytes=listing.log_bytes,
        largest_producer_id=max(producer_id, _remembered_producer_id(listing)),
        is_damaged=is_torn and (source.was_closed or end < recovery_point),
    )


class _LastSegment(NamedTuple):
    log_end_offset: int
    leader_epoch: int
    largest_producer_id: int
    is_torn: bool
    """Something is behind the last sound batch."""


def _indexed_position(listing: PartitionListing) -> int:
    """Where the index says that a batch near the end of the log begins; 0 when it says nothing."""
    base_offset = max(listing.base_offsets, default=-1)
    size = listing.sizes[INDEX].get(base_offset, 0)
    if size < OFFSET_ENTRY_SIZE:
        return 0
    with opened(listing.path(base_offset, INDEX)) as file:
        entry = file.read_at(OFFSET_ENTRY_SIZE, size - size % OFFSET_ENTRY_SIZE - OFFSET_ENTRY_SIZE)
    position = int.from_bytes(entry[4:], "big")
    return position if position < listing.sizes[LOG][base_offset] else 0


def _walk_last_segment(listing: PartitionListing, start: int) -> _LastSegment:
    """From ``start`` on, where a batch begins."""
    if not listing.base_offsets:
        return _LastSegment(0, -1, -1, False)
    base_offset = listing.base_offsets[-1]
    end, epoch, producer_id = base_offset, -1, -1
    with opened(listing.path(base_offset, LOG)) as file:
        for found in scan_log(file, start, file.size()):
            if isinstance(found, Damage) or not found.is_valid or found.last_offset < end:
                return _LastSegment(end, epoch, producer_id, True)
            end = found.last_offset + 1
            if isinstance(found, Batch):
                epoch = max(epoch, found.header.leader_epoch)
                producer_id = max(producer_id, found.header.producer_id)
    return _LastSegment(end, epoch, producer_id, False)


def _remembered_producer_id(listing: PartitionListing) -> int:
    for offset in sorted(listing.sizes[SNAPSHOT], reverse=True):
        try:
            entries = decode_snapshot(read_small(listing.path(offset, SNAPSHOT)))
        except CorruptSnapshotError:
            continue  # the one before it holds the producers up to there
        return max((entry.producer_id for entry in entries), default=-1)
    return -1


def legacy_segments(listing: PartitionListing) -> set[int]:
    """Base offsets of the segments that begin with message format 0 or 1.

    A log changes over to the new format once, and in the middle of a segment at most.
    """
    found = set()
    for base_offset in listing.base_offsets:
        with opened(listing.path(base_offset, LOG)) as file:
            prefix = file.read_at(MAGIC_POSITION + 1, 0)
        if len(prefix) > MAGIC_POSITION and prefix[MAGIC_POSITION] < MAGIC:
            found.add(base_offset)
    return found


def index_files_to_leave(listing: PartitionListing, recovery_point: int | None) -> set[str]:
    """Index files that the target makes anew: those of segments that were not synced yet.

    A killed Kafka leaves them preallocated. ``recovery_point`` is None after a clean stop.
    """
    if recovery_point is None or not listing.base_offsets:
        return set()
    synced = [base for base in listing.base_offsets if base <= recovery_point]
    first = synced[-1] if synced else listing.base_offsets[0]
    return {
        os.path.basename(listing.path(base_offset, suffix))
        for base_offset in listing.base_offsets
        if base_offset >= first
        for suffix in (INDEX, TIME_INDEX)
    }
