"""Runs replicated state machines: one shard for each partition of an internal topic.

A step of a shard is a plain call that returns records and a response. The runtime appends the
records as one batch, replays them into the shard, and releases the response when the partition's
high watermark has passed them. Appending comes before replaying, so a write that fails has changed
nothing and there is nothing to undo (a shard that changes state itself says so in its result and
undoes it in ``on_done``). A read answers at once unless it has seen records that are not committed
yet; then it waits for them, so no answer ever shows what a fail-over could take back.

With an in-sync set of one the high watermark passes the records within the append, and a step is
answered in the call that asked for it.
"""

import logging
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Generic, TypeVar

from anyio.lowlevel import checkpoint

from kbroker.common.clock import Clock
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.timer import Timer, TimerHandle
from kbroker.coordinator.coordinator_timer import CoordinatorTimer, TimerOperation
from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.loader import CoordinatorLoader
from kbroker.coordinator.result import CoordinatorResult
from kbroker.coordinator.shard import (
    CoordinatorRecordSerde,
    CoordinatorShard,
    EncodedReplay,
    EncodedStep,
)
from kbroker.coordinator.writer import PartitionWriter
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import build_batch, build_end_transaction_marker
from kbroker.record.record import Record

S = TypeVar("S", bound=CoordinatorShard)
R = TypeVar("R")

RECORDS_A_TURN = 1_000
"""Records taken from the log, while it is loaded, before other tasks get their turn: 1-2 ms."""
RETRY_AFTER_S = 0.5
"""Pause before a failed timer operation, or a failed load, is tried again."""

_IDLE, _LOADING, _ACTIVE = 0, 1, 2
"""Led and empty, its shard made when somebody asks; being loaded; loaded."""


class _Waiting:
    """A step whose records, or what it has read, are not committed yet."""

    __slots__ = ("deferred", "offset", "on_done", "response", "timeout")

    def __init__(
        self,
        offset: int,
        response: Any,
        on_done: Callable[[KafkaError | None], "CoordinatorResult[None] | None"] | None,
    ) -> None:
        self.offset = offset
        self.response = response
        self.on_done = on_done
        self.deferred: Deferred[Any] = Deferred()
        self.timeout: TimerHandle | None = None


class _Context(Generic[S]):
    """One partition led by this broker."""

    __slots__ = (
        "_make_shard",
        "_shard",
        "high_watermark",
        "index",
        "last_written",
        "leader_epoch",
        "state",
        "timer",
        "waiting",
    )

    def __init__(
        self,
        index: int,
        leader_epoch: int,
        timer: CoordinatorTimer,
        make_shard: Callable[[int, CoordinatorTimer], S],
    ) -> None:
        self.index = index
        self.leader_epoch = leader_epoch
        self.timer = timer
        self.state = _IDLE
        self._make_shard = make_shard
        self._shard: S | None = None
        self.last_written = 0
        self.high_watermark = 0
        self.waiting: deque[_Waiting] = deque()

    @property
    def shard(self) -> S:
        """The state, made at its first use."""
        if self._shard is None:
            self._shard = self._make_shard(self.index, self.timer)
        return self._shard


