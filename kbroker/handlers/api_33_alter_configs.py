"""AlterConfigs (33), versions 0-2: replace all settings of topics, brokers, groups, metrics.

v2  flexible.
What a resource does not mention goes back to its default; IncrementalAlterConfigs (44) is what
clients should use. Loggers are not known here, as in Kafka.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.altered_configs import AskedResource, AskedSetting, alter_configs
from kbroker.metadata.config_control import AlterOperation
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.alter_configs_request import AlterConfigsRequest
from kbroker.protocol.messages.alter_configs_response import (
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: AlterConfigsRequest
) -> AlterConfigsResponse | Coroutine[Any, Any, AlterConfigsResponse]:
    """A coroutine, unless there is nothing to alter."""
    if not request.resources:
        return AlterConfigsResponse()
    return _alter(services, request)


async def _alter(services: "Services", request: AlterConfigsRequest) -> AlterConfigsResponse:
    resources = [
        AskedResource(
            resource.resource_type,
            resource.resource_name,
            [AskedSetting(c.name, AlterOperation.SET, c.value) for c in resource.configs],
        )
        for resource in request.resources
    ]
    results = await alter_configs(
        services, resources, validate_only=request.validate_only, replace=True
    )
    return AlterConfigsResponse(
        responses=[
            AlterConfigsResourceResponse(
                error_code=error.error_code if error is not None else 0,
                error_message=error.message if error is not None else None,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
            for resource, error in zip(resources, results, strict=True)
        ]
    )


def error_response(
    request: AlterConfigsRequest, error: KafkaError, version: int
) -> AlterConfigsResponse:
    """The error for every resource."""
    return AlterConfigsResponse(
        responses=[
            AlterConfigsResourceResponse(
                error_code=error.error_code,
                error_message=error.message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
            for resource in request.resources
        ]
    )
