"""Planted faults of groups: the reliability tests must find the harm they do.

Chosen by KBROKER_PLANTED_FAULT, never in use else.
"""

from kbroker.common.timer import Timer
from kbroker.coordinator.group.classic_protocol import ClientInfo, SyncDeferred
from kbroker.coordinator.group.group_shard import GroupCoordinatorShard
from kbroker.coordinator.record_scan import Place, open_batch, scan_in_order
from kbroker.coordinator.result import CoordinatorResult
from kbroker.coordinator.writer import PartitionListener, PartitionWriter
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    ConsumerGroupHeartbeatResponse,
)
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest

_HELD_S = 1.0
"""How long a commit that was answered is in memory only."""
_OFFSET_COMMIT_KEY = b"\x00\x01"


class CommitBeforeWrite(PartitionWriter):
    """Promises that commits are written, and writes them a second later."""

    def __init__(self, writer: PartitionWriter, timer: Timer) -> None:
        self._writer = writer
        self._timer = timer

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        records = scan_in_order(open_batch(bytes(batch), Place()))
        if not all(key.startswith(_OFFSET_COMMIT_KEY) for _, key, _ in records):
            return self._writer.append(topic, partition, batch)

        def write() -> None:
            try:
                self._writer.append(topic, partition, batch)
            except KafkaError:
                return  # what was promised is lost: that is the fault

        self._timer.schedule(_HELD_S, write)
        return self._writer.high_watermark(topic, partition)

    def high_watermark(self, topic: str, partition: int) -> int:
        return self._writer.high_watermark(topic, partition)

    def max_batch_size(self, topic: str, partition: int) -> int:
        return self._writer.max_batch_size(topic, partition)

    def register_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self._writer.register_listener(topic, partition, listener)

    def deregister_listener(self, topic: str, partition: int, listener: PartitionListener) -> None:
        self._writer.deregister_listener(topic, partition, listener)


class TwoOwnersShard(GroupCoordinatorShard):
    """Gives away what still belongs to somebody else.

    Members of the classic protocol all get what the first of them should; members of KIP-848 get
    partitions before their owners have let go of them.
    """

    def sync(self, request: SyncGroupRequest, answer: SyncDeferred) -> CoordinatorResult[None]:
        assigned = [entry.assignment for entry in request.assignments if entry.assignment]
        for entry in request.assignments:
            entry.assignment = assigned[0] if assigned else b""
        return super().sync(request, answer)

    def consumer_heartbeat(
        self, client: ClientInfo, request: ConsumerGroupHeartbeatRequest
    ) -> CoordinatorResult[ConsumerGroupHeartbeatResponse]:
        group = self._find_consumer(request.group_id)
        if group is not None:
            group._owners.clear()
        return super().consumer_heartbeat(client, request)
