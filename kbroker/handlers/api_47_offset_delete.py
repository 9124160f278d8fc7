"""OffsetDelete (47), version 0: deletes committed offsets (KIP-496).

Topics or partitions that do not exist are UNKNOWN_TOPIC_OR_PARTITION; topics that a member of the
group subscribes to are GROUP_SUBSCRIBED_TO_TOPIC. An error of the group stands alone.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestTopic,
)
from kbroker.protocol.messages.offset_delete_response import (
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: OffsetDeleteRequest
) -> OffsetDeleteResponse | Coroutine[Any, Any, OffsetDeleteResponse]:
    """Answers at once, unless the tombstones are not replicated yet."""
    topics = services.metadata.image.topics
    known: list[OffsetDeleteRequestTopic] = []
    unknown: dict[str, OffsetDeleteResponseTopic] = {}
    for topic in request.topics:
        image = topics.get(topic.name)
        count = len(image.partitions) if image is not None else 0
        there = [p for p in topic.partitions if 0 <= p.partition_index < count]
        if len(there) < len(topic.partitions) or image is None:
            entry = unknown.setdefault(topic.name, OffsetDeleteResponseTopic(topic.name))
            entry.partitions.extend(
                OffsetDeleteResponsePartition(
                    partition.partition_index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
                )
                for partition in topic.partitions
                if not 0 <= partition.partition_index < count
            )
        if there:
            known.append(OffsetDeleteRequestTopic(topic.name, there))
    outcome = services.group_coordinator.requests.delete_offsets(
        OffsetDeleteRequest(request.group_id, known)
    )
    if isinstance(outcome, Deferred):
        return _wait(outcome, unknown)
    return _merge(outcome, unknown)


async def _wait(
    outcome: Deferred[OffsetDeleteResponse], unknown: dict[str, OffsetDeleteResponseTopic]
) -> OffsetDeleteResponse:
    return _merge(await outcome.wait(), unknown)


def _merge(
    response: OffsetDeleteResponse, unknown: dict[str, OffsetDeleteResponseTopic]
) -> OffsetDeleteResponse:
    if response.error_code != ErrorCode.NONE or not unknown:
        return response
    for topic in response.topics:
        entry = unknown.setdefault(topic.name, topic)
        if entry is not topic:
            entry.partitions.extend(topic.partitions)
    return OffsetDeleteResponse(topics=list(unknown.values()))


def error_response(
    request: OffsetDeleteRequest, error: KafkaError, version: int
) -> OffsetDeleteResponse:
    """The error code, no topics."""
    return OffsetDeleteResponse(error_code=error.error_code)
