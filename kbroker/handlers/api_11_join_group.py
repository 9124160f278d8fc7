"""JoinGroup (11), versions 0-9: become a member, or come back for the next generation.

v0     no rebalance timeout: the session timeout stands for it.
v4     a new member is first told its member id (MEMBER_ID_REQUIRED) and joins with it (KIP-394).
v5     static members (KIP-345).
v7     the protocol type in answers; where there is no protocol its name is null, "" before.
v8     the client's reason, for the log (KIP-800).
v9     a leader that has restarted may be told to keep the assignment (KIP-814).
Waits until the rebalance has gathered the members. A consumer whose subscription claims lengths
that cannot be gets INCONSISTENT_GROUP_PROTOCOL; Apache Kafka never answers any member then.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import join_error
from kbroker.handlers.group_requests import client_info
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.join_group_request import JoinGroupRequest
from kbroker.protocol.messages.join_group_response import JoinGroupResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_NULL_PROTOCOL_NAME_FROM = 7


def handle(
    services: "Services", context: "RequestContext", request: JoinGroupRequest
) -> JoinGroupResponse | Coroutine[Any, Any, JoinGroupResponse]:
    """Answers at once what needs no rebalance."""
    outcome = services.group_coordinator.requests.join_group(client_info(context), request)
    if isinstance(outcome, Deferred):
        return _wait(outcome, context.api_version)
    return _for_version(outcome, context.api_version)


async def _wait(outcome: Deferred[JoinGroupResponse], version: int) -> JoinGroupResponse:
    return _for_version(await outcome.wait(), version)


def _for_version(response: JoinGroupResponse, version: int) -> JoinGroupResponse:
    if version < _NULL_PROTOCOL_NAME_FROM:
        if response.protocol_name is None:
            response.protocol_name = ""
    elif response.protocol_name == "":
        response.protocol_name = None
    return response


def error_response(request: JoinGroupRequest, error: KafkaError, version: int) -> JoinGroupResponse:
    """No member id, no generation."""
    return _for_version(join_error(error.error_code, ""), version)
