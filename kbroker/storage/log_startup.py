"""What a start finds in a data directory: every partition's log, loaded, recovered or dormant."""

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio.lowlevel

from kbroker.config.topic_config import LogConfig
from kbroker.storage.log_directory import (
    DELETE_DIRECTORY_SUFFIX,
    STRAY_DIRECTORY_SUFFIX,
    DataDirectoryError,
    LogDirectory,
    Offsets,
    parse_future_directory_name,
    parse_partition_directory_name,
    partition_directory_name,
)
from kbroker.storage.log_environment import LogEnvironment

if TYPE_CHECKING:
    from kbroker.storage.log_recovery import RecoveryBuffer
    from kbroker.storage.unified_log import UnifiedLog

_TURN_S = 0.02
Key = tuple[str, int]


class LogStartup:
    """Looks through data directories one after the other; the results are its attributes.

    ``logs``, ``directory_of``: what could be loaded. ``offline``: partitions that exist and could
    not: they must not begin anew elsewhere. ``doomed``: paths of deleted partitions, to be removed.
    ``moving``: partitions that were on their way to another directory.
    ``recovered``: a crash came before, so checkpoints are to be written.
    """

    def __init__(
        self, env: LogEnvironment, config_of: Callable[[str], LogConfig], log: logging.Logger
    ) -> None:
        self._env = env
        self._files = env.files
        self._config_of = config_of
        self._configs: dict[str, LogConfig] = {}
        self._topic_ids: dict[bytes, bytes] = {}  # by content of partition.metadata
        self._log = log
        self._buffer: RecoveryBuffer | None = None
        # A planted fault lies in what loading does, so it must not be put off.
        self._may_sleep = not env.faults.planted
        self.logs: dict[Key, UnifiedLog] = {}
        self.directory_of: dict[Key, LogDirectory] = {}
        self.offline: dict[Key, LogDirectory] = {}
        self.doomed: list[str] = []
        self.moving: dict[Key, LogDirectory] = {}
        self._futures: list[tuple[Key, LogDirectory, str]] = []
        self.recovered = False

    async def look_through(self, directory: LogDirectory) -> None:
        """Find the directory's logs; gives way between them.

        A partition that the disk refuses takes the directory offline; OSError when the directory
        itself cannot be read, DataDirectoryError when it holds a partition that another one holds.
        """
        is_clean = directory.take_clean_shutdown_marker()
        names = sorted(
            entry.name for entry in self._files.list(directory.path) if entry.is_directory
        )
        memory_id, rows = directory.read_log_states() if self._may_sleep else ("", {})
        memory_is_kept = memory_id != "" and memory_id == self._files.memory_id()
        offsets: tuple[Offsets, Offsets, Offsets] | None = None
        turn_ends = self._env.clock.monotonic() + _TURN_S
        for name in names:
            key = self._partition_of(directory, name)
            if key is None:
                continue
            self._check_unique(directory, name, key)
            if not self._leave(directory, name, key, rows.get(name), memory_is_kept):
                offsets = offsets or directory.read_checkpoints()
                if is_clean or not self._glance(directory, name, key, offsets):
                    self._load(directory, name, key, is_clean=is_clean, offsets=offsets)
            if self._env.clock.monotonic() >= turn_ends:
                await anyio.lowlevel.checkpoint()
                turn_ends = self._env.clock.monotonic() + _TURN_S

    def _partition_of(self, directory: LogDirectory, name: str) -> Key | None:
        future = parse_future_directory_name(name)
        if future is not None:
            self._futures.append((future, directory, name))
            return None
        key = parse_partition_directory_name(name)
        if key is None:
            if name.endswith(DELETE_DIRECTORY_SUFFIX):
                self.doomed.append(os.path.join(directory.path, name))
            elif not name.endswith(STRAY_DIRECTORY_SUFFIX):
                self._log.warning("ignoring %s/%s: no partition", directory.path, name)
        return key

    def _check_unique(self, directory: LogDirectory, name: str, key: Key) -> None:
        if key in self.directory_of:
            raise DataDirectoryError(
                f"{name} is in {self.directory_of[key].path} and in {directory.path}"
            )

    def settle_moves(self, *, saw_all: bool) -> None:
        """After every directory: a future log beside a current one is to be copied anew, one
        without it is whole and takes its name.

        Not while a directory is offline (``saw_all`` is False): the current one may be there.
        """
        for key, directory, name in self._futures:
            path = os.path.join(directory.path, name)
            if key in self.directory_of:
                self.doomed.append(path)
                self.moving[key] = directory
            elif saw_all and key not in self.offline:
                final = partition_directory_name(*key)
                try:
                    self._files.rename(path, os.path.join(directory.path, final))
                except OSError as error:
                    self._refuse(directory, key, error)
                    continue
                self._log.warning("%s-%d takes the place of a log that was moved here", *key)
                empty: Offsets = {}
                self._load(directory, final, key, is_clean=False, offsets=(empty, empty, empty))

    def _config(self, topic: str) -> LogConfig:
        config = self._configs.get(topic)
        if config is None:
            config = self._configs[topic] = self._config_of(topic)
        return config

    def _leave(
        self, directory: LogDirectory, name: str, key: Key, row: str | None, memory_is_kept: bool
    ) -> bool:
        """Whether the log is as its line says, or only a little longer: it need not be opened."""
        if row is None:
            return False
        from kbroker.storage.dormant_log import find_unchanged

        path = os.path.join(directory.path, name)
        config = self._config(key[0])
        try:
            log = find_unchanged(self._env, path, row, memory_is_kept=memory_is_kept, config=config)
            if log is None and memory_is_kept:
                from kbroker.storage.log_glance import find_grown

                log = find_grown(self._env, path, row, config)
                self.recovered = True
        except OSError as error:
            self._refuse(directory, key, error)
            return True
        if log is None:
            return False
        self._keep(directory, key, log)
        return True

    def _glance(
        self,
        directory: LogDirectory,
        name: str,
        key: Key,
        offsets: tuple[Offsets, Offsets, Offsets],
    ) -> bool:
        """Whether a short log without anything unusual was found, which need not be opened."""
        if not self._may_sleep:
            return False
        from kbroker.storage.log_glance import find_small

        points, starts, watermarks = offsets
        try:
            log = find_small(
                self._env,
                os.path.join(directory.path, name),
                key,
                recovery_point=points.get(key, 0),
                log_start_offset=starts.get(key, 0),
                high_watermark=watermarks.get(key, 0),
                config=self._config(key[0]),
                topic_ids=self._topic_ids,
            )
        except OSError as error:
            self._refuse(directory, key, error)
            return True
        if log is None:
            return False
        self.recovered = True
        self._keep(directory, key, log)
        return True

    def _load(
        self,
        directory: LogDirectory,
        name: str,
        key: Key,
        *,
        is_clean: bool,
        offsets: tuple[Offsets, Offsets, Offsets],
    ) -> None:
        from kbroker.storage.log_loader import load_log  # which few starts need
        from kbroker.storage.log_recovery import RecoveryBuffer

        if self._buffer is None:
            self._buffer = RecoveryBuffer()
        points, starts, watermarks = offsets
        try:
            log = load_log(
                self._env,
                os.path.join(directory.path, name),
                *key,
                config=self._config(key[0]),
                is_clean=is_clean,
                recovery_point=points.get(key, 0),
                log_start_offset=starts.get(key, 0),
                high_watermark=watermarks.get(key, 0),
                buffer=self._buffer,
            )
        except OSError as error:
            self._refuse(directory, key, error)
        else:
            self.recovered = self.recovered or not is_clean
            self._keep(directory, key, log)

    def _keep(self, directory: LogDirectory, key: Key, log: "UnifiedLog") -> None:
        self.logs[key] = log
        self.directory_of[key] = directory

    def _refuse(self, directory: LogDirectory, key: Key, error: OSError) -> None:
        self._log.error("%s goes offline: cannot load %s-%d: %s", directory.path, *key, error)
        directory.failure = error
        self.offline[key] = directory
