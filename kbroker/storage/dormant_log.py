"""A log that nobody has touched for a while: its offsets are known, its files are not open.

A broker with ten thousand partitions starts in the time that it takes to read one checkpoint, and
holds little for those that rest. A ``DormantLog`` answers from its line of that checkpoint
(``log_state``); the first touch of what only files can tell loads the log, and from then on the
very same object is an ordinary ``UnifiedLog``. Whoever holds it need not know.
"""

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import anyio.lowlevel

from kbroker.common.clock import Clock
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.wire import ZERO_UUID
from kbroker.storage.checkpoints import EpochEntry
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_state import LogState, is_settled
from kbroker.storage.unified_log import UnifiedLog

MAX_LATE_RECOVERY_BYTES: Final = 4 * 1024 * 1024
"""More than that is recovered before the broker is ready: it would stall the event loop later."""

Key = tuple[str, int]
_TURN_S: Final = 0.002
_LOADED_ON_TOUCH: Final = ("segments", "producer_state", "epochs", "_active", "_bound_position")


def _after_waking(name: str) -> Callable[..., Any]:
    """The method ``name`` of a ``UnifiedLog``, for one that changes offsets: loading the log in
    the middle of it would set them back."""

    def call(log: "DormantLog", *arguments: Any, **named: Any) -> Any:
        log.wake()
        return getattr(log, name)(*arguments, **named)

    return call