class CoordinatorRuntime(Generic[S]):
    """Shards by partition of ``topic``. All methods but ``run`` are plain calls."""

    def __init__(
        self,
        *,
        topic: str,
        writer: PartitionWriter,
        loader: CoordinatorLoader,
        serde_factory: Callable[[], CoordinatorRecordSerde],
        shard_factory: Callable[[int, CoordinatorTimer], S],
        clock: Clock,
        timer: Timer,
        log: logging.Logger,
        commit_timeout_s: Callable[[], float],
        compression: Callable[[], int] = lambda: 0,
        faults: Faults = NO_FAULTS,
        encoded_replay: Callable[[S], EncodedReplay] | None = None,
    ) -> None:
        self.topic = topic
        self._encoded_replay = encoded_replay
        self._writer = writer
        self._loader = loader
        self._serde_factory = serde_factory
        self._serde: CoordinatorRecordSerde | None = None
        self._shard_factory = shard_factory
        self._clock = clock
        self._timer = timer
        self._log = log
        self._commit_timeout_s = commit_timeout_s
        self._compression = compression
        self._faults = faults
        self._contexts: dict[int, _Context[S]] = {}
        self._to_load: Deferred[None] = Deferred()
        self._loads: deque[_Context[S]] = deque()

    # -- leadership

    def on_elected(self, index: int, leader_epoch: int) -> None:
        """This broker leads the partition: load it, unless it does so under this epoch."""
        context = self._contexts.get(index)
        if context is not None:
            if context.leader_epoch >= leader_epoch:
                return
            # A new epoch of our own: the state stands, nobody else has written in between.
            context.leader_epoch = leader_epoch
            return
        context = self._new_context(index, leader_epoch)
        try:
            self._writer.register_listener(self.topic, index, self)
            is_empty = self._loader.is_empty(self.topic, index)
        except KafkaError as error:
            self._log.warning("cannot lead %s-%d: %s", self.topic, index, error)
            return
        self._contexts[index] = context
        if not is_empty:
            context.state = _LOADING
            self._loads.append(context)
            self._to_load.complete(None)

    def _new_context(self, index: int, leader_epoch: int) -> _Context[S]:
        timer = CoordinatorTimer(
            self._clock,
            self._timer,
            lambda key, operation, retry: self._on_timer(index, key, operation, retry),
        )
        return _Context(index, leader_epoch, timer, self._shard_factory)

    def on_resigned(self, index: int, leader_epoch: int | None = None) -> None:
        """This broker does not lead the partition any more (as of ``leader_epoch``)."""
        context = self._contexts.get(index)
        if context is None or (leader_epoch is not None and leader_epoch < context.leader_epoch):
            return
        del self._contexts[index]
        self._writer.deregister_listener(self.topic, index, self)
        context.timer.cancel_all()
        if context.state == _ACTIVE:
            self._fail_all(context, KafkaError(ErrorCode.NOT_COORDINATOR))
            context.shard.on_unloaded()
            context.timer.cancel_all()  # what answering the waiting ones may have scheduled

    def on_high_watermark_updated(self, topic: str, partition: int, offset: int) -> None:
        """PartitionListener: release what waits for records below ``offset``."""
        context = self._contexts.get(partition)
        if context is None or offset <= context.high_watermark:
            return
        context.high_watermark = offset
        waiting = context.waiting
        while waiting and waiting[0].offset <= offset:
            entry = waiting.popleft()
            if entry.timeout is not None:
                entry.timeout.cancel()
            if entry.on_done is not None:
                self._follow_up(context, entry.on_done(None))
            entry.deferred.complete(entry.response)

    def on_failed(self, topic: str, partition: int) -> None:
        """PartitionListener: the log is offline or another broker leads."""
        self.on_resigned(partition)

    async def run(self) -> None:
        """Load partitions, one after the other, until cancelled."""
        while True:
            await self._to_load.wait()
            self._to_load = Deferred()
            while self._loads:
                await self._load(self._loads.popleft())

    async def _load(self, context: _Context[S]) -> None:
        started = self._clock.monotonic()
        from kbroker.coordinator.replayer import Replayer

        shard = context.shard
        encoded = None if self._encoded_replay is None else self._encoded_replay(shard)
        replayer = Replayer(shard, self._codec(), self._log, encoded)
        turn_ends = RECORDS_A_TURN
        try:
            async for run in self._loader.load(self.topic, context.index):
                if self._contexts.get(context.index) is not context:
                    return  # resigned meanwhile
                await replayer.add(run)
                if replayer.record_count >= turn_ends:  # however large the batches are
                    turn_ends = replayer.record_count + RECORDS_A_TURN
                    await checkpoint()
            await replayer.flush()
            if self._contexts.get(context.index) is not context:
                return
            context.last_written = replayer.next_offset
            self._activate(context)
        except KafkaError as error:
            self._log.warning("cannot load %s-%d: %s", self.topic, context.index, error)
            self._load_again_later(context)
        except Exception:
            self._log.exception("cannot load %s-%d", self.topic, context.index)
            self._load_again_later(context)
        else:
            self._log.info(
                "loaded %s-%d: %d records in %.3f s",
                self.topic,
                context.index,
                replayer.record_count,
                self._clock.monotonic() - started,
            )

    def _load_again_later(self, context: _Context[S]) -> None:
        """From the start, with a fresh shard, unless the partition has moved meanwhile."""

        def again() -> None:
            if self._contexts.get(context.index) is context:
                fresh = self._new_context(context.index, context.leader_epoch)
                fresh.state = _LOADING
                self._contexts[context.index] = fresh
                self._loads.append(fresh)
                self._to_load.complete(None)

        self._timer.schedule(RETRY_AFTER_S, again)

    def _activate(self, context: _Context[S]) -> None:
        context.high_watermark = self._writer.high_watermark(self.topic, context.index)
        context.state = _ACTIVE
        context.shard.on_loaded()

    def _codec(self) -> CoordinatorRecordSerde:
        if self._serde is None:
            self._serde = self._serde_factory()
        return self._serde

    # -- steps

    def active_shards(self) -> Iterator[tuple[int, S]]:
        """The loaded shards with their partitions; those nobody has asked for hold nothing."""
        for index, context in sorted(self._contexts.items()):
            if context.state == _ACTIVE:
                yield index, context.shard

    def indexes(self) -> list[int]:
        """Partitions this broker coordinates, loaded or not."""
        return sorted(self._contexts)

    def is_loading(self, index: int) -> bool:
        """Whether the partition is led here and not loaded yet."""
        context = self._contexts.get(index)
        return context is not None and context.state == _LOADING

    def shard(self, index: int) -> S:
        """The loaded shard of a partition.

        KafkaError: NOT_COORDINATOR, or COORDINATOR_LOAD_IN_PROGRESS.
        """
        return self._context(index).shard

    def _context(self, index: int) -> _Context[S]:
        context = self._contexts.get(index)
        if context is None:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        if context.state != _ACTIVE:
            if context.state == _LOADING:
                raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
            self._activate(context)
        return context

    def write(self, index: int, step: Callable[[S], CoordinatorResult[R]]) -> Answer[R]:
        """Run a step that may write. Its response, or a Deferred that will hold it.

        Raises, or the Deferred gives, KafkaError: what the step raised, the writer's errors, and
        REQUEST_TIMED_OUT when the records are not committed in offsets.commit.timeout.ms.
        """
        context = self._context(index)
        return self._apply(context, step(context.shard))

    def write_encoded(self, index: int, step: EncodedStep[S, R]) -> Answer[R]:
        """The same for a step that brings its batch."""
        context = self._context(index)
        shard = context.shard
        batch = step.encode(shard)
        context.last_written = committed_at = self._writer.append(self.topic, index, batch)
        self._faults.hit("offsets.after_append")
        step.replay(shard, committed_at - step.record_count)
        if committed_at <= context.high_watermark:
            return step.response
        return self._wait_for(context, committed_at, step.response, None)

    def read(self, index: int, step: Callable[[S], R]) -> Answer[R]:
        """Run a step that only reads; released when all that it can have seen is committed."""
        context = self._context(index)
        response = step(context.shard)
        if context.last_written <= context.high_watermark:
            return response
        return self._wait_for(context, context.last_written, response, None)

    def end_transaction(
        self,
        index: int,
        *,
        producer_id: int,
        producer_epoch: int,
        coordinator_epoch: int,
        commit: bool,
    ) -> Answer[None]:
        """Append a transaction's marker and apply it; answered as ``write`` is."""
        context = self._context(index)
        marker = build_end_transaction_marker(
            commit=commit,
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            coordinator_epoch=coordinator_epoch,
            timestamp=self._clock.time_ms(),
        )
        context.last_written = self._writer.append(self.topic, index, marker)
        context.shard.replay_end_transaction_marker(producer_id, commit=commit)
        if context.last_written <= context.high_watermark:
            return None
        return self._wait_for(context, context.last_written, None, None)

    def _apply(self, context: _Context[S], result: CoordinatorResult[R]) -> Answer[R]:
        if result.records:
            try:
                self._append(context, result)
            except KafkaError as error:
                self._not_written(context, result, error)
                raise
            except Exception:
                self._not_written(context, result, KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR))
                raise
        if context.last_written <= context.high_watermark:
            if result.on_done is not None:
                self._follow_up(context, result.on_done(None))
            return result.response
        return self._wait_for(context, context.last_written, result.response, result.on_done)

    def _append(self, context: _Context[S], result: CoordinatorResult[Any]) -> None:
        now_ms = self._clock.time_ms()
        serialize = self._codec().serialize
        encoded = [serialize(record) for record in result.records]
        limit = self._writer.max_batch_size(self.topic, context.index)
        first = 0
        for count in self._split(encoded, limit, atomic=result.atomic):
            batch = build_batch(
                [
                    Record(key=key, value=value, timestamp=now_ms)
                    for key, value in encoded[first : first + count]
                ],
                compression=self._compression(),
                producer_id=result.producer_id,
                producer_epoch=result.producer_epoch,
                transactional=result.producer_id >= 0,
            )
            if len(batch) > limit:
                raise KafkaError(ErrorCode.MESSAGE_TOO_LARGE)
            committed_at = self._writer.append(self.topic, context.index, batch)
            context.last_written = committed_at
            self._faults.hit("offsets.after_append")
            if result.replay:
                offset = committed_at - count
                for record in result.records[first : first + count]:
                    context.shard.replay(offset, result.producer_id, record.key, record.value)
                    offset += 1
            first += count

    @staticmethod
    def _split(
        encoded: list[tuple[bytes, bytes | None]], limit: int, *, atomic: bool
    ) -> Iterator[int]:
        """How many records each batch takes: all, unless they are many and may be parted."""
        overhead = 61
        if atomic or len(encoded) < 16:
            yield len(encoded)
            return
        size, count = overhead, 0
        for key, value in encoded:
            record_size = len(key) + (len(value) if value is not None else 0) + 24
            if count and size + record_size > limit:
                yield count
                size, count = overhead, 0
            size += record_size
            count += 1
        yield count

    def _not_written(
        self, context: _Context[S], result: CoordinatorResult[Any], error: KafkaError
    ) -> None:
        if result.on_done is not None:
            self._follow_up(context, result.on_done(error))

    def _follow_up(self, context: _Context[S], result: "CoordinatorResult[None] | None") -> None:
        """Apply a further step that nobody waits for; its failure is told to itself and logged."""
        if result is None:
            return
        try:
            self._apply(context, result)
        except KafkaError as error:
            self._log.warning("a step of %s-%d failed: %s", self.topic, context.index, error)
        except Exception:
            self._log.exception("a step of %s-%d failed", self.topic, context.index)

    def _wait_for(
        self,
        context: _Context[S],
        offset: int,
        response: Any,
        on_done: Callable[[KafkaError | None], "CoordinatorResult[None] | None"] | None,
    ) -> Deferred[Any]:
        entry = _Waiting(offset, response, on_done)
        context.waiting.append(entry)
        entry.timeout = self._timer.schedule(
            self._commit_timeout_s(), lambda: self._on_commit_timeout(context, entry)
        )
        return entry.deferred

    def _on_commit_timeout(self, context: _Context[S], entry: _Waiting) -> None:
        """Not replicated in time. The records stay in the log and may be committed later."""
        try:
            context.waiting.remove(entry)
        except ValueError:
            return
        self._fail(context, entry, KafkaError(ErrorCode.REQUEST_TIMED_OUT))

    def _fail(self, context: _Context[S], entry: _Waiting, error: KafkaError) -> None:
        if entry.timeout is not None:
            entry.timeout.cancel()
        if entry.on_done is not None:
            self._follow_up(context, entry.on_done(error))
        entry.deferred.fail(error)

    def _fail_all(self, context: _Context[S], error: KafkaError) -> None:
        waiting, context.waiting = context.waiting, deque()
        for entry in waiting:
            if entry.timeout is not None:
                entry.timeout.cancel()
            if entry.on_done is not None:
                entry.on_done(error)  # a further step would be refused: nobody leads here
            entry.deferred.fail(error)

    # -- timers

    def _on_timer(self, index: int, key: Hashable, operation: TimerOperation, retry: bool) -> None:
        context = self._contexts.get(index)
        if context is None or context.state != _ACTIVE:
            return
        try:
            result = operation()
            if result is not None:
                self._apply(context, result)
        except Exception as error:
            if isinstance(error, KafkaError):
                self._log.warning("timer %s of %s-%d: %s", key, self.topic, index, error)
            else:
                self._log.exception("timer %s of %s-%d", key, self.topic, index)
            if retry and not context.timer.is_scheduled(key):
                context.timer.schedule(key, RETRY_AFTER_S, operation, retry=True)
