"""OffsetCommit, OffsetFetch, OffsetDelete and the expiry of offsets, for one shard."""

from collections.abc import Callable, Sequence

from kbroker.common.clock import Clock
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.group.group_kinds import Group
from kbroker.coordinator.group.group_records import (
    offset_commit_record,
    offset_commit_tombstone,
)
from kbroker.coordinator.group.offset_and_metadata import (
    OffsetAndMetadata,
    stored_offset,
    unpacked,
)
from kbroker.coordinator.group.offset_store import OffsetStore
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.offset_commit_key import OffsetCommitKey
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue
from kbroker.protocol.messages.offset_commit_request import OffsetCommitRequest
from kbroker.protocol.messages.offset_commit_response import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)
from kbroker.protocol.messages.offset_delete_request import OffsetDeleteRequest
from kbroker.protocol.messages.offset_delete_response import (
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)
from kbroker.protocol.messages.offset_fetch_request import OffsetFetchRequestGroup
from kbroker.protocol.messages.offset_fetch_response import (
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopics,
)
from kbroker.protocol.messages.txn_offset_commit_request import TxnOffsetCommitRequest
from kbroker.protocol.messages.txn_offset_commit_response import (
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)
from kbroker.protocol.wire import ZERO_UUID

_DEFAULT_RETENTION = -1


