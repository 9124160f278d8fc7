"""Markers to the partitions of this broker: data through the replica manager, offsets through the
group coordinator, which acts on them."""

from typing import TYPE_CHECKING

from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.transaction.transaction_metadata import TransactionVersion
from kbroker.metadata.topic_names import CONSUMER_OFFSETS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_end_transaction_marker

if TYPE_CHECKING:
    from collections.abc import Callable

    from kbroker.common.clock import Clock
    from kbroker.coordinator.group.group_coordinator import GroupCoordinator
    from kbroker.coordinator.transaction.marker_writer import TransactionMarker
    from kbroker.replication.partition import Partition
    from kbroker.replication.replica_manager import ReplicaManager


class LocalMarkerWriter:
    """``MarkerWriter`` where every partition is led by this broker."""

    def __init__(
        self,
        replicas: "ReplicaManager",
        group_coordinator: "Callable[[], GroupCoordinator]",
        clock: "Clock",
    ) -> None:
        self._replicas = replicas
        self._group_coordinator = group_coordinator
        self._clock = clock

    def write(self, topic: str, partition: int, marker: "TransactionMarker") -> Answer[None]:
        hosted = self._replicas.get_leader_partition(topic, partition)
        if marker.producer_epoch < 0:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "a marker needs an epoch")
        hosted.log.producer_state.check_marker(
            marker.producer_id,
            marker.producer_epoch,
            marker.coordinator_epoch,
            ends_epoch=marker.transaction_version >= TransactionVersion.TV_2,
        )
        if topic == CONSUMER_OFFSETS:
            return self._group_coordinator().requests.end_transaction(
                partition,
                producer_id=marker.producer_id,
                producer_epoch=marker.producer_epoch,
                coordinator_epoch=marker.coordinator_epoch,
                commit=marker.commit,
            )
        batch = build_end_transaction_marker(
            commit=marker.commit,
            producer_id=marker.producer_id,
            producer_epoch=marker.producer_epoch,
            coordinator_epoch=marker.coordinator_epoch,
            timestamp=self._clock.time_ms(),
        )
        required = self._replicas.append_coordinator_batch(topic, partition, batch)
        if hosted.log.high_watermark >= required:
            return None
        return _Committed(hosted, required).answer


class _Committed:
    """Listens to a partition until its high watermark has passed an offset."""

    def __init__(self, partition: "Partition", offset: int) -> None:
        self.answer: Deferred[None] = Deferred()
        self._partition = partition
        self._offset = offset
        partition.add_listener(self)

    def on_high_watermark_updated(self, offset: int) -> None:
        if offset >= self._offset:
            self._partition.remove_listener(self)
            self.answer.complete(None)

    def on_failed(self) -> None:
        self._partition.remove_listener(self)
        try:
            self._partition.leader_log()
        except KafkaError as error:
            self.answer.fail(error)

    def on_deleted(self) -> None:
        self._partition.remove_listener(self)
        self.answer.complete(None)
