"""DeleteGroups (42), versions 0-2: deletes groups without members, and their offsets.

Versions differ in their encoding only.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.group_requests import answer_of
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.delete_groups_request import DeleteGroupsRequest
from kbroker.protocol.messages.delete_groups_response import (
    DeletableGroupResult,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: DeleteGroupsRequest
) -> DeleteGroupsResponse | Coroutine[Any, Any, DeleteGroupsResponse]:
    """Answers at once, unless the tombstones are not replicated yet."""
    return answer_of(services.group_coordinator.requests.delete_groups(request.groups_names))


def error_response(
    request: DeleteGroupsRequest, error: KafkaError, version: int
) -> DeleteGroupsResponse:
    """The error for every group."""
    return DeleteGroupsResponse(
        results=[DeletableGroupResult(name, error.error_code) for name in request.groups_names]
    )
