"""ConsumerGroupDescribe (69), versions 0-1: groups of KIP-848, their members and assignments.

v1     the type of each member: 0 speaks the classic protocol, 1 KIP-848.
A classic group is GROUP_ID_NOT_FOUND here, as a group of KIP-848 is in DescribeGroups. Authorized
operations are all of them, there is no authorizer yet.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.handlers.authorized_operations import GROUP_OPERATIONS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequest
from kbroker.protocol.messages.consumer_group_describe_response import (
    ConsumerGroupDescribeResponse,
    DescribedGroup,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse | Coroutine[Any, Any, ConsumerGroupDescribeResponse]:
    """Answers at once, unless writes of a group are not replicated yet."""
    outcome = services.group_coordinator.requests.consumer_group_describe(request.group_ids)
    if isinstance(outcome, Deferred):
        return _wait(outcome, request)
    return _response(outcome, request)


async def _wait(
    outcome: Deferred[list[DescribedGroup]], request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    return _response(await outcome.wait(), request)


def _response(
    groups: list[DescribedGroup], request: ConsumerGroupDescribeRequest
) -> ConsumerGroupDescribeResponse:
    if request.include_authorized_operations:
        for group in groups:
            if group.error_code == ErrorCode.NONE:
                group.authorized_operations = GROUP_OPERATIONS
    return ConsumerGroupDescribeResponse(groups=groups)


def error_response(
    request: ConsumerGroupDescribeRequest, error: KafkaError, version: int
) -> ConsumerGroupDescribeResponse:
    """The error for every group that was asked for."""
    return ConsumerGroupDescribeResponse(
        groups=[
            DescribedGroup(error_code=error.error_code, group_id=group_id)
            for group_id in request.group_ids
        ]
    )
