"""Settings as DescribeConfigs shows them: value, source, synonyms, for each kind of resource."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from kbroker.config.broker_config import UNIT_SYNONYMS, BrokerConfig, ReplicationRates, Synonym
from kbroker.config.config_def import ConfigSource, ConfigType, Setting
from kbroker.config.group_config import ClientMetricsConfig, GroupConfig
from kbroker.config.listeners import without_listener
from kbroker.config.topic_config import LogConfig

UNKNOWN_TYPE = 0
"""ConfigType of a setting that no table has."""

_SAME_IN_OTHER_UNITS: Mapping[str, Sequence[str]] = {
    name: names
    for names in (
        ("log.roll.ms", "log.roll.hours"),
        ("log.roll.jitter.ms", "log.roll.jitter.hours"),
        ("log.retention.ms", "log.retention.minutes", "log.retention.hours"),
    )
    for name in names
} | {"log.flush.interval.ms": ("log.flush.interval.ms", "log.flush.scheduler.interval.ms")}
"""Settings of a broker that stand for each other, the strongest first."""


class ConfigEntry(NamedTuple):
    """One setting of a resource; the fields of DescribeConfigsResourceResult."""

    name: str
    value: str | None
    read_only: bool
    source: ConfigSource
    is_sensitive: bool
    synonyms: list[Synonym]
    config_type: int


def describe_topic(overrides: Mapping[str, str], broker: BrokerConfig) -> Iterator[ConfigEntry]:
    """All settings of a topic: its own, else the broker's under the first synonym."""
    defaults = broker.log_defaults()
    for name, row in LogConfig.settings().items():
        if row.internal and name not in overrides:
            continue
        inherited = _broker_synonyms(row, broker)
        value: str | None
        if name in overrides:
            value = row.to_text(row.parse(overrides[name]))
            own = [Synonym(name, value, ConfigSource.TOPIC_CONFIG)]
            yield _entry(row, value, own + inherited, read_only=False)
        else:
            yield _entry(row, row.to_text(defaults.get(name)), inherited, read_only=False)
    for name in overrides:
        if name not in LogConfig.settings():
            yield _unknown(name, ConfigSource.TOPIC_CONFIG, read_only=False)


def describe_new_topic(overrides: Mapping[str, str], broker: BrokerConfig) -> Iterator[ConfigEntry]:
    """A topic's settings as CreateTopics tells them, sorted by name.

    The controller resolves them, more simply than DescribeConfigs: texts are as they were written,
    and the first synonym that is set counts, whatever its unit.
    """
    layers = (
        (broker.dynamic, ConfigSource.DYNAMIC_BROKER_CONFIG),
        (broker.dynamic_default, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG),
        (broker.static, ConfigSource.STATIC_BROKER_CONFIG),
    )
    for name, row in sorted(LogConfig.settings().items()):
        if row.internal and name not in overrides:
            continue
        value, source = row.to_text(row.default), ConfigSource.DEFAULT_CONFIG
        if name in overrides:
            value, source = overrides[name], ConfigSource.TOPIC_CONFIG
        else:
            found = [
                (synonym, properties[synonym], layer)
                for properties, layer in layers
                for synonym in row.synonyms
                if synonym in properties
            ]
            if found:
                synonym, value, source = found[0]
                if synonym in UNIT_SYNONYMS:
                    value = str(int(value) * UNIT_SYNONYMS[synonym])
        yield ConfigEntry(name, value, False, source, False, [], row.type)


def describe_broker(broker: BrokerConfig) -> Iterator[ConfigEntry]:
    """All settings of a broker, those that no table has included (as sensitive)."""
    set_names = {**broker.static, **broker.dynamic_default, **broker.dynamic}
    for name, row in BrokerConfig.settings().items():
        if row.internal and name not in set_names:
            continue
        synonyms = _places(_SAME_IN_OTHER_UNITS.get(name, (name,)), name, broker)
        if name == "broker.id" and name not in set_names:  # Kafka copies node.id into it
            synonyms.insert(
                0, Synonym(name, str(broker.node_id), ConfigSource.STATIC_BROKER_CONFIG)
            )
        value = row.to_text(broker.get(name))
        yield _entry(row, value, synonyms, read_only=not row.dynamic)
    for name, text in set_names.items():
        if name not in BrokerConfig.settings():
            yield _without_row(name, text, _places_of_untabled(name, broker))


