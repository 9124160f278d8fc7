"""A DeleteRecords request that waits until every replica has let go of the records."""

from typing import TYPE_CHECKING

from kbroker.protocol.error_codes import ErrorCode
from kbroker.replication.purgatory import DelayedOperation

if TYPE_CHECKING:
    from kbroker.protocol.messages.delete_records_response import DeleteRecordsPartitionResult
    from kbroker.replication.partition import Partition


class PendingDeletion:
    """One partition: done once its low watermark reaches ``offset``."""

    __slots__ = ("offset", "partition", "result")

    def __init__(
        self, partition: "Partition", offset: int, result: "DeleteRecordsPartitionResult"
    ) -> None:
        self.partition = partition
        self.offset = offset
        self.result = result

    def settle(self) -> bool:
        """Put the low watermark, or the error, into the result; False while it is not reached."""
        if not self.partition.is_leader:
            self.result.error_code = ErrorCode.NOT_LEADER_OR_FOLLOWER
            return True
        self.result.low_watermark = self.partition.low_watermark()
        return self.result.low_watermark >= self.offset


class DelayedDeleteRecords(DelayedOperation["Partition"]):
    """Complete when every partition is done; what is not in time is REQUEST_TIMED_OUT."""

    __slots__ = ("_pending",)

    def __init__(self, pending: list[PendingDeletion]) -> None:
        super().__init__()
        self._pending = pending

    @property
    def keys(self) -> "list[Partition]":
        """The partitions that are waited for."""
        return [deletion.partition for deletion in self._pending]

    def try_complete(self, key: "Partition") -> bool:
        self._pending = [
            deletion
            for deletion in self._pending
            if deletion.partition is not key or not deletion.settle()
        ]
        return not self._pending

    def time_out(self) -> None:
        """The time is over: what is pending gets its error."""
        for deletion in self._pending:
            deletion.result.error_code = ErrorCode.REQUEST_TIMED_OUT
