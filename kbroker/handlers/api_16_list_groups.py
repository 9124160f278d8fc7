"""ListGroups (16), versions 0-5: the groups that this broker coordinates.

v4     a filter by state, and the state in answers (KIP-518).
v5     a filter by type, and the type in answers (KIP-848).
Filters ignore case; a type nobody knows finds nothing.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListGroupsResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: ListGroupsRequest
) -> ListGroupsResponse | Coroutine[Any, Any, ListGroupsResponse]:
    """Answers at once for some hundred groups; a long list gives way to others."""
    return services.group_coordinator.requests.list_groups(request)


def error_response(
    request: ListGroupsRequest, error: KafkaError, version: int
) -> ListGroupsResponse:
    """The error code, no groups."""
    return ListGroupsResponse(error_code=error.error_code)
