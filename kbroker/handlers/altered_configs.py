"""What the asked broker itself checks of a change of settings, before the controller does.

Follows ConfigAdminManager and RuntimeLoggerManager of Kafka 4.3. A resource that fails here gets
its error, the others go on to the controller.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError, ConfigType
from kbroker.config.dynamic_setting_checks import check_change, check_together
from kbroker.config.listeners import without_listener
from kbroker.metadata.config_control import AlterOperation, ConfigChange, SettingChange
from kbroker.metadata.keys import ConfigResourceType
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from kbroker.handlers.services import Services

TRACE_LEVEL: Final = 5
"""Below Python's DEBUG, which is the finest that it has a name for."""

_LEVELS: Final = {
    "DEBUG": logging.DEBUG,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "INFO": logging.INFO,
    "TRACE": TRACE_LEVEL,
    "WARN": logging.WARNING,
}
_ROOT: Final = "root"
_OWN_LOGGERS: Final = "kbroker"
_ONLY_PER_LISTENER: Final = frozenset(
    {
        "ssl.keystore.type",
        "ssl.keystore.location",
        "ssl.keystore.password",
        "ssl.key.password",
        "ssl.keystore.key",
        "ssl.keystore.certificate.chain",
        "ssl.truststore.type",
        "ssl.truststore.location",
        "ssl.truststore.password",
        "ssl.truststore.certificates",
    }
)
_PER_BROKER_NAMES: Final = frozenset(
    {
        "cordoned.log.dirs",
        "listeners",
        "listener.security.protocol.map",
        "principal.builder.class",
    }
)
_PER_BROKER_PREFIXES: Final = ("listener.name.", "ssl.", "sasl.")
_OF_LISTENERS_EVERYWHERE: Final = frozenset(
    {"max.connections", "max.connection.creation.rate", "num.network.threads"}
)
"""May be set for a listener of all brokers."""


class AskedSetting(NamedTuple):
    """A setting as the request has it: any operation code, any value."""

    name: str
    operation: int
    value: str | None


class AskedResource(NamedTuple):
    """A resource as the request has it."""

    resource_type: int
    resource_name: str
    settings: Sequence[AskedSetting]


async def alter_configs(
    services: "Services",
    resources: Sequence[AskedResource],
    *,
    validate_only: bool,
    replace: bool,
) -> list[KafkaError | None]:
    """What went wrong with each resource, in order. ``replace``: AlterConfigs, not incremental."""
    results: list[KafkaError | None] = [None] * len(resources)
    remaining: list[int] = []
    counts: dict[tuple[int, str], int] = {}
    for resource in resources:
        counts[resource[:2]] = counts.get(resource[:2], 0) + 1
    for index, resource in enumerate(resources):
        try:
            if counts[resource[:2]] > 1:
                raise _invalid("Each resource must appear at most once.")
            _check(services, resource, replace=replace)
            if resource.resource_type == ConfigResourceType.BROKER_LOGGER:
                _alter_loggers(services, resource, validate_only=validate_only)
            else:
                remaining.append(index)
        except KafkaError as error:
            results[index] = error
    if not remaining:
        return results
    outcomes: Sequence[KafkaError | None]
    try:
        changes = [_to_change(resources[index], replace=replace) for index in remaining]
        outcomes = await services.controller.alter_configs(changes, validate_only=validate_only)
    except KafkaError as error:  # nothing was tried: the same for all that were left
        outcomes = [error] * len(remaining)
    for index, outcome in zip(remaining, outcomes, strict=True):
        results[index] = outcome
    return results


def _invalid(text: str) -> KafkaError:
    return KafkaError(ErrorCode.INVALID_REQUEST, text)


def _check(services: "Services", resource: AskedResource, *, replace: bool) -> None:
    names = [setting.name for setting in resource.settings]
    if len(set(names)) != len(names):
        raise _invalid("Error due to duplicate config keys")
    nulls = [
        setting.name
        for setting in resource.settings
        if setting.value is None and setting.operation != AlterOperation.DELETE
    ]
    if nulls:
        raise _invalid(f"Null value not supported for : {', '.join(nulls)}")
    kind, name = resource.resource_type, resource.resource_name
    if kind == ConfigResourceType.BROKER:
        if name:
            _check_node_id(services, name, "Unexpected broker id, expected {}, but received {}")
        _check_broker_settings(services, resource, replace=replace)
    elif kind == ConfigResourceType.BROKER_LOGGER and not replace:
        _check_node_id(services, name, "Unexpected node id. Expected {}, but received {}")
    elif kind not in (
        ConfigResourceType.TOPIC,
        ConfigResourceType.CLIENT_METRICS,
        ConfigResourceType.GROUP,
    ):
        raise _invalid(f"Unknown resource type {kind}")


def _check_node_id(services: "Services", name: str, expectation: str) -> None:
    digits = name[1:] if name[:1] in "+-" else name
    if not (digits.isascii() and digits.isdigit()):
        raise _invalid(f"Node id must be an integer, but it is: {name}")
    if int(name) != services.node_id:
        raise _invalid(expectation.format(services.node_id, name))


