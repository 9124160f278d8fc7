"""What settings of logs must be together in a broker: KafkaConfig.validateValues of Kafka 4.3."""

from collections.abc import Collection
from typing import Final

from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError

_BYTES_PER_CLEANER: Final = 1024 * 1024
_CLEANER_SETTINGS: Final = frozenset({"log.cleaner.dedupe.buffer.size", "log.cleaner.threads"})
_LEAST: Final = {"log.roll.ms": 1, "log.roll.jitter.ms": 0}


def check_log_settings(names: Collection[str], config: BrokerConfig) -> None:
    """Refuse what Kafka refuses of ``names`` as they are in ``config``. ConfigError, its wording.

    Zero milliseconds of retention would delete everything at once, and of rolling begin a segment
    with every batch; whoever means "unlimited" writes -1 for the first.
    """
    for name, least in _LEAST.items():
        if name in names and config.get(name) is not None and config.get(name) < least:
            raise _unmet(f"{name} must be greater than or equal to {least}")
    if "log.retention.ms" in names and config.get("log.retention.ms") == 0:
        raise _unmet("log.retention.ms must be unlimited (-1) or, greater than or equal to 1")
    threads = max(config.log_cleaner_threads, 1)  # no thread at all is refused elsewhere
    if (
        not _CLEANER_SETTINGS.isdisjoint(names)
        and config.log_cleaner_dedupe_buffer_size // threads <= _BYTES_PER_CLEANER
    ):
        raise _unmet("log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner thread.")


def _unmet(requirement: str) -> ConfigError:
    return ConfigError(f"requirement failed: {requirement}")
