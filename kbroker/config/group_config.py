"""Settings of a group (ConfigResource GROUP) and of client metrics: one row per setting."""

from contextlib import suppress

from kbroker.config.config_def import (
    BOOLEAN,
    INT,
    LIST,
    STRING,
    SettingsTable,
    any_list,
    at_least,
    one_of,
    setting,
)


def share_auto_offset_reset(value: object) -> str | None:
    """earliest, latest or by_duration:<ISO 8601 duration> (KIP-932)."""
    text = str(value)
    if text in ("earliest", "latest"):
        return None
    kind, _, duration = text.partition(":")
    if kind == "by_duration":
        from kbroker.common.durations import parse_duration  # not when it starts

        with suppress(ValueError):
            parse_duration(duration)
            return None
    return (
        f"Invalid value `{text}` for configuration share.auto.offset.reset. The value must be "
        "either 'earliest', 'latest' or of the format 'by_duration:<PnDTnHnMn.nS>'."
    )


class GroupConfig(SettingsTable):
    """Typed settings of one group; ``GroupConfig()`` holds Kafka's defaults."""

    consumer_session_timeout_ms: int = setting(
        "consumer.session.timeout.ms",
        INT,
        45000,
        at_least(1),
        synonyms=("group.consumer.session.timeout.ms",),
    )
    consumer_heartbeat_interval_ms: int = setting(
        "consumer.heartbeat.interval.ms",
        INT,
        5000,
        at_least(1),
        synonyms=("group.consumer.heartbeat.interval.ms",),
    )
    consumer_assignment_interval_ms: int = setting(
        "consumer.assignment.interval.ms",
        INT,
        1000,
        at_least(0),
        synonyms=("group.consumer.assignment.interval.ms",),
    )
    share_session_timeout_ms: int = setting(
        "share.session.timeout.ms",
        INT,
        45000,
        at_least(1),
        synonyms=("group.share.session.timeout.ms",),
    )
    share_heartbeat_interval_ms: int = setting(
        "share.heartbeat.interval.ms",
        INT,
        5000,
        at_least(1),
        synonyms=("group.share.heartbeat.interval.ms",),
    )
    share_record_lock_duration_ms: int = setting(
        "share.record.lock.duration.ms",
        INT,
        30000,
        at_least(1000),
        synonyms=("group.share.record.lock.duration.ms",),
    )
    share_delivery_count_limit: int = setting(
        "share.delivery.count.limit",
        INT,
        5,
        at_least(2),
        synonyms=("group.share.delivery.count.limit",),
    )
    share_partition_max_record_locks: int = setting(
        "share.partition.max.record.locks",
        INT,
        2000,
        at_least(100),
        synonyms=("group.share.partition.max.record.locks",),
    )
    share_auto_offset_reset: str = setting(
        "share.auto.offset.reset", STRING, "latest", share_auto_offset_reset
    )
    share_isolation_level: str = setting(
        "share.isolation.level",
        STRING,
        "read_uncommitted",
        one_of("read_committed", "read_uncommitted"),
    )
    share_renew_acknowledge_enable: bool = setting("share.renew.acknowledge.enable", BOOLEAN, True)
    share_assignment_interval_ms: int = setting(
        "share.assignment.interval.ms",
        INT,
        1000,
        at_least(0),
        synonyms=("group.share.assignment.interval.ms",),
    )
    streams_session_timeout_ms: int = setting(
        "streams.session.timeout.ms",
        INT,
        45000,
        at_least(1),
        synonyms=("group.streams.session.timeout.ms",),
    )
    streams_heartbeat_interval_ms: int = setting(
        "streams.heartbeat.interval.ms",
        INT,
        5000,
        at_least(1),
        synonyms=("group.streams.heartbeat.interval.ms",),
    )
    streams_num_standby_replicas: int = setting(
        "streams.num.standby.replicas",
        INT,
        0,
        at_least(0),
        synonyms=("group.streams.num.standby.replicas",),
    )
    streams_initial_rebalance_delay_ms: int = setting(
        "streams.initial.rebalance.delay.ms",
        INT,
        3000,
        at_least(0),
        synonyms=("group.streams.initial.rebalance.delay.ms",),
    )
    streams_assignment_interval_ms: int = setting(
        "streams.assignment.interval.ms",
        INT,
        1000,
        at_least(0),
        synonyms=("group.streams.assignment.interval.ms",),
    )

    def __init__(self) -> None:
        self._fill({})


class ClientMetricsConfig(SettingsTable):
    """Typed settings of one client-metrics subscription (KIP-714)."""

    metrics: tuple[str, ...] = setting("metrics", LIST, (), any_list())
    interval_ms: int = setting("interval.ms", INT, 300000)
    match: tuple[str, ...] = setting("match", LIST, (), any_list())

    def __init__(self) -> None:
        self._fill({})
