"""Which compacted logs are cleaned when, how far each is clean, and its checkpoint."""

import logging
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import anyio.abc

from kbroker.common.offload import Offload
from kbroker.protocol.errors import KafkaError
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_directory import LogDirectory
from kbroker.storage.log_environment import LogEnvironment

if TYPE_CHECKING:
    from kbroker.storage.log_cleaner import LogCleaner
    from kbroker.storage.unified_log import UnifiedLog

Key = tuple[str, int]


class LogCleanerManager:
    """``cleaned`` holds the first dirty offset of each log that was cleaned.

    There are ``threads`` cleaners (log.cleaner.threads; tasks here), each on another log, with an
    equal share of the dedupe buffer. One that is too many after a change ends with its round, and
    a round that is under way keeps the share it began with.
    """

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
        jobs: BackgroundJobs,
        threads: int = 1,
    ) -> None:
        """``logs`` gives every log there is, ``directory_of`` where one is (None: no more).
        Cleaners rest with ``jobs`` between two looks, for ``backoff_s``."""
        self._env = env
        self._offload = offload
        self._log = log
        self.backoff_s = _at_least_a_moment(backoff_s)
        self._dedupe_buffer_size = dedupe_buffer_size
        self._throttle = throttle
        self._logs = logs
        self._directory_of = directory_of
        self._jobs = jobs
        self.threads = threads
        self._tasks: anyio.abc.TaskGroup | None = None
        self._running: set[int] = set()  # numbers of the cleaners
        self._in_progress: set[UnifiedLog] = set()
        self._uncleanable: weakref.WeakSet[UnifiedLog] = weakref.WeakSet()
        self._writing: dict[LogDirectory, bool] = {}  # whether it must be written again
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

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Let the cleaners work until the task group is cancelled."""
        self._tasks = tasks
        self._start_missing()

    def _start_missing(self) -> None:
        for number in range(self.threads):
            if self._tasks is not None and number not in self._running:
                self._running.add(number)
                self._tasks.start_soon(self._run, number, name=_name(number))

    async def _run(self, number: int) -> None:
        while True:
            await self._jobs.sleep(_name(number), self.backoff_s)
            if number >= self.threads:
                self._running.discard(number)
                return
            await self.run_once()

    def set_dynamic(
        self,
        *,
        backoff_s: float,
        dedupe_buffer_size: int,
        io_max_bytes_per_s: float = 0,
        threads: int = 1,
    ) -> None:
        """Put other settings in force and, as Kafka does when they have changed, look at once; a
        limit of bytes acts in the middle of a round."""
        self._throttle.bytes_per_s = io_max_bytes_per_s
        backoff_s = _at_least_a_moment(backoff_s)
        new = (backoff_s, dedupe_buffer_size, threads)
        if new == (self.backoff_s, self._dedupe_buffer_size, self.threads):
            return
        self.backoff_s, self._dedupe_buffer_size, self.threads = new
        for number in list(self._running):
            self._jobs.wake(_name(number))
        self._start_missing()

    async def run_once(self) -> None:
        """Clean what is dirty enough now, one log after the other."""
        await self.checkpoint()
        if any(self._candidates()):
            await self.clean_logs(self.make_cleaner())

    def make_cleaner(self) -> "LogCleaner":
        """A cleaner for these logs; what it needs is imported with the first one."""
        from kbroker.storage.log_cleaner import LogCleaner

        return LogCleaner(
            self._env,
            dedupe_buffer_size=self._dedupe_buffer_size // max(self.threads, 1),
            throttle=self._throttle,
            uncleanable=self._uncleanable,
        )

    def _candidates(self) -> "Iterator[UnifiedLog]":
        """Logs that may be dirty and that no other cleaner is busy with."""
        for log in self._logs():
            if _may_be_dirty(log) and log not in self._in_progress:
                yield log

    async def clean_logs(self, cleaner: "LogCleaner") -> int:
        """Compact until no log is dirty enough; returns the rounds. What fails waits for later."""
        rounds = 0
        while found := cleaner.choose(self._candidates(), self._last_cleaned):
            key = (found.log.topic, found.log.partition)
            self._in_progress.add(found.log)
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
                if any(log is found.log for log in self._logs()):  # else it was deleted meanwhile
                    found.log.storage_error("compacting", error)
                break
            except KafkaError as error:
                self._log.error("%s-%d: compaction failed: %s", *key, error)
                break
            except Exception:  # one log that cannot be cleaned must not stop the broker
                self._log.exception("%s-%d: compaction failed", *key)
                break
            finally:
                self._in_progress.discard(found.log)
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
        """One writes at a time; who comes meanwhile leaves it to that one to write again."""
        self._directories.add(directory)
        is_written = directory in self._writing
        self._writing[directory] = True
        if is_written:
            return
        try:
            while self._writing[directory]:
                self._writing[directory] = False
                offsets = {
                    key: offset
                    for key, offset in self.cleaned.items()
                    if self._directory_of(*key) is directory
                }
                await self._offload.run(partial(directory.write_cleaner_offsets, offsets))
        except OSError:
            self._is_stale = True
            raise
        finally:
            del self._writing[directory]


def _name(number: int) -> str:
    return f"log cleaner {number}"


def _at_least_a_moment(backoff_s: float) -> float:
    return max(backoff_s, 0.001)  # Kafka allows 0


def _may_be_dirty(log: "UnifiedLog") -> bool:
    """Whether compaction has to look at it: never at a log that is only its active segment."""
    if not log.config.compact:
        return False
    from kbroker.storage.dormant_log import DormantLog

    return not (isinstance(log, DormantLog) and log.segment_count == 1)
