"""ListOffsets, versions 1-11.

v2 adds the isolation level, v4 leader epochs, v5 OFFSET_NOT_AVAILABLE, v7 the largest timestamp
(-3), v8 the earliest local offset (-4), v9 the latest tiered one (-5), v10 a timeout, v11 the
earliest offset that waits for upload (-6). A timestamp finds the first record at or after it, exact
to the record. A partition that is listed twice is INVALID_REQUEST.

Not implemented: tiered storage, so -5 and -6 find nothing and the timeout has nothing to limit.
"""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_offsets_response import (
    ListOffsetsPartitionResponse,
    ListOffsetsResponse,
    ListOffsetsTopicResponse,
)
from kbroker.replication.list_offsets import (
    EARLIEST,
    EARLIEST_LOCAL,
    EARLIEST_PENDING_UPLOAD,
    LATEST,
    LATEST_TIERED,
    MAX_TIMESTAMP,
    list_offset,
)
from kbroker.storage.fetch_info import FetchIsolation

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.list_offsets_request import (
        ListOffsetsPartition,
        ListOffsetsRequest,
    )
    from kbroker.request_context import RequestContext

_CONSUMER: Final = -1
_DEBUGGING_REPLICA: Final = -2  # may ask a follower
_NO_EPOCH: Final = -1
_FIRST_VERSION_WITH_EPOCH: Final = 4
_FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE: Final = 5
_AT_ONCE: Final = 64
"""Partitions that are looked up before other connections get their turn."""

_SINCE: Final = {
    LATEST: 1,
    EARLIEST: 1,
    MAX_TIMESTAMP: 7,
    EARLIEST_LOCAL: 8,
    LATEST_TIERED: 9,
    EARLIEST_PENDING_UPLOAD: 11,
}
"""First version that knows a special timestamp."""

_Asked = tuple[str, "ListOffsetsPartition"]


def handle(
    services: "Services", context: "RequestContext", request: "ListOffsetsRequest"
) -> "ListOffsetsResponse | Coroutine[Any, Any, ListOffsetsResponse]":
    """Look each partition up."""
    if not request.topics:
        return ListOffsetsResponse()
    if not 0 <= request.isolation_level <= 1:  # Kafka fails on the unknown number
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    asked: dict[tuple[str, int], _Asked] = {}
    repeated = set()
    for topic in request.topics:
        for partition in topic.partitions:
            key = (topic.name, partition.partition_index)
            if key in asked:
                repeated.add(key)
            asked[key] = (topic.name, partition)
    lookup = _Lookup(services, context.api_version, request, repeated)
    if len(asked) > _AT_ONCE:
        return _look_up_giving_way(lookup, list(asked.values()))
    for name, partition in asked.values():
        lookup.add(name, partition)
    return lookup.response


async def _look_up_giving_way(lookup: "_Lookup", asked: list[_Asked]) -> ListOffsetsResponse:
    for number, (name, partition) in enumerate(asked, 1):
        lookup.add(name, partition)
        if number % _AT_ONCE == 0:
            await checkpoint()
    return lookup.response


class _Lookup:
    """The response, growing partition by partition."""

    __slots__ = (
        "_isolation",
        "_only_leader",
        "_repeated",
        "_services",
        "_topics",
        "_version",
        "response",
    )

    def __init__(
        self,
        services: "Services",
        version: int,
        request: "ListOffsetsRequest",
        repeated: set[tuple[str, int]],
    ) -> None:
        self._services = services
        self._version = version
        self._repeated = repeated
        self._only_leader = request.replica_id != _DEBUGGING_REPLICA
        self._isolation = FetchIsolation.LOG_END
        if request.replica_id == _CONSUMER:
            self._isolation = (
                FetchIsolation.TXN_COMMITTED
                if request.isolation_level
                else FetchIsolation.HIGH_WATERMARK
            )
        self.response = ListOffsetsResponse()
        self._topics: dict[str, ListOffsetsTopicResponse] = {}

    def add(self, name: str, partition: "ListOffsetsPartition") -> None:
        """Look one partition up."""
        topic = self._topics.get(name)
        if topic is None:
            topic = self._topics[name] = ListOffsetsTopicResponse(name)
            self.response.topics.append(topic)
        topic.partitions.append(self._answer(name, partition))

    def _answer(self, name: str, partition: "ListOffsetsPartition") -> ListOffsetsPartitionResponse:
        index = partition.partition_index
        if (name, index) in self._repeated:
            return ListOffsetsPartitionResponse(index, ErrorCode.INVALID_REQUEST)
        timestamp = partition.timestamp
        if timestamp < 0 and self._version < _SINCE.get(timestamp, self._version + 1):
            return ListOffsetsPartitionResponse(index, ErrorCode.UNSUPPORTED_VERSION)
        epoch = partition.current_leader_epoch
        try:
            found = list_offset(
                self._services.replica_manager.get_partition_or_raise(name, index),
                timestamp,
                isolation=self._isolation,
                current_leader_epoch=None if epoch == _NO_EPOCH else epoch,
                only_leader=self._only_leader,
            )
        except KafkaError as error:
            return ListOffsetsPartitionResponse(index, self._error(error.error_code))
        except Exception:
            self._services.log.exception("looking up an offset of %s-%d failed", name, index)
            return ListOffsetsPartitionResponse(index, ErrorCode.UNKNOWN_SERVER_ERROR)
        return ListOffsetsPartitionResponse(
            index,
            ErrorCode.NONE,
            found.timestamp,
            found.offset,
            found.leader_epoch if self._version >= _FIRST_VERSION_WITH_EPOCH else _NO_EPOCH,
        )

    def _error(self, error: ErrorCode) -> ErrorCode:
        if (
            error is ErrorCode.OFFSET_NOT_AVAILABLE
            and self._version < _FIRST_VERSION_WITH_OFFSET_NOT_AVAILABLE
        ):
            return ErrorCode.LEADER_NOT_AVAILABLE
        return error


def error_response(
    request: "ListOffsetsRequest", error: KafkaError, version: int
) -> ListOffsetsResponse:
    """Every partition with the same error."""
    return ListOffsetsResponse(
        topics=[
            ListOffsetsTopicResponse(
                topic.name,
                [
                    ListOffsetsPartitionResponse(partition.partition_index, error.error_code)
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )
