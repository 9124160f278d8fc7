"""Changing the settings of topics, brokers, groups and client metrics: what will they be?

Follows ConfigurationControlManager of Kafka 4.3. The controller writes what is planned here.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.config.config_def import ConfigType, Setting
from kbroker.config.topic_config import MIN_INSYNC_REPLICAS, LogConfig
from kbroker.metadata.config_validation import validate_overrides
from kbroker.metadata.image import MetadataImage
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.store import Delete, Operation, Put
from kbroker.metadata.topic_control import TopicWrite
from kbroker.metadata.values import MAX_MIN_ISR, encode_config
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_SETTINGS: Final[Mapping[int, Mapping[str, Setting]]] = {
    ConfigResourceType.TOPIC: LogConfig.settings(),
    ConfigResourceType.BROKER: BrokerConfig.settings(),
}
"""Where lists can be appended to and subtracted from; Kafka has no others."""


class AlterOperation(IntEnum):
    """What to do with one setting; the numbers are those of IncrementalAlterConfigs."""

    SET = 0
    DELETE = 1
    APPEND = 2
    SUBTRACT = 3


class SettingChange(NamedTuple):
    """One setting of a resource; ``value`` is None only where it does not matter."""

    name: str
    operation: AlterOperation
    value: str | None


class ConfigChange(NamedTuple):
    """Changes of one resource. ``replace``: what is not mentioned is removed (AlterConfigs)."""

    resource_type: int
    resource_name: str
    changes: Sequence[SettingChange]
    replace: bool = False


class ConfigControl:
    """Plans changes of settings against an image."""

    def __init__(self, keys: Keys, config: ConfigHolder) -> None:
        self._keys = keys
        self._config = config

    def plan(
        self, image: MetadataImage, changes: Sequence[ConfigChange]
    ) -> tuple[list[TopicWrite], list[KafkaError | None]]:
        """What to write, and what went wrong with each resource. Resources differ."""
        writes: list[TopicWrite] = []
        results: list[KafkaError | None] = []
        for change in changes:
            error: KafkaError | None = None
            try:
                writes.append(self._plan_one(image, change))
            except KafkaError as problem:
                error = problem
            results.append(error)
        return writes, results

    def _plan_one(self, image: MetadataImage, change: ConfigChange) -> TopicWrite:
        kind, name = change.resource_type, change.resource_name
        current = image.overrides(kind, name)
        overrides = {} if change.replace else dict(current)
        for one in change.changes:
            value = _changed_value(kind, one, current.get(one.name))
            _check_min_isr(kind, name, one.name, value)
            if value is None:
                overrides.pop(one.name, None)
            else:
                overrides[one.name] = value
        if MIN_INSYNC_REPLICAS in current and MIN_INSYNC_REPLICAS not in overrides:
            _check_min_isr(kind, name, MIN_INSYNC_REPLICAS, None)
        validate_overrides(kind, name, overrides, self._config.current)
        _check_exists(image, kind, name)
        key = self._keys.config(kind, name)
        write = TopicWrite()
        if overrides:
            write.final.append(Put(key, encode_config(overrides)))
        elif current:
            write.final.append(Delete(key))
        if kind == ConfigResourceType.TOPIC:
            write.early += self._min_isr_puts(image, name, overrides)
        return write

    def _min_isr_puts(
        self, image: MetadataImage, name: str, overrides: Mapping[str, str]
    ) -> list[Operation]:
        """Partitions hold a copy of the setting, for their leaders' compare-and-swap."""
        topic = image.topics.get(name)
        assert topic is not None, "checked before"
        default = self._config.current.log_defaults().min_insync_replicas
        min_isr = min(int(overrides.get(MIN_INSYNC_REPLICAS, default)), MAX_MIN_ISR)
        return [
            Put(
                self._keys.partition(topic.topic_id, index),
                partition.with_min_isr(min_isr).encode(),
            )
            for index, partition in enumerate(topic.partitions)
            if partition.min_isr != min_isr
        ]


def _changed_value(kind: int, change: SettingChange, current: str | None) -> str | None:
    """The setting's new text, None to have none."""
    if change.operation == AlterOperation.DELETE:
        return None
    assert change.value is not None, "handlers refuse nulls"
    if change.operation == AlterOperation.SET:
        return change.value
    setting = _SETTINGS.get(kind, {}).get(change.name)
    if setting is None or setting.type is not ConfigType.LIST:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Can't {change.operation.name} to key {change.name} because its type is not LIST.",
        )
    text = current if current is not None else setting.to_text(setting.default)
    items = [item for item in (text or "").split(",") if item]
    for item in change.value.split(","):
        if change.operation == AlterOperation.APPEND:
            if item not in items:
                items.append(item)
        elif item in items:
            items.remove(item)
    return ",".join(items)


def _check_min_isr(kind: int, resource_name: str, name: str, value: str | None) -> None:
    """Eligible leader replicas rest on it (KIP-966): it is the same on every broker, and set."""
    if kind != ConfigResourceType.BROKER or name != MIN_INSYNC_REPLICAS:
        return
    if resource_name:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
        )
    if not resource_name and value is None:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
        )


def _check_exists(image: MetadataImage, kind: int, name: str) -> None:
    if kind == ConfigResourceType.TOPIC and image.topics.get(name) is None:
        raise KafkaError(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist."
        )
    if kind == ConfigResourceType.BROKER and name and int(name) not in image.brokers:
        raise KafkaError(ErrorCode.BROKER_ID_NOT_REGISTERED, f"No node with id {int(name)} found.")
