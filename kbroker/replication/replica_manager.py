"""The partitions of this broker: which it leads, and the verbs of the data plane over them."""

import logging
from typing import TYPE_CHECKING, Final

from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.config.topic_config import LogConfig
from kbroker.metadata.keys import ConfigResourceType
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.replication.delayed_delete_records import DelayedDeleteRecords, PendingDeletion
from kbroker.replication.delayed_operations import DelayedOperations
from kbroker.replication.delayed_produce import DelayedProduce, PendingAck

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kbroker.common.clock import Clock
    from kbroker.common.offload import Offload
    from kbroker.common.timer import Timer
    from kbroker.config.broker_config import BrokerConfig, ConfigHolder
    from kbroker.metadata.delta import MetadataDelta
    from kbroker.metadata.image import MetadataImage, TopicImage
    from kbroker.metadata.values import PartitionValue
    from kbroker.replication.leader_append import LeaderAppend
    from kbroker.replication.partition import Partition
    from kbroker.storage.log_manager import LogManager
    from kbroker.storage.unified_log import UnifiedLog

_LONGEST_MOVABLE_NAME: Final = 255 - len("-.-future") - 32
"""Topic and number together, beside the 32 digits that make a future log's name unique."""


def _partition_class(faults: Faults) -> "type[Partition]":
    if faults.planted == "ack_before_append":
        from kbroker.replication.ack_before_append import AckBeforeAppendPartition

        return AckBeforeAppendPartition
    from kbroker.replication.partition import Partition

    return Partition


