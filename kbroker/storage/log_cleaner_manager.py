"""Which compacted logs are cleaned when, how far each is clean, and its checkpoint."""

import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from kbroker.common.offload import Offload
from kbroker.protocol.errors import KafkaError
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_directory import LogDirectory
from kbroker.storage.log_environment import LogEnvironment

if TYPE_CHECKING:
    from kbroker.storage.log_cleaner import LogCleaner
    from kbroker.storage.unified_log import UnifiedLog

Key = tuple[str, int]


class LogCleanerManager:
    """``cleaned`` holds the first dirty offset of each log that was cleaned."""

    def __init__(
        self,
        env: LogEnvironment,
        offload: Offload,
        log: logging.Logger,
        *,
        backoff_s: float,
        dedupe_buffer_size: int,
        throttle: IoThrottle,
        logs: "Callable[[], Iterable[UnifiedLog]]",
        directory_of: Callable[[str, int], LogDirectory | None],
        wake: Callable[[], object],
    ) -> None:
        """``logs`` gives every log there is, ``directory_of`` where one is (None: no more).
        ``wake`` ends the pause between two looks, which is ``backoff_s``."""
        self._env = env
        self._offload = offload
        self._log = log
        self.backoff_s = _at_least_a_moment(backoff_s)
        self._dedupe_buffer_size = dedupe_buffer_size
        self._throttle = throttle
        self._logs = logs
        self._directory_of = directory_of
        self._wake = wake
        self._cleaner: LogCleaner | None = None
        self.cleaned: dict[Key, int] = {}
        self._is_stale = False  # some directory's checkpoint says what is not so any more
        self._directories: set[LogDirectory] = set()  # which have one

    def load(self, directory: LogDirectory, offsets: Mapping[Key, int]) -> None:
        """What the directory's checkpoint says, of the logs that are there: others are deleted, or
        elsewhere, and one of their name may come."""
        if offsets:
            self._directories.add(directory)
        for key, offset in offsets.items():
            if self._directory_of(*key) is directory:
                self.cleaned[key] = offset
            else:
                self._is_stale = True

    def forget(self, key: Key) -> None:
        """The log is no more, or begins anew."""
        if self.cleaned.pop(key, None) is not None:
            self._is_stale = True

    def on_moved(self, key: Key) -> None:
        """The log is in another directory: what was reached goes with it."""
        if key in self.cleaned:
            self._is_stale = True

    def set_dynamic(
        self, *, backoff_s: float, dedupe_buffer_size: int, io_max_bytes_per_s: float = 0
    ) -> None:
        """Put other settings in force and, as Kafka does when they have changed, look at once; a
        limit of bytes acts in the middle of a round."""
        self._throttle.bytes_per_s = io_max_bytes_per_s
        backoff_s = _at_least_a_moment(backoff_s)
        if (backoff_s, dedupe_buffer_size) == (self.backoff_s, self._dedupe_buffer_size):
            return
        self.backoff_s, self._dedupe_buffer_size = backoff_s, dedupe_buffer_size
        self._cleaner = None
        self._wake()

    async def run_once(self) -> None:
        """Clean what is dirty enough now."""
        await self.checkpoint()
        if any(map(_may_be_dirty, self._logs())):
            self._cleaner = self._cleaner or self.make_cleaner()
            await self.clean_logs(self._cleaner)

    def make_cleaner(self) -> "LogCleaner":
        """A cleaner for these logs; what it needs is imported with the first one."""
        from kbroker.storage.log_cleaner import LogCleaner

        return LogCleaner(
            self._env, dedupe_buffer_size=self._dedupe_buffer_size, throttle=self._throttle
        )

    async def clean_logs(self, cleaner: "LogCleaner") -> int:
        """Compact until no log is dirty enough; returns the rounds. What fails waits for later."""
        rounds = 0
        while found := cleaner.choose(filter(_may_be_dirty, self._logs()), self._last_cleaned):
            key = (found.log.topic, found.log.partition)
            try:
                reached = await cleaner.clean(found)
                if reached is None:
                    break  # the log changed under the cleaner
                directory = self._directory_of(*key)
                if directory is None or reached <= found.first_dirty_offset:
                    break
                self.cleaned[key] = reached
                await self._checkpoint(directory)
            except OSError as error:
                found.log.storage_error("compacting", error)
                break
            except KafkaError as error:
                self._log.error("%s: compaction failed: %s", found.log.name, error)
                break
            rounds += 1
        await self.checkpoint()
        return rounds

    def _last_cleaned(self, log: "UnifiedLog") -> int | None:
        """An offset that the log does not reach (it was truncated), or that is below its start, is
        corrected for good: later it would pass for true."""
        key = (log.topic, log.partition)
        offset = self.cleaned.get(key)
        if offset is not None and not log.log_start_offset <= offset <= log.log_end_offset:
            offset = self.cleaned[key] = log.log_start_offset
            self._is_stale = True
        return offset

    async def checkpoint(self) -> None:
        """Write the checkpoints anew where one is not true any more. What fails waits for later."""
        if not self._is_stale:
            return
        self._is_stale = False
        self._directories.update(
            directory for key in self.cleaned if (directory := self._directory_of(*key)) is not None
        )
        for directory in list(self._directories):
            if directory.failure is None:
                try:
                    await self._checkpoint(directory)
                except OSError as error:
                    self._is_stale = True
                    self._log.error("%s: %s", directory.path, error)

    async def _checkpoint(self, directory: LogDirectory) -> None:
        self._directories.add(directory)
        offsets = {
            key: offset
            for key, offset in self.cleaned.items()
            if self._directory_of(*key) is directory
        }
        await self._offload.run(partial(directory.write_cleaner_offsets, offsets))


def _at_least_a_moment(backoff_s: float) -> float:
    return max(backoff_s, 0.001)  # Kafka allows 0


def _may_be_dirty(log: "UnifiedLog") -> bool:
    """Whether compaction has to look at it: never at a log that is only its active segment."""
    if not log.config.compact:
        return False
    from kbroker.storage.dormant_log import DormantLog

    return not (isinstance(log, DormantLog) and log.segment_count == 1)
