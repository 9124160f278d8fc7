"""What an Apache Kafka cluster knew of itself: the snapshot and the log in __cluster_metadata-0.

A snapshot ``<end offset>-<epoch>.checkpoint`` holds everything below its end offset, and the log
goes on from there. Records of an unfinished metadata transaction (KIP-868) count for nothing.
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from kbroker.log_tools.log_scan import Batch, Damage, scan_log
from kbroker.log_tools.partition_listing import LOG, PartitionListing
from kbroker.log_tools.read_only import opened
from kbroker.log_tools.record_decoders import read_metadata_record
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import DecodeError
from kbroker.record.batch import RecordBatchHeader
from kbroker.record.record import iter_records

_SNAPSHOT_NAME = re.compile(r"(\d{20})-(\d{10})\.checkpoint")
_NO_LEADER_CHANGE: Final = -2
_TOPIC_RESOURCE: Final = 2
_FOOTER_CONTROL_TYPE: Final = b"\x00\x00\x00\x04"
_CONTROL_BIT: Final = 0x20


_OTHER_KINDS: Final = {
    "AccessControlEntryRecord": ("ACLs", 1),
    "RemoveAccessControlEntryRecord": ("ACLs", -1),
    "UserScramCredentialRecord": ("SCRAM credentials", 1),
    "RemoveUserScramCredentialRecord": ("SCRAM credentials", -1),
    "DelegationTokenRecord": ("delegation tokens", 1),
    "RemoveDelegationTokenRecord": ("delegation tokens", -1),
}
"""What is only counted, so that nobody misses it unawares; a quota's record says which it is."""


class ClusterMetadataError(Exception):
    """The metadata cannot be read to its end; the text names the file."""


@dataclass(slots=True)
class KafkaPartition:
    """How often its leader changed, and which brokers have every committed record."""

    leader_epoch: int
    isr: list[int]
    eligible: list[int]
    """Eligible leader replicas (KIP-966): no longer in sync, but with all that was committed."""

    @property
    def holders(self) -> set[int]:
        return {*self.isr, *self.eligible}


@dataclass(slots=True)
class KafkaTopic:
    """A topic with its partitions by index."""

    name: str
    topic_id: bytes
    partitions: dict[int, KafkaPartition] = field(default_factory=dict)


class MetadataEnd(NamedTuple):
    """How far the metadata goes: of several copies the largest is the newest."""

    epoch: int
    offset: int


class KafkaMetadata:
    """The image that the records make, one after the other."""

    def __init__(self) -> None:
        self.topics: dict[bytes, KafkaTopic] = {}
        self.configs: dict[tuple[int, str], dict[str, str]] = {}
        """(resource type, resource name) to settings."""
        self.next_producer_id = 0
        self.others: dict[str, int] = {}
        """How many there are of what is not read: ACLs, credentials, quotas."""
        self.end = MetadataEnd(-1, 0)
        self._pending: list[tuple[str, Any]] | None = None  # of an open metadata transaction
        self._replay: dict[str, Callable[[Any], None]] = {
            "TopicRecord": self._on_topic,
            "PartitionRecord": self._on_partition,
            "PartitionChangeRecord": self._on_partition_change,
            "RemoveTopicRecord": self._on_topic_removed,
            "ConfigRecord": self._on_config,
            "ProducerIdsRecord": self._on_producer_ids,
        }

    def apply(self, record: Any) -> None:
        """The next record. Kinds that say nothing of topics and settings are passed over."""
        kind = type(record).__name__
        if kind in _OTHER_KINDS:
            self._count(*_OTHER_KINDS[kind])
        elif kind == "ClientQuotaRecord":
            self._count("quotas", -1 if record.remove else 1)
        elif kind == "BeginTransactionRecord":
            self._pending = []
        elif kind == "AbortTransactionRecord":
            self._pending = None
        elif kind == "EndTransactionRecord":
            pending, self._pending = self._pending or [], None
            for name, one in pending:
                self._replay[name](one)
        elif kind in self._replay:
            if self._pending is not None:
                self._pending.append((kind, record))
            else:
                self._replay[kind](record)

    def _count(self, what: str, change: int) -> None:
        self.others[what] = max(0, self.others.get(what, 0) + change)

    def _on_topic(self, record: Any) -> None:
        self.topics[record.topic_id] = KafkaTopic(record.name, record.topic_id)

    def _on_partition(self, record: Any) -> None:
        topic = self.topics.get(record.topic_id)
        if topic is not None:
            topic.partitions[record.partition_id] = KafkaPartition(
                record.leader_epoch,
                list(record.isr),
                [*(record.eligible_leader_replicas or ()), *(record.last_known_elr or ())],
            )

    def _on_partition_change(self, record: Any) -> None:
        topic = self.topics.get(record.topic_id)
        partition = topic.partitions.get(record.partition_id) if topic is not None else None
        if partition is None:
            return
        if record.leader != _NO_LEADER_CHANGE:
            partition.leader_epoch += 1
        if record.isr is not None:
            partition.isr = list(record.isr)
        if record.eligible_leader_replicas is not None:
            partition.eligible = list(record.eligible_leader_replicas)
        if record.last_known_elr is not None:
            partition.eligible += record.last_known_elr

    def _on_topic_removed(self, record: Any) -> None:
        topic = self.topics.pop(record.topic_id, None)
        if topic is not None:
            self.configs.pop((_TOPIC_RESOURCE, topic.name), None)

    def _on_config(self, record: Any) -> None:
        key = (record.resource_type, record.resource_name)
        settings = self.configs.setdefault(key, {})
        if record.value is None:
            settings.pop(record.name, None)
        else:
            settings[record.name] = record.value
        if not settings:
            del self.configs[key]

    def _on_producer_ids(self, record: Any) -> None:
        self.next_producer_id = max(self.next_producer_id, record.next_producer_id)


