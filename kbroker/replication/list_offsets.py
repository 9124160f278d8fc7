"""Offsets by timestamp, real ones and the special ones of ListOffsets."""

from typing import TYPE_CHECKING, Final, NamedTuple

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.storage.fetch_info import FetchIsolation

if TYPE_CHECKING:
    from kbroker.replication.partition import Partition
    from kbroker.storage.fetch_info import TimestampAndOffset

LATEST: Final = -1
EARLIEST: Final = -2
MAX_TIMESTAMP: Final = -3
EARLIEST_LOCAL: Final = -4
LATEST_TIERED: Final = -5
EARLIEST_PENDING_UPLOAD: Final = -6

_UNKNOWN: Final = -1


class ListedOffset(NamedTuple):
    """An answer; all -1 when there is no such record."""

    timestamp: int
    offset: int
    leader_epoch: int


NOT_FOUND: Final = ListedOffset(_UNKNOWN, _UNKNOWN, _UNKNOWN)


def list_offset(
    partition: "Partition",
    timestamp: int,
    *,
    isolation: FetchIsolation,
    current_leader_epoch: int | None,
    only_leader: bool,
) -> ListedOffset:
    """The offset that ``timestamp`` (milliseconds, or a special value) stands for.

    ``isolation`` LOG_END is for replicas and tools; a consumer sees no further than its isolation
    lets it fetch. Raises KafkaError: epochs, leadership, OFFSET_NOT_AVAILABLE while a new leader's
    high watermark is below the start of its epoch, KAFKA_STORAGE_ERROR.
    """
    if current_leader_epoch is not None:
        partition.check_leader_epoch(current_leader_epoch)
    if only_leader:
        partition.leader_log()
    log = partition.log
    is_behind = (
        isolation is not FetchIsolation.LOG_END
        and partition.leader_epoch_start_offset > log.high_watermark
    )
    last_fetchable = partition.end_offset(isolation)
    if timestamp == LATEST:
        if is_behind:
            raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE)
        return ListedOffset(_UNKNOWN, last_fetchable, partition.leader_epoch)
    if timestamp in (EARLIEST, EARLIEST_LOCAL):
        return ListedOffset(_UNKNOWN, log.log_start_offset, _epoch_of_start(partition))
    if timestamp in (LATEST_TIERED, EARLIEST_PENDING_UPLOAD):
        return NOT_FOUND  # nothing is tiered
    found: TimestampAndOffset | None
    if timestamp == MAX_TIMESTAMP:
        found = log.max_timestamp_offset()
    else:
        found = log.offset_for_timestamp(timestamp)
    if found is not None and found.offset < last_fetchable:
        return ListedOffset(found.timestamp, found.offset, found.leader_epoch)
    if is_behind:
        raise KafkaError(ErrorCode.OFFSET_NOT_AVAILABLE)
    return NOT_FOUND


def _epoch_of_start(partition: "Partition") -> int:
    log = partition.log
    earliest = log.earliest_epoch
    if earliest is None or earliest.start_offset > log.log_start_offset:
        return _UNKNOWN
    return earliest.epoch
