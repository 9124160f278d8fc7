"""A Produce request with acks=all that waits for its batches to be replicated."""

from typing import TYPE_CHECKING

from kbroker.protocol.error_codes import ErrorCode
from kbroker.replication.purgatory import DelayedOperation

if TYPE_CHECKING:
    from kbroker.protocol.messages.produce_response import PartitionProduceResponse
    from kbroker.replication.partition import Partition


class PendingAck:
    """One appended batch: committed once the high watermark reaches ``required_offset``."""

    __slots__ = ("partition", "required_offset", "response")

    def __init__(
        self, partition: "Partition", required_offset: int, response: "PartitionProduceResponse"
    ) -> None:
        self.partition = partition
        self.required_offset = required_offset
        self.response = response

    def settle(self) -> bool:
        """Put the outcome into the response; False while there is none."""
        error = self.partition.check_enough_replicas_reach(self.required_offset)
        if error is None:
            return False
        self.response.error_code = error
        return True


class DelayedProduce(DelayedOperation["Partition"]):
    """Complete when every batch is committed or can not be any more.

    What is still pending when the time is over is answered REQUEST_TIMED_OUT; its data stay.
    """

    __slots__ = ("_pending",)

    def __init__(self, pending: list[PendingAck]) -> None:
        super().__init__()
        self._pending = pending

    @property
    def keys(self) -> "list[Partition]":
        """The partitions that are waited for."""
        return [ack.partition for ack in self._pending]

    def try_complete(self, key: "Partition") -> bool:
        self._pending = [
            ack for ack in self._pending if ack.partition is not key or not ack.settle()
        ]
        return not self._pending

    def time_out(self) -> None:
        """The time is over: what is pending gets its error."""
        for ack in self._pending:
            ack.response.error_code = ErrorCode.REQUEST_TIMED_OUT
