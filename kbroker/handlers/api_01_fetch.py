"""Fetch, versions 4-18.

v5 adds the log start offset, v7 sessions (KIP-227), v9 leader epochs, v11 racks, v12 diverging
epochs, v13 topic ids, v16 the leader to turn to (KIP-951). Records are empty, never null: null
breaks librdkafka (KAFKA-18646). Partitions refused before they are read come last in the answer.

Not implemented: reading from the nearest replica (KIP-392; PreferredReadReplica is always -1),
quotas, tiered storage.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.current_leader import current_leader
from kbroker.handlers.repeated_fetch import RepeatedFetch
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_response import (
    FetchableTopicResponse,
    FetchResponse,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionData,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.replication.cached_partition import CachedPartition, PartitionKey, partition_key
from kbroker.replication.fetch import fetch_messages
from kbroker.replication.fetch_context import FetchContext, new_context
from kbroker.replication.log_read import FetchParams
from kbroker.storage.fetch_info import EMPTY_SLICE, FetchIsolation

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicsImage
    from kbroker.protocol.messages.fetch_request import FetchRequest
    from kbroker.replication.fetch_session import Answer
    from kbroker.request_context import RequestContext

_FIRST_VERSION_WITH_TOPIC_IDS: Final = 13
_FIRST_VERSION_WITH_LEADER: Final = 16
_NONE: Final = -1
_FUTURE_REPLICA: Final = -3  # Kafka's name for a copy on its way to another log directory
_WITH_LEADER: Final = (ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.FENCED_LEADER_EPOCH)
_CONSUMER_ISOLATION: Final = (FetchIsolation.HIGH_WATERMARK, FetchIsolation.TXN_COMMITTED)


def handle(
    services: "Services", context: "RequestContext", request: "FetchRequest"
) -> "FetchResponse | Coroutine[Any, Any, FetchResponse]":
    """Read what is there, or wait for it."""
    replica_id = request.replica_id
    if replica_id == _NONE:
        replica_id = request.replica_state.replica_id
    topics = services.metadata.image.topics
    fetch = new_context(
        services.fetch_sessions,
        session_id=request.session_id,
        session_epoch=request.session_epoch,
        requested=_requested(request, topics, context.api_version),
        forgotten=_forgotten(request),
        is_follower=replica_id >= 0,
        uses_topic_ids=context.api_version >= _FIRST_VERSION_WITH_TOPIC_IDS,
    )
    interesting, refused = _sort(fetch.partitions, topics, is_follower=replica_id >= 0)
    if not interesting:
        return _respond(services, context, fetch, refused, names_leaders=replica_id < 0)
    max_bytes = min(request.max_bytes, services.config.current.fetch_max_bytes)
    params = FetchParams(
        api_version=context.api_version,
        replica_id=replica_id,
        max_wait_ms=request.max_wait_ms,
        min_bytes=min(request.min_bytes, max_bytes),
        max_bytes=max_bytes,
        isolation=_isolation(request.isolation_level, replica_id),
    )
    answers = fetch_messages(services.replica_manager, params, interesting)
    if isinstance(answers, list):
        answers += refused
        return _respond(services, context, fetch, answers, names_leaders=replica_id < 0)
    return _wait(services, context, fetch, answers, refused, names_leaders=replica_id < 0)


def error_response(request: "FetchRequest", error: KafkaError, version: int) -> FetchResponse:
    """From v13 on the error of the whole answer says it; before, every partition repeats it."""
    response = FetchResponse(error_code=error.error_code, session_id=request.session_id)
    if version < _FIRST_VERSION_WITH_TOPIC_IDS:
        response.responses = [
            FetchableTopicResponse(
                topic.topic,
                partitions=[
                    _refusal(partition.partition, error.error_code)
                    for partition in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    return response


def shortcut(services: "Services") -> RepeatedFetch:
    """For requests that were answered before, but for their offset."""
    return RepeatedFetch(services)


def _isolation(level: int, replica_id: int) -> FetchIsolation:
    if not 0 <= level <= 1:  # Kafka fails on the unknown number and answers no more than that
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"there is no isolation level {level}")
    if replica_id >= 0 or replica_id == _FUTURE_REPLICA:
        return FetchIsolation.LOG_END
    return _CONSUMER_ISOLATION[level]


def _requested(
    request: "FetchRequest", topics: "TopicsImage", version: int
) -> "list[CachedPartition]":
    """What the request lists. Of a partition that is named twice the later entry counts."""
    requested: list[CachedPartition] = []
    for topic in request.topics:
        name: str | None = topic.topic
        if version >= _FIRST_VERSION_WITH_TOPIC_IDS:
            known = topics.get_by_id(topic.topic_id)
            name = None if known is None else known.name
        topic_id = topic.topic_id
        requested += [
            CachedPartition(name, topic_id, partition.partition, partition)
            for partition in topic.partitions
        ]
    if len(requested) < 2:
        return requested
    return list({asked.key: asked for asked in requested}.values())


def _forgotten(request: "FetchRequest") -> list[PartitionKey]:
    return [
        partition_key(topic.topic, topic.topic_id, index)
        for topic in request.forgotten_topics_data
        for index in topic.partitions
    ]


def _sort(
    partitions: "Sequence[CachedPartition]", topics: "TopicsImage", *, is_follower: bool
) -> "tuple[Sequence[CachedPartition], list[Answer]]":
    """(what can be read, answers for what is not known here)

    Consumers are told of unknown topic ids first, then of other unknown partitions; followers of
    both in the order of the request.
    """
    interesting: list[CachedPartition] = []
    refused: list[Answer] = []
    without_topic: list[Answer] = refused if is_follower else []
    for asked in partitions:
        name = asked.topic
        if name is None:
            by_id = topics.get_by_id(asked.topic_id)
            if by_id is None:
                without_topic.append((asked, _refusal(asked.index, ErrorCode.UNKNOWN_TOPIC_ID)))
                continue
            name = asked.topic = by_id.name
        topic = topics.get(name)
        if topic is None or not 0 <= asked.index < len(topic.partitions):
            refused.append((asked, _refusal(asked.index, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)))
        else:
            interesting.append(asked)
    return interesting, refused if is_follower else without_topic + refused


def _refusal(index: int, error: ErrorCode) -> PartitionData:
    return PartitionData(index, error, _NONE, records=EMPTY_SLICE)


async def _wait(
    services: "Services",
    context: "RequestContext",
    fetch: FetchContext,
    waiting: "Coroutine[Any, Any, list[Answer]]",
    refused: "list[Answer]",
    *,
    names_leaders: bool,
) -> FetchResponse:
    answers = await waiting
    answers += refused
    return _respond(services, context, fetch, answers, names_leaders=names_leaders)


def _respond(
    services: "Services",
    context: "RequestContext",
    fetch: FetchContext,
    answers: "list[Answer]",
    *,
    names_leaders: bool,
) -> FetchResponse:
    """The response with what the session lets through; neighbours of one topic stand together."""
    nodes: list[NodeEndpoint] = []
    if context.api_version >= _FIRST_VERSION_WITH_LEADER:
        for asked, data in answers:
            if data.error_code in _WITH_LEADER:
                _name_leader(services, context, asked, data, nodes)
    error, session_id, answers = fetch.respond(answers)
    responses: list[FetchableTopicResponse] = []
    last: CachedPartition | None = None
    for asked, data in answers:
        if last is None or not _same_topic(last, asked):
            responses.append(FetchableTopicResponse(asked.topic or "", asked.topic_id, [data]))
        else:
            responses[-1].partitions.append(data)
        last = asked
    # Kafka tells a follower who leads, but not where: it knows the brokers itself.
    return FetchResponse(0, error, session_id, responses, nodes if names_leaders else None)


def _same_topic(one: CachedPartition, other: CachedPartition) -> bool:
    if one.topic_id != ZERO_UUID:
        return one.topic_id == other.topic_id
    return one.topic == other.topic


def _name_leader(
    services: "Services",
    context: "RequestContext",
    asked: CachedPartition,
    data: PartitionData,
    nodes: list[NodeEndpoint],
) -> None:
    assert asked.topic is not None, "these errors come from partitions that were found"
    leader = current_leader(services, context, asked.topic, asked.index)
    data.current_leader = LeaderIdAndEpoch(leader.leader_id, leader.leader_epoch)
    if leader.node is not None and all(node.node_id != leader.leader_id for node in nodes):
        nodes.append(NodeEndpoint(*leader.node))
