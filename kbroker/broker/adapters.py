"""The narrow views of the replica manager that coordinators are given."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from kbroker.replication.replica_manager import ReplicaManager

if TYPE_CHECKING:
    from kbroker.coordinator.writer import PartitionListener as CoordinatorListener


class _PartitionAdapter:
    """A partition's listener that tells a coordinator which partition it was."""

    def __init__(self, topic: str, index: int, listener: "CoordinatorListener") -> None:
        self._topic = topic
        self._index = index
        self._listener = listener

    def on_high_watermark_updated(self, offset: int) -> None:
        self._listener.on_high_watermark_updated(self._topic, self._index, offset)

    def on_failed(self) -> None:
        self._listener.on_failed(self._topic, self._index)

    def on_deleted(self) -> None:
        self._listener.on_failed(self._topic, self._index)


class ReplicaWriter:
    """``PartitionWriter`` on the replica manager."""

    def __init__(self, replicas: ReplicaManager) -> None:
        self._replicas = replicas
        self._adapters: dict[tuple[str, int, int], _PartitionAdapter] = {}

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        return self._replicas.append_coordinator_batch(topic, partition, batch)

    def high_watermark(self, topic: str, partition: int) -> int:
        return self._replicas.get_leader_partition(topic, partition).log.high_watermark

    def max_batch_size(self, topic: str, partition: int) -> int:
        return self._replicas.get_leader_partition(topic, partition).log.config.max_message_bytes

    def register_listener(
        self, topic: str, partition: int, listener: "CoordinatorListener"
    ) -> None:
        adapter = _PartitionAdapter(topic, partition, listener)
        self._replicas.get_leader_partition(topic, partition).add_listener(adapter)
        self._adapters[topic, partition, id(listener)] = adapter

    def deregister_listener(
        self, topic: str, partition: int, listener: "CoordinatorListener"
    ) -> None:
        adapter = self._adapters.pop((topic, partition, id(listener)), None)
        hosted = self._replicas.get_partition(topic, partition)
        if adapter is not None and hosted is not None:
            hosted.remove_listener(adapter)


class LogLoader:
    """``CoordinatorLoader`` on the replica manager."""

    def __init__(self, replicas: ReplicaManager) -> None:
        self._replicas = replicas

    def is_empty(self, topic: str, partition: int) -> bool:
        log = self._replicas.get_leader_partition(topic, partition).log
        return log.log_start_offset == log.log_end_offset

    async def load(self, topic: str, partition: int) -> AsyncIterator[bytes]:
        hosted = self._replicas.get_leader_partition(topic, partition)
        for run in hosted.log.read_runs(hosted.log.log_start_offset):
            yield run
            await checkpoint()
            # A new epoch of our own changes nothing: nobody else has written in between. To end
            # here for it would pass a part of the log for the whole.
            hosted.leader_log()
