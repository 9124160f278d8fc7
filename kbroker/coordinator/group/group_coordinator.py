"""The group coordinator of a broker: which partitions it leads, and what the cluster looks like.

What handles requests and groups is imported when the first group needs it (or in the background,
when the broker is ready): most of it is not needed to start.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from kbroker.common.clock import Clock
from kbroker.common.entropy import Entropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.timer import Timer
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.coordinator.loader import CoordinatorLoader
from kbroker.coordinator.partitioning import partition_for
from kbroker.coordinator.runtime import CoordinatorRuntime
from kbroker.coordinator.shard import CoordinatorRecordSerde
from kbroker.coordinator.writer import PartitionWriter
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from kbroker.coordinator.group.group_requests import GroupRequests
    from kbroker.coordinator.group.group_shard import GroupCoordinatorShard
    from kbroker.metadata.delta import MetadataDelta
    from kbroker.metadata.image import MetadataImage
    from kbroker.metadata.values import PartitionValue

OFFSETS_TOPIC = "__consumer_offsets"

_REMEMBERED_PARTITIONS = 10_000
"""Group ids whose partition is remembered, to be found again without hashing."""
_LONGEST_REMEMBERED = 256
"""Characters: nobody can fill the memory with long ones."""


class GroupCoordinator:
    """Groups of the partitions of ``__consumer_offsets`` that this broker leads."""

    def __init__(
        self,
        *,
        node_id: int,
        config: ConfigHolder,
        clock: Clock,
        timer: Timer,
        entropy: Entropy,
        writer: PartitionWriter,
        loader: CoordinatorLoader,
        log: logging.Logger,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._clock = clock
        self._entropy = entropy
        self._log = log
        self._partition_count = config.current.offsets_topic_num_partitions
        self._partitions: dict[str, int] = {}
        self._topics = TopicsView()
        self._requests: GroupRequests | None = None
        self._planted = faults.planted
        if faults.planted == "commit_before_write":
            from kbroker.coordinator.group.planted_faults import CommitBeforeWrite

            writer = CommitBeforeWrite(writer, timer)
        self._runtime: CoordinatorRuntime[GroupCoordinatorShard] = CoordinatorRuntime(
            topic=OFFSETS_TOPIC,
            writer=writer,
            loader=loader,
            serde_factory=_new_serde,
            shard_factory=self._new_shard,
            clock=clock,
            timer=timer,
            log=log,
            commit_timeout_s=lambda: config.current.offsets_commit_timeout_ms / 1000,
            compression=lambda: config.current.offsets_topic_compression_codec,
            faults=faults,
            encoded_replay=lambda shard: shard.encoded_replay(),
        )

    def _new_shard(self, index: int, timer: CoordinatorTimer) -> "GroupCoordinatorShard":
        from kbroker.coordinator.group.group_shard import GroupCoordinatorShard

        shard_class = GroupCoordinatorShard
        if self._planted == "two_owners":
            from kbroker.coordinator.group.planted_faults import TwoOwnersShard

            shard_class = TwoOwnersShard
        return shard_class(
            config=self._config,
            clock=self._clock,
            timer=timer,
            entropy=self._entropy,
            topics=self._topics,
            log=self._log,
        )

    # -- leadership and metadata

    async def run(self) -> None:
        """Load what this broker begins to lead, until cancelled. Run it in the background."""
        await self._runtime.run()

    def on_elected(self, partition: int, leader_epoch: int) -> None:
        """This broker leads a partition of the offsets topic."""
        self._runtime.on_elected(partition, leader_epoch)

    def on_resigned(self, partition: int, leader_epoch: int | None = None) -> None:
        """This broker leads it no more; everybody who waits is told to look for the coordinator."""
        self._runtime.on_resigned(partition, leader_epoch)

    def apply(self, delta: "MetadataDelta", image: "MetadataImage") -> None:
        """Metadata subscriber; to be called after the replica manager has applied the same."""
        self._topics.update(
            image,
            topics_changed=bool(
                delta.created_topics
                or delta.deleted_topics
                or any(
                    change.old is None or change.old.replicas != change.new.replicas
                    for change in delta.changed_partitions
                )
            ),
            topics_created=bool(delta.created_topics),
        )
        for _, shard in self._runtime.active_shards():
            shard.on_topics_changed()
        deleted: list[tuple[str, bytes]] = []
        for topic in delta.deleted_topics:
            if topic.name == OFFSETS_TOPIC:
                for index in self._runtime.indexes():
                    self._runtime.on_resigned(index)
            else:
                deleted.append((topic.name, topic.topic_id))
        for topic in delta.created_topics:
            if topic.name == OFFSETS_TOPIC:
                self._set_partition_count(len(topic.partitions))
                for index, partition in enumerate(topic.partitions):
                    self._on_leader(index, partition)
        for change in delta.changed_partitions:
            if change.topic.name == OFFSETS_TOPIC:
                self._set_partition_count(len(change.topic.partitions))
                self._on_leader(change.partition, change.new)
        if deleted:
            self.on_topics_deleted(deleted)

    def _on_leader(self, index: int, partition: "PartitionValue") -> None:
        if partition.leader == self._node_id:
            self._runtime.on_elected(index, partition.leader_epoch)
        else:
            self._runtime.on_resigned(index, partition.leader_epoch)

    def _set_partition_count(self, count: int) -> None:
        if count != self._partition_count and count > 0:
            self._partition_count = count
            self._partitions.clear()

    def on_topics_deleted(self, topics: Sequence[tuple[str, bytes]]) -> None:
        """Delete what was committed for topics, given as (name, id)."""
        for index, _ in list(self._runtime.active_shards()):
            try:
                self._runtime.write(index, lambda shard: shard.on_topics_deleted(topics))
            except KafkaError as error:
                self._log.error("cannot delete offsets of %s: %s", topics, error)

    def partition_for(self, group_id: str) -> int:
        """The partition of the offsets topic that a group belongs to."""
        partition = self._partitions.get(group_id)
        if partition is None:
            if len(self._partitions) >= _REMEMBERED_PARTITIONS:
                self._partitions.clear()
            partition = partition_for(group_id, self._partition_count)
            if len(group_id) <= _LONGEST_REMEMBERED:
                self._partitions[group_id] = partition
        return partition

    @property
    def requests(self) -> "GroupRequests":
        """The verbs of handlers."""
        if self._requests is None:
            from kbroker.coordinator.group.group_requests import GroupRequests

            self._requests = GroupRequests(
                config=self._config, runtime=self._runtime, partition_for=self.partition_for
            )
        return self._requests


def _new_serde() -> CoordinatorRecordSerde:
    from kbroker.coordinator.group.group_records import GroupRecordSerde

    return GroupRecordSerde()
