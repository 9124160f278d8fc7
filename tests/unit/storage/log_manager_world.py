"""A broker's logs that come and go on a file system, for the tests of the log manager."""

import logging

import anyio

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import Faults
from kbroker.common.files import FileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.storage.log_manager import LogManager
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    TOPIC_ID,
    config,
)

OTHER_ID = bytes(16 * [7])


class World:
    """A file system and the brokers that come and go on it."""

    def __init__(self, files: FileSystem | None = None, *paths: str) -> None:
        self.files = files if files is not None else MemoryFileSystem()
        self.paths = paths or ("/data",)
        self.clock = ManualClock(time_ms=2_000_000)
        self.timer = Timer(self.clock)
        self.producer_expiry_interval_s = 600.0

    def manager(
        self, log_config: LogConfig | None = None, faults: Faults | None = None
    ) -> LogManager:
        return LogManager(
            self.files,
            self.paths,
            log_config or LogConfig(),
            self.clock,
            self.timer,
            InlineOffload(),
            SeededEntropy(5),
            logging.getLogger("test"),
            faults=faults or Faults(),
            producer_expiry_interval_s=self.producer_expiry_interval_s,
        )

    def loaded(self, log_config: LogConfig | None = None) -> LogManager:
        manager = self.manager(log_config)
        anyio.run(manager.load)
        return manager

    def names(self, path: str = "/data") -> list[str]:
        return sorted(entry.name for entry in self.files.list(path))


def log_of(manager: LogManager, partition: int = 0, **settings: object) -> UnifiedLog:
    return manager.get_or_create_log("topic", partition, TOPIC_ID, config(**settings))


def shut_down(manager: LogManager, *, clean: bool = True) -> None:
    anyio.run(lambda: manager.shutdown(clean=clean))