class DormantLog(UnifiedLog):
    """A log with files that are not open; any touch of them makes it a ``UnifiedLog``.

    Whatever it cannot answer raises KafkaError KAFKA_STORAGE_ERROR when the files cannot be loaded,
    and stays dormant.
    """

    is_dormant = True
    # What it has beside a UnifiedLog is kept in few attributes: its dictionary is smaller then.
    _facts: tuple[int, int, int]  # first base offset, number of segments, latest epoch
    _row: str
    _noted: tuple[bytes, int]  # topic id and high watermark in the row
    _pending_epoch: EpochEntry | None

    @classmethod
    def restore(
        cls, env: LogEnvironment, directory: str, state: LogState, row: str, config: LogConfig
    ) -> "DormantLog":
        """The log that ``state`` describes; ``row`` is its line. Nothing is read."""
        log = cls(
            env, directory, state.topic, state.partition, topic_id=state.topic_id, config=config
        )
        log._take_state(state, row)
        return log

    def _take_state(self, state: LogState, row: str) -> None:
        self.log_start_offset = state.log_start_offset
        self.log_end_offset = state.log_end_offset
        self.recovery_point = state.recovery_point
        self.high_watermark = self.last_stable_offset = state.high_watermark
        self._facts = (state.first_base_offset, state.segment_count, state.latest_epoch)
        self._noted = (state.topic_id, state.high_watermark)
        self._row = row

    if not TYPE_CHECKING:  # the signatures are those of the methods behind
        append_as_leader = _after_waking("append_as_leader")
        append_as_follower = _after_waking("append_as_follower")
        roll = _after_waking("roll")
        maybe_increment_log_start_offset = _after_waking("maybe_increment_log_start_offset")
        truncate_to = _after_waking("truncate_to")
        truncate_fully_and_start_at = _after_waking("truncate_fully_and_start_at")
        delete_from_front = _after_waking("delete_from_front")

        def __getattr__(self, name: str) -> Any:
            if name not in _LOADED_ON_TOUCH:
                raise AttributeError(name)
            self.wake()
            return getattr(self, name)

    def forget_files(self) -> None:
        """Called by the constructor: what only files can tell stays missing."""
        self._pending_epoch = None

    @property
    def state(self) -> LogState:
        """What is known of it, as of now."""
        return LogState.parse(self._row)._replace(
            topic_id=self.topic_id, high_watermark=self.high_watermark
        )

    @property
    def row(self) -> str:
        """Its line of the checkpoint, as of now."""
        if self._noted != (self.topic_id, self.high_watermark):
            self._row = self.state.row()
            self._noted = (self.topic_id, self.high_watermark)
        return self._row

    @property
    def first_base_offset(self) -> int:
        return self._facts[0]

    @property
    def segment_count(self) -> int:
        """How many there are."""
        return self._facts[1]

    def wake(self) -> None:
        """Load the log. KafkaError KAFKA_STORAGE_ERROR leaves it dormant."""
        from kbroker.storage.log_loader import load_files

        state, row, pending = self.state, self._row, self._pending_epoch
        self.__class__ = UnifiedLog  # type: ignore[assignment]
        UnifiedLog.forget_files(self)
        try:
            load_files(
                self,
                is_clean=state.is_closed,
                recovery_point=state.recovery_point,
                log_start_offset=state.log_start_offset,
                high_watermark=state.high_watermark,
            )
            if pending is not None:
                self.epochs.assign(*pending)
        except (OSError, KafkaError) as error:
            _put_to_sleep(self, row, pending)
            if isinstance(error, KafkaError):
                raise
            raise self.storage_error("opening", error) from error
        if self.log_end_offset != state.log_end_offset:
            self.env.log.error(
                "%s-%d ends at %d, not at %d: it was changed while it was not open",
                self.topic,
                self.partition,
                self.log_end_offset,
                state.log_end_offset,
            )
        self.recovery_point = min(self.recovery_point, state.recovery_point)
        if self.unflushed_messages > 0 and not state.is_closed:  # a crash came before
            self.env.flush_later(self)

    # What needs no files

    @property
    def size(self) -> int:
        return self.state.size

    @property
    def has_files(self) -> bool:
        return True

    @property
    def latest_epoch(self) -> int:
        return self._pending_epoch.epoch if self._pending_epoch else self._facts[2]

    @property
    def earliest_epoch(self) -> EpochEntry | None:
        state = self.state
        if state.earliest_epoch >= 0:
            return EpochEntry(state.earliest_epoch, state.earliest_epoch_start)
        if state.latest_epoch >= 0:  # only the files know
            return self.epochs.earliest_entry
        return self._pending_epoch

    def maybe_assign_epoch_start_offset(self, epoch: int, offset: int) -> None:
        """Noted, and written when the log is loaded: before that no record can carry the epoch."""
        if epoch > self.latest_epoch and offset == self.log_end_offset:
            self._pending_epoch = EpochEntry(epoch, offset)
        elif epoch != self.latest_epoch:
            self.wake()
            self.maybe_assign_epoch_start_offset(epoch, offset)

    def update_config(self, config: LogConfig) -> None:
        self.config = config

    def update_high_watermark(self, offset: int) -> None:
        """A log with transactions that are open is not dormant: everything replicated is stable."""
        self.high_watermark = max(min(offset, self.log_end_offset), self.log_start_offset)
        self.last_stable_offset = self.high_watermark

    def take_producer_snapshot(self) -> None:
        """The one it was closed with is there."""

    def close(self) -> None:
        """It is."""

    def note_synced(self) -> None:
        super().note_synced()
        synced = self.state._replace(recovery_point=self.log_end_offset, unsynced_bytes=0)
        self._row = synced.row()

    def abandon(self) -> None:
        """It holds nothing."""


def _put_to_sleep(log: UnifiedLog, row: str, pending_epoch: EpochEntry | None) -> None:
    """Make it a ``DormantLog``; ``row`` is what is known of it."""
    log.abandon()
    for name in _LOADED_ON_TOUCH:
        vars(log).pop(name, None)
    log.__class__ = DormantLog
    assert isinstance(log, DormantLog)
    log._take_state(LogState.parse(row), row)
    log._pending_epoch = pending_epoch
    log.__dict__ = dict(vars(log))  # without room for what it had


def rest(log: UnifiedLog) -> bool:
    """Close a log that nobody uses and forget what its files hold; True when it is dormant now.

    Compacted logs of several segments stay: the cleaner looks at them again and again.
    """
    if log.is_flushing or not log.has_files or log.is_dormant:
        return False
    if log.config.compact and len(log.segments) > 1:
        return False
    try:
        log.close()
        state = state_of(log, None)
    except (OSError, KafkaError) as error:
        log.env.log.warning(
            "%s-%d is not closed while it rests: %s", log.topic, log.partition, error
        )
        return False
    if state is None or not state.is_closed:
        return False
    _put_to_sleep(log, state.row(), None)
    return True


