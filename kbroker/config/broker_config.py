"""The broker's settings in force: static ones by precedence, dynamic ones over them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from kbroker.common.named_tuple import NamedTuple
from kbroker.config.broker_settings import BrokerSettings
from kbroker.config.config_def import (
    INT_MAX,
    LONG,
    LONG_MAX,
    ConfigError,
    ConfigSource,
    Setting,
    SettingsTable,
    at_least,
    attribute_name,
    setting,
)
from kbroker.config.listeners import ListenerSpec, parse_listeners
from kbroker.config.topic_config import LogConfig

DEFAULT_PORT = 9092

_NEEDED: Mapping[str, str] = {
    "node.id": "1",
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
}
"""What Kafka refuses to start without and a single process can know by itself."""

PROFILES: Mapping[str, Mapping[str, str]] = {
    "kafka": _NEEDED,
    "dev": {
        **_NEEDED,
        "listeners": f"PLAINTEXT://127.0.0.1:{DEFAULT_PORT}",
        "group.initial.rebalance.delay.ms": "0",
        "offsets.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.replication.factor": "1",
    },
}
"""Settings that differ from Kafka's defaults, by profile; the README lists them."""

UNIT_SYNONYMS: Mapping[str, int] = {
    "log.roll.hours": 3_600_000,
    "log.roll.jitter.hours": 3_600_000,
    "log.retention.minutes": 60_000,
    "log.retention.hours": 3_600_000,
}
"""Synonyms of topic settings in milliseconds that are counted in larger units."""


class Synonym(NamedTuple):
    """One place that gives, or would give, a setting its value (DescribeConfigs synonyms)."""

    name: str
    value: str | None
    source: ConfigSource


class ReplicationRates(SettingsTable):
    """What brokers only take dynamically, never from a file (Kafka's QuotaConfig)."""

    leader_replication_throttled_rate: int = setting(
        "leader.replication.throttled.rate", LONG, LONG_MAX, at_least(0), dynamic=True
    )
    follower_replication_throttled_rate: int = setting(
        "follower.replication.throttled.rate", LONG, LONG_MAX, at_least(0), dynamic=True
    )
    replica_alter_log_dirs_io_max_bytes_per_second: int = setting(
        "replica.alter.log.dirs.io.max.bytes.per.second", LONG, LONG_MAX, at_least(0), dynamic=True
    )


