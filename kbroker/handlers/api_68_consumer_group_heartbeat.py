"""ConsumerGroupHeartbeat (68), versions 0-1: the one request of members of KIP-848.

v0     the coordinator makes the member id when it is empty.
v1     clients make their own member ids; subscriptions by regular expression (RE2 syntax).
Joins with epoch 0, leaves with -1, or -2 for a static member that will be back. A classic group of
consumers is converted when such a member joins, and back when the last one leaves, as
``group.consumer.migration.policy`` allows. Racks are kept but do not influence assignments, as in
Kafka 4.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.group_requests import answer_of, client_info
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    ConsumerGroupHeartbeatResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: ConsumerGroupHeartbeatRequest
) -> ConsumerGroupHeartbeatResponse | Coroutine[Any, Any, ConsumerGroupHeartbeatResponse]:
    """Answers at once, unless the records are not replicated yet."""
    return answer_of(
        services.group_coordinator.requests.consumer_group_heartbeat(client_info(context), request)
    )


def error_response(
    request: ConsumerGroupHeartbeatRequest, error: KafkaError, version: int
) -> ConsumerGroupHeartbeatResponse:
    """The error code and its text."""
    return ConsumerGroupHeartbeatResponse(error_code=error.error_code, error_message=error.message)
