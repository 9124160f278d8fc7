"""What the handlers of transactions share: who is in which transaction, and answers that wait.

A partition's leader asks the transaction coordinator before the first write of a transaction
(KIP-890): older clients must have added the partition (verification), those of version 2 leave
that to the leader. Once the log has an open transaction of the producer nobody is asked again.
"""

from collections.abc import Callable, Coroutine, Iterable, Mapping
from enum import IntEnum
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.transaction.transaction_metadata import (
    TopicPartition,
    TransactionVersion,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

if TYPE_CHECKING:
    from kbroker.handlers.services import Services

NO_SEQUENCES: Final[Mapping[TopicPartition, int]] = MappingProxyType({})
"""Of what is no client's batch."""

A = TypeVar("A")
R = TypeVar("R")


class TransactionSupport(IntEnum):
    """What the version of a writing request knows of transactions."""

    DEFAULT_ERROR = 0
    """A partition that is not in the transaction is INVALID_TXN_STATE."""
    GENERIC_ERROR = 1
    """It is TRANSACTION_ABORTABLE."""
    ADD_PARTITION = 2
    """It is added."""

    @classmethod
    def of(cls, version: int, generic_from: int, adds_from: int) -> "TransactionSupport":
        """That of a request's version, given the first versions of the other two."""
        if version >= adds_from:
            return cls.ADD_PARTITION
        return cls.GENERIC_ERROR if version >= generic_from else cls.DEFAULT_ERROR


def answered(
    outcome: Answer[A] | Coroutine[Any, Any, A], respond: Callable[[A], R]
) -> R | Coroutine[Any, Any, R]:
    """The response made of what a coordinator answers, now or when it does."""
    if isinstance(outcome, Deferred):
        return _respond_later(outcome.wait(), respond)
    if isinstance(outcome, Coroutine):
        return _respond_later(outcome, respond)
    return respond(outcome)


async def _respond_later(waiting: Coroutine[Any, Any, A], respond: Callable[[A], R]) -> R:
    return respond(await waiting)


def _needs_asking(
    services: "Services",
    partition: TopicPartition,
    producer: tuple[int, int],
    first_sequence: int | None,
    *,
    begins_at_zero: bool,
) -> bool:
    """Whether the partition's log holds nothing of the producer's present transaction yet.

    Raises KafkaError INVALID_PRODUCER_EPOCH when it has seen a later epoch. With a sequence number,
    of the batch to be appended, that is noted, and KafkaError raised when the leader is elsewhere.
    """
    manager = services.replica_manager
    if first_sequence is None:
        hosted = manager.get_partition(*partition)
    else:
        hosted = manager.get_leader_partition(*partition)
    if hosted is None:
        return True
    state = hosted.log.producer_state
    if state.is_fenced(*producer):
        raise KafkaError(ErrorCode.INVALID_PRODUCER_EPOCH)
    if state.has_open_transaction(*producer):
        return False
    if first_sequence is not None:
        state.start_verification(*producer, first_sequence, begins_at_zero=begins_at_zero)
    return True


def join_transaction(
    services: "Services",
    transactional_id: str,
    producer: tuple[int, int],
    partitions: Iterable[TopicPartition],
    support: TransactionSupport,
    sequences: Mapping[TopicPartition, int] = NO_SEQUENCES,
) -> Answer[dict[TopicPartition, ErrorCode]]:
    """The errors of partitions that may not be written to in the producer's transaction.

    ``producer`` is its id and epoch, ``sequences`` the first one of each batch to be appended.
    """
    adds = support is TransactionSupport.ADD_PARTITION
    if not adds and not services.config.current.transaction_partition_verification_enable:
        return {}
    unknown: list[TopicPartition] = []
    refused: dict[TopicPartition, ErrorCode] = {}
    for partition in partitions:
        first = sequences.get(partition)
        try:
            if _needs_asking(services, partition, producer, first, begins_at_zero=adds):
                unknown.append(partition)
        except KafkaError as error:
            refused[partition] = error.error_code
    if not unknown:
        return refused
    asked = _ask_coordinator(services, transactional_id, producer, unknown, support)
    if not isinstance(asked, Deferred):
        return refused | asked
    answer: Deferred[dict[TopicPartition, ErrorCode]] = Deferred()
    asked.on_done(lambda done: answer.complete(refused | done.result()))
    return answer


def _ask_coordinator(
    services: "Services",
    transactional_id: str,
    producer: tuple[int, int],
    unknown: list[TopicPartition],
    support: TransactionSupport,
) -> Answer[dict[TopicPartition, ErrorCode]]:
    coordinator = services.transaction_coordinator
    producer_id, producer_epoch = producer
    if not coordinator.has_topic:
        return dict.fromkeys(unknown, ErrorCode.INVALID_PRODUCER_ID_MAPPING)
    if support is TransactionSupport.ADD_PARTITION:
        outcome = coordinator.add_partitions(
            transactional_id, producer_id, producer_epoch, unknown, TransactionVersion.TV_2
        )
        if isinstance(outcome, Deferred):
            return _errors_later(outcome, unknown)
        return _errors(dict.fromkeys(unknown, outcome), support)
    return _errors(
        coordinator.verify_partitions(transactional_id, producer_id, producer_epoch, unknown),
        support,
    )


async def join_patiently(
    services: "Services",
    first: Answer[dict[TopicPartition, ErrorCode]],
    join: Callable[[], Answer[dict[TopicPartition, ErrorCode]]],
) -> dict[TopicPartition, ErrorCode]:
    """What ``join`` answers once the producer's last transaction is complete.

    A producer of version 2 begins the next transaction as soon as EndTxn is answered, while the
    markers are on their way: asking again here costs less than a retry of its request. ``first`` is
    the first answer; the last one is given after add.partitions.to.txn.retry.backoff.max.ms.
    """
    config = services.config.current
    patience_ms = min(config.add_partitions_to_txn_retry_backoff_max_ms, config.request_timeout_ms)
    end = services.clock.monotonic() + patience_ms / 1000
    answer = first
    while True:
        errors = await answer.wait() if isinstance(answer, Deferred) else answer
        if ErrorCode.CONCURRENT_TRANSACTIONS not in errors.values():
            return errors
        if services.clock.monotonic() >= end:
            return errors
        pause: Deferred[None] = Deferred()
        services.timer.schedule(
            config.add_partitions_to_txn_retry_backoff_ms / 1000, partial(pause.complete, None)
        )
        await pause.wait()
        answer = join()


def _errors_later(
    outcome: Deferred[ErrorCode], partitions: list[TopicPartition]
) -> Deferred[dict[TopicPartition, ErrorCode]]:
    answer: Deferred[dict[TopicPartition, ErrorCode]] = Deferred()

    def on_done(done: Deferred[ErrorCode]) -> None:
        found = dict.fromkeys(partitions, done.result())
        answer.complete(_errors(found, TransactionSupport.ADD_PARTITION))

    outcome.on_done(on_done)
    return answer


def _errors(
    found: dict[TopicPartition, ErrorCode], support: TransactionSupport
) -> dict[TopicPartition, ErrorCode]:
    """The coordinator's errors as those of a write."""
    translated = {ErrorCode.PRODUCER_FENCED: ErrorCode.INVALID_PRODUCER_EPOCH}
    if support is TransactionSupport.DEFAULT_ERROR:
        translated[ErrorCode.TRANSACTION_ABORTABLE] = ErrorCode.INVALID_TXN_STATE
    return {
        partition: translated.get(error, error)
        for partition, error in found.items()
        if error is not ErrorCode.NONE
    }


def fenced_before(version: int, first_with_fenced: int, error: ErrorCode) -> ErrorCode:
    """PRODUCER_FENCED as clients know it that are older than the code."""
    if error is ErrorCode.PRODUCER_FENCED and version < first_with_fenced:
        return ErrorCode.INVALID_PRODUCER_EPOCH
    return error