def _to_change(resource: AskedResource, *, replace: bool) -> ConfigChange:
    changes = []
    for setting in resource.settings:
        try:
            operation = AlterOperation(setting.operation)
        except ValueError:
            # Kafka's controller stumbles over it, and with it over every resource of the request.
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR) from None
        changes.append(SettingChange(setting.name, operation, setting.value))
    return ConfigChange(
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        changes=changes,
        replace=replace,
    )


# -- settings of brokers


def _check_broker_settings(services: "Services", resource: AskedResource, *, replace: bool) -> None:
    """Would this broker run with them?"""
    name = resource.resource_name
    image = services.metadata.image
    properties = {} if replace else dict(image.overrides(ConfigResourceType.BROKER, name))
    for setting in resource.settings:
        _apply(properties, setting)
    known = BrokerConfig.settings()
    fixed = [key for key in properties if key in known and not known[key].dynamic]
    if fixed:
        raise _invalid(f"Cannot update these configs dynamically: {_as_list(fixed)}")
    secret = [key for key in properties if key in _ONLY_PER_LISTENER]
    if secret:
        raise _invalid(
            "These security configs can be dynamically updated only per-listener using the "
            f"listener prefix: {_as_list(secret)}"
        )
    own = [
        key
        for key in properties
        if key in _PER_BROKER_NAMES
        or (
            key.startswith(_PER_BROKER_PREFIXES)
            and without_listener(key) not in _OF_LISTENERS_EVERYWHERE
        )
    ]
    current = services.config.current
    try:
        for key, text in properties.items():
            row = known.get(without_listener(key) or key)
            if row is not None:
                row.parse(text)
        if own and not name:
            raise _invalid(
                "Cannot update these configs at default cluster level, broker id must be "
                f"specified: {_as_list(own)}"
            )
        if name:
            new = current.with_dynamic(properties, image.cluster_overrides())
        else:
            new = current.with_dynamic(image.broker_overrides(services.node_id), properties)
        check_together(properties, new)
        check_change(properties, current, new)
    except ConfigError as error:
        raise _invalid(str(error)) from None


def _as_list(names: Sequence[str]) -> str:
    return f"[{', '.join(names)}]"


def _apply(properties: dict[str, str], setting: AskedSetting) -> None:
    """One operation on a broker's properties; lists are joined without looking for repeats."""
    name, operation, value = setting
    if operation == AlterOperation.DELETE:
        properties.pop(name, None)
        return
    assert value is not None, "nulls were refused"
    if operation == AlterOperation.SET:
        properties[name] = value
        return
    if operation not in (AlterOperation.APPEND, AlterOperation.SUBTRACT):
        raise _invalid(f"Unknown operations type {operation}")
    row = BrokerConfig.settings().get(name)
    if row is None:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown config name: {name}")
    if row.type is not ConfigType.LIST:
        verb = AlterOperation(operation).name.lower()
        raise KafkaError(
            ErrorCode.INVALID_CONFIG, f"Config value {verb} is not allowed for config key: {name}"
        )
    text = properties.get(name, row.to_text(row.default) or "")
    items = [item for item in text.split(",") if item]
    asked = value.split(",")
    if operation == AlterOperation.APPEND:
        items += [item for item in asked if item not in items]
    else:
        items = [item for item in items if item not in asked]
    properties[name] = ",".join(items)


# -- levels of loggers


def _alter_loggers(services: "Services", resource: AskedResource, *, validate_only: bool) -> None:
    """Set the levels of this process's loggers: ``root`` and ours, that an operator named."""
    for setting in resource.settings:
        _check_logger(setting)
    if validate_only:
        return
    for name, operation, value in resource.settings:
        level = _LEVELS[value] if operation == AlterOperation.SET and value else logging.NOTSET
        logging.getLogger(None if name == _ROOT else name).setLevel(level)
        services.log.info("level of logger %s: %s", name, value or "inherited")


def _check_logger(setting: AskedSetting) -> None:
    name, operation, value = setting
    if operation == AlterOperation.SET:
        _check_logger_exists(name)
        if value not in _LEVELS:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG,
                f"Cannot set the log level of {name} to {value} as it is not a supported log "
                f"level. Valid log levels are {', '.join(_LEVELS)}",
            )
    elif operation == AlterOperation.DELETE:
        _check_logger_exists(name)
        if name == _ROOT:
            raise _invalid("Removing the log level of the root logger is not allowed")
    elif operation in (AlterOperation.APPEND, AlterOperation.SUBTRACT):
        verb = AlterOperation(operation).name
        raise _invalid(f"{verb} operation is not allowed for the BROKER_LOGGER resource")
    else:  # Kafka stumbles over it
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)


def _check_logger_exists(name: str) -> None:
    ours = name.partition(".")[0] == _OWN_LOGGERS and name in logging.root.manager.loggerDict
    if name != _ROOT and not ours:
        raise KafkaError(ErrorCode.INVALID_CONFIG, f"Logger {name} does not exist!")
