"""Heartbeat (12), versions 0-4: keeps a member's session, tells it of a rebalance.

v3     static members. While the coordinator loads its groups every heartbeat is fine.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.group_requests import answer_of
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: HeartbeatRequest
) -> HeartbeatResponse | Coroutine[Any, Any, HeartbeatResponse]:
    """Answers at once, unless writes of the group are not replicated yet."""
    return answer_of(services.group_coordinator.requests.heartbeat(request))


def error_response(request: HeartbeatRequest, error: KafkaError, version: int) -> HeartbeatResponse:
    """The error code."""
    return HeartbeatResponse(error_code=error.error_code)
