"""IncrementalAlterConfigs (44), versions 0-1: set, delete, append to and subtract from settings.

v1  flexible.
Topics, brokers (the asked one; the empty name is the default of all), groups, client metrics, and
levels of this process's loggers. An operation code that does not exist fails all resources that
reach the controller, as in Kafka. The answer comes when the change is durable and in force here.
"""

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from kbroker.handlers.altered_configs import AskedResource, AskedSetting, alter_configs
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.incremental_alter_configs_request import (
    IncrementalAlterConfigsRequest,
)
from kbroker.protocol.messages.incremental_alter_configs_response import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse | Coroutine[Any, Any, IncrementalAlterConfigsResponse]:
    """A coroutine, unless there is nothing to alter."""
    if not request.resources:
        return IncrementalAlterConfigsResponse()
    return _alter(services, request)


async def _alter(
    services: "Services", request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    resources = [
        AskedResource(
            resource.resource_type,
            resource.resource_name,
            [AskedSetting(c.name, c.config_operation, c.value) for c in resource.configs],
        )
        for resource in request.resources
    ]
    results = await alter_configs(
        services, resources, validate_only=request.validate_only, replace=False
    )
    return IncrementalAlterConfigsResponse(
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
    request: IncrementalAlterConfigsRequest, error: KafkaError, version: int
) -> IncrementalAlterConfigsResponse:
    """The error for every resource."""
    return IncrementalAlterConfigsResponse(
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