class OffsetManager:
    """Committed offsets and the requests about them. Whether the group lets a request pass is
    decided before."""

    def __init__(self, *, config: ConfigHolder, clock: Clock) -> None:
        self._config = config
        self._clock = clock
        self.store = OffsetStore()

    # -- replay

    def replay(
        self,
        record_offset: int,
        producer_id: int,
        key: OffsetCommitKey,
        value: OffsetCommitValue | None,
    ) -> None:
        """Apply a record of an offset."""
        if value is None:
            self.store.remove(key.group, key.topic, key.partition)
        else:
            offset = stored_offset(record_offset, value)
            self.store.put(producer_id, key.group, key.topic, key.partition, offset)

    # -- OffsetCommit

    def commit(
        self,
        request: OffsetCommitRequest,
        check: Callable[[bytes, int], ErrorCode] | None = None,
    ) -> CoordinatorResult[OffsetCommitResponse]:
        """Write the offsets of a request whose topics have names (and ids, where known).

        ``check`` gives the error of a partition (topic id, index) that may not be committed: then
        none is, and KafkaError is raised.
        """
        config = self._config.current
        now_ms = self._clock.time_ms()
        retention_ms = request.retention_time_ms
        expire_ms = -1 if retention_ms == _DEFAULT_RETENTION else now_ms + retention_ms
        records: list[CoordinatorRecord] = []
        topics: list[OffsetCommitResponseTopic] = []
        for topic in request.topics:
            partitions: list[OffsetCommitResponsePartition] = []
            topics.append(OffsetCommitResponseTopic(topic.name, topic.topic_id, partitions))
            for partition in topic.partitions:
                metadata = partition.committed_metadata or ""
                index = partition.partition_index
                error = ErrorCode.NONE
                if _utf16_length(metadata) > config.offset_metadata_max_bytes:
                    error = ErrorCode.OFFSET_METADATA_TOO_LARGE
                elif check is not None:
                    refused = check(topic.topic_id, index)
                    if refused is not ErrorCode.NONE:
                        raise KafkaError(refused)
                if error is not ErrorCode.NONE:
                    partitions.append(OffsetCommitResponsePartition(index, error))
                    continue
                partitions.append(OffsetCommitResponsePartition(index))
                epoch = partition.committed_leader_epoch
                records.append(
                    offset_commit_record(
                        request.group_id,
                        topic.name,
                        index,
                        offset=partition.committed_offset,
                        leader_epoch=epoch if epoch >= 0 else -1,
                        metadata=metadata,
                        commit_timestamp_ms=now_ms,
                        expire_timestamp_ms=expire_ms,
                        topic_id=topic.topic_id,
                    )
                )
        return CoordinatorResult(records, OffsetCommitResponse(topics=topics))

    def commit_in_transaction(
        self,
        request: TxnOffsetCommitRequest,
        topics: TopicsView,
        check: Callable[[bytes, int], ErrorCode] | None = None,
    ) -> CoordinatorResult[TxnOffsetCommitResponse]:
        """Write the offsets as part of a transaction: they count when its COMMIT marker comes.

        ``check`` as for ``commit``; no partition of a topic that does not exist passes one.
        """
        limit = self._config.current.offset_metadata_max_bytes
        now_ms = self._clock.time_ms()
        records: list[CoordinatorRecord] = []
        answered: list[TxnOffsetCommitResponseTopic] = []
        for topic in request.topics:
            partitions: list[TxnOffsetCommitResponsePartition] = []
            answered.append(TxnOffsetCommitResponseTopic(topic.name, partitions))
            topic_id = topics.topic_id(topic.name) or ZERO_UUID
            if check is not None and topic_id == ZERO_UUID:
                raise KafkaError(ErrorCode.ILLEGAL_GENERATION)
            for partition in topic.partitions:
                metadata = partition.committed_metadata or ""
                index = partition.partition_index
                if _utf16_length(metadata) > limit:
                    error = ErrorCode.OFFSET_METADATA_TOO_LARGE
                    partitions.append(TxnOffsetCommitResponsePartition(index, error))
                    continue
                if check is not None:
                    refused = check(topic_id, index)
                    if refused is not ErrorCode.NONE:
                        raise KafkaError(refused)
                partitions.append(TxnOffsetCommitResponsePartition(index))
                records.append(
                    offset_commit_record(
                        request.group_id,
                        topic.name,
                        index,
                        offset=partition.committed_offset,
                        leader_epoch=max(partition.committed_leader_epoch, -1),
                        metadata=metadata,
                        commit_timestamp_ms=now_ms,
                        expire_timestamp_ms=-1,
                        topic_id=topic_id,
                    )
                )
        return CoordinatorResult(
            records,
            TxnOffsetCommitResponse(topics=answered),
            producer_id=request.producer_id,
            producer_epoch=request.producer_epoch,
        )

    # -- OffsetFetch

    def fetch(
        self, request: OffsetFetchRequestGroup, *, require_stable: bool, group_exists: bool
    ) -> OffsetFetchResponseGroup:
        """The offsets of the partitions asked for; what there is not is offset -1, no error."""
        store = self.store
        group_id = request.group_id
        offsets = store.committed.of_group(group_id) if group_exists else {}
        topics: list[OffsetFetchResponseTopics] = []
        for topic in request.topics or ():
            known = offsets.get(topic.name)
            partitions: list[OffsetFetchResponsePartitions] = []
            topics.append(OffsetFetchResponseTopics(topic.name, topic.topic_id, partitions))
            for index in topic.partition_indexes:
                held = known.get(index) if known is not None else None
                offset = None if held is None else unpacked(held)
                if require_stable and store.is_unstable(group_id, topic.name, index):
                    partitions.append(_no_offset(index, ErrorCode.UNSTABLE_OFFSET_COMMIT))
                elif offset is None or _is_of_other_topic(offset.topic_id, topic.topic_id):
                    partitions.append(_no_offset(index))
                else:
                    partitions.append(_shown(index, offset))
        return OffsetFetchResponseGroup(group_id=group_id, topics=topics)

    def fetch_all(self, group_id: str, *, require_stable: bool) -> OffsetFetchResponseGroup:
        """All offsets of a group, by topic name; topic ids are zero."""
        store = self.store
        topics: list[OffsetFetchResponseTopics] = []
        for topic, offsets in store.committed.of_group(group_id).items():
            partitions = [
                _no_offset(index, ErrorCode.UNSTABLE_OFFSET_COMMIT)
                if require_stable and store.is_unstable(group_id, topic, index)
                else _shown(index, unpacked(offset))
                for index, offset in offsets.items()
            ]
            topics.append(OffsetFetchResponseTopics(topic, ZERO_UUID, partitions))
        return OffsetFetchResponseGroup(group_id=group_id, topics=topics)

    # -- deletion

    def delete(
        self, request: OffsetDeleteRequest, is_subscribed_to: Callable[[str], bool]
    ) -> CoordinatorResult[OffsetDeleteResponse]:
        """Delete offsets of topics that no member depends on."""
        records: list[CoordinatorRecord] = []
        topics: list[OffsetDeleteResponseTopic] = []
        group_id = request.group_id
        for topic in request.topics:
            error = ErrorCode.NONE
            if is_subscribed_to(topic.name):
                error = ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC
            partitions = [
                OffsetDeleteResponsePartition(partition.partition_index, error)
                for partition in topic.partitions
            ]
            topics.append(OffsetDeleteResponseTopic(topic.name, partitions))
            if error is ErrorCode.NONE:
                records.extend(
                    offset_commit_tombstone(group_id, topic.name, partition.partition_index)
                    for partition in topic.partitions
                    if self._is_stored(group_id, topic.name, partition.partition_index)
                )
        return CoordinatorResult(records, OffsetDeleteResponse(topics=topics), atomic=False)

    def _is_stored(self, group_id: str, topic: str, partition: int) -> bool:
        store = self.store
        return store.committed.has(group_id, topic, partition) or store.is_unstable(
            group_id, topic, partition
        )

    def tombstones(self, group_id: str) -> list[CoordinatorRecord]:
        """What deletes all offsets of a group."""
        return [
            offset_commit_tombstone(group_id, topic, partition)
            for topic, partition in self.store.keys_of(group_id)
        ]

    def on_topics_deleted(self, topics: Sequence[tuple[str, bytes]]) -> list[CoordinatorRecord]:
        """What deletes the offsets of deleted topics, given as (name, id).

        Offsets committed to a newer topic of the name stay.
        """
        records: list[CoordinatorRecord] = []
        seen: set[tuple[str, str, int]] = set()
        stores = [self.store.committed, *self.store.pending.values()]
        for offsets in stores:
            for group_id, by_topic in offsets.by_group.items():
                for name, topic_id in topics:
                    for partition, offset in by_topic.get(name, {}).items():
                        key = (group_id, name, partition)
                        if key not in seen and unpacked(offset).topic_id in (ZERO_UUID, topic_id):
                            seen.add(key)
                            records.append(offset_commit_tombstone(*key))
        return records

    # -- expiry

    def expire(self, group: Group, records: list[CoordinatorRecord]) -> bool:
        """Add tombstones of a group's expired offsets; True when none is left then."""
        group_id = group.group_id
        now_ms = self._clock.time_ms()
        retention_ms = self._config.current.offsets_retention_minutes * 60_000
        all_expired = True
        for topic, partitions in self.store.committed.of_group(group_id).items():
            if group.is_subscribed_to(topic):
                all_expired = False
                continue
            for partition, offset in partitions.items():
                if self._is_expired(
                    group, unpacked(offset), now_ms, retention_ms
                ) and not self.store.is_unstable(group_id, topic, partition):
                    records.append(offset_commit_tombstone(group_id, topic, partition))
                else:
                    all_expired = False
        return all_expired and not self.store.has_open_transaction(group_id)

    @staticmethod
    def _is_expired(
        group: Group, offset: OffsetAndMetadata, now_ms: int, retention_ms: int
    ) -> bool:
        base_ms = group.expiry_base_ms(offset.commit_timestamp_ms)
        if base_ms is None:
            return False
        if offset.expire_timestamp_ms >= 0:
            return now_ms >= offset.expire_timestamp_ms
        return now_ms - base_ms >= retention_ms


def _shown(index: int, offset: OffsetAndMetadata) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(
        index, offset.committed_offset, offset.leader_epoch, offset.metadata
    )


def _no_offset(index: int, error: ErrorCode = ErrorCode.NONE) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(index, -1, -1, "", error)


def _is_of_other_topic(stored: bytes, asked: bytes) -> bool:
    """Whether an offset was committed to an earlier topic of the same name."""
    return stored != asked and stored != ZERO_UUID and asked != ZERO_UUID


def _utf16_length(text: str) -> int:
    """``String.length``: characters beyond the basic plane count twice."""
    if text.isascii():
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
