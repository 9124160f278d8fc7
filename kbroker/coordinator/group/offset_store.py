"""Committed offsets of one shard: group -> topic -> partition, and those of open transactions."""

from collections.abc import Iterator

from kbroker.coordinator.group.offset_and_metadata import (
    OffsetAndMetadata,
    StoredOffset,
    record_offset_of,
    unpacked,
)

TopicOffsets = dict[int, StoredOffset]
GroupOffsets = dict[str, TopicOffsets]

_NO_OFFSETS: GroupOffsets = {}
_NO_PARTITIONS: TopicOffsets = {}


class Offsets:
    """Offsets by group, topic and partition; empty levels are not kept."""

    __slots__ = ("by_group", "count")

    def __init__(self) -> None:
        self.by_group: dict[str, GroupOffsets] = {}
        self.count = 0

    def get(self, group_id: str, topic: str, partition: int) -> OffsetAndMetadata | None:
        """The offset, None when there is none."""
        offset = self.of_group(group_id).get(topic, _NO_PARTITIONS).get(partition)
        return None if offset is None else unpacked(offset)

    def has(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether there is one."""
        return partition in self.of_group(group_id).get(topic, _NO_PARTITIONS)

    def of_group(self, group_id: str) -> GroupOffsets:
        """Topic -> partition -> offset; for reading only."""
        return self.by_group.get(group_id, _NO_OFFSETS)

    def of_topic(self, group_id: str, topic: str) -> TopicOffsets:
        """Partition -> offset, to put offsets into (and count them); made when missing."""
        topics = self.by_group.get(group_id)
        if topics is None:
            topics = self.by_group[group_id] = {}
        partitions = topics.get(topic)
        if partitions is None:
            partitions = topics[topic] = {}
        return partitions

    def put(self, group_id: str, topic: str, partition: int, offset: StoredOffset) -> None:
        """Set or replace an offset."""
        partitions = self.of_topic(group_id, topic)
        if partition not in partitions:
            self.count += 1
        partitions[partition] = offset

    def remove(self, group_id: str, topic: str, partition: int) -> bool:
        """Delete an offset; False when there is none."""
        topics = self.by_group.get(group_id)
        partitions = topics.get(topic) if topics is not None else None
        if topics is None or partitions is None or partitions.pop(partition, None) is None:
            return False
        self.count -= 1
        if not partitions:
            del topics[topic]
            if not topics:
                del self.by_group[group_id]
        return True


class OffsetStore:
    """What the records of offsets add up to.

    Offsets of a transaction wait by producer id until its marker; which of two offsets of one
    partition counts is decided by where their records are in the log, as compaction may have
    changed the order in which they are seen.
    """

    __slots__ = ("_open", "committed", "pending")

    def __init__(self) -> None:
        self.committed = Offsets()
        self.pending: dict[int, Offsets] = {}
        self._open: dict[str, dict[tuple[str, int], set[int]]] = {}

    def put(
        self,
        producer_id: int,
        group_id: str,
        topic: str,
        partition: int,
        offset: StoredOffset,
    ) -> None:
        """Apply a commit, of a transaction when ``producer_id`` is not -1."""
        if producer_id < 0:
            self.committed.put(group_id, topic, partition, offset)
            return
        pending = self.pending.get(producer_id)
        if pending is None:
            pending = self.pending[producer_id] = Offsets()
        pending.put(group_id, topic, partition, offset)
        producers = self._open.setdefault(group_id, {}).setdefault((topic, partition), set())
        producers.add(producer_id)

    def remove(self, group_id: str, topic: str, partition: int) -> None:
        """Apply a tombstone: nothing of the partition is left, in open transactions neither."""
        self.committed.remove(group_id, topic, partition)
        for producer_id in tuple(self._open.get(group_id, {}).get((topic, partition), ())):
            pending = self.pending.get(producer_id)
            if pending is not None:
                pending.remove(group_id, topic, partition)
            self._close(producer_id, group_id, topic, partition)

    def end_transaction(self, producer_id: int, *, commit: bool) -> None:
        """Apply a transaction's marker."""
        pending = self.pending.pop(producer_id, None)
        if pending is None:
            return
        for group_id, topics in pending.by_group.items():
            for topic, partitions in topics.items():
                for partition, offset in partitions.items():
                    self._close(producer_id, group_id, topic, partition)
                    if not commit:
                        continue
                    known = self.committed.of_group(group_id).get(topic, {}).get(partition)
                    if known is None or record_offset_of(offset) > record_offset_of(known):
                        self.committed.put(group_id, topic, partition, offset)

    def _close(self, producer_id: int, group_id: str, topic: str, partition: int) -> None:
        by_partition = self._open.get(group_id)
        producers = by_partition.get((topic, partition)) if by_partition is not None else None
        if by_partition is None or producers is None:
            return
        producers.discard(producer_id)
        if not producers:
            del by_partition[topic, partition]
            if not by_partition:
                del self._open[group_id]

    def has_open_transaction(self, group_id: str) -> bool:
        """Whether a transaction that is not ended has offsets of the group."""
        return group_id in self._open

    def is_unstable(self, group_id: str, topic: str, partition: int) -> bool:
        """Whether a transaction that is not ended has an offset of the partition."""
        return (topic, partition) in self._open.get(group_id, {})

    def keys_of(self, group_id: str) -> Iterator[tuple[str, int]]:
        """(topic, partition) of everything stored of a group, each once."""
        for topic, partitions in self.committed.of_group(group_id).items():
            for partition in partitions:
                yield topic, partition
        for topic, partition in self._open.get(group_id, {}):
            if not self.committed.has(group_id, topic, partition):
                yield topic, partition
