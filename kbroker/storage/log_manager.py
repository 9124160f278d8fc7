"""All logs of a broker: load, create, delete, flush, checkpoint, retention, close.

The data directories are locked while in use. Work that blocks (sync, removing files) goes through
``Offload``, what is due later through the ``Timer``; both are fed from plain calls and carried out
by one background task.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.abc
import anyio.lowlevel

from kbroker.common.clock import Clock
from kbroker.common.entropy import Entropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.files import FileSystem
from kbroker.common.offload import InlineOffload, Offload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.checkpoint_rows import CheckpointRows
from kbroker.storage.checkpoints import MetaProperties
from kbroker.storage.data_directories import PASSING_ERRORS, DataDirectories
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_cleaner_manager import LogCleanerManager
from kbroker.storage.log_directory import (
    STRAY_DIRECTORY_SUFFIX,
    DataDirectoryError,
    LogDirectory,
    Offsets,
    deleted_directory_name,
    partition_directory_name,
    set_aside_directory_name,
)
from kbroker.storage.log_environment import OPEN_SEGMENTS_LIMIT, LogEnvironment
from kbroker.storage.log_moves import LogMoves
from kbroker.storage.log_startup import LogStartup

if TYPE_CHECKING:
    from kbroker.storage.local_log import LocalLog
    from kbroker.storage.unified_log import UnifiedLog

CHECKPOINT_INTERVAL_S = 60.0
LOG_START_CHECKPOINT_DELAY_S = 1.0
RETENTION_CHECK_INTERVAL_S = 300.0
INITIAL_TASK_DELAY_S = 30.0
IDLE_CLOSE_INTERVAL_S = 60.0
PRODUCER_EXPIRY_INTERVAL_S = 600.0
CLEANER_BACKOFF_S = 15.0
CLEANER_DEDUPE_BUFFER_SIZE = 128 * 1024 * 1024

_NEVER_MS = 2**63 - 1
_TURN_S = 0.002


def _do_nothing(*_: object) -> None:
    return None


class LogManager:
    """Every log of this broker by (topic, partition)."""

    def __init__(
        self,
        files: FileSystem,
        data_dirs: Sequence[str],
        default_config: LogConfig,
        clock: Clock,
        timer: Timer,
        offload: Offload,
        entropy: Entropy,
        log: logging.Logger | None = None,
        *,
        faults: Faults = NO_FAULTS,
        open_segments_limit: int = OPEN_SEGMENTS_LIMIT,
        producer_id_expiration_ms: int = 86_400_000,
        checkpoint_interval_s: float = CHECKPOINT_INTERVAL_S,
        retention_check_interval_s: float = RETENTION_CHECK_INTERVAL_S,
        producer_expiry_interval_s: float = PRODUCER_EXPIRY_INTERVAL_S,
        cleaner_enable: bool = True,
        cleaner_backoff_s: float = CLEANER_BACKOFF_S,
        cleaner_dedupe_buffer_size: int = CLEANER_DEDUPE_BUFFER_SIZE,
        cleaner_io_max_bytes_per_s: float = 0,
        cleaner_threads: int = 1,
    ) -> None:
        """Nothing is touched before ``open_directories`` or ``load``."""
        self._files = files
        self._clock = clock
        self._timer = timer
        # A file system without a disk has nothing that blocks, and one user at a time.
        self._offload: Offload = offload if files.blocks else InlineOffload()
        self._entropy = entropy
        self._log = log or logging.getLogger("kbroker.storage")
        self.default_config = default_config
        self.directories = DataDirectories(files, data_dirs, entropy, faults, self._log)
        self.env = LogEnvironment(
            files,
            clock,
            entropy,
            offload=self._offload,
            faults=faults,
            log=self._log,
            open_segments_limit=open_segments_limit,
            producer_id_expiration_ms=producer_id_expiration_ms,
        )
        self._jobs = BackgroundJobs(files, timer, self._offload, self._log)
        self.env.remove_later = self._jobs.remove_later
        self.env.flush_later = self._flush_later
        self.env.on_dirty = self._on_dirty
        self.env.on_log_start_changed = self._on_log_start_changed
        self.env.on_storage_error = self._on_storage_error
        self.movers = BackgroundJobs(files, timer, self._offload, self._log)
        self._logs: dict[tuple[str, int], UnifiedLog] = {}
        self._directory_of: dict[tuple[str, int], LogDirectory] = {}
        # Partitions that exist but could not be loaded: they must not begin anew elsewhere.
        self._offline: dict[tuple[str, int], LogDirectory] = {}
        self._checkpoints_are_due = False
        self._checkpoint_interval_s = max(checkpoint_interval_s, 0.001)  # Kafka allows 0
        self._retention_check_interval_s = retention_check_interval_s
        self._producer_expiry_interval_s = producer_expiry_interval_s
        self._cleaner_enable = cleaner_enable
        self._rows = CheckpointRows(files)
        self._ends: dict[tuple[str, int], int] = {}  # of logs that were idle at the last look
        self.cleaner = LogCleanerManager(
            self.env,
            self._offload,
            self._log,
            backoff_s=cleaner_backoff_s,
            dedupe_buffer_size=cleaner_dedupe_buffer_size,
            throttle=IoThrottle(clock, timer, cleaner_io_max_bytes_per_s),
            jobs=self._jobs,
            threads=cleaner_threads,
            logs=lambda: list(self._logs.values()),
            directory_of=self.directory_of,
        )
        self.moves = LogMoves(self, self.movers, IoThrottle(clock, timer, 0))
        # What a replica manager and a broker want to know.
        self.on_offline: Callable[[list[tuple[str, int]]], object] = _do_nothing
        self.on_all_failed: Callable[[], object] = _do_nothing
        self.on_log_replaced: Callable[[UnifiedLog], object] = _do_nothing

    # Directories

    def open_directories(self) -> None:
        """Lock the data directories and read whose they are. DataDirectoryError."""
        self.directories.open()

    @property
    def meta_properties(self) -> MetaProperties | None:
        """What meta.properties says, of the first directory that has one."""
        return self.directories.meta_properties

    def claim_directories(self, cluster_id: str, node_id: int) -> None:
        """Write meta.properties where it is missing. DataDirectoryError when it is another's."""
        self.directories.claim(cluster_id, node_id)

    def release_in_child(self) -> None:
        """In a forked child: let go of its copies of the directories' locks."""
        self.directories.release()

    def _on_storage_error(self, log: "LocalLog", error: OSError, is_lasting: bool) -> None:
        key = (log.topic, log.partition)
        if self._logs.get(key) is log and (is_lasting or error.errno not in PASSING_ERRORS):
            self._fail_directory(self._directory_of[key], error)

    def _fail_directory(self, directory: LogDirectory, error: OSError) -> None:
        """Its partitions go offline, at the next turn: whoever met the error is not done yet."""
        if self.directories.fail(directory, error):
            self._timer.schedule(0, lambda: self._take_offline(directory))

    def _take_offline(self, directory: LogDirectory) -> None:
        keys = [key for key, each in self._directory_of.items() if each is directory]
        self.moves.on_directory_failed(directory)
        for key in keys:
            log = self._logs.pop(key)
            del self._directory_of[key]
            self._offline[key] = directory
            self._rows.forget(key)
            self.moves.cancel(key)
            log.failure = log.failure or directory.failure
            log.abandon()
        self.on_offline(keys)
        if not self.directories.usable():
            self.on_all_failed()

    # Loading

    async def load(self, config_of: Callable[[str], LogConfig] | None = None) -> None:
        """Find every partition; what changed since the checkpoints is opened, and recovered after
        a crash, the rest lies dormant.

        ``config_of`` gives the settings of a topic. Gives way between partitions. A partition
        that the disk refuses takes its directory offline; DataDirectoryError when the directory
        itself cannot be read.
        """
        self.open_directories()
        startup = LogStartup(self.env, config_of or self._default_config_of, self._log)
        cleaned: list[tuple[LogDirectory, Offsets]] = []
        for directory in self.directories.usable():
            try:
                await startup.look_through(directory)
                cleaned.append((directory, directory.read_cleaner_offsets()))
            except OSError as error:
                self.directories.refuse(directory, error)
        startup.settle_moves(saw_all=self._saw_all)
        self._logs = startup.logs
        self._directory_of = startup.directory_of
        for directory, offsets in cleaned:
            self.cleaner.load(directory, offsets)
        self._offline = startup.offline
        self._checkpoints_are_due = self._checkpoints_are_due or startup.recovered
        for path in startup.doomed:
            self._jobs.remove_directory_later(path, 0)
        for directory in self.directories:
            if directory.failure is not None:
                self._take_offline(directory)
        for key, log in list(self._logs.items()):
            if key in startup.moving:
                self.moves.begin(log, startup.moving[key])
            if not log.is_dormant and log.unflushed_messages > 0:
                self._secure_later(log)

    def _default_config_of(self, topic: str) -> LogConfig:
        return self.default_config

    # Logs

    def get_log(self, topic: str, partition: int) -> "UnifiedLog | None":
        """The partition's log, None when there is none."""
        return self._logs.get((topic, partition))

    @property
    def _saw_all(self) -> bool:
        """Every directory could be looked through at the start."""
        return all(directory.was_seen for directory in self.directories)

    @property
    def logs(self) -> "Iterator[UnifiedLog]":
        """Every log."""
        return iter(list(self._logs.values()))

    def directory_of(self, topic: str, partition: int) -> LogDirectory | None:
        """The data directory that holds the partition."""
        return self._directory_of.get((topic, partition))

    def get_or_create_log(
        self,
        topic: str,
        partition: int,
        topic_id: bytes,
        config: LogConfig,
        *,
        may_be_new: bool = True,
    ) -> "UnifiedLog":
        """The partition's log; a new one has no files before its first append.

        Not ``may_be_new``: the partition was there before this start. KafkaError
        INCONSISTENT_TOPIC_ID when the log on disk is that of another topic of this name (delete it
        first); KAFKA_STORAGE_ERROR when its data directory is offline, or all are.
        """
        key = (topic, partition)
        log = self._logs.get(key)
        if log is not None:
            if ZERO_UUID not in (topic_id, log.topic_id) and log.topic_id != topic_id:
                raise KafkaError(
                    ErrorCode.INCONSISTENT_TOPIC_ID,
                    f"{log.name} on disk belongs to a topic of this name that was deleted",
                )
            log.update_config(config)
            log.assign_topic_id(topic_id)
            return log
        name = partition_directory_name(topic, partition)
        if key in self._offline:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{name} is in {self._offline[key].path}: offline"
            )
        if not may_be_new and not self._saw_all:
            raise KafkaError(
                ErrorCode.KAFKA_STORAGE_ERROR, f"{name} may be in a directory that is offline"
            )
        from kbroker.storage.unified_log import UnifiedLog

        directory = self.directories.choose(self._directory_of.values)
        log = UnifiedLog(
            self.env,
            os.path.join(directory.path, name),
            topic,
            partition,
            topic_id=topic_id,
            config=config,
        )
        self._logs[key] = log
        self._directory_of[key] = directory
        return log

    def update_config(self, topic: str, config: LogConfig) -> None:
        """The topic's settings changed."""
        for log in self._logs.values():
            if log.topic == topic:
                log.update_config(config)
        self.moves.update_config(topic, config)

    def delete_log(self, topic: str, partition: int) -> None:
        """Forget the log; its directory is renamed now and removed after file.delete.delay.ms.

        A kill after the rename: the directory is removed at the next start. KAFKA_STORAGE_ERROR
        when it cannot be renamed; the log is forgotten all the same.
        """
        key = (topic, partition)
        self.moves.cancel(key)  # first: a future log without a current one would take its place
        log = self._logs.get(key)
        directory = self._directory_of.get(key)
        if log is not None and directory is not None:
            try:
                self._set_aside_to_delete(log, directory)
            finally:
                self._forget(key)
                # Whoever still holds it must not write to the files of a successor.
                log.failure = log.failure or FileNotFoundError(errno.ENOENT, "the log was deleted")

    def forget_offline(self, topic: str) -> None:
        """The topic was deleted: one of its name may begin anew. The old files stay, as strays."""
        self._offline = {key: each for key, each in self._offline.items() if key[0] != topic}

    def _forget(self, key: tuple[str, int]) -> None:
        del self._logs[key], self._directory_of[key]
        self.cleaner.forget(key)
        self._rows.forget(key)
        self._checkpoints_are_due = True

    def _set_aside_to_delete(self, log: "UnifiedLog", directory: LogDirectory) -> str | None:
        """Rename the log's directory, to be removed later; its new path. KAFKA_STORAGE_ERROR."""
        log.abandon()
        if not self._files.exists(log.directory):
            return None
        name = deleted_directory_name(log.topic, log.partition, self.unique_name())
        path = os.path.join(directory.path, name)
        try:
            self._files.rename(log.directory, path)
        except OSError as error:
            raise log.storage_error("deleting", error) from error
        self._jobs.remove_directory_later(path, log.config.file_delete_delay_ms)
        return path

    # Moving to another directory: what LogMoves needs

    def unique_name(self) -> str:
        """32 hexadecimal digits for the name of a directory."""
        return self._entropy.uuid_bytes().hex()

    def place_log_without_files(self, log: "UnifiedLog", directory: LogDirectory) -> None:
        """A log that was never written to is elsewhere at once."""
        log.move_to(os.path.join(directory.path, log.name))
        self._directory_of[log.topic, log.partition] = directory

    def replace_log(
        self, key: tuple[str, int], future: "UnifiedLog", directory: LogDirectory
    ) -> None:
        """``future``, whole and synced, becomes the partition's log. KAFKA_STORAGE_ERROR: the
        current one stays."""
        from kbroker.storage.log_loader import load_log

        current = self._logs[key]
        epochs = [each for each in current.epochs.entries() if each.epoch > future.latest_epoch]
        future.close()
        future.abandon()
        path = os.path.join(directory.path, current.name)
        aside = self._set_aside_to_delete(current, self._directory_of[key])
        try:
            self._files.rename(future.directory, path)
            log = load_log(
                self.env,
                path,
                *key,
                config=current.config,
                is_clean=True,
                recovery_point=future.recovery_point,
                log_start_offset=future.log_start_offset,
                high_watermark=future.high_watermark,
            )
        except OSError as error:
            if aside is not None and not self._files.exists(path):
                self._files.rename(aside, current.directory)
            raise future.storage_error("putting in its place", error) from error
        for entry in epochs:  # those that have no record yet
            log.maybe_assign_epoch_start_offset(*entry)
        self._logs[key] = log
        self._directory_of[key] = directory
        self.cleaner.on_moved(key)
        self._rows.forget(key)
        self._checkpoints_are_due = True
        self.on_log_replaced(log)

    def set_aside_strays(self, is_known: "Callable[[UnifiedLog], bool]") -> None:
        """Forget the logs that the metadata does not know; their directories are kept, renamed.

        As Kafka: a directory whose topic was deleted, or whose metadata was lost, is not removed
        without being asked. Call it after ``load``.
        """
        for key, log in list(self._logs.items()):
            if is_known(log):
                continue
            del self._logs[key]
            directory = self._directory_of.pop(key)
            log.abandon()
            name = set_aside_directory_name(
                *key, self._entropy.uuid_bytes().hex(), STRAY_DIRECTORY_SUFFIX
            )
            self._log.warning("%s belongs to no topic; it is kept as %s", log.directory, name)
            try:
                self._files.rename(log.directory, os.path.join(directory.path, name))
            except OSError as error:
                raise DataDirectoryError(f"{log.directory} cannot be renamed: {error}") from error
            self._checkpoints_are_due = True

    # What is done later

    def _flush_later(self, log: "UnifiedLog") -> None:
        async def flush() -> None:
            if self._logs.get((log.topic, log.partition)) is log:
                await log.flush()
                self._checkpoints_are_due = True

        self._jobs.enqueue(log, flush)

    def _secure_later(self, log: "UnifiedLog") -> None:
        """Sync what recovery looked through, and the producers it found, so that the next crash
        costs less. Not while starting: who waits for the start does not wait for this."""

        async def secure() -> None:
            if self._logs.get((log.topic, log.partition)) is log:
                log.take_producer_snapshot()
                await log.flush()
                self._checkpoints_are_due = True

        self._jobs.enqueue(log, secure)

    def _on_dirty(self, log: "UnifiedLog", flush_ms: int) -> None:
        self._checkpoints_are_due = True
        if flush_ms < _NEVER_MS:
            self._timer.schedule(flush_ms / 1000, lambda: self._flush_later(log))

    def _on_log_start_changed(self, log: "UnifiedLog") -> None:
        """DeleteRecords should survive a crash soon after it was answered."""
        self._checkpoints_are_due = True
        self._jobs.once(
            "log start",
            LOG_START_CHECKPOINT_DELAY_S,
            lambda: self._jobs.enqueue("checkpoint", self.checkpoint),
        )

    def start_background(self, task_group: anyio.abc.TaskGroup) -> None:
        """Begin the background task and the periodic ones."""
        task_group.start_soon(self._jobs.run, name="log manager")
        task_group.start_soon(self.movers.run, name="log mover")
        if self._cleaner_enable:
            self.cleaner.start(task_group)
        self._jobs.every("checkpoint", self._checkpoint_interval_s, self._checkpoint_if_due)
        self._jobs.every("idle", IDLE_CLOSE_INTERVAL_S, self._close_idle)
        self._jobs.every("expiry", self._producer_expiry_interval_s, self._expire_producers)
        self._jobs.every(
            "retention",
            self._retention_check_interval_s,
            lambda: self._jobs.enqueue("retention", self.apply_retention),
            first=min(INITIAL_TASK_DELAY_S, self._retention_check_interval_s),
        )

    async def run_pending_jobs(self) -> None:
        """Do what waits: flushes, removals, checkpoints. A job that fails is logged."""
        await self._jobs.run_pending()

    def _checkpoint_if_due(self) -> None:
        if self._checkpoints_are_due:
            self._jobs.enqueue("checkpoint", self.checkpoint)

    def _close_idle(self) -> None:
        self.env.open_files.close_idle()
        self._jobs.enqueue("rest", self.rest_idle_logs)

    async def rest_idle_logs(self) -> None:
        """Let logs rest that were not used between the last two calls; gives way between them."""
        if not self._logs:
            return
        from kbroker.storage.dormant_log import rest_idle

        self._ends, rested = await rest_idle(self._logs, self._ends, self._clock)
        self._checkpoints_are_due = self._checkpoints_are_due or rested > 0

    def _expire_producers(self) -> None:
        now_ms = self._clock.time_ms()
        for log in self._logs.values():
            if not log.is_dormant and log.producer_state.may_expire():
                log.producer_state.remove_expired(now_ms)

    def delete_old_segments(self) -> int:
        """Apply retention to every log; returns how many segments went."""
        now_ms = self._clock.time_ms()
        return sum(self._retain(log, now_ms) for log in list(self._logs.values()))

    def _retain(self, log: "UnifiedLog", now_ms: int) -> int:
        from kbroker.storage.dormant_log import DormantLog
        from kbroker.storage.log_retention import delete_old_segments, may_have_old_segments

        if isinstance(log, DormantLog) and not may_have_old_segments(log, now_ms):
            return 0
        try:
            return delete_old_segments(log)
        except (KafkaError, OSError) as error:
            self._log.error("%s-%d: retention failed: %s", log.topic, log.partition, error)
            return 0

    async def apply_retention(self) -> None:
        """As ``delete_old_segments``; gives way between logs."""
        now_ms = self._clock.time_ms()
        turn_ends = self._clock.monotonic() + _TURN_S
        for key, log in list(self._logs.items()):
            if self._logs.get(key) is log:
                self._retain(log, now_ms)
            if self._clock.monotonic() >= turn_ends:
                await anyio.lowlevel.checkpoint()
                turn_ends = self._clock.monotonic() + _TURN_S

    async def checkpoint(self) -> None:
        """Write the checkpoints that changed. OSError."""
        self._checkpoints_are_due = False
        for directory in self.directories:
            if directory.failure is None:
                contents = await self._checkpoint_contents(directory, self._clock.time_ms())
                if contents:
                    try:
                        await self._offload.run(partial(directory.write_checkpoints, contents))
                    except OSError as error:
                        self._checkpoints_are_due = True
                        if error.errno not in PASSING_ERRORS:
                            self._fail_directory(directory, error)
                        raise

    async def _checkpoint_contents(
        self, directory: LogDirectory, now_ms: int | None
    ) -> dict[str, bytes]:
        """``now_ms`` is None when every log is closed for good."""
        logs = [
            (key, log) for key, log in self._logs.items() if self._directory_of[key] is directory
        ]
        return await self._rows.gather(
            directory, logs, lambda key, log: self._logs.get(key) is log, now_ms
        )

    async def shutdown(self, clean: bool = True) -> None:
        """Flush and close every log, write checkpoints and the clean shutdown marker.

        Not ``clean``: only let go of files and locks, as a crash would. The background task must
        have ended. A directory whose logs could not all be closed gets no marker.
        """
        self._jobs.cancel_timers()
        try:
            if clean and self.directories.is_open:
                await self._close_logs()
        finally:
            for log in self._logs.values():
                log.abandon()
            self.moves.close()
            self.directories.release()

    async def _close_logs(self) -> None:
        from kbroker.storage.log_shutdown import close_logs

        await self.cleaner.checkpoint()
        for directory in self.directories.usable():
            logs = [log for key, log in self._logs.items() if self._directory_of[key] is directory]
            is_whole = await close_logs(self._files, self._offload, directory.path, logs, self._log)
            if is_whole and directory.failure is None:
                contents = await self._checkpoint_contents(directory, None)

                def finish(
                    directory: LogDirectory = directory, contents: dict[str, bytes] = contents
                ) -> None:
                    directory.write_checkpoints(contents)
                    directory.write_clean_shutdown_marker()

                try:
                    await self._offload.run(finish)
                except OSError as error:
                    self._log.error("%s was not closed cleanly: %s", directory.path, error)
