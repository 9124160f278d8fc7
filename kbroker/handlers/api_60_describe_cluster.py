"""DescribeCluster (60), versions 0-2: cluster id, controller, brokers.

v1  endpoint type (KIP-919): this listener knows brokers (1); controllers (2) are refused, there are
    no endpoints of their own.
v2  fenced brokers on request (KIP-1073).
"""

from typing import TYPE_CHECKING, Final

from kbroker.handlers.authorized_operations import CLUSTER_OPERATIONS, NOT_ASKED
from kbroker.metadata.topic_metadata import alive_brokers, is_reachable
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_cluster_request import DescribeClusterRequest
from kbroker.protocol.messages.describe_cluster_response import (
    DescribeClusterBroker,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_BROKERS: Final = 1
_CONTROLLERS: Final = 2


def handle(
    services: "Services", context: "RequestContext", request: DescribeClusterRequest
) -> DescribeClusterResponse:
    """Answers from the image."""
    if request.endpoint_type == _CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, "
            "but we wanted an endpoint of type CONTROLLER",
        )
    if request.endpoint_type != _BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"Unsupported endpoint type {request.endpoint_type}",
        )
    image = services.metadata.image
    listener = context.connection.listener_name
    brokers = []
    for broker in image.brokers.values():
        if listener not in broker.endpoints:
            continue
        if broker.fenced and not request.include_fenced_brokers:
            continue
        if broker.node_id == services.node_id:
            host, port = context.connection.advertised_address()
        else:
            host, port = broker.endpoints[listener]
        brokers.append(
            DescribeClusterBroker(broker.node_id, host, port, broker.rack, broker.fenced)
        )
    controller_id = image.controller_id
    if not is_reachable(image.brokers, controller_id, listener):
        alive = next(iter(alive_brokers(image.brokers, listener)), None)
        controller_id = alive.node_id if alive is not None else -1
    return DescribeClusterResponse(
        cluster_id=image.cluster_id,
        controller_id=controller_id,
        brokers=brokers,
        cluster_authorized_operations=(
            CLUSTER_OPERATIONS if request.include_cluster_authorized_operations else NOT_ASKED
        ),
    )


def error_response(
    request: DescribeClusterRequest, error: KafkaError, version: int
) -> DescribeClusterResponse:
    """Only the error."""
    return DescribeClusterResponse(error_code=error.error_code, error_message=error.message)
