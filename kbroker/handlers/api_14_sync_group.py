"""SyncGroup (14), versions 0-5: the leader brings the assignments, every member gets its own.

v3     static members.
v5     protocol type and name, which must be there and fit (KIP-559); that is looked at before
       anything else.
Waits for the leader, and until the assignments are written.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.group_requests import answer_of
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.sync_group_request import SyncGroupRequest
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_PROTOCOL_FROM = 5


def handle(
    services: "Services", context: "RequestContext", request: SyncGroupRequest
) -> SyncGroupResponse | Coroutine[Any, Any, SyncGroupResponse]:
    """Answers at once when the group is stable, or the leader's write is done."""
    if context.api_version >= _PROTOCOL_FROM and (
        request.protocol_type is None or request.protocol_name is None
    ):
        return SyncGroupResponse(error_code=ErrorCode.INCONSISTENT_GROUP_PROTOCOL)
    return answer_of(services.group_coordinator.requests.sync_group(request))


def error_response(request: SyncGroupRequest, error: KafkaError, version: int) -> SyncGroupResponse:
    """The error code and an empty assignment."""
    return SyncGroupResponse(error_code=error.error_code)
