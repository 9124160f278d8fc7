"""OffsetForLeaderEpoch, versions 2-4: where a leader epoch ended (KIP-101, KIP-320).

v3 adds the replica id, which changes nothing. An epoch that this log does not know, and -1, give
(-1, -1) without an error; one below all known ones ends where the first one begins.
"""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_for_leader_epoch_response import (
    EpochEndOffset,
    OffsetForLeaderEpochResponse,
    OffsetForLeaderTopicResult,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.offset_for_leader_epoch_request import (
        OffsetForLeaderEpochRequest,
        OffsetForLeaderPartition,
    )
    from kbroker.request_context import RequestContext

_NO_EPOCH: Final = -1
_AT_ONCE: Final = 512
"""Partitions that are looked up before other connections get their turn."""


def handle(
    services: "Services", context: "RequestContext", request: "OffsetForLeaderEpochRequest"
) -> "OffsetForLeaderEpochResponse | Coroutine[Any, Any, OffsetForLeaderEpochResponse]":
    """Look each partition's epoch up."""
    if sum(len(topic.partitions) for topic in request.topics) > _AT_ONCE:
        return _handle_giving_way(services, request)
    response = OffsetForLeaderEpochResponse()
    for topic in request.topics:
        ends = [_end_offset(services, topic.topic, asked) for asked in topic.partitions]
        response.topics.append(OffsetForLeaderTopicResult(topic.topic, ends))
    return response


async def _handle_giving_way(
    services: "Services", request: "OffsetForLeaderEpochRequest"
) -> OffsetForLeaderEpochResponse:
    response = OffsetForLeaderEpochResponse()
    looked_up = 0
    for topic in request.topics:
        result = OffsetForLeaderTopicResult(topic.topic)
        response.topics.append(result)
        for asked in topic.partitions:
            result.partitions.append(_end_offset(services, topic.topic, asked))
            looked_up += 1
            if looked_up % _AT_ONCE == 0:
                await checkpoint()
    return response


def _end_offset(
    services: "Services", topic: str, asked: "OffsetForLeaderPartition"
) -> EpochEndOffset:
    known_epoch = asked.current_leader_epoch
    try:
        partition = services.replica_manager.get_partition_or_raise(topic, asked.partition)
        epoch, end_offset = partition.end_offset_for_epoch(
            None if known_epoch == _NO_EPOCH else known_epoch,
            asked.leader_epoch,
            only_leader=True,
        )
    except KafkaError as error:
        return EpochEndOffset(error.error_code, asked.partition)
    if end_offset < 0:
        return EpochEndOffset(0, asked.partition)
    return EpochEndOffset(0, asked.partition, epoch, end_offset)


def error_response(
    request: "OffsetForLeaderEpochRequest", error: KafkaError, version: int
) -> OffsetForLeaderEpochResponse:
    """Every partition with the same error."""
    return OffsetForLeaderEpochResponse(
        topics=[
            OffsetForLeaderTopicResult(
                topic.topic,
                [EpochEndOffset(error.error_code, asked.partition) for asked in topic.partitions],
            )
            for topic in request.topics
        ]
    )
