"""DescribeGroups (15), versions 0-6: state, protocol and members of classic groups.

v3     authorized operations (KIP-430): all of them, there is no authorizer yet.
v4     group instance ids.
v6     a group that is not there is GROUP_ID_NOT_FOUND; before, it is Dead without an error.
A group of another type than classic counts as not there.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.handlers.authorized_operations import GROUP_OPERATIONS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_groups_request import DescribeGroupsRequest
from kbroker.protocol.messages.describe_groups_response import (
    DescribedGroup,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: DescribeGroupsRequest
) -> DescribeGroupsResponse | Coroutine[Any, Any, DescribeGroupsResponse]:
    """Answers at once, unless writes of a group are not replicated yet."""
    outcome = services.group_coordinator.requests.describe_groups(
        request.groups, context.api_version
    )
    if isinstance(outcome, Deferred):
        return _wait(outcome, request)
    return _response(outcome, request)


async def _wait(
    outcome: Deferred[list[DescribedGroup]], request: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    return _response(await outcome.wait(), request)


def _response(
    groups: list[DescribedGroup], request: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    if request.include_authorized_operations:
        for group in groups:
            if group.error_code == ErrorCode.NONE:
                group.authorized_operations = GROUP_OPERATIONS
    return DescribeGroupsResponse(groups=groups)


def error_response(
    request: DescribeGroupsRequest, error: KafkaError, version: int
) -> DescribeGroupsResponse:
    """The error for every group that was asked for."""
    return DescribeGroupsResponse(
        groups=[
            DescribedGroup(group_id=group_id, error_code=error.error_code)
            for group_id in request.groups
        ]
    )