def describe_cluster_default(broker: BrokerConfig) -> Iterator[ConfigEntry]:
    """What IncrementalAlterConfigs set for all brokers (resource BROKER, empty name)."""
    for name, text in broker.dynamic_default.items():
        row = BrokerConfig.settings().get(name)
        places = [Synonym(name, text, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG)]
        if row is None:
            yield _without_row(name, text, places)
        else:
            yield _entry(row, text, places, read_only=not row.dynamic)


def describe_group(overrides: Mapping[str, str], broker: BrokerConfig) -> Iterator[ConfigEntry]:
    """All settings of a group: its own, else the broker's, else the default."""
    for name, row in GroupConfig.settings().items():
        default = row.to_text(row.default)
        if row.synonyms:
            inherited = _broker_synonyms(row, broker)
            default = inherited[0].value if inherited else default
        else:
            inherited = [Synonym(name, default, ConfigSource.DEFAULT_CONFIG)]
        if name in overrides:
            value = row.to_text(row.parse(overrides[name]))
            own = [Synonym(name, value, ConfigSource.GROUP_CONFIG)]
            yield _entry(row, value, own + inherited, read_only=False)
        else:
            yield _entry(row, default, inherited, read_only=False)


def describe_client_metrics(overrides: Mapping[str, str]) -> Iterator[ConfigEntry]:
    """All settings of a client-metrics subscription (KIP-714)."""
    for name, row in ClientMetricsConfig.settings().items():
        own = name in overrides
        value = row.to_text(row.parse(overrides[name]) if own else row.default)
        source = ConfigSource.CLIENT_METRICS_CONFIG if own else ConfigSource.DEFAULT_CONFIG
        synonyms = [Synonym(name, value, source)] if own else []
        yield ConfigEntry(name, value, False, source, False, synonyms, row.type)


def _broker_synonyms(row: Setting, broker: BrokerConfig) -> list[Synonym]:
    """Where the broker would give the value: every synonym's places, in order of strength.

    Kafka leaves out those before the first synonym's own: log.retention.hours, which has a default,
    is shown for retention.ms only after log.retention.ms, which has none, when that is set.
    """
    return _places(row.synonyms, row.synonyms[0], broker) if row.synonyms else []


def _places(synonyms: Sequence[str], name: str, broker: BrokerConfig) -> list[Synonym]:
    """Every place that gives one of the synonyms a value, from the first place of ``name`` on."""
    found = [place for synonym in synonyms for place in broker.synonyms(synonym)]
    found.sort(key=lambda place: place.source)
    own = [index for index, place in enumerate(found) if place.name == name]
    return found[own[0] :] if own else []


def _entry(
    row: Setting, value: str | None, synonyms: list[Synonym], *, read_only: bool
) -> ConfigEntry:
    is_sensitive = row.type is ConfigType.PASSWORD
    if is_sensitive:
        value = None
        synonyms = [place._replace(value=None) for place in synonyms]
    source = synonyms[0].source if synonyms else ConfigSource.DEFAULT_CONFIG
    return ConfigEntry(row.name, value, read_only, source, is_sensitive, synonyms, row.type)


def _places_of_untabled(name: str, broker: BrokerConfig) -> list[Synonym]:
    """A setting of one listener stands over that of all."""
    base = without_listener(name)
    return _places((name,) if base is None else (name, base), name, broker)


def _without_row(name: str, text: str, places: list[Synonym]) -> ConfigEntry:
    """A broker's setting that its table does not have: a rate, one of a listener, or unknown."""
    rate = ReplicationRates.settings().get(name)
    base = BrokerConfig.settings().get(without_listener(name) or "")
    row = rate or base
    if row is not None:
        return _entry(row, text, places, read_only=rate is None)._replace(name=name)
    hidden = [place._replace(value=None) for place in places]
    return _unknown(name, places[0].source, read_only=True)._replace(synonyms=hidden)


def _unknown(name: str, source: ConfigSource, *, read_only: bool) -> ConfigEntry:
    """A setting without a known type may be a secret: its value is not shown."""
    synonyms = [Synonym(name, None, source)]
    return ConfigEntry(name, None, read_only, source, True, synonyms, UNKNOWN_TYPE)
