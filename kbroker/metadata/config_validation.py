"""Which settings a configuration resource may have, by its type: Kafka's checks, codes and texts.

Source: ControllerConfigurationValidator, GroupConfigManager, ClientMetricsConfigs of Kafka 4.3.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError, Setting
from kbroker.config.group_config import ClientMetricsConfig, GroupConfig
from kbroker.config.topic_config import validate_topic_config
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.topic_names import validate_topic_name
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_SHORTEST_PUSH_MS: Final = 100
_LONGEST_PUSH_MS: Final = 3_600_000
_MATCHERS: Final = frozenset(
    {
        "client_instance_id",
        "client_id",
        "client_software_name",
        "client_software_version",
        "client_source_address",
        "client_source_port",
    }
)
_BOUNDED_AS: Final = {"num.standby.replicas": "standby.replicas"}  # group.streams.max.standby...
_NAMELESS: Final = {
    ConfigResourceType.TOPIC: "Default topic resources are not allowed.",
    ConfigResourceType.CLIENT_METRICS: "Subscription name can't be empty",
    ConfigResourceType.GROUP: "Default group resources are not allowed.",
}


def validate_overrides(
    resource_type: int, name: str, overrides: Mapping[str, str], config: BrokerConfig
) -> None:
    """Raises KafkaError when the resource cannot have all of these settings."""
    if not name and resource_type in _NAMELESS:
        raise KafkaError(ErrorCode.INVALID_REQUEST, _NAMELESS[ConfigResourceType(resource_type)])
    if resource_type == ConfigResourceType.TOPIC:
        validate_topic_name(name)
        validate_topic_config(overrides, config.log_defaults())
    elif resource_type == ConfigResourceType.BROKER:
        _validate_broker_name(name)
    elif resource_type == ConfigResourceType.GROUP:
        _validate_group(overrides, config)
    elif resource_type == ConfigResourceType.CLIENT_METRICS:
        _validate_client_metrics(overrides)
    else:
        raise KafkaError(ErrorCode.INVALID_REQUEST, f"Unknown resource type {resource_type}")


def _validate_broker_name(name: str) -> None:
    """The settings themselves were checked by the broker that they are for."""
    if not name:
        return
    try:
        node_id = int(name)
    except ValueError:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST, "Unable to parse broker name as a base 10 number."
        ) from None
    if node_id < 0:
        raise KafkaError(ErrorCode.INVALID_REQUEST, "Invalid negative broker ID.")


def _parse(settings: Mapping[str, Setting], overrides: Mapping[str, str]) -> dict[str, Any]:
    try:
        return {name: settings[name].parse(text) for name, text in overrides.items()}
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None


def _validate_group(overrides: Mapping[str, str], config: BrokerConfig) -> None:
    settings = GroupConfig.settings()
    for name in overrides:
        if name not in settings:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown group config name: {name}")
    values = _parse(settings, overrides)
    for name, value in values.items():
        kind, _, what = name.partition(".")
        _check_bounds(name, value, f"group.{kind}", _BOUNDED_AS.get(what, what), config)
    for kind in ("consumer", "share", "streams"):
        session, heartbeat = f"{kind}.session.timeout.ms", f"{kind}.heartbeat.interval.ms"
        if session in values or heartbeat in values:
            longer = values.get(session, config.get(f"group.{session}"))
            if longer <= values.get(heartbeat, config.get(f"group.{heartbeat}")):
                raise KafkaError(
                    ErrorCode.INVALID_CONFIG, f"{session} must be greater than {heartbeat}"
                )


def _check_bounds(name: str, value: int, prefix: str, what: str, config: BrokerConfig) -> None:
    """Kafka's limits are named like the setting, with min or max put in."""
    low, high = f"{prefix}.min.{what}", f"{prefix}.max.{what}"
    known = BrokerConfig.settings()
    if low in known and value < config.get(low):
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"{name} must be greater than or equal to {low}")
    if high in known and value > config.get(high):
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"{name} must be less than or equal to {high}")


def _validate_client_metrics(overrides: Mapping[str, str]) -> None:
    settings = ClientMetricsConfig.settings()
    for name in overrides:
        if name not in settings:
            raise KafkaError(
                ErrorCode.INVALID_REQUEST, f"Unknown client metrics configuration: {name}"
            )
    values = _parse(settings, overrides)
    interval = values.get("interval.ms")
    if interval is not None and not _SHORTEST_PUSH_MS <= interval <= _LONGEST_PUSH_MS:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"Invalid value {interval} for interval.ms, interval must be between "
            f"{_SHORTEST_PUSH_MS} and {_LONGEST_PUSH_MS} (1 hour)",
        )
    for pattern in values.get("match", ()):
        name, *expressions = pattern.rstrip("=").split("=")  # as Java splits
        expression = expressions[0].strip() if len(expressions) == 1 else None
        if name.strip() not in _MATCHERS or expression is None or not _is_regex(expression):
            raise KafkaError(
                ErrorCode.INVALID_CONFIG, f"Illegal client matching pattern: {pattern}"
            )


def _is_regex(expression: str) -> bool:
    try:
        re.compile(expression)
    except re.error:
        return False
    return True