class BrokerConfig(BrokerSettings):
    """Typed settings of one broker. Immutable: a change makes a new one (see ``ConfigHolder``)."""

    static: Mapping[str, str]
    """What profile, file, environment, --set and options set, by name, as text."""
    dynamic: Mapping[str, str]
    """What IncrementalAlterConfigs set for this broker."""
    dynamic_default: Mapping[str, str]
    """What IncrementalAlterConfigs set for all brokers."""
    leader_replication_throttled_rate: int
    follower_replication_throttled_rate: int
    replica_alter_log_dirs_io_max_bytes_per_second: int
    unknown: tuple[str, ...]
    """Names among ``static`` that no table has."""

    def __init__(
        self,
        static: Mapping[str, str],
        dynamic: Mapping[str, str] | None = None,
        dynamic_default: Mapping[str, str] | None = None,
    ) -> None:
        """Raises ConfigError for a value that cannot be used."""
        self.static = dict(static)
        self.dynamic = dict(dynamic or {})
        self.dynamic_default = dict(dynamic_default or {})
        table = self.settings()
        self.unknown = tuple(name for name in static if name not in table)
        values: dict[str, Any] = {}
        for properties in (self.static, self.dynamic_default, self.dynamic):
            for name, text in properties.items():
                row = table.get(name)
                if row is not None:
                    values[name] = row.parse(text)
        self._fill(values)
        if "node.id" not in values:
            self.node_id = self.broker_id
        self.broker_id = self.node_id
        for name, row in ReplicationRates.settings().items():
            given = self.dynamic.get(name, self.dynamic_default.get(name))
            setattr(self, row.attribute, row.default if given is None else row.parse(given))

    @classmethod
    def from_properties(
        cls, properties: Mapping[str, str], *, profile: str = "dev"
    ) -> "BrokerConfig":
        """``properties`` over a profile's. ConfigError for a bad value or an unknown profile."""
        if profile not in PROFILES:
            raise ConfigError(f"unknown profile {profile!r}; there are {', '.join(PROFILES)}")
        base = dict(PROFILES[profile])
        if "broker.id" in properties and "node.id" not in properties:
            del base["node.id"]  # the old name for it
        return cls({**base, **properties})

    @classmethod
    def settings(cls) -> Mapping[str, Setting]:
        return BrokerSettings.settings()

    def with_dynamic(
        self, dynamic: Mapping[str, str], dynamic_default: Mapping[str, str]
    ) -> "BrokerConfig":
        """The same static settings under other dynamic ones."""
        return BrokerConfig(self.static, dynamic, dynamic_default)

    def data_directories(self) -> tuple[str, ...]:
        """log.dirs, else log.dir."""
        return self.log_dirs or self.log_dir

    def listener_specs(self) -> list[ListenerSpec]:
        """The listeners of this broker; ConfigError for unreadable ones."""
        return parse_listeners(
            listeners=self.listeners,
            advertised=self.advertised_listeners or (),
            protocol_map=self.listener_security_protocol_map,
            controller_names=self.controller_listener_names,
        )

    def connections_per_ip_overrides(self) -> dict[str, int]:
        """max.connections.per.ip.overrides (``host:limit,...``); ConfigError in Kafka's words."""
        name = "max.connections.per.ip.overrides"
        items = [item.strip() for item in self.max_connections_per_ip_overrides.split(",")]
        while items and not items[-1]:
            items.pop()
        texts: dict[str, str] = {}
        for item in items:
            host, colon, limit = item.rpartition(":")
            if not colon:
                raise ConfigError(
                    f"Error parsing configuration property '{name}': "
                    f"begin 0, end -1, length {len(item)}"
                )
            texts[host.strip()] = limit.strip()
        return {host: _to_int(text) for host, text in texts.items()}

    def log_defaults(self) -> LogConfig:
        """What a topic that sets nothing itself gets: the first synonym that has a value."""
        values: dict[str, object] = {}
        for name, row in LogConfig.settings().items():
            for synonym in row.synonyms:
                value = self.__dict__[attribute_name(synonym)]
                if value is not None:
                    values[name] = self._in_unit(synonym, value)
                    break
        return LogConfig.from_values(values)

    @staticmethod
    def _in_unit(synonym: str, value: Any) -> Any:
        unit = UNIT_SYNONYMS.get(synonym)
        if unit is None:
            return value
        return value * unit if value >= 0 else -1

    def synonyms(self, name: str) -> list[Synonym]:
        """Where the value of ``name`` comes from, the place in force first."""
        row = self.settings().get(name)
        found = [
            Synonym(name, properties[name], source)
            for properties, source in (
                (self.dynamic, ConfigSource.DYNAMIC_BROKER_CONFIG),
                (self.dynamic_default, ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG),
                (self.static, ConfigSource.STATIC_BROKER_CONFIG),
            )
            if name in properties
        ]
        if row is not None and row.default is not None:
            found.append(Synonym(name, row.to_text(row.default), ConfigSource.DEFAULT_CONFIG))
        return found

    def problems(self) -> list[str]:
        """What stands in the way of starting: settings whose protection does not exist here,
        and those of groups that contradict each other, which Kafka refuses as well."""
        found = []
        if self.authorizer_class_name:
            found.append("authorizer.class.name: there is no authorizer yet")
        found.extend(self.unprotected_listeners())
        if "broker" not in self.process_roles:
            found.append("process.roles: kbroker is always a broker; add broker to the roles")
        for kind in ("consumer", "share", "streams"):
            found.extend(self._contradictions(f"group.{kind}."))
        return found

    def unprotected_listeners(self) -> list[str]:
        """What is wrong with listeners that promise more than PLAINTEXT; ConfigError for
        unreadable ones."""
        return [
            f"listener {spec.name}: {spec.security_protocol} is not supported yet, only PLAINTEXT"
            for spec in self.listener_specs()
            if spec.security_protocol != "PLAINTEXT"
        ]

    def _contradictions(self, prefix: str) -> Iterator[str]:
        """Intervals of a kind of groups outside of their bounds, or longer than the session."""

        def value(name: str) -> int:
            found: int = self.__dict__[attribute_name(prefix + name)]
            return found

        for name in ("heartbeat.interval.ms", "session.timeout.ms", "assignment.interval.ms"):
            low, high = f"min.{name}", f"max.{name}"
            for less, more in ((low, high), (low, name), (name, high)):
                if value(less) > value(more):
                    yield f"{prefix}{less} must not be greater than {prefix}{more}"
        if value("heartbeat.interval.ms") >= value("session.timeout.ms"):
            yield f"{prefix}heartbeat.interval.ms must be less than {prefix}session.timeout.ms"

    def nearest(self, unknown: str) -> str | None:
        """The known name most like this one, for a helpful warning."""
        import difflib

        matches = difflib.get_close_matches(unknown, self.settings(), n=1, cutoff=0.75)
        return matches[0] if matches else None


class ConfigHolder:
    """The current ``BrokerConfig``; holders keep this and read ``current`` each time."""

    __slots__ = ("_listeners", "current")

    def __init__(self, current: BrokerConfig) -> None:
        self.current = current
        self._listeners: list[Callable[[BrokerConfig, BrokerConfig], None]] = []

    def subscribe(self, listener: Callable[[BrokerConfig, BrokerConfig], None]) -> None:
        """Call ``listener(old, new)`` at each change."""
        self._listeners.append(listener)

    def replace(self, new: BrokerConfig) -> None:
        """Put another configuration in force."""
        old, self.current = self.current, new
        for listener in self._listeners:
            listener(old, new)


def _to_int(text: str) -> int:
    """As Java's Integer.parseInt reads it."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if not digits.isdecimal() or not -INT_MAX - 1 <= int(text) <= INT_MAX:
        raise ConfigError(f'For input string: "{text}"')
    return int(text)


def merge(layers: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Layers of settings from weakest to strongest, as one."""
    merged: dict[str, str] = {}
    for layer in layers:
        merged.update(layer)
    return merged
