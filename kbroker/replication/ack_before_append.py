"""A planted fault: success is answered while the batch is still in memory only.

The reliability tests run a broker with this fault and must find acked records lost after a crash;
it is how they prove that they would notice. Chosen by KBROKER_PLANTED_FAULT, never in use else.
"""

from typing import TYPE_CHECKING

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.replication.partition import Partition
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.unified_log import LogAppendInfo

if TYPE_CHECKING:
    from kbroker.storage.log_validator import ValidatedRecords

_HELD = 8  # batches that are in memory only before the oldest is written


class AckBeforeAppendPartition(Partition):
    """Promises offsets at once and writes each batch when enough later ones have come."""

    __slots__ = ("_held",)

    def append_records_to_leader(
        self,
        records: "ValidatedRecords",
        required_acks: int,
        origin: AppendOrigin = AppendOrigin.CLIENT,
    ) -> LogAppendInfo:
        if origin is not AppendOrigin.CLIENT:
            return super().append_records_to_leader(records, required_acks, origin)
        log = self.leader_log()
        held: list[ValidatedRecords] = getattr(self, "_held", [])
        self._held = held
        first = log.log_end_offset + sum(batch.record_count for batch in held)
        records.data = memoryview(bytearray(records.data))  # the request's buffer is not ours
        held.append(records)
        if len(held) > _HELD:
            self._write(held.pop(0))
        return LogAppendInfo(
            first_offset=first,
            last_offset=first + records.record_count - 1,
            log_append_time_ms=records.log_append_time_ms,
            log_start_offset=log.log_start_offset,
        )

    def check_enough_replicas_reach(self, required_offset: int) -> ErrorCode | None:
        return ErrorCode.NONE

    def _write(self, records: "ValidatedRecords") -> None:
        try:
            super().append_records_to_leader(records, 1)
        except KafkaError:
            return  # what was promised for it is lost: that is the fault