def read_cluster_metadata(directory: str) -> KafkaMetadata:
    """The metadata in a ``__cluster_metadata-0``. ClusterMetadataError, OSError."""
    listing = PartitionListing(directory)
    snapshots = sorted(
        (
            (int(match[1]), int(match[2]), name)
            for name in listing.kraft
            if (match := _SNAPSHOT_NAME.fullmatch(name))
        ),
        reverse=True,
    )
    first_in_log = min(listing.base_offsets, default=None)
    problems = []
    for end_offset, epoch, name in snapshots:
        path = os.path.join(directory, name)
        metadata = KafkaMetadata()
        try:
            _read_snapshot(path, metadata)
        except ClusterMetadataError as error:
            problems.append(str(error))
            continue
        metadata.end = MetadataEnd(epoch, end_offset)
        if first_in_log is None or end_offset >= first_in_log:
            _read_log(listing, metadata)
            return metadata
        problems.append(f"{path}: the log begins behind it, at {first_in_log}")
    if first_in_log == 0:
        metadata = KafkaMetadata()
        _read_log(listing, metadata)
        return metadata
    raise ClusterMetadataError("; ".join(problems) or f"{directory} holds no snapshot and no log")


def _read_snapshot(path: str, metadata: KafkaMetadata) -> None:
    is_complete = False
    with opened(path) as file:
        for found in scan_log(file, 0, file.size()):
            if isinstance(found, Damage):
                raise ClusterMetadataError(f"{path}: at byte {found.position}: {found.text}")
            batch = _sound_batch(path, found)
            if batch.header.attributes & _CONTROL_BIT:
                is_complete = any(
                    record.key == _FOOTER_CONTROL_TYPE for record in _records(path, batch)
                )
            else:
                _apply_batch(path, batch, metadata)
    if not is_complete:
        raise ClusterMetadataError(f"{path}: the snapshot has no end")


def _read_log(listing: PartitionListing, metadata: KafkaMetadata) -> None:
    """From the snapshot's end on. The last segment may have a torn end."""
    for base_offset in listing.base_offsets:
        path = listing.path(base_offset, LOG)
        is_last = base_offset == listing.base_offsets[-1]
        with opened(path) as file:
            for found in scan_log(file, 0, file.size()):
                is_torn = isinstance(found, Damage) or not found.is_valid
                if is_torn and is_last:
                    return
                if isinstance(found, Damage):
                    raise ClusterMetadataError(f"{path}: at byte {found.position}: {found.text}")
                batch = _sound_batch(path, found)
                if batch.base_offset < metadata.end.offset:
                    continue
                if not batch.header.attributes & _CONTROL_BIT:
                    _apply_batch(path, batch, metadata)
                metadata.end = MetadataEnd(batch.header.leader_epoch, batch.last_offset + 1)


def _sound_batch(path: str, found: Any) -> Batch:
    if isinstance(found, Batch) and found.is_valid and found.data is not None:
        return found
    raise ClusterMetadataError(f"{path}: at byte {found.position}: the batch is damaged")


def _records(path: str, batch: Batch) -> Iterator[Any]:
    assert batch.data is not None, "only sound batches come here"
    try:
        yield from iter_records(batch.data, RecordBatchHeader(batch.data))
    except KafkaError as error:
        raise ClusterMetadataError(f"{path}: at byte {batch.position}: {error}") from error


def _apply_batch(path: str, batch: Batch, metadata: KafkaMetadata) -> None:
    for record in _records(path, batch):
        try:
            message, _, _ = read_metadata_record(record.value or b"")
        except DecodeError as error:
            raise ClusterMetadataError(
                f"{path}: the record at offset {record.offset}: {error}"
            ) from error
        metadata.apply(message)
