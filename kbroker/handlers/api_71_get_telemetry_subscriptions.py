"""GetTelemetrySubscriptions (71), version 0: what a client is to measure and push (KIP-714).

Answered always, advertised only where somebody receives what is pushed (``/metrics`` does): a
client that finds it in ApiVersions begins to ask, as it would of a Kafka with a receiver plugin.
"""

from typing import TYPE_CHECKING

from kbroker.metadata.client_metrics import ACCEPTED_CODECS, ClientAttributes
from kbroker.protocol.messages.get_telemetry_subscriptions_request import (
    GetTelemetrySubscriptionsRequest,
)
from kbroker.protocol.messages.get_telemetry_subscriptions_response import (
    GetTelemetrySubscriptionsResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: GetTelemetrySubscriptionsRequest
) -> GetTelemetrySubscriptionsResponse:
    """Raises KafkaError THROTTLING_QUOTA_EXCEEDED for who asks before the interval is over."""
    instance = services.client_metrics().get_subscription(
        request.client_instance_id, client_attributes(context)
    )
    return GetTelemetrySubscriptionsResponse(
        client_instance_id=instance.instance_id,
        subscription_id=instance.subscription_id,
        accepted_compression_types=list(ACCEPTED_CODECS),
        push_interval_ms=instance.interval_ms,
        telemetry_max_bytes=services.config.current.telemetry_max_bytes,
        delta_temporality=True,
        requested_metrics=list(instance.metrics),
    )


def client_attributes(context: "RequestContext") -> ClientAttributes:
    """What subscriptions match on; the instance id comes with the request."""
    connection = context.connection
    return ClientAttributes(
        client_id=context.client_id or "",
        client_software_name=connection.client_software_name,
        client_software_version=connection.client_software_version,
        client_source_address=connection.client_host,
        client_source_port=str(connection.client_port),
    )


def error_response(
    request: GetTelemetrySubscriptionsRequest, error: "KafkaError", version: int
) -> GetTelemetrySubscriptionsResponse:
    """Only the code."""
    return GetTelemetrySubscriptionsResponse(error_code=error.error_code)
