"""What a broker refuses of a change while it runs, in Apache Kafka 4.3.1's order and words.

Two rounds: the settings as they would be together (KafkaConfig), then the step from those in force
(the Reconfigurable of each part of a broker), whose complaints Kafka wraps once more.
"""

from collections.abc import Collection, Iterator
from typing import Final

from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError
from kbroker.config.log_setting_checks import check_log_settings

_GROUP_KINDS: Final = ("consumer", "share", "streams")
_ALL_DIRECTORIES: Final = "*"
_HOST_CHARACTERS: Final = frozenset(
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-%._:"
)
_MORE_THAN_NONE: Final = ("max.connections", "max.connection.creation.rate")
_THREAD_COUNTS: Final = (
    "num.network.threads",
    "num.io.threads",
    "num.replica.fetchers",
    "num.recovery.threads.per.data.dir",
    "background.threads",
)
_CLEANER_THREADS: Final = "log.cleaner.threads"
_REMOTE_THREAD_COUNTS: Final = (
    "remote.log.manager.copier.thread.pool.size",
    "remote.log.manager.expiration.thread.pool.size",
    "remote.log.manager.follower.thread.pool.size",
    "remote.log.reader.threads",
)
_BY_THE_TOPIC: Final = -2  # of local retention: as much as of retention
_UNLIMITED: Final = -1
_LISTENERS: Final = ("listeners", "listener.security.protocol.map")


def check_together(names: Collection[str], config: BrokerConfig) -> None:
    """Refuse what Kafka refuses of ``names`` as they are in ``config``. ConfigError."""
    for kind in _GROUP_KINDS:
        name, most = f"group.{kind}.assignment.interval.ms", f"group.{kind}.max.assignment.interval"
        if name in names and config.get(name) > config.get(f"{most}.ms"):
            raise ConfigError(f"{name} must be less than or equal to {most}.ms")
    check_log_settings(names, config)
    if "cordoned.log.dirs" in names:
        _check_cordoned(config)
    if any(name in names for name in _LISTENERS):
        _check_listeners(config)
    if "max.connections.per.ip" in names or "max.connections.per.ip.overrides" in names:
        _check_connections_per_ip(config)


def _check_cordoned(config: BrokerConfig) -> None:
    cordoned = config.cordoned_log_dirs or ()  # it may be null
    if _ALL_DIRECTORIES in cordoned:
        if any(path != _ALL_DIRECTORIES for path in cordoned):
            raise ConfigError(
                "requirement failed: When cordoned.log.dirs is set to *, it must not contain "
                "other values"
            )
        return
    own = config.data_directories()
    missing = [path for path in dict.fromkeys(cordoned) if path not in own]
    if missing:
        raise ConfigError(
            "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or "
            f"log.dir. Missing entries : {', '.join(missing)}"
        )


def _check_listeners(config: BrokerConfig) -> None:
    """They act at the next start, which must not fail for them, nor be less protected."""
    try:
        unprotected = config.unprotected_listeners()
    except ConfigError as error:
        raise ConfigError(
            f"Error creating broker listeners from '[{', '.join(config.listeners)}]': {error}"
        ) from None
    if unprotected:
        raise ConfigError("; ".join(unprotected))


def _check_connections_per_ip(config: BrokerConfig) -> None:
    overrides = config.connections_per_ip_overrides()
    if config.max_connections_per_ip == 0 and not overrides:
        raise ConfigError(
            "requirement failed: max.connections.per.ip can be set to zero only if "
            "max.connections.per.ip.overrides property is set."
        )
    invalid = [host for host in overrides if not _HOST_CHARACTERS.issuperset(host)]
    if invalid:
        raise ConfigError(
            f"max.connections.per.ip.overrides contains invalid addresses : {','.join(invalid)}"
        )


def check_change(names: Collection[str], old: BrokerConfig, new: BrokerConfig) -> None:
    """Refuse what a running Kafka refuses of the step from ``old`` to ``new``. ConfigError."""
    for complaint in _complaints(names, old, new):
        raise ConfigError(
            "Invalid value org.apache.kafka.common.config.ConfigException: "
            f"{complaint} for configuration Invalid dynamic configuration"
        )


def _complaints(names: Collection[str], old: BrokerConfig, new: BrokerConfig) -> Iterator[str]:
    for name in _MORE_THAN_NONE:
        if name in names and new.get(name) <= 0:
            yield f"Invalid {name} {new.get(name)}"
    yield from _about_threads(_THREAD_COUNTS, names, old, new)
    yield from _about_local_retention(names, new)
    if _CLEANER_THREADS in names:
        yield from _about_cleaner_threads(old.log_cleaner_threads, new.log_cleaner_threads)
    yield from _about_threads(_REMOTE_THREAD_COUNTS, names, old, new)


def _about_threads(
    counts: Collection[str], names: Collection[str], old: BrokerConfig, new: BrokerConfig
) -> Iterator[str]:
    """Kafka resizes its thread pools a step at a time; scripts rely on what it refuses."""
    for name in counts:
        if name not in names:
            continue
        now, wanted = old.get(name), new.get(name)
        text = f"Dynamic thread count update validation failed for {name}={wanted}"
        if wanted < now // 2:
            yield f"{text}, value should be at least half the current value {now}"
        elif wanted > now * 2:
            yield f"{text}, value should not be greater than double the current value {now}"


def _about_cleaner_threads(now: int, wanted: int) -> Iterator[str]:
    text = "Log cleaner threads"
    if wanted < 1:
        yield f"{text} should be at least 1"
    elif wanted < now // 2:
        yield f"{text} cannot be reduced to less than half the current value {now}"
    elif wanted > now * 2:
        yield f"{text} cannot be increased to more than double the current value {now}"


def _about_local_retention(names: Collection[str], new: BrokerConfig) -> Iterator[str]:
    """What stays here of a log that is tiered must not be more than what is kept of it."""
    defaults = new.log_defaults()
    for unit, kept in (("ms", defaults.retention_ms), ("bytes", defaults.retention_bytes)):
        name, local_name = f"log.retention.{unit}", f"log.local.retention.{unit}"
        if name not in names and local_name not in names:
            continue
        here = new.get(local_name)
        if here == _BY_THE_TOPIC or kept == _UNLIMITED:
            continue
        text = f"Invalid value {here} for configuration {local_name}: Value must not be"
        if here == _UNLIMITED:
            yield f"{text} -1 as {name} value is set as {kept}."
        elif here > kept:
            yield f"{text} more than {name} property value: {kept}"
