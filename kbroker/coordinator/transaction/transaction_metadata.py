"""What the coordinator knows of one transactional id, and how each step changes it.

Values are immutable: a step makes the next one, the runtime writes it and only then puts it in
place. Follows KIP-98, KIP-360 (epoch bump by the client) and KIP-890 (an epoch a transaction).
"""

from enum import IntEnum
from typing import Final, NamedTuple

from kbroker.protocol.error_codes import ErrorCode

NO_PRODUCER_ID: Final = -1
NO_PRODUCER_EPOCH: Final = -1
LAST_EPOCH: Final = 32766
"""The highest epoch that a client is given; one above is for fencing it."""
FENCING_EPOCH: Final = 32767

TopicPartition = tuple[str, int]


class TransactionVersion(IntEnum):
    """Levels of the feature ``transaction.version``, and what a client's request stands for."""

    TV_0 = 0
    TV_1 = 1
    """Flexible records in ``__transaction_state``."""
    TV_2 = 2
    """KIP-890: partitions are added by their leaders, each end bumps the epoch."""


class TransactionState(IntEnum):
    """As stored (TransactionLogValue.TransactionStatus)."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5
    DEAD = 6
    PREPARE_EPOCH_FENCE = 7

    @property
    def title(self) -> str:
        """The name that clients are told: ``PrepareCommit``."""
        return "".join(word.capitalize() for word in self.name.split("_"))


PREPARED: Final = frozenset({TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT})
COMPLETED: Final = frozenset({TransactionState.COMPLETE_COMMIT, TransactionState.COMPLETE_ABORT})
IDLE: Final = COMPLETED | {TransactionState.EMPTY}
"""Nothing is open: the id may begin a transaction, and may expire."""


class TransactionMetadata(NamedTuple):
    """Times in ms since 1970, -1 for none."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    last_producer_epoch: int = NO_PRODUCER_EPOCH
    """The epoch before the last bump that a client asked for; not stored, -1 after a load."""
    previous_producer_id: int = NO_PRODUCER_ID
    next_producer_id: int = NO_PRODUCER_ID
    """What the producer goes on with after the prepared transaction; for exhausted epochs."""
    state: TransactionState = TransactionState.EMPTY
    partitions: frozenset[TopicPartition] = frozenset()
    start_ms: int = -1
    update_ms: int = -1
    client_version: int = TransactionVersion.TV_0

    @property
    def is_epoch_exhausted(self) -> bool:
        """No epoch is left for a client under this producer id."""
        return self.producer_epoch >= LAST_EPOCH

    @property
    def is_prepared(self) -> bool:
        return self.state in PREPARED

    @property
    def next_identity(self) -> tuple[int, int]:
        """(producer id, epoch) of the producer's next transaction."""
        if self.next_producer_id != NO_PRODUCER_ID:
            return self.next_producer_id, 0
        return self.producer_id, self.producer_epoch

    def _next(self, **changes: object) -> "TransactionMetadata":
        return self._replace(previous_producer_id=self.producer_id, **changes)  # type: ignore[arg-type]

    def with_bumped_epoch(
        self, *, last_epoch: int, timeout_ms: int, now_ms: int
    ) -> "TransactionMetadata":
        """InitProducerId by the producer or its successor."""
        return self._next(
            producer_epoch=self.producer_epoch + 1,
            last_producer_epoch=last_epoch,
            timeout_ms=timeout_ms,
            state=TransactionState.EMPTY,
            partitions=frozenset(),
            start_ms=-1,
            update_ms=now_ms,
        )

    def with_unbumped_epoch(self, *, timeout_ms: int, now_ms: int) -> "TransactionMetadata":
        """InitProducerId asked again: the epoch was bumped already."""
        return self._next(
            timeout_ms=timeout_ms,
            state=TransactionState.EMPTY,
            partitions=frozenset(),
            start_ms=-1,
            update_ms=now_ms,
        )

    def with_new_producer_id(
        self, producer_id: int, *, remember_epoch: bool, timeout_ms: int, now_ms: int
    ) -> "TransactionMetadata":
        """InitProducerId when the epochs are used up."""
        return self._next(
            producer_id=producer_id,
            producer_epoch=0,
            last_producer_epoch=self.producer_epoch if remember_epoch else NO_PRODUCER_EPOCH,
            timeout_ms=timeout_ms,
            state=TransactionState.EMPTY,
            partitions=frozenset(),
            start_ms=-1,
            update_ms=now_ms,
        )

    def with_partitions(
        self, partitions: frozenset[TopicPartition], *, client_version: int, now_ms: int
    ) -> "TransactionMetadata":
        """Partitions join; the first ones begin the transaction."""
        return self._next(
            state=TransactionState.ONGOING,
            partitions=self.partitions | partitions,
            start_ms=now_ms if self.state in IDLE else self.start_ms,
            update_ms=now_ms,
            client_version=client_version,
        )

    def prepared(
        self, *, commit: bool, client_version: int, next_producer_id: int, now_ms: int
    ) -> "TransactionMetadata":
        """The decision. In version 2 it ends the epoch too."""
        bumps = client_version >= TransactionVersion.TV_2
        epoch = self.producer_epoch
        return self._next(
            state=TransactionState.PREPARE_COMMIT if commit else TransactionState.PREPARE_ABORT,
            producer_epoch=min(epoch + 1, FENCING_EPOCH) if bumps else epoch,
            last_producer_epoch=self.producer_epoch if bumps else self.last_producer_epoch,
            next_producer_id=next_producer_id,
            start_ms=self.start_ms if self.state is TransactionState.ONGOING else now_ms,
            update_ms=now_ms,
            client_version=client_version,
        )

    def completed(self, *, now_ms: int) -> "TransactionMetadata":
        """Every marker is written."""
        producer_id, producer_epoch = self.next_identity
        return self._next(
            producer_id=producer_id,
            producer_epoch=producer_epoch,
            next_producer_id=NO_PRODUCER_ID,
            state=(
                TransactionState.COMPLETE_COMMIT
                if self.state is TransactionState.PREPARE_COMMIT
                else TransactionState.COMPLETE_ABORT
            ),
            partitions=frozenset(),
            update_ms=now_ms,
        )


class NeedsProducerId(Exception):
    """The step must be taken again with a fresh producer id."""


class Identity(NamedTuple):
    """What InitProducerId and EndTxn answer; id and epoch are -1 with an error."""

    error: ErrorCode
    producer_id: int = NO_PRODUCER_ID
    producer_epoch: int = NO_PRODUCER_EPOCH
