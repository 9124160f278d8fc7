"""Reading the log for a Fetch request: partitions one after the other under one byte limit."""

from typing import TYPE_CHECKING, Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_response import (
    AbortedTransaction,
    EpochEndOffset,
    LeaderIdAndEpoch,
    PartitionData,
    SnapshotId,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.storage.fetch_info import EMPTY_SLICE, FetchDataInfo, FetchIsolation

if TYPE_CHECKING:
    from kbroker.replication.cached_partition import CachedPartition
    from kbroker.replication.fetch_session import Answer
    from kbroker.replication.partition import Partition
    from kbroker.replication.replica_manager import ReplicaManager

_UNKNOWN: Final = -1
_NO_DIVERGENCE: Final = EpochEndOffset()  # shared by answers and never changed, as the next two
_NO_LEADER: Final = LeaderIdAndEpoch()
_NO_SNAPSHOT: Final = SnapshotId()
_FIRST_VERSION_WITH_STORAGE_ERROR: Final = 6
_FIRST_VERSION_FOR_FOLLOWERS: Final = 11


class FetchParams:
    """What a Fetch request asks for as a whole. Bytes and milliseconds; ``replica_id`` -1 or lower
    is a consumer."""

    __slots__ = (
        "api_version",
        "is_from_follower",
        "isolation",
        "max_bytes",
        "max_wait_ms",
        "min_bytes",
        "only_leader",
        "replica_id",
    )

    def __init__(
        self,
        *,
        api_version: int,
        replica_id: int,
        max_wait_ms: int,
        min_bytes: int,
        max_bytes: int,
        isolation: FetchIsolation,
    ) -> None:
        self.api_version = api_version
        self.replica_id = replica_id
        self.max_wait_ms = max_wait_ms
        self.min_bytes = min_bytes
        self.max_bytes = max_bytes
        self.isolation = isolation
        self.is_from_follower = replica_id >= 0
        self.only_leader = self.is_from_follower or api_version < _FIRST_VERSION_FOR_FOLLOWERS


class LogRead:
    """One pass over the partitions of a request; ``answers`` grows with each ``read``.

    ``must_answer``: an error or a diverging epoch, which a client is told without waiting.
    """

    __slots__ = (
        "_first_pass",
        "_limit",
        "_manager",
        "_min_one_message",
        "_params",
        "answers",
        "must_answer",
        "size",
    )

    def __init__(
        self,
        manager: "ReplicaManager",
        params: FetchParams,
        *,
        first_pass: bool,
    ) -> None:
        self._manager = manager
        self._params = params
        self._first_pass = first_pass
        self._limit = params.max_bytes
        self._min_one_message = True
        self.answers: list[Answer] = []
        self.must_answer = False
        self.size = 0

    def read(self, asked: "CachedPartition") -> None:
        """Read one partition with what the earlier ones left of the request's limit.

        The first partition that has something gives at least one whole batch, whatever the limits.
        """
        try:
            data = self._read(asked)
        except KafkaError as error:
            data = self._failed(asked, error.error_code)
        except OSError:
            self._manager.log.exception("reading %s-%d failed", asked.topic, asked.index)
            data = self._failed(asked, ErrorCode.KAFKA_STORAGE_ERROR)
        except Exception:
            self._manager.log.exception("reading %s-%d failed", asked.topic, asked.index)
            data = self._failed(asked, ErrorCode.UNKNOWN_SERVER_ERROR)
        size = len(data.records)
        if size:
            self._min_one_message = False
            self.size += size
        self._limit = max(0, self._limit - size)
        self.answers.append((asked, data))

    def _read(self, asked: "CachedPartition") -> PartitionData:
        assert asked.topic is not None, "partitions without a topic are answered before"
        partition = self._manager.get_partition_or_raise(asked.topic, asked.index)
        if asked.topic_id != ZERO_UUID and asked.topic_id != partition.topic_id:
            raise KafkaError(ErrorCode.INCONSISTENT_TOPIC_ID)
        params = self._params
        if asked.current_leader_epoch >= 0:
            partition.check_leader_epoch(asked.current_leader_epoch)
        if params.only_leader:
            partition.leader_log()
        replica = None
        if params.is_from_follower:
            replica = partition.follower(
                params.replica_id, knows_leader_epoch=asked.current_leader_epoch >= 0
            )
        log = partition.log
        # Taken before the read: what is appended later must not count as seen by this reader.
        high_watermark = log.high_watermark
        last_stable_offset = log.last_stable_offset
        log_start_offset = log.log_start_offset
        diverging = None
        if asked.last_fetched_epoch >= 0:
            diverging = diverging_epoch(partition, asked)
        if diverging is not None:
            self.must_answer = True
            info = FetchDataInfo(asked.fetch_offset, EMPTY_SLICE)
        else:
            info = log.read(
                asked.fetch_offset,
                max_bytes=min(asked.max_bytes, self._limit),
                isolation=params.isolation,
                min_one_message=self._min_one_message,
            )
            if replica is not None and self._first_pass:
                partition.update_follower(
                    replica,
                    log_end_offset=asked.fetch_offset,
                    log_start_offset=asked.log_start_offset,
                )
        aborted = info.aborted_transactions
        return PartitionData(
            asked.index,
            0,
            high_watermark,
            last_stable_offset,
            log_start_offset,
            diverging or _NO_DIVERGENCE,
            _NO_LEADER,
            _NO_SNAPSHOT,
            None
            if aborted is None
            else [AbortedTransaction(producer_id, first) for producer_id, first in aborted],
            _UNKNOWN,
            info.records,
        )

    def _failed(self, asked: "CachedPartition", error: ErrorCode) -> PartitionData:
        self.must_answer = True
        if (
            error is ErrorCode.KAFKA_STORAGE_ERROR
            and self._params.api_version < _FIRST_VERSION_WITH_STORAGE_ERROR
        ):
            error = ErrorCode.NOT_LEADER_OR_FOLLOWER
        return PartitionData(
            asked.index,
            error,
            _UNKNOWN,
            aborted_transactions=None,
            records=EMPTY_SLICE,
        )


def diverging_epoch(partition: "Partition", asked: "CachedPartition") -> EpochEndOffset | None:
    """Where the reader's log parted from this one, None when it did not (KIP-595).

    Raises KafkaError(OFFSET_OUT_OF_RANGE) when this log knows nothing of the reader's last epoch,
    or does not go back that far.
    """
    epoch, end_offset = partition.log.end_offset_for_epoch(asked.last_fetched_epoch)
    if epoch < 0 or end_offset < 0 or asked.fetch_offset < partition.log.log_start_offset:
        raise KafkaError(ErrorCode.OFFSET_OUT_OF_RANGE)
    if epoch < asked.last_fetched_epoch or end_offset < asked.fetch_offset:
        return EpochEndOffset(epoch, end_offset)
    return None
