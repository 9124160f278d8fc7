"""ListConfigResources (74), versions 0-1: names of what has, or may have, settings of its own.

v0  client metrics only (it was ListClientMetricsResources).
v1  the types to list (KIP-1142); none means all: topics, brokers, loggers, client metrics, groups.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.topic_metadata import alive_brokers
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_config_resources_request import ListConfigResourcesRequest
from kbroker.protocol.messages.list_config_resources_response import (
    ConfigResource,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import MetadataImage
    from kbroker.request_context import RequestContext

_ORDER: Final = (
    ConfigResourceType.GROUP,
    ConfigResourceType.CLIENT_METRICS,
    ConfigResourceType.BROKER_LOGGER,
    ConfigResourceType.BROKER,
    ConfigResourceType.TOPIC,
)


def handle(
    services: "Services", context: "RequestContext", request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse:
    """Answers from the image. Raises KafkaError(UNSUPPORTED_VERSION) for an unknown type."""
    supported: tuple[int, ...] = _ORDER
    if context.api_version == 0:
        supported = (ConfigResourceType.CLIENT_METRICS,)
    wanted = request.resource_types or supported
    for resource_type in wanted:
        if resource_type not in supported:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"Unexpected resource type {resource_type}."
            )
    image, listener = services.metadata.image, context.connection.listener_name
    return ListConfigResourcesResponse(
        config_resources=[
            ConfigResource(name, resource_type)
            for resource_type in _ORDER
            if resource_type in wanted
            for name in _names(image, resource_type, listener)
        ]
    )


def _names(image: "MetadataImage", resource_type: int, listener: str) -> Iterable[str]:
    if resource_type == ConfigResourceType.TOPIC:
        return image.topics.by_name
    if resource_type in (ConfigResourceType.BROKER, ConfigResourceType.BROKER_LOGGER):
        return [str(broker.node_id) for broker in alive_brokers(image.brokers, listener)]
    return [name for kind, name in image.configs if kind == resource_type]


def error_response(
    request: ListConfigResourcesRequest, error: KafkaError, version: int
) -> ListConfigResourcesResponse:
    """Only the code."""
    return ListConfigResourcesResponse(error_code=error.error_code)