async def rest_idle(
    logs: Mapping[Key, UnifiedLog], ends: Mapping[Key, int], clock: Clock
) -> tuple[dict[Key, int], int]:
    """Let those rest that are idle and end where ``ends`` says they ended at the last call.

    Gives way. Returns the ends of the others that are idle, for the next call, and how many rest.
    """
    idle: dict[Key, int] = {}
    rested = 0
    turn_ends = clock.monotonic() + _TURN_S
    for key, log in list(logs.items()):
        if not log.is_dormant and not log.is_in_use and logs.get(key) is log:
            end = log.log_end_offset
            if ends.get(key) != end:
                idle[key] = end
            else:
                rested += rest(log)
        if clock.monotonic() >= turn_ends:
            await anyio.lowlevel.checkpoint()
            turn_ends = clock.monotonic() + _TURN_S
    return idle, rested


def state_of(log: UnifiedLog, now_ms: int | None) -> LogState | None:
    """What to note of a log; None while that is not certain to hold, or would not be enough.

    ``now_ms``: the log may be written to right after this, so its last change must be long enough
    ago for the next one to show; None when it is closed for good. OSError.
    """
    if isinstance(log, DormantLog):
        return log.state
    active = log.segments.active
    first = log.segments.first
    if (
        active is None
        or first is None
        or log.failure is not None
        or log.topic_id == ZERO_UUID
        or log.producer_state.has_transactions()
    ):
        return None
    directory = log.env.files.stamp(log.directory)
    file = log.env.files.stamp(active.log_path)
    if file.size != active.size:
        return None  # preallocated, or a failed write left something
    if now_ms is not None and not (
        is_settled(directory.modified_ns, now_ms) and is_settled(file.modified_ns, now_ms)
    ):
        return None
    earliest = log.epochs.earliest_entry or EpochEntry(-1, -1)
    return LogState(
        topic=log.topic,
        partition=log.partition,
        topic_id=log.topic_id,
        log_start_offset=log.log_start_offset,
        log_end_offset=log.log_end_offset,
        recovery_point=log.recovery_point,
        high_watermark=log.high_watermark,
        latest_epoch=log.latest_epoch,
        earliest_epoch=earliest.epoch,
        earliest_epoch_start=earliest.start_offset,
        first_base_offset=first.base_offset,
        active_base_offset=active.base_offset,
        segment_count=len(log.segments),
        size=log.size,
        oldest_size=first.size,
        oldest_timestamp=first.largest_time_ms,
        unsynced_bytes=_unsynced_bytes(log),
        is_closed=all(segment.is_closed for segment in log.segments)
        and log.producer_state.last_snapshot_offset == log.log_end_offset,
        directory_ns=directory.modified_ns,
        active_ns=file.modified_ns,
        active_size=file.size,
    )


def _unsynced_bytes(log: UnifiedLog) -> int:
    if log.recovery_point >= log.log_end_offset:
        return 0
    segments = log.segments.starting_from(log.recovery_point)
    known = segments[0].position_known_for(log.recovery_point)
    return sum(segment.size for segment in segments) - known


def find_unchanged(
    env: LogEnvironment, directory: str, row: str, *, memory_is_kept: bool, config: LogConfig
) -> DormantLog | None:
    """The log of ``directory`` when it still is as ``row`` says; None when it must be loaded.

    ``memory_is_kept``: the machine has not started anew since, so that what was written is there,
    synced or not. OSError.
    """
    try:
        state = LogState.parse(row)
    except ValueError:
        return None
    if state.recovery_point < state.log_end_offset and (
        not memory_is_kept or state.unsynced_bytes > MAX_LATE_RECOVERY_BYTES
    ):
        return None
    try:
        if env.files.stamp(directory).modified_ns != state.directory_ns:
            return None
        active = env.files.stamp(os.path.join(directory, f"{state.active_base_offset:020d}.log"))
    except FileNotFoundError:
        return None
    if (active.modified_ns, active.size) != (state.active_ns, state.active_size):
        return None
    return DormantLog.restore(env, directory, state, row, config)