class ReplicaManager:
    """Owner of every ``Partition``. ``apply`` must be the metadata's first subscriber: whoever is
    told later finds the partitions led."""

    def __init__(
        self,
        *,
        node_id: int,
        log_manager: "LogManager",
        config: "ConfigHolder",
        clock: "Clock",
        timer: "Timer",
        offload: "Offload",
        faults: Faults = NO_FAULTS,
        log: logging.Logger | None = None,
    ) -> None:
        self.node_id = node_id
        self.log_manager = log_manager
        self._config = config
        self._clock = clock
        self._offload = offload
        self._faults = faults
        self.log = log or logging.getLogger("kbroker.replication")
        self._topics: dict[str, dict[int, Partition]] = {}
        self._offline: set[tuple[str, int]] = set()  # the storage failed when they were to be led
        self._image: MetadataImage | None = None
        self._log_defaults: LogConfig = config.current.log_defaults()
        self.delayed = DelayedOperations(timer)
        self._partition_class: type[Partition] | None = None
        self.leader_append: LeaderAppend
        """There from the first partition on."""
        self.on_offline: Callable[[list[tuple[str, int]]], object] | None = None
        """Told of partitions whose directory failed, for the controller to take note."""
        log_manager.on_offline = self._on_directory_failed
        log_manager.on_log_replaced = self._on_log_replaced
        config.subscribe(self._on_config_changed)

    # Metadata -----------------------------------------------------------------------------------

    def apply(self, delta: "MetadataDelta", image: "MetadataImage") -> None:
        """Create, lead, follow and drop partitions as the metadata says."""
        is_first = self._image is None
        self._image = image
        for topic in delta.deleted_topics:
            self._delete_topic(topic)
        for topic in delta.created_topics:
            for index, partition in enumerate(topic.partitions):
                self._apply_partition(topic, index, partition, is_new=not is_first)
        for change in delta.changed_partitions:
            self._apply_partition(
                change.topic, change.partition, change.new, is_new=change.old is None
            )
        for resource_type, name in delta.changed_configs:
            if resource_type == ConfigResourceType.TOPIC:
                self._update_log_config(name)

    def _apply_partition(
        self, topic: "TopicImage", index: int, image: "PartitionValue", *, is_new: bool = False
    ) -> None:
        hosted = self._topics.get(topic.name, {}).get(index)
        if self.node_id not in image.replicas:
            if hosted is not None:
                self._drop(hosted)
            return
        if hosted is not None and hosted.topic_id != topic.topic_id:
            self._drop(hosted)
            hosted = None
        try:
            if hosted is None:
                hosted = self._create(topic, index, is_new=is_new)
            hosted.update(image)
            self._offline.discard((topic.name, index))
        except KafkaError as error:  # the other partitions must be led all the same
            self.log.error("%s-%d is offline: %s", topic.name, index, error)
            self._offline.add((topic.name, index))
            if image.leader == self.node_id and self.on_offline is not None:
                self.on_offline([(topic.name, index)])

    def _create(self, topic: "TopicImage", index: int, *, is_new: bool) -> "Partition":
        log = self.log_manager.get_or_create_log(
            topic.name,
            index,
            topic.topic_id,
            self.log_config(topic.name),
            may_be_new=is_new,
        )
        if self._partition_class is None:
            self._partition_class = self._prepare_to_append()
        partition = self._partition_class(
            topic.name,
            index,
            topic.topic_id,
            node_id=self.node_id,
            log=log,
            delayed=self.delayed,
        )
        self._topics.setdefault(topic.name, {})[index] = partition
        return partition

    def _prepare_to_append(self) -> "type[Partition]":
        from kbroker.replication.leader_append import LeaderAppend

        self.leader_append = LeaderAppend(
            config=self._config, clock=self._clock, offload=self._offload, faults=self._faults
        )
        return _partition_class(self._faults)

    def _on_directory_failed(self, keys: list[tuple[str, int]]) -> None:
        """The partitions of a failed data directory are offline until the next start."""
        for name, index in keys:
            partition = self._topics.get(name, {}).pop(index, None)
            self._offline.add((name, index))
            if partition is not None:
                partition.go_offline()
        if self.on_offline is not None:
            self.on_offline(keys)

    def _on_log_replaced(self, log: "UnifiedLog") -> None:
        """The log has moved to another directory."""
        partition = self.get_partition(log.topic, log.partition)
        if partition is not None:
            partition.log = log
            self.delayed.check_all(partition)

    def alter_log_dir(self, topic: str, index: int, path: str) -> None:
        """Let the replica move to the data directory ``path`` (KIP-113).

        Raises KafkaError: INVALID_TOPIC_EXCEPTION (its name leaves no room for the directory's),
        LOG_DIR_NOT_FOUND, KAFKA_STORAGE_ERROR (that directory or the replica is offline),
        UNKNOWN_TOPIC_OR_PARTITION, REPLICA_NOT_AVAILABLE.
        """
        if len(topic) + len(str(index)) > _LONGEST_MOVABLE_NAME:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, "The topic name is too long.")
        directory = self.log_manager.directories.find(path)
        try:
            partition = self.get_partition_or_raise(topic, index)
        except KafkaError as error:
            if error.error_code is ErrorCode.NOT_LEADER_OR_FOLLOWER:
                raise KafkaError(ErrorCode.REPLICA_NOT_AVAILABLE) from None
            raise
        self.log_manager.moves.begin(partition.log, directory)

    def _delete_topic(self, topic: "TopicImage") -> None:
        for partition in list(self._topics.get(topic.name, {}).values()):
            if partition.topic_id == topic.topic_id:
                self._drop(partition)
        if self._offline:
            self._offline = {key for key in self._offline if key[0] != topic.name}
            self.log_manager.forget_offline(topic.name)

    def _drop(self, partition: "Partition") -> None:
        partitions = self._topics[partition.topic]
        del partitions[partition.index]
        if not partitions:
            del self._topics[partition.topic]
        partition.delete()
        try:
            self.log_manager.delete_log(partition.topic, partition.index)
        except KafkaError:
            self.log.exception("the files of %r stay behind", partition)

    def _update_log_config(self, topic: str) -> None:
        partitions = self._topics.get(topic)
        if not partitions:
            return
        config = self.log_config(topic)
        for partition in partitions.values():
            partition.log.update_config(config)
            partition.update_min_isr()
            partition.maybe_increment_high_watermark()
            self.delayed.check_all(partition)

    def _on_config_changed(self, old: "BrokerConfig", new: "BrokerConfig") -> None:
        self._log_defaults = new.log_defaults()
        if old.log_defaults() != self._log_defaults:
            for topic in self._topics:
                self._update_log_config(topic)

    def log_config(self, topic: str) -> LogConfig:
        """The settings of a topic's logs: its own over the broker's defaults."""
        overrides = None if self._image is None else self._image.topic_overrides(topic)
        if not overrides:
            return self._log_defaults
        return LogConfig.from_properties(overrides, self._log_defaults)

    # Partitions ---------------------------------------------------------------------------------

    def partitions(self) -> "Iterator[Partition]":
        """Every partition held here."""
        for partitions in self._topics.values():
            yield from partitions.values()

    def get_partition(self, topic: str, index: int) -> "Partition | None":
        """The partition, when this broker holds a replica of it."""
        partitions = self._topics.get(topic)
        return None if partitions is None else partitions.get(index)

    def get_partition_or_raise(self, topic: str, index: int) -> "Partition":
        """The partition; KafkaError: NOT_LEADER_OR_FOLLOWER when it exists but not here,
        UNKNOWN_TOPIC_OR_PARTITION when the metadata has no such partition, KAFKA_STORAGE_ERROR
        when its log could not be opened."""
        if self._offline and (topic, index) in self._offline:
            raise KafkaError(ErrorCode.KAFKA_STORAGE_ERROR)
        partitions = self._topics.get(topic)
        if partitions is not None:
            partition = partitions.get(index)
            if partition is not None:
                return partition
        known = None if self._image is None else self._image.topics.get(topic)
        if known is not None and 0 <= index < len(known.partitions):
            raise KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER)
        raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)

    def get_leader_partition(self, topic: str, index: int) -> "Partition":
        """The partition, when this broker leads it; errors as above."""
        partition = self.get_partition_or_raise(topic, index)
        partition.leader_log()
        return partition

    # Produce --------------------------------------------------------------------------------------

    async def wait_for_acks(self, pending: list[PendingAck], timeout_ms: int) -> None:
        """Return when every batch is committed, has failed, or its time is over."""
        operation = DelayedProduce(pending)
        await self.delayed.produce.wait(operation, operation.keys, timeout_ms / 1000)
        if operation.is_expired:
            operation.time_out()

    async def wait_for_deletions(self, pending: list[PendingDeletion], timeout_ms: int) -> None:
        """Return when every replica has let go of the records, or the time is over."""
        operation = DelayedDeleteRecords(pending)
        await self.delayed.delete_records.wait(operation, operation.keys, timeout_ms / 1000)
        if operation.is_expired:
            operation.time_out()

    def append_coordinator_batch(self, topic: str, index: int, batch: bytearray) -> int:
        """See ``LeaderAppend.append_coordinator_batch``."""
        partition = self.get_leader_partition(topic, index)
        return self.leader_append.append_coordinator_batch(partition, batch)
