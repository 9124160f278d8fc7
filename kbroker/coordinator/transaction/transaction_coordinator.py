"""The transaction coordinator of a broker: transactional ids by partition of their topic.

Verbs answer in the call where they can; a ``Deferred`` stands for records that are not committed
yet, a coroutine for a block of producer ids that must be fetched first.
"""

import logging
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from kbroker.common.clock import Clock
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.timer import Timer
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.loader import CoordinatorLoader
from kbroker.coordinator.partitioning import partition_for
from kbroker.coordinator.result import CoordinatorResult
from kbroker.coordinator.runtime import RETRY_AFTER_S, CoordinatorRuntime
from kbroker.coordinator.shard import CoordinatorRecordSerde
from kbroker.coordinator.transaction.marker_writer import MarkerWriter, TransactionMarker
from kbroker.coordinator.transaction.transaction_metadata import (
    Identity,
    NeedsProducerId,
    TopicPartition,
    TransactionMetadata,
)
from kbroker.coordinator.writer import PartitionWriter
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from kbroker.coordinator.transaction.transaction_shard import TransactionShard
    from kbroker.metadata.delta import MetadataDelta
    from kbroker.metadata.image import MetadataImage
    from kbroker.metadata.values import PartitionValue

TRANSACTION_TOPIC: Final = "__transaction_state"
COMMIT_TIMEOUT_S: Final = 5.0
"""Kafka waits so long for the replicas of a record (offsets.commit.timeout.ms does not count)."""

GenerateProducerId = Callable[[], int | Coroutine[Any, Any, int]]
R = TypeVar("R")
Step = Callable[["TransactionShard", int | None], CoordinatorResult[R]]

_TO_CLIENT: Final[Mapping[ErrorCode, ErrorCode]] = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
    ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
    ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
    ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
}
"""Errors of the log as the producer is told them."""

_LED_BY_NOBODY_HERE: Final = frozenset(
    {ErrorCode.NOT_COORDINATOR, ErrorCode.COORDINATOR_LOAD_IN_PROGRESS}
)
"""Whoever loads the partition watches its open transactions."""


