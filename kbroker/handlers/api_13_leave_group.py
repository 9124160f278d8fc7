"""LeaveGroup (13), versions 0-5: members leave, or static ones are removed by instance id.

v0-2   one member; its error is the answer's.
v3     several members, each with a result; an empty member id with an instance id removes the
       static member that has it.
v5     the client's reason, for the log (KIP-800).
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_MANY_MEMBERS_FROM = 3


def handle(
    services: "Services", context: "RequestContext", request: LeaveGroupRequest
) -> LeaveGroupResponse | Coroutine[Any, Any, LeaveGroupResponse]:
    """Answers at once, unless writes of the group are not replicated yet."""
    version = context.api_version
    if version < _MANY_MEMBERS_FROM:
        request.members = [MemberIdentity(member_id=request.member_id)]
    outcome = services.group_coordinator.requests.leave_group(request)
    if isinstance(outcome, Deferred):
        return _wait(outcome, version)
    return _for_version(outcome, version)


async def _wait(outcome: Deferred[LeaveGroupResponse], version: int) -> LeaveGroupResponse:
    return _for_version(await outcome.wait(), version)


def _for_version(response: LeaveGroupResponse, version: int) -> LeaveGroupResponse:
    if version >= _MANY_MEMBERS_FROM:
        return response
    if response.error_code != ErrorCode.NONE:
        return LeaveGroupResponse(error_code=response.error_code)
    return LeaveGroupResponse(error_code=response.members[0].error_code)


def error_response(
    request: LeaveGroupRequest, error: KafkaError, version: int
) -> LeaveGroupResponse:
    """The error code, no members."""
    return LeaveGroupResponse(error_code=error.error_code)
