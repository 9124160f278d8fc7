"""Logs on their way to another data directory (AlterReplicaLogDirs, KIP-113).

A future log, in a directory whose name ends with ``-future``, is filled from the current one while
that goes on taking appends. Once it holds everything, and holds it on the device, it takes its
place in one step of the event loop: the current directory is renamed to be deleted, then the future
one gets its name. A kill before that leaves the current log, and the copy begins anew; one between
the two renames leaves no current log but a future one that is whole, which the next start uses.
"""

import os
from typing import TYPE_CHECKING, Final

import anyio.lowlevel

from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.storage.background_jobs import BackgroundJobs
from kbroker.storage.io_throttle import IoThrottle
from kbroker.storage.log_directory import (
    FUTURE_DIRECTORY_SUFFIX,
    LogDirectory,
    set_aside_directory_name,
)

if TYPE_CHECKING:
    from kbroker.storage.log_manager import LogManager
    from kbroker.storage.unified_log import UnifiedLog

NO_LIMIT: Final = 2**63 - 1
"""The default of a rate, as in Kafka."""
_CHUNK: Final = 1024 * 1024
Key = tuple[str, int]


class Move:
    """One log, where it goes, and the copy as far as it is."""

    __slots__ = ("directory", "future")

    def __init__(self, future: "UnifiedLog", directory: LogDirectory) -> None:
        self.future = future
        self.directory = directory


class LogMoves:
    """Every move that is under way."""

    def __init__(self, logs: "LogManager", jobs: BackgroundJobs, throttle: IoThrottle) -> None:
        """``jobs`` does one move after the other; ``throttle`` is told what was copied
        (replica.alter.log.dirs.io.max.bytes.per.second)."""
        self._throttle = throttle
        self._logs = logs
        self._jobs = jobs
        self._moves: dict[Key, Move] = {}

    def get(self, topic: str, partition: int) -> Move | None:
        """The move of this partition, if it moves."""
        return self._moves.get((topic, partition))

    def begin(self, log: "UnifiedLog", directory: LogDirectory) -> None:
        """Let the log move to ``directory``; a move to somewhere else ends.

        KafkaError KAFKA_STORAGE_ERROR.
        """
        key = (log.topic, log.partition)
        move = self._moves.get(key)
        if move is not None and move.directory is directory:
            return
        self.cancel(key)
        if self._logs.directory_of(*key) is directory:
            return
        if not log.has_files:
            self._logs.place_log_without_files(log, directory)
            return
        name = set_aside_directory_name(*key, self._logs.unique_name(), FUTURE_DIRECTORY_SUFFIX)
        from kbroker.storage.unified_log import UnifiedLog

        future = UnifiedLog(
            log.env,
            os.path.join(directory.path, name),
            log.topic,
            log.partition,
            topic_id=log.topic_id,
            config=log.config,
        )
        self._moves[key] = Move(future, directory)
        # A tombstone that went meanwhile would be missing behind the value that was copied.
        log.is_moving = True
        self._jobs.enqueue(("move", key), lambda: self._copy(key))

    def cancel(self, key: Key) -> None:
        """Drop the copy, if there is one."""
        move = self._end(key)
        if move is not None:
            move.future.abandon()
            if move.future.has_files:
                self._jobs.remove_directory_later(move.future.directory, 0)

    def _end(self, key: Key) -> Move | None:
        log = self._logs.get_log(*key)
        if log is not None:
            log.is_moving = False
        return self._moves.pop(key, None)

    def on_directory_failed(self, directory: LogDirectory) -> None:
        """Moves to it end; what they copied is left where it is."""
        for key in [key for key, move in self._moves.items() if move.directory is directory]:
            if (move := self._end(key)) is not None:
                move.future.abandon()

    def update_config(self, topic: str, config: LogConfig) -> None:
        """The topic's settings changed."""
        for key, move in self._moves.items():
            if key[0] == topic:
                move.future.update_config(config)

    def close(self) -> None:
        """The broker stops: the next start begins anew."""
        for move in self._moves.values():
            move.future.abandon()

    async def _copy(self, key: Key) -> None:
        """Fill the future log and let it take the current one's place."""
        move = self._moves.get(key)
        try:
            while move is not None and self._moves.get(key) is move:
                log = self._logs.get_log(*key)
                if log is None:
                    self.cancel(key)
                    return
                if await self._step(log, move):
                    self._replace(key, log, move)
                    return
        except (KafkaError, OSError, ValueError) as error:
            # Kafka too leaves the replica where it is; whoever asked sees no future log any more.
            self._logs.env.log.error("%s-%d cannot move: %s", *key, error)
            self.cancel(key)

    async def _step(self, log: "UnifiedLog", move: Move) -> bool:
        """Copy a little; True when both are the same and the copy is on the device."""
        from kbroker.storage.fetch_info import FetchIsolation  # it came with the logs

        future = move.future
        if future.log_end_offset < log.log_start_offset:
            future.truncate_fully_and_start_at(_first_offset(log))
        if future.log_end_offset >= log.log_end_offset:
            if not future.has_files:
                future.make_files()
            await future.flush()
            return future.log_end_offset == log.log_end_offset and future.unflushed_messages == 0
        read = log.read(
            max(future.log_end_offset, log.log_start_offset),
            max_bytes=self._chunk_size(),
            isolation=FetchIsolation.LOG_END,
            min_one_message=True,
        )
        data = bytearray().join(read.records.parts())
        if future.append_as_follower(memoryview(data)) is None:
            raise ValueError(f"nothing can be read at {future.log_end_offset}")
        key = (log.topic, log.partition)
        await self._throttle.moved(len(data), lambda: self._moves.get(key) is move)
        await anyio.lowlevel.checkpoint()
        return False

    def set_rate(self, bytes_per_s: int) -> None:
        """Hold copies to so many bytes a second, all together; 0 lets next to nothing through."""
        self._throttle.bytes_per_s = max(bytes_per_s, 1) if bytes_per_s < NO_LIMIT else 0

    def _chunk_size(self) -> int:
        """What is copied in one go: no more than a second's worth, so that a move can end soon."""
        rate = self._throttle.bytes_per_s
        return min(_CHUNK, int(rate)) if rate else _CHUNK

    def _replace(self, key: Key, log: "UnifiedLog", move: Move) -> None:
        future = move.future
        if future.log_start_offset < log.log_start_offset:
            future.update_high_watermark(log.log_start_offset)
            future.maybe_increment_log_start_offset(log.log_start_offset)
        future.update_high_watermark(log.high_watermark)
        del self._moves[key]
        try:
            self._logs.replace_log(key, future, move.directory)
        finally:  # who cleans the old one, if it is that now, must not go on
            log.is_moving = self._logs.get_log(*key) is not log


def _first_offset(log: "UnifiedLog") -> int:
    """Where the batch begins that holds the log's first record: it is copied whole."""
    for batch in log.read_batches(log.log_start_offset):
        return int.from_bytes(batch[:8], "big")
    return log.log_start_offset
