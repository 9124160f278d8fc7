"""PushTelemetry (72), version 0: metrics of a client, for whoever receives them (KIP-714).

Like Kafka without a receiver plugin, a broker without one checks everything, inflates the metrics,
and lets them go.
"""

from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.api_71_get_telemetry_subscriptions import client_attributes
from kbroker.metadata.client_metrics import UNCOMPRESSED
from kbroker.protocol.messages.push_telemetry_request import PushTelemetryRequest
from kbroker.protocol.messages.push_telemetry_response import PushTelemetryResponse

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.client_metrics import ClientInstance
    from kbroker.protocol.errors import KafkaError
    from kbroker.request_context import RequestContext

_INFLATED_INLINE: Final = 65_536


def handle(
    services: "Services", context: "RequestContext", request: PushTelemetryRequest
) -> PushTelemetryResponse | Coroutine[Any, Any, PushTelemetryResponse]:
    """A coroutine where much has to be inflated. Raises KafkaError."""
    manager = services.client_metrics()
    codec = request.compression_type
    data = bytes(request.metrics)
    instance = manager.check_push(
        request.client_instance_id,
        client_attributes(context),
        subscription_id=request.subscription_id,
        is_terminating=request.terminating,
        codec=codec,
        size=len(data),
    )
    if codec != UNCOMPRESSED and len(data) > _INFLATED_INLINE:
        return _inflate_and_receive(services, instance, codec, data)
    manager.receive(instance, manager.inflate(instance, codec, data))
    return PushTelemetryResponse()


async def _inflate_and_receive(
    services: "Services", instance: "ClientInstance", codec: int, data: bytes
) -> PushTelemetryResponse:
    manager = services.client_metrics()
    payload = await services.offload.run(partial(manager.inflate, instance, codec, data))
    manager.receive(instance, payload)
    return PushTelemetryResponse()


def error_response(
    request: PushTelemetryRequest, error: "KafkaError", version: int
) -> PushTelemetryResponse:
    """Only the code."""
    return PushTelemetryResponse(error_code=error.error_code)
