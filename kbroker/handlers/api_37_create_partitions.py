"""CreatePartitions (37), versions 0-3: more partitions for topics that exist.

v2  flexible.
v3  may be throttled (KIP-599): there are no quotas yet, so it never is.
The answer comes when the partitions are durable and this broker leads them. A timeout of 0 or less
is over before it begins, as with Kafka's controller.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.metadata.topic_control import NewPartitions
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.create_partitions_request import (
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from kbroker.protocol.messages.create_partitions_response import (
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: CreatePartitionsRequest
) -> CreatePartitionsResponse | Coroutine[Any, Any, CreatePartitionsResponse]:
    """A coroutine, unless there is nothing to create."""
    if not request.topics:
        return CreatePartitionsResponse()
    return _create(services, request)


async def _create(
    services: "Services", request: CreatePartitionsRequest
) -> CreatePartitionsResponse:
    outcomes = await services.controller.create_partitions(
        [_new_partitions(topic) for topic in request.topics],
        validate_only=request.validate_only,
        timeout_ms=request.timeout_ms,
    )
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(
                name=name,
                error_code=error.error_code if error is not None else 0,
                error_message=error.message if error is not None else None,
            )
            for name, error in outcomes
        ]
    )


def _new_partitions(topic: CreatePartitionsTopic) -> NewPartitions:
    assignments = None
    if topic.assignments is not None:
        assignments = [assignment.broker_ids for assignment in topic.assignments]
    return NewPartitions(name=topic.name, num_partitions=topic.count, assignments=assignments)


def error_response(
    request: CreatePartitionsRequest, error: KafkaError, version: int
) -> CreatePartitionsResponse:
    """The error for every topic."""
    return CreatePartitionsResponse(
        results=[
            CreatePartitionsTopicResult(
                name=topic.name, error_code=error.error_code, error_message=error.message
            )
            for topic in request.topics
        ]
    )
