"""DescribeConfigs (32), versions 1-4: the settings of topics, brokers, groups, loggers, metrics.

v1  config source and synonyms (KIP-226).
v3  types and documentation (KIP-569); documentation is always null: Kafka's texts are not ours.
v4  flexible.
A topic's value is its own (source 1), else the broker's under the first synonym. A broker answers
for itself only; the empty broker name is the dynamic default of all brokers.
"""

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from kbroker.config.config_def import ConfigSource
from kbroker.config.describe import (
    UNKNOWN_TYPE,
    ConfigEntry,
    describe_broker,
    describe_client_metrics,
    describe_cluster_default,
    describe_group,
    describe_topic,
)
from kbroker.metadata.topic_names import validate_topic_name
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_configs_request import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from kbroker.protocol.messages.describe_configs_response import (
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32

_LEVELS: Final = (
    (logging.CRITICAL, "FATAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARN"),
    (logging.INFO, "INFO"),
    (logging.DEBUG, "DEBUG"),
)
"""Log levels, the highest first, by the names that Kafka's tools know; what is below is TRACE."""


def handle(
    services: "Services", context: "RequestContext", request: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    """One result for each resource, in the request's order; a bad one does not hurt the others."""
    return DescribeConfigsResponse(
        results=[
            _describe(services, resource, include_synonyms=request.include_synonyms)
            for resource in request.resources
        ]
    )


def _describe(
    services: "Services", resource: DescribeConfigsResource, *, include_synonyms: bool
) -> DescribeConfigsResult:
    result = DescribeConfigsResult(
        error_message="",
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
    )
    try:
        entries = _entries(services, resource.resource_type, resource.resource_name)
        wanted = set(resource.configuration_keys or ())
        result.configs = [
            _to_result(entry, include_synonyms=include_synonyms)
            for entry in entries
            if not wanted or entry.name in wanted
        ]
    except KafkaError as error:
        result.error_code = error.error_code
        result.error_message = error.message if error.message is not None else ""
    return result


def _entries(services: "Services", kind: int, name: str) -> Iterable[ConfigEntry]:
    config = services.config.current
    if kind == TOPIC:
        validate_topic_name(name)
        if services.metadata.image.topics.get(name) is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, "")
        return describe_topic(services.metadata.image.topic_overrides(name), config)
    if kind == BROKER:
        if not name:
            return describe_cluster_default(config)
        _check_broker_id(services, name, "expected {} or empty string, but received {}")
        return describe_broker(config)
    if kind == BROKER_LOGGER:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Broker id must not be empty")
        _check_broker_id(services, name, "expected {} but received {}")
        return _loggers()
    if kind == GROUP:
        if not name:
            raise KafkaError(ErrorCode.INVALID_REQUEST, "Group name must not be empty")
        return describe_group(services.metadata.image.group_overrides(name), config)
    if kind == CLIENT_METRICS:
        if not name:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, "Client metrics subscription name must not be empty"
            )
        return describe_client_metrics(services.metadata.image.client_metrics_overrides(name))
    raise KafkaError(ErrorCode.INVALID_REQUEST, ErrorCode.INVALID_REQUEST.message)


def _check_broker_id(services: "Services", name: str, expectation: str) -> None:
    digits = name[1:] if name[:1] in "+-" else name
    if not (digits.isascii() and digits.isdigit()):
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}"
        )
    if int(name) != services.node_id:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "Unexpected broker id, " + expectation.format(services.node_id, name),
        )


def _loggers() -> Iterator[ConfigEntry]:
    """The levels of this process's loggers: ``root`` and ours."""
    known = [("root", logging.getLogger())]
    known += [
        (name, logger)
        for name, logger in sorted(logging.root.manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and name.partition(".")[0] == "kbroker"
    ]
    for name, logger in known:
        level = logger.getEffectiveLevel()
        yield ConfigEntry(
            name,
            next((text for number, text in _LEVELS if level >= number), "TRACE"),
            False,
            ConfigSource.DYNAMIC_BROKER_LOGGER_CONFIG,
            False,
            [],
            UNKNOWN_TYPE,
        )


def _to_result(entry: ConfigEntry, *, include_synonyms: bool) -> DescribeConfigsResourceResult:
    synonyms = entry.synonyms if include_synonyms else ()
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.read_only,
        config_source=entry.source,
        is_sensitive=entry.is_sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=place.name, value=place.value, source=place.source)
            for place in synonyms
        ],
        config_type=entry.config_type,
        documentation=None,
    )


def error_response(
    request: DescribeConfigsRequest, error: KafkaError, version: int
) -> DescribeConfigsResponse:
    """The same error for every resource, as Kafka's DescribeConfigsRequest answers."""
    return DescribeConfigsResponse(
        results=[
            DescribeConfigsResult(
                error_code=error.error_code,
                error_message=error.message,
                resource_type=resource.resource_type,
                resource_name=resource.resource_name,
            )
            for resource in request.resources
        ]
    )