class TransactionCoordinator:
    """Transactions of the partitions of ``__transaction_state`` that this broker leads."""

    def __init__(
        self,
        *,
        node_id: int,
        config: ConfigHolder,
        clock: Clock,
        timer: Timer,
        writer: PartitionWriter,
        loader: CoordinatorLoader,
        markers: MarkerWriter,
        generate_producer_id: GenerateProducerId,
        log: logging.Logger,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self._node_id = node_id
        self._faults = faults
        self._config = config
        self._clock = clock
        self._timer = timer
        self._markers = markers
        self._generate_producer_id = generate_producer_id
        self._log = log
        self._partition_count = 0
        self._epochs: dict[int, int] = {}
        self._exhausted: deque[str] = deque()
        self._to_abort: Deferred[None] = Deferred()
        self._runtime: CoordinatorRuntime[TransactionShard] = CoordinatorRuntime(
            topic=TRANSACTION_TOPIC,
            writer=writer,
            loader=loader,
            serde_factory=_new_serde,
            shard_factory=self._new_shard,
            clock=clock,
            timer=timer,
            log=log,
            commit_timeout_s=lambda: COMMIT_TIMEOUT_S,
        )

    def _new_shard(self, index: int, timer: CoordinatorTimer) -> "TransactionShard":
        return self._shard_class()(
            config=self._config,
            clock=self._clock,
            timer=timer,
            markers=self._markers,
            coordinator_epoch=lambda: self._epochs.get(index, 0),
            on_exhausted=self._on_exhausted,
            log=self._log,
        )

    def _shard_class(self) -> "type[TransactionShard]":
        if self._faults.planted == "epoch_not_fenced":
            from kbroker.coordinator.transaction.failpoints import UnfencedTransactionShard

            return UnfencedTransactionShard
        from kbroker.coordinator.transaction.transaction_shard import TransactionShard

        return TransactionShard

    # -- leadership

    async def run(self) -> None:
        """Load what this broker begins to lead, until cancelled. Run it in the background."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._runtime.run)
            tasks.start_soon(self._abort_exhausted)

    def apply(self, delta: "MetadataDelta", image: "MetadataImage") -> None:
        """Metadata subscriber; to be called after the replica manager and the group coordinator
        have applied the same: markers go to partitions that are led."""
        for topic in delta.deleted_topics:
            if topic.name == TRANSACTION_TOPIC:
                self._partition_count = 0
                for index in self._runtime.indexes():
                    self._runtime.on_resigned(index)
        for topic in delta.created_topics:
            if topic.name == TRANSACTION_TOPIC:
                self._partition_count = len(topic.partitions)
                for index, partition in enumerate(topic.partitions):
                    self._on_leader(index, partition)
        for change in delta.changed_partitions:
            if change.topic.name == TRANSACTION_TOPIC:
                self._partition_count = len(change.topic.partitions)
                self._on_leader(change.partition, change.new)

    def _on_leader(self, index: int, partition: "PartitionValue") -> None:
        if partition.leader == self._node_id:
            self._epochs[index] = partition.leader_epoch
            self._runtime.on_elected(index, partition.leader_epoch)
        else:
            self._runtime.on_resigned(index, partition.leader_epoch)

    def _index(self, transactional_id: str) -> int:
        """The id's partition. KafkaError NOT_COORDINATOR while there is no topic."""
        if not self._partition_count:
            raise KafkaError(ErrorCode.NOT_COORDINATOR)
        return partition_for(transactional_id, self._partition_count)

    # -- steps

    def _write(
        self,
        transactional_id: str,
        step: Callable[["TransactionShard"], CoordinatorResult[R]],
        refused: Callable[[ErrorCode], R],
    ) -> Answer[R]:
        """Run a step; errors of the log become the producer's."""
        try:
            outcome = self._runtime.write(self._index(transactional_id), step)
        except KafkaError as error:
            return refused(_TO_CLIENT.get(error.error_code, error.error_code))
        if not isinstance(outcome, Deferred):
            return outcome
        answer: Deferred[R] = Deferred()

        def on_done(done: Deferred[R]) -> None:
            try:
                answer.complete(done.result())
            except KafkaError as error:
                answer.complete(refused(_TO_CLIENT.get(error.error_code, error.error_code)))

        outcome.on_done(on_done)
        return answer

    def _write_with_id(
        self, transactional_id: str, step: Step[Identity]
    ) -> Answer[Identity] | Coroutine[Any, Any, Identity]:
        """Run a step that may need a producer id: without one first."""
        try:
            return self._write(transactional_id, lambda shard: step(shard, None), Identity)
        except NeedsProducerId:
            pass
        fresh_id = self._generate_producer_id()
        if isinstance(fresh_id, int):
            return self._write(transactional_id, lambda shard: step(shard, fresh_id), Identity)
        return self._write_when_fetched(transactional_id, step, fresh_id)

    async def _write_when_fetched(
        self, transactional_id: str, step: Step[Identity], fetching: Coroutine[Any, Any, int]
    ) -> Identity:
        fresh_id = await fetching
        outcome = self._write(transactional_id, lambda shard: step(shard, fresh_id), Identity)
        return await outcome.wait() if isinstance(outcome, Deferred) else outcome

    # -- the producer's requests

    def init_producer_id(
        self, transactional_id: str, timeout_ms: int, expected: tuple[int, int] | None
    ) -> Answer[Identity] | Coroutine[Any, Any, Identity]:
        """InitProducerId; ``expected`` is the producer id and epoch that the producer has."""
        if not transactional_id:
            return Identity(ErrorCode.INVALID_REQUEST)
        if not 0 < timeout_ms <= self._config.current.transaction_max_timeout_ms:
            return Identity(ErrorCode.INVALID_TRANSACTION_TIMEOUT)
        return self._write_with_id(
            transactional_id,
            lambda shard, fresh_id: shard.init_producer_id(
                transactional_id, timeout_ms, expected, fresh_id
            ),
        )

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Iterable[TopicPartition],
        client_version: int,
    ) -> Answer[ErrorCode]:
        """AddPartitionsToTxn, AddOffsetsToTxn, and what version 2 adds without being asked."""
        if not transactional_id:
            return ErrorCode.INVALID_REQUEST
        added = frozenset(partitions)
        return self._write(
            transactional_id,
            lambda shard: shard.add_partitions(
                transactional_id, producer_id, producer_epoch, added, client_version
            ),
            lambda error: error,
        )

    def verify_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Iterable[TopicPartition],
    ) -> dict[TopicPartition, ErrorCode]:
        """Whether partitions are in the producer's transaction (AddPartitionsToTxn VerifyOnly)."""
        asked = list(partitions)
        if not transactional_id:
            return dict.fromkeys(asked, ErrorCode.INVALID_REQUEST)
        try:
            shard = self.shard(transactional_id)
        except KafkaError as error:
            return dict.fromkeys(asked, error.error_code)
        return shard.verify_partitions(transactional_id, producer_id, producer_epoch, asked)

    @property
    def has_topic(self) -> bool:
        """Whether ``__transaction_state`` is there: without it nobody has a transactional id."""
        return self._partition_count > 0

    def end_transaction(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        *,
        commit: bool,
        client_version: int,
    ) -> Answer[Identity] | Coroutine[Any, Any, Identity]:
        """EndTxn; the identity is that of the producer's next transaction."""
        if not transactional_id:
            return Identity(ErrorCode.INVALID_REQUEST)
        return self._write_with_id(
            transactional_id,
            lambda shard, fresh_id: shard.end_transaction(
                transactional_id,
                producer_id,
                producer_epoch,
                commit=commit,
                client_version=client_version,
                fresh_id=fresh_id,
            ),
        )

    # -- timeouts that need a producer id

    def _on_exhausted(self, transactional_id: str) -> None:
        self._exhausted.append(transactional_id)
        self._to_abort.complete(None)

    async def _abort_exhausted(self) -> None:
        """Abort transactions that have timed out in the last epoch of their producer id."""
        while True:
            await self._to_abort.wait()
            self._to_abort = Deferred()
            while self._exhausted:
                transactional_id = self._exhausted.popleft()
                try:
                    fresh_id = self._generate_producer_id()
                    if not isinstance(fresh_id, int):
                        fresh_id = await fresh_id
                    self._abort_with(transactional_id, fresh_id)
                except KafkaError as error:
                    self._log.warning("cannot abort %s yet: %s", transactional_id, error)
                    if error.error_code not in _LED_BY_NOBODY_HERE:
                        self._abort_later(transactional_id)

    def _abort_later(self, transactional_id: str) -> None:
        """Its timer has run: nobody else would try again."""
        self._timer.schedule(RETRY_AFTER_S, lambda: self._on_exhausted(transactional_id))

    def _abort_with(self, transactional_id: str, fresh_id: int) -> None:
        def step(shard: "TransactionShard") -> CoordinatorResult[Any]:
            return shard.abort_timed_out(transactional_id, fresh_id) or CoordinatorResult((), None)

        self._runtime.write(self._index(transactional_id), step)

    # -- markers and views

    def write_marker(self, topic: str, partition: int, marker: TransactionMarker) -> Answer[None]:
        """WriteTxnMarkers: of another coordinator, or of an operator. Raises KafkaError."""
        return self._markers.write(topic, partition, marker)

    def describe(self, transactional_id: str) -> Answer[TransactionMetadata]:
        """KafkaError INVALID_REQUEST, TRANSACTIONAL_ID_NOT_FOUND, NOT_COORDINATOR,
        COORDINATOR_LOAD_IN_PROGRESS."""
        if not transactional_id:
            raise KafkaError(ErrorCode.INVALID_REQUEST)
        return self._runtime.read(
            self._index(transactional_id), lambda shard: shard.describe(transactional_id)
        )

    def shard(self, transactional_id: str) -> "TransactionShard":
        """The id's loaded shard. KafkaError NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS."""
        return self._runtime.shard(self._index(transactional_id))

    def is_loading(self, partition: int) -> bool:
        """Whether the partition is led here and not loaded yet."""
        return self._runtime.is_loading(partition)

    def transactions(self) -> list[TransactionMetadata]:
        """All that this broker coordinates. KafkaError COORDINATOR_LOAD_IN_PROGRESS."""
        if any(self._runtime.is_loading(index) for index in self._runtime.indexes()):
            raise KafkaError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS)
        return [
            metadata
            for _, shard in self._runtime.active_shards()
            for metadata in shard.transactions.values()
        ]


def _new_serde() -> CoordinatorRecordSerde:
    from kbroker.coordinator.transaction.transaction_records import TransactionRecordSerde

    return TransactionRecordSerde()
