"""DescribeProducers, version 0: the producers that a partition remembers (KIP-664)."""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.metadata.topic_names import topic_name_problem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_producers_response import (
    DescribeProducersResponse,
    PartitionResponse,
    ProducerState,
    TopicResponse,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.describe_producers_request import DescribeProducersRequest
    from kbroker.request_context import RequestContext

_PRODUCERS_AT_ONCE: Final = 1000
"""Producers that are listed before other connections get their turn."""


def handle(
    services: "Services", context: "RequestContext", request: "DescribeProducersRequest"
) -> "DescribeProducersResponse | Coroutine[Any, Any, DescribeProducersResponse]":
    """List the producers of each partition that this broker holds."""
    if not request.topics:
        return DescribeProducersResponse()
    return _describe(services, request)


async def _describe(
    services: "Services", request: "DescribeProducersRequest"
) -> DescribeProducersResponse:
    response = DescribeProducersResponse()
    listed = 0
    for asked in request.topics:
        topic = TopicResponse(asked.name)
        response.topics.append(topic)
        error = _topic_error(services, asked.name)
        for index in asked.partition_indexes:
            if error is not None:
                answer = PartitionResponse(index, error.error_code, error.message)
            else:
                answer = _describe_partition(services, asked.name, index)
            topic.partitions.append(answer)
            listed += 1 + len(answer.active_producers)
            if listed >= _PRODUCERS_AT_ONCE:
                listed = 0
                await checkpoint()
    return response


def _topic_error(services: "Services", name: str) -> KafkaError | None:
    problem = topic_name_problem(name)
    if problem is not None:
        return KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")
    if services.metadata.image.topics.get(name) is None:
        return KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
            "This server does not host this topic-partition.",
        )
    return None


def _describe_partition(services: "Services", name: str, index: int) -> PartitionResponse:
    try:
        partition = services.replica_manager.get_partition_or_raise(name, index)
    except KafkaError as error:
        return PartitionResponse(index, error.error_code)
    return PartitionResponse(
        index,
        active_producers=[
            ProducerState(
                producer_id,
                entry.producer_epoch,
                entry.last_sequence,
                entry.last_timestamp,
                entry.coordinator_epoch,
                entry.current_txn_first_offset,
            )
            for producer_id, entry in partition.log.producer_state.producers.items()
        ],
    )


def error_response(
    request: "DescribeProducersRequest", error: KafkaError, version: int
) -> DescribeProducersResponse:
    """Every partition with the same error."""
    return DescribeProducersResponse(
        topics=[
            TopicResponse(
                topic.name,
                [
                    PartitionResponse(index, error.error_code, error.message)
                    for index in topic.partition_indexes
                ],
            )
            for topic in request.topics
        ]
    )
