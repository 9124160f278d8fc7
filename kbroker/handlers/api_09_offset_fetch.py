"""OffsetFetch (9), versions 1-10: how far groups have consumed.

v1     errors of the group stand at each partition.
v2     a null list asks for all partitions; a top-level error code.
v5     leader epochs.
v7     RequireStable: offsets that an open transaction may change are UNSTABLE_OFFSET_COMMIT.
v8     several groups, each with its error code.
v9     member id and epoch: only groups of KIP-848 look at them.
v10    topics by id; an id nobody knows is UNKNOWN_TOPIC_ID; of all offsets those of topics that do
       not exist any more are left out. An offset committed to an earlier topic of the name is not
       shown.
Neither the group nor its partitions need exist: what was not committed is offset -1.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Answer, Deferred, all_of
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kbroker.protocol.messages.offset_fetch_response import (
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicsImage
    from kbroker.request_context import RequestContext

_TOP_LEVEL_ERROR_FROM = 2
_MANY_GROUPS_FROM = 8
_TOPIC_IDS_FROM = 10


def handle(
    services: "Services", context: "RequestContext", request: OffsetFetchRequest
) -> OffsetFetchResponse | Coroutine[Any, Any, OffsetFetchResponse]:
    """Answers at once, unless commits of a group are not replicated yet."""
    version = context.api_version
    if version < _MANY_GROUPS_FROM:
        one = services.group_coordinator.requests.fetch_offsets(
            _only_group(request), require_stable=request.require_stable
        )
        if isinstance(one, Deferred):
            return _wait_for_one(one, request, version)
        return _single(one, request, version)
    topics = services.metadata.image.topics
    outcomes = [_fetch(services, topics, group, request, version) for group in request.groups]
    groups = all_of([outcome for outcome, _ in outcomes])
    unknown = [missing for _, missing in outcomes]
    if isinstance(groups, Deferred):
        return _wait_for_many(groups, unknown, topics, version)
    return _many(groups, unknown, topics, version)


def _only_group(request: OffsetFetchRequest) -> OffsetFetchRequestGroup:
    asked = request.topics
    return OffsetFetchRequestGroup(
        group_id=request.group_id,
        topics=None
        if asked is None
        else [
            OffsetFetchRequestTopics(name=topic.name, partition_indexes=topic.partition_indexes)
            for topic in asked
        ],
    )


async def _wait_for_one(
    outcome: Deferred[OffsetFetchResponseGroup], request: OffsetFetchRequest, version: int
) -> OffsetFetchResponse:
    return _single(await outcome.wait(), request, version)


def _single(
    group: OffsetFetchResponseGroup, request: OffsetFetchRequest, version: int
) -> OffsetFetchResponse:
    if group.error_code != ErrorCode.NONE:
        return _single_error(request, ErrorCode(group.error_code), version)
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                topic.name,
                [
                    OffsetFetchResponsePartition(
                        partition.partition_index,
                        partition.committed_offset,
                        partition.committed_leader_epoch,
                        partition.metadata,
                        partition.error_code,
                    )
                    for partition in topic.partitions
                ],
            )
            for topic in group.topics
        ]
    )


def _single_error(
    request: OffsetFetchRequest, error: ErrorCode, version: int
) -> OffsetFetchResponse:
    if version >= _TOP_LEVEL_ERROR_FROM:
        return OffsetFetchResponse(error_code=error)
    return OffsetFetchResponse(
        topics=[
            OffsetFetchResponseTopic(
                topic.name,
                [
                    OffsetFetchResponsePartition(index, -1, -1, "", error)
                    for index in topic.partition_indexes
                ],
            )
            for topic in request.topics or ()
        ]
    )


def _fetch(
    services: "Services",
    topics: "TopicsImage",
    group: OffsetFetchRequestGroup,
    request: OffsetFetchRequest,
    version: int,
) -> tuple[Answer[OffsetFetchResponseGroup], list[OffsetFetchResponseTopics]]:
    """The group's offsets, and answers for topic ids nobody knows."""
    unknown: list[OffsetFetchResponseTopics] = []
    if version >= _TOPIC_IDS_FROM and group.topics is not None:
        known: list[OffsetFetchRequestTopics] = []
        for topic in group.topics:
            image = topics.get_by_id(topic.topic_id)
            if image is not None:
                topic.name = image.name
                known.append(topic)
            else:
                unknown.append(
                    OffsetFetchResponseTopics(
                        "",
                        topic.topic_id,
                        [
                            OffsetFetchResponsePartitions(
                                index, -1, -1, "", ErrorCode.UNKNOWN_TOPIC_ID
                            )
                            for index in topic.partition_indexes
                        ],
                    )
                )
        group.topics = known
    outcome = services.group_coordinator.requests.fetch_offsets(
        group, require_stable=request.require_stable
    )
    return outcome, unknown


async def _wait_for_many(
    groups: Deferred[list[OffsetFetchResponseGroup]],
    unknown: list[list[OffsetFetchResponseTopics]],
    topics: "TopicsImage",
    version: int,
) -> OffsetFetchResponse:
    return _many(await groups.wait(), unknown, topics, version)


def _many(
    groups: list[OffsetFetchResponseGroup],
    unknown: list[list[OffsetFetchResponseTopics]],
    topics: "TopicsImage",
    version: int,
) -> OffsetFetchResponse:
    for group, missing in zip(groups, unknown, strict=True):
        if group.error_code != ErrorCode.NONE:
            continue
        if version >= _TOPIC_IDS_FROM:
            group.topics = [topic for topic in group.topics if _has_id(topics, topic)]
        group.topics.extend(missing)
    return OffsetFetchResponse(groups=groups)


def _has_id(topics: "TopicsImage", topic: OffsetFetchResponseTopics) -> bool:
    image = topics.get(topic.name)
    if image is None:
        return False
    topic.topic_id = image.topic_id
    return True


def error_response(
    request: OffsetFetchRequest, error: KafkaError, version: int
) -> OffsetFetchResponse:
    """The error where the version has a place for it."""
    if version < _MANY_GROUPS_FROM:
        return _single_error(request, error.error_code, version)
    return OffsetFetchResponse(
        groups=[
            OffsetFetchResponseGroup(group_id=group.group_id, error_code=error.error_code)
            for group in request.groups
        ]
    )
