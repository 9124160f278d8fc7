"""The transactional ids of one partition of ``__transaction_state``: every step, every timer.

The order of the checks is Kafka's, so that a request with two faults gets Kafka's error for it.
``PrepareEpochFence`` is never a state here: an epoch is fenced and the abort prepared in one step.
"""

import logging
from collections.abc import Callable, Iterable
from typing import Any

from kbroker.common.clock import Clock
from kbroker.config.broker_config import ConfigHolder
from kbroker.coordinator.coordinator_timer import CoordinatorTimer
from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.result import CoordinatorRecord, CoordinatorResult
from kbroker.coordinator.transaction.marker_writer import MarkerWriter, TransactionMarker
from kbroker.coordinator.transaction.transaction_metadata import (
    COMPLETED,
    IDLE,
    LAST_EPOCH,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    Identity,
    NeedsProducerId,
    TopicPartition,
    TransactionMetadata,
    TransactionState,
    TransactionVersion,
)
from kbroker.coordinator.transaction.transaction_records import (
    transaction_record,
    transaction_tombstone,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.transaction_log_key import TransactionLogKey

_EXPIRY_KEY = ("expire",)
MARKER_RETRY_S = 0.1
"""Pause before markers that could not be written are tried again."""
MARKERS_A_TURN = 64
"""Markers that are written before other tasks get their turn."""
_EXPIRED_A_BATCH = 1000
"""Tombstones of expired ids that are written at once."""

_ZOMBIE = frozenset({ErrorCode.INVALID_PRODUCER_EPOCH, ErrorCode.TRANSACTION_COORDINATOR_FENCED})


class TransactionShard:
    """``CoordinatorShard`` of transactions."""

    def __init__(
        self,
        *,
        config: ConfigHolder,
        clock: Clock,
        timer: CoordinatorTimer,
        markers: MarkerWriter,
        coordinator_epoch: Callable[[], int],
        on_exhausted: Callable[[str], None],
        log: logging.Logger,
    ) -> None:
        """``on_exhausted`` is told of a transaction that has timed out and cannot be aborted
        without a fresh producer id: ``abort`` is to be called with one."""
        self._config = config
        self._clock = clock
        self._timer = timer
        self._markers = markers
        self._coordinator_epoch = coordinator_epoch
        self._on_exhausted = on_exhausted
        self._log = log
        self.transactions: dict[str, TransactionMetadata] = {}
        self._unmarked: dict[str, set[TopicPartition]] = {}
        self._in_flight: set[tuple[str, TopicPartition]] = set()

    # -- replay

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any | None) -> None:
        """CoordinatorShard."""
        assert key.__class__ is TransactionLogKey
        if value is None:
            self.transactions.pop(key.transactional_id, None)
        else:
            self.transactions[key.transactional_id] = value

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        """CoordinatorShard: nothing in this log is transactional."""

    def on_loaded(self) -> None:
        """CoordinatorShard: finish what was prepared, watch what is open."""
        for metadata in self.transactions.values():
            if metadata.is_prepared:
                self._write_markers_later(metadata.transactional_id, 0.0)
            elif metadata.state is TransactionState.ONGOING:
                self._watch(metadata)
        self._schedule_expiry()

    def on_unloaded(self) -> None:
        """CoordinatorShard: nobody waits here."""

    # -- InitProducerId

    def init_producer_id(
        self,
        transactional_id: str,
        timeout_ms: int,
        expected: tuple[int, int] | None,
        fresh_id: int | None,
    ) -> CoordinatorResult[Identity]:
        """``expected`` is the producer id and epoch that a recovering producer has.

        Raises NeedsProducerId. An open transaction is fenced and aborted; the caller asks again.
        """
        now_ms = self._clock.time_ms()
        metadata = self.transactions.get(transactional_id)
        if metadata is None:
            producer_id = _needed(fresh_id)
            return self._initialized(
                TransactionMetadata(
                    transactional_id=transactional_id,
                    producer_id=producer_id,
                    previous_producer_id=producer_id,
                    producer_epoch=0,
                    timeout_ms=timeout_ms,
                    update_ms=now_ms,
                )
            )
        if metadata.is_prepared:
            return _refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        if expected is not None and not _may_be(metadata, *expected):
            return _refused(ErrorCode.PRODUCER_FENCED)
        if metadata.state is TransactionState.ONGOING:
            return self.abort(metadata, fresh_id)
        expected_epoch = None if expected is None else expected[1]
        if metadata.is_epoch_exhausted and expected_epoch in (None, metadata.producer_epoch):
            return self._initialized(
                metadata.with_new_producer_id(
                    _needed(fresh_id),
                    remember_epoch=expected is not None,
                    timeout_ms=timeout_ms,
                    now_ms=now_ms,
                )
            )
        if expected_epoch is None or expected_epoch == metadata.producer_epoch:
            last_epoch = NO_PRODUCER_EPOCH if expected_epoch is None else metadata.producer_epoch
            return self._initialized(
                metadata.with_bumped_epoch(
                    last_epoch=last_epoch, timeout_ms=timeout_ms, now_ms=now_ms
                )
            )
        if expected_epoch == metadata.last_producer_epoch:
            return self._initialized(
                metadata.with_unbumped_epoch(timeout_ms=timeout_ms, now_ms=now_ms)
            )
        return _refused(ErrorCode.PRODUCER_FENCED)

    @staticmethod
    def _initialized(metadata: TransactionMetadata) -> CoordinatorResult[Identity]:
        answer = Identity(ErrorCode.NONE, metadata.producer_id, metadata.producer_epoch)
        return CoordinatorResult([transaction_record(metadata)], answer)

    # -- partitions

    def add_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: frozenset[TopicPartition],
        client_version: int,
    ) -> CoordinatorResult[ErrorCode]:
        """AddPartitionsToTxn, AddOffsetsToTxn, and what leaders add themselves in version 2."""
        metadata = self.transactions.get(transactional_id)
        if metadata is not None and metadata.is_prepared:
            # Before anything else: the producer may use the id and epoch that come next already.
            return CoordinatorResult((), ErrorCode.CONCURRENT_TRANSACTIONS)
        error = self._check_producer(metadata, producer_id, producer_epoch)
        if error is not ErrorCode.NONE or metadata is None:
            return CoordinatorResult((), error)
        if metadata.state is TransactionState.ONGOING and partitions <= metadata.partitions:
            return CoordinatorResult((), ErrorCode.NONE)
        changed = metadata.with_partitions(
            partitions, client_version=client_version, now_ms=self._clock.time_ms()
        )
        begins = metadata.state is not TransactionState.ONGOING

        def on_done(failure: KafkaError | None) -> None:
            written = self.transactions.get(transactional_id)
            if begins and written is not None and written.state is TransactionState.ONGOING:
                self._watch(written)

        return CoordinatorResult([transaction_record(changed)], ErrorCode.NONE, on_done=on_done)

    def verify_partitions(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        partitions: Iterable[TopicPartition],
    ) -> dict[TopicPartition, ErrorCode]:
        """Whether each partition is in the producer's transaction: TRANSACTION_ABORTABLE if not."""
        metadata = self.transactions.get(transactional_id)
        error = self._check_producer(metadata, producer_id, producer_epoch)
        if error is not ErrorCode.NONE or metadata is None:
            return dict.fromkeys(partitions, error)
        if metadata.is_prepared:
            return dict.fromkeys(partitions, ErrorCode.CONCURRENT_TRANSACTIONS)
        return {
            partition: ErrorCode.NONE
            if partition in metadata.partitions
            else ErrorCode.TRANSACTION_ABORTABLE
            for partition in partitions
        }

    @staticmethod
    def _check_producer(
        metadata: TransactionMetadata | None, producer_id: int, producer_epoch: int
    ) -> ErrorCode:
        if metadata is None:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if metadata.producer_id != producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if metadata.producer_epoch != producer_epoch:
            return ErrorCode.PRODUCER_FENCED
        return ErrorCode.NONE

    # -- EndTxn

    def end_transaction(
        self,
        transactional_id: str,
        producer_id: int,
        producer_epoch: int,
        *,
        commit: bool,
        client_version: int,
        fresh_id: int | None,
    ) -> CoordinatorResult[Identity]:
        """EndTxn of a client. Raises NeedsProducerId. Markers follow when the answer is out."""
        metadata = self.transactions.get(transactional_id)
        if metadata is None:
            return _refused(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        bumps = client_version >= TransactionVersion.TV_2
        if bumps and metadata.is_prepared:
            return _refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        is_overflow_retry = (
            bumps
            and metadata.previous_producer_id == producer_id
            and producer_epoch == LAST_EPOCH
            and metadata.producer_epoch == 0
        )
        if metadata.producer_id != producer_id and not is_overflow_retry:
            return _refused(ErrorCode.INVALID_PRODUCER_ID_MAPPING)
        is_retry = is_overflow_retry or (bumps and producer_epoch == metadata.producer_epoch - 1)
        if not self._is_valid_epoch(metadata, producer_epoch, bumps=bumps, is_retry=is_retry):
            return _refused(ErrorCode.PRODUCER_FENCED)
        if metadata.is_prepared:
            return _refused(ErrorCode.CONCURRENT_TRANSACTIONS)
        may_abort_nothing = bumps and not commit and not is_retry
        if metadata.state is TransactionState.ONGOING or (
            metadata.state in IDLE and may_abort_nothing
        ):
            next_id = NO_PRODUCER_ID
            if bumps and metadata.is_epoch_exhausted:
                next_id = _needed(fresh_id)
            prepared = metadata.prepared(
                commit=commit,
                client_version=client_version,
                next_producer_id=next_id,
                now_ms=self._clock.time_ms(),
            )
            return self._prepare(prepared, Identity(ErrorCode.NONE, *prepared.next_identity))
        return self._end_again(metadata, commit=commit, is_success=is_retry or not bumps)

    @staticmethod
    def _is_valid_epoch(
        metadata: TransactionMetadata, producer_epoch: int, *, bumps: bool, is_retry: bool
    ) -> bool:
        """In version 2 the same epoch means the next transaction, the one before a retry."""
        is_same = producer_epoch == metadata.producer_epoch
        if not bumps:
            return is_same
        return is_same or (is_retry and metadata.state in COMPLETED)

    @staticmethod
    def _end_again(
        metadata: TransactionMetadata, *, commit: bool, is_success: bool
    ) -> CoordinatorResult[Identity]:
        """EndTxn where nothing is open: asked again, or a mistake."""
        same = TransactionState.COMPLETE_COMMIT if commit else TransactionState.COMPLETE_ABORT
        if metadata.state is same and is_success:
            answer = Identity(ErrorCode.NONE, metadata.producer_id, metadata.producer_epoch)
            return CoordinatorResult((), answer)
        return _refused(ErrorCode.INVALID_TXN_STATE)

    def abort(
        self, metadata: TransactionMetadata, fresh_id: int | None
    ) -> CoordinatorResult[Identity]:
        """Fence the producer of an open transaction and abort it. Raises NeedsProducerId.

        As EndTxn of version 2 does it, whatever version the producer speaks: its epoch is bumped,
        so a producer that gives the one before may go on with KIP-360 until another one has begun.
        """
        next_id = _needed(fresh_id) if metadata.is_epoch_exhausted else NO_PRODUCER_ID
        prepared = metadata.prepared(
            commit=False,
            client_version=TransactionVersion.TV_2,
            next_producer_id=next_id,
            now_ms=self._clock.time_ms(),
        )
        return self._prepare(prepared, Identity(ErrorCode.CONCURRENT_TRANSACTIONS))

    def abort_timed_out(
        self, transactional_id: str, fresh_id: int | None
    ) -> CoordinatorResult[Any] | None:
        """Abort the transaction of an id when its time is over. Raises NeedsProducerId."""
        metadata = self.transactions.get(transactional_id)
        if metadata is None or metadata.state is not TransactionState.ONGOING:
            return None
        if self._clock.time_ms() - metadata.start_ms < metadata.timeout_ms:
            self._watch(metadata)
            return None
        self._log.info(
            "the transaction of %s is aborted after %d ms", transactional_id, metadata.timeout_ms
        )
        return self.abort(metadata, fresh_id)

    def _watch(self, metadata: TransactionMetadata) -> None:
        """Abort the transaction at its timeout. The timer is left alone when it ends: it finds
        nothing open then, or another transaction to wait for."""
        transactional_id = metadata.transactional_id
        left_ms = metadata.start_ms + metadata.timeout_ms - self._clock.time_ms()

        def on_timeout() -> CoordinatorResult[Any] | None:
            try:
                return self.abort_timed_out(transactional_id, None)
            except NeedsProducerId:
                self._on_exhausted(transactional_id)
                return None

        self._timer.schedule(
            ("timeout", transactional_id), max(left_ms, 0) / 1000, on_timeout, retry=True
        )

    # -- markers

    def _prepare(
        self, prepared: TransactionMetadata, answer: Identity
    ) -> CoordinatorResult[Identity]:
        """Write the decision; the markers follow when it is committed, and never before."""

        def on_done(failure: KafkaError | None) -> CoordinatorResult[None] | None:
            if self.transactions.get(prepared.transactional_id) is not prepared:
                return None  # it could not be written
            if failure is None:
                return self._write_markers(prepared.transactional_id)
            self._timer.schedule(
                ("markers", prepared.transactional_id),
                MARKER_RETRY_S,
                lambda: self._prepare_again(prepared),
                retry=True,
            )
            return None

        return CoordinatorResult([transaction_record(prepared)], answer, on_done=on_done)

    def _prepare_again(self, prepared: TransactionMetadata) -> CoordinatorResult[Identity] | None:
        """The decision was not committed in time: once more, as nobody else can take another."""
        if self.transactions.get(prepared.transactional_id) is not prepared:
            return None
        return self._prepare(prepared, Identity(ErrorCode.NONE))

    def _write_markers_later(self, transactional_id: str, delay_s: float) -> None:
        self._timer.schedule(
            ("markers", transactional_id),
            delay_s,
            lambda: self._write_markers(transactional_id),
            retry=True,
        )

    def _write_markers(self, transactional_id: str) -> CoordinatorResult[None] | None:
        """Write what is missing; the record of completion when nothing is."""
        metadata = self.transactions.get(transactional_id)
        if metadata is None or not metadata.is_prepared:
            self._unmarked.pop(transactional_id, None)
            return None
        unmarked = self._unmarked.setdefault(transactional_id, set(metadata.partitions))
        marker = TransactionMarker(
            metadata.producer_id,
            metadata.producer_epoch,
            self._coordinator_epoch(),
            metadata.state is TransactionState.PREPARE_COMMIT,
            metadata.client_version,
        )
        in_flight = self._in_flight
        missing = [each for each in unmarked if (transactional_id, each) not in in_flight]
        delay_s = 0.0 if len(missing) > MARKERS_A_TURN else MARKER_RETRY_S
        for partition in sorted(missing)[:MARKERS_A_TURN]:
            try:
                outcome = self._markers.write(*partition, marker)
            except KafkaError as error:
                if self._is_final(transactional_id, partition, error):
                    unmarked.discard(partition)
                continue
            if isinstance(outcome, Deferred) and not outcome.done:
                in_flight.add((transactional_id, partition))
                outcome.on_done(self._on_marker(transactional_id, unmarked, partition))
            else:
                unmarked.discard(partition)
        if not unmarked:
            return self._complete(metadata)
        self._write_markers_later(transactional_id, delay_s)
        return None

    def _on_marker(
        self, transactional_id: str, unmarked: set[TopicPartition], partition: TopicPartition
    ) -> Callable[[Deferred[None]], None]:
        def on_done(done: Deferred[None]) -> None:
            self._in_flight.discard((transactional_id, partition))
            try:
                done.result()
            except KafkaError as error:
                if not self._is_final(transactional_id, partition, error):
                    return
            unmarked.discard(partition)
            if not unmarked:
                self._write_markers_later(transactional_id, 0.0)

        return on_done

    def _is_final(
        self, transactional_id: str, partition: TopicPartition, error: KafkaError
    ) -> bool:
        """Whether there is nothing left to end on a partition. A zombie's marker means that a
        newer epoch has written there, which begins by ending the older transaction."""
        if error.error_code is ErrorCode.UNKNOWN_TOPIC_OR_PARTITION:
            return True
        self._log.warning(
            "the marker of %s for %s-%d: %s", transactional_id, *partition, error.error_code.name
        )
        return error.error_code in _ZOMBIE

    def _complete(self, metadata: TransactionMetadata) -> CoordinatorResult[None]:
        completed = metadata.completed(now_ms=self._clock.time_ms())

        def on_done(failure: KafkaError | None) -> None:
            self._unmarked.pop(metadata.transactional_id, None)
            if failure is not None and self.transactions.get(metadata.transactional_id) is metadata:
                self._write_markers_later(metadata.transactional_id, MARKER_RETRY_S)

        return CoordinatorResult([transaction_record(completed)], None, on_done=on_done)

    # -- expiry

    def _schedule_expiry(self) -> None:
        interval_ms = (
            self._config.current.transaction_remove_expired_transaction_cleanup_interval_ms
        )
        self._timer.schedule(_EXPIRY_KEY, interval_ms / 1000, self._expire)

    def _expire(self) -> CoordinatorResult[None]:
        """Forget ids that nobody has used for transactional.id.expiration.ms."""
        oldest_ms = self._clock.time_ms() - self._config.current.transactional_id_expiration_ms
        records: list[CoordinatorRecord] = []
        for metadata in self.transactions.values():
            if metadata.state in IDLE and metadata.update_ms <= oldest_ms:
                records.append(transaction_tombstone(metadata.transactional_id))
                if len(records) == _EXPIRED_A_BATCH:
                    self._timer.schedule(_EXPIRY_KEY, 0.0, self._expire)
                    break
        else:
            self._schedule_expiry()
        return CoordinatorResult(records, None, atomic=False)

    # -- what there is

    def describe(self, transactional_id: str) -> TransactionMetadata:
        """KafkaError TRANSACTIONAL_ID_NOT_FOUND.

        Of a transaction that ends, the partitions without a marker: those that have one are not
        in it any more, and ``kafka-transactions find-hanging`` relies on that.
        """
        metadata = self.transactions.get(transactional_id)
        if metadata is None:
            raise KafkaError(ErrorCode.TRANSACTIONAL_ID_NOT_FOUND)
        unmarked = self._unmarked.get(transactional_id)
        if metadata.is_prepared and unmarked is not None:
            return metadata._replace(partitions=frozenset(unmarked))
        return metadata


def _may_be(metadata: TransactionMetadata, producer_id: int, producer_epoch: int) -> bool:
    """Whether a producer that asks to go on can be the id's present one."""
    return producer_id == metadata.producer_id or (
        producer_id == metadata.previous_producer_id and producer_epoch >= LAST_EPOCH
    )


def _needed(fresh_id: int | None) -> int:
    if fresh_id is None:
        raise NeedsProducerId
    return fresh_id


def _refused(error: ErrorCode) -> CoordinatorResult[Identity]:
    return CoordinatorResult((), Identity(error))
