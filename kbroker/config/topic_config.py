"""Settings of a topic: one row per setting, the typed view ``LogConfig``, validation.

Source: Kafka 4.3's LogConfig. ``synonyms`` are the broker settings that give the default, the first
that is set wins.
"""

from collections.abc import Mapping
from typing import Final

from kbroker.config.config_def import (
    BOOLEAN,
    DOUBLE,
    INT,
    LIST,
    LONG,
    LONG_MAX,
    STRING,
    ConfigError,
    SettingsTable,
    at_least,
    between,
    gzip_level,
    list_of,
    one_of,
    setting,
    throttled_replicas,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

MIN_INSYNC_REPLICAS: Final = "min.insync.replicas"


class LogConfig(SettingsTable):
    """Typed settings of one topic's logs; ``LogConfig()`` holds Kafka's defaults."""

    segment_bytes: int = setting(
        "segment.bytes", INT, 1073741824, at_least(1024 * 1024), synonyms=("log.segment.bytes",)
    )
    segment_ms: int = setting(
        "segment.ms",
        LONG,
        604800000,
        at_least(1),
        synonyms=(
            "log.roll.ms",
            "log.roll.hours",
        ),
    )
    segment_jitter_ms: int = setting(
        "segment.jitter.ms",
        LONG,
        0,
        at_least(0),
        synonyms=(
            "log.roll.jitter.ms",
            "log.roll.jitter.hours",
        ),
    )
    segment_index_bytes: int = setting(
        "segment.index.bytes", INT, 10485760, at_least(4), synonyms=("log.index.size.max.bytes",)
    )
    flush_messages: int = setting(
        "flush.messages", LONG, LONG_MAX, at_least(1), synonyms=("log.flush.interval.messages",)
    )
    flush_ms: int = setting(
        "flush.ms",
        LONG,
        LONG_MAX,
        at_least(0),
        synonyms=(
            "log.flush.interval.ms",
            "log.flush.scheduler.interval.ms",
        ),
    )
    retention_bytes: int = setting("retention.bytes", LONG, -1, synonyms=("log.retention.bytes",))
    retention_ms: int = setting(
        "retention.ms",
        LONG,
        604800000,
        at_least(-1),
        synonyms=(
            "log.retention.ms",
            "log.retention.minutes",
            "log.retention.hours",
        ),
    )
    max_message_bytes: int = setting(
        "max.message.bytes", INT, 1048588, at_least(0), synonyms=("message.max.bytes",)
    )
    index_interval_bytes: int = setting(
        "index.interval.bytes", INT, 4096, at_least(0), synonyms=("log.index.interval.bytes",)
    )
    delete_retention_ms: int = setting(
        "delete.retention.ms",
        LONG,
        86400000,
        at_least(0),
        synonyms=("log.cleaner.delete.retention.ms",),
    )
    min_compaction_lag_ms: int = setting(
        "min.compaction.lag.ms",
        LONG,
        0,
        at_least(0),
        synonyms=("log.cleaner.min.compaction.lag.ms",),
    )
    max_compaction_lag_ms: int = setting(
        "max.compaction.lag.ms",
        LONG,
        LONG_MAX,
        at_least(1),
        synonyms=("log.cleaner.max.compaction.lag.ms",),
    )
    file_delete_delay_ms: int = setting(
        "file.delete.delay.ms", LONG, 60000, at_least(0), synonyms=("log.segment.delete.delay.ms",)
    )
    min_cleanable_dirty_ratio: float = setting(
        "min.cleanable.dirty.ratio",
        DOUBLE,
        0.5,
        between(0, 1),
        synonyms=("log.cleaner.min.cleanable.ratio",),
    )
    cleanup_policy: tuple[str, ...] = setting(
        "cleanup.policy",
        LIST,
        ("delete",),
        list_of("compact", "delete"),
        synonyms=("log.cleanup.policy",),
    )
    unclean_leader_election_enable: bool = setting(
        "unclean.leader.election.enable",
        BOOLEAN,
        False,
        synonyms=("unclean.leader.election.enable",),
    )
    min_insync_replicas: int = setting(
        "min.insync.replicas", INT, 1, at_least(1), synonyms=("min.insync.replicas",)
    )
    compression_type: str = setting(
        "compression.type",
        STRING,
        "producer",
        one_of("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
        synonyms=("compression.type",),
    )
    compression_gzip_level: int = setting(
        "compression.gzip.level", INT, -1, gzip_level, synonyms=("compression.gzip.level",)
    )
    compression_lz4_level: int = setting(
        "compression.lz4.level", INT, 9, between(1, 17), synonyms=("compression.lz4.level",)
    )
    compression_zstd_level: int = setting(
        "compression.zstd.level", INT, 3, between(-131072, 22), synonyms=("compression.zstd.level",)
    )
    preallocate: bool = setting("preallocate", BOOLEAN, False, synonyms=("log.preallocate",))
    message_timestamp_type: str = setting(
        "message.timestamp.type",
        STRING,
        "CreateTime",
        one_of("CreateTime", "LogAppendTime"),
        synonyms=("log.message.timestamp.type",),
    )
    message_timestamp_before_max_ms: int = setting(
        "message.timestamp.before.max.ms",
        LONG,
        LONG_MAX,
        at_least(0),
        synonyms=("log.message.timestamp.before.max.ms",),
    )
    message_timestamp_after_max_ms: int = setting(
        "message.timestamp.after.max.ms",
        LONG,
        3600000,
        at_least(0),
        synonyms=("log.message.timestamp.after.max.ms",),
    )
    leader_replication_throttled_replicas: tuple[str, ...] = setting(
        "leader.replication.throttled.replicas",
        LIST,
        (),
        throttled_replicas("leader.replication.throttled.replicas"),
    )
    follower_replication_throttled_replicas: tuple[str, ...] = setting(
        "follower.replication.throttled.replicas",
        LIST,
        (),
        throttled_replicas("follower.replication.throttled.replicas"),
    )
    remote_storage_enable: bool = setting("remote.storage.enable", BOOLEAN, False)
    local_retention_ms: int = setting(
        "local.retention.ms", LONG, -2, at_least(-2), synonyms=("log.local.retention.ms",)
    )
    local_retention_bytes: int = setting(
        "local.retention.bytes", LONG, -2, at_least(-2), synonyms=("log.local.retention.bytes",)
    )
    remote_log_copy_disable: bool = setting("remote.log.copy.disable", BOOLEAN, False)
    remote_log_delete_on_disable: bool = setting("remote.log.delete.on.disable", BOOLEAN, False)
    internal_segment_bytes: int | None = setting("internal.segment.bytes", INT, None, internal=True)

    compact: bool
    """cleanup.policy holds compact."""
    delete: bool
    """cleanup.policy holds delete."""
    overrides: Mapping[str, str]
    """What the topic itself sets, by name, as text."""

    def __init__(self) -> None:
        self._fill({})
        self._derive({})

    def _derive(self, overrides: Mapping[str, str]) -> None:
        self.compact = "compact" in self.cleanup_policy
        self.delete = "delete" in self.cleanup_policy
        self.overrides = dict(overrides)
        if self.internal_segment_bytes is not None:
            self.segment_bytes = self.internal_segment_bytes

    @classmethod
    def from_values(cls, values: Mapping[str, object]) -> "LogConfig":
        """A view with these typed values by name, Kafka's defaults for the others."""
        config = cls.__new__(cls)
        config._fill(values)
        config._derive({})
        return config

    @classmethod
    def from_properties(
        cls, overrides: Mapping[str, str], defaults: "LogConfig | None" = None
    ) -> "LogConfig":
        """``defaults`` with the topic's own settings over them. ConfigError for a bad value.

        An unknown name is ignored: a topic's metadata may be newer than this broker.
        """
        base = defaults if defaults is not None else cls()
        config = cls.__new__(cls)
        config.__dict__.update(base.__dict__)
        for name, text in overrides.items():
            row = cls.settings().get(name)
            if row is not None:
                config.__dict__[name.replace(".", "_")] = row.parse(text)
        config._derive(overrides)
        return config


def validate_topic_config(
    properties: Mapping[str, str | None], defaults: LogConfig | None = None
) -> None:
    """Refuse what Kafka refuses: unknown names, bad values, settings that contradict each other.

    Raises KafkaError(INVALID_CONFIG) with Kafka's text.
    """
    table = LogConfig.settings()
    given: dict[str, str] = {}
    for name, text in properties.items():
        if name not in table:
            raise KafkaError(ErrorCode.INVALID_CONFIG, f"Unknown topic config name: {name}")
        if text is None:
            raise KafkaError(
                ErrorCode.INVALID_CONFIG, f"Null value not supported for topic configs: {name}"
            )
        given[name] = text
    try:
        config = LogConfig.from_properties(given, defaults)
    except ConfigError as error:
        raise KafkaError(ErrorCode.INVALID_CONFIG, str(error)) from None
    if config.min_compaction_lag_ms > config.max_compaction_lag_ms:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"conflict topic config setting min.compaction.lag.ms "
            f"({config.min_compaction_lag_ms}) > max.compaction.lag.ms "
            f"({config.max_compaction_lag_ms})",
        )
    if config.remote_storage_enable:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            "Tiered Storage functionality is disabled in the broker. "
            "Topic cannot be configured with remote log storage.",
        )
