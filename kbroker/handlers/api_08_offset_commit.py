"""OffsetCommit (8), versions 2-10: remember how far a group has consumed.

v2-4   a retention time of its own, which is kept and acted on.
v6     the leader epoch of the last consumed record.
v7     static members.
v9     a group that is not there is GROUP_ID_NOT_FOUND, ILLEGAL_GENERATION before.
v10    topics by id; an id nobody knows is UNKNOWN_TOPIC_ID.
Topics and partitions that do not exist are UNKNOWN_TOPIC_OR_PARTITION; the others are committed as
one batch. A group without members accepts commits of anybody without a generation.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.group_requests import offset_commit_error
from kbroker.handlers.group_requests import answer_of
from kbroker.handlers.repeated_commit import RepeatedCommits
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_commit_response import (
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicsImage
    from kbroker.request_context import RequestContext

_TOPIC_IDS_FROM = 10

_Refused = dict[str | bytes, OffsetCommitResponseTopic]
"""Topics with partitions that are not committed, by name, or by id in version 10."""


def handle(
    services: "Services", context: "RequestContext", request: OffsetCommitRequest
) -> OffsetCommitResponse | Coroutine[Any, Any, OffsetCommitResponse]:
    """Answers at once, unless the records are not replicated yet."""
    version = context.api_version
    refused = _take_out_unknown(services.metadata.image.topics, request, version)
    if refused and not request.topics:
        return OffsetCommitResponse(topics=list(refused.values()))
    if not request.topics:
        return OffsetCommitResponse()
    outcome = services.group_coordinator.requests.commit_offsets(request, version)
    if not refused:
        return answer_of(outcome)
    if isinstance(outcome, Deferred):
        return _wait(outcome, refused, version)
    return _merge(outcome, refused, version)


def shortcut(services: "Services") -> RepeatedCommits:
    """Commits for the same partitions, which consumers repeat."""
    return RepeatedCommits(services)


def _take_out_unknown(
    topics: "TopicsImage", request: OffsetCommitRequest, version: int
) -> _Refused:
    """Leave what exists in the request, names and ids both set; give back the rest."""
    by_id = version >= _TOPIC_IDS_FROM
    refused: _Refused = {}
    known: list[OffsetCommitRequestTopic] = []
    for topic in request.topics:
        image = topics.get_by_id(topic.topic_id) if by_id else topics.get(topic.name)
        if image is None:
            error = ErrorCode.UNKNOWN_TOPIC_ID if by_id else ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            missing = topic.partitions
        else:
            topic.name = image.name
            topic.topic_id = image.topic_id
            error = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
            count = len(image.partitions)
            missing = [p for p in topic.partitions if not 0 <= p.partition_index < count]
        if missing or image is None:
            entry = refused.setdefault(
                topic.topic_id if by_id else topic.name,
                OffsetCommitResponseTopic(topic.name, topic.topic_id),
            )
            entry.partitions.extend(
                OffsetCommitResponsePartition(partition.partition_index, error)
                for partition in missing
            )
        if image is None or len(missing) == len(topic.partitions):
            continue
        if missing:
            topic.partitions = [p for p in topic.partitions if 0 <= p.partition_index < count]
        known.append(topic)
    request.topics = known
    return refused


async def _wait(
    outcome: Deferred[OffsetCommitResponse], refused: _Refused, version: int
) -> OffsetCommitResponse:
    return _merge(await outcome.wait(), refused, version)


def _merge(response: OffsetCommitResponse, refused: _Refused, version: int) -> OffsetCommitResponse:
    for topic in response.topics:
        key = topic.topic_id if version >= _TOPIC_IDS_FROM else topic.name
        entry = refused.setdefault(key, topic)
        if entry is not topic:
            entry.partitions.extend(topic.partitions)
    return OffsetCommitResponse(topics=list(refused.values()))


def error_response(
    request: OffsetCommitRequest, error: KafkaError, version: int
) -> OffsetCommitResponse:
    """The error for every partition."""
    return offset_commit_error(request, error.error_code)
