"""What the handlers of transactions share: who is in which transaction, and answers that wait.

A partition's leader asks the transaction coordinator before the first write of a transaction
(KIP-890): older clients must have added the partition (verification), those of version 2 leave
that to the leader. Once the log has an open transaction of the producer nobody is asked again.
"""

from collections.abc import Callable, Coroutine, Iterable
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.transaction.transaction_metadata import (
    TopicPartition,
    TransactionVersion,
)
from kbroker.protocol.error_codes import ErrorCode

if TYPE_CHECKING:
    from kbroker.handlers.services import Services

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


def has_open_transaction(
    services: "Services", partition: TopicPartition, producer_id: int, producer_epoch: int
) -> bool:
    """Whether the partition's log holds records of the producer's present transaction."""
    hosted = services.replica_manager.get_partition(*partition)
    if hosted is None:
        return False
    entry = hosted.log.producer_state.producers.get(producer_id)
    return (
        entry is not None
        and entry.current_txn_first_offset >= 0
        and entry.producer_epoch == producer_epoch
    )


def _is_fenced(
    services: "Services", partition: TopicPartition, producer_id: int, producer_epoch: int
) -> bool:
    """Whether the partition's log has seen a later epoch of the producer."""
    hosted = services.replica_manager.get_partition(*partition)
    return hosted is not None and hosted.log.producer_state.is_fenced(producer_id, producer_epoch)


def join_transaction(
    services: "Services",
    transactional_id: str,
    producer_id: int,
    producer_epoch: int,
    partitions: Iterable[TopicPartition],
    support: TransactionSupport,
) -> Answer[dict[TopicPartition, ErrorCode]]:
    """The errors of partitions that may not be written to in the producer's transaction."""
    unknown = [
        partition
        for partition in partitions
        if not has_open_transaction(services, partition, producer_id, producer_epoch)
    ]
    if not unknown:
        return {}
    producer = producer_id, producer_epoch
    fenced = {
        partition: ErrorCode.INVALID_PRODUCER_EPOCH
        for partition in unknown
        if _is_fenced(services, partition, *producer)
    }
    if not fenced:
        return _ask_coordinator(services, transactional_id, producer, unknown, support)
    left = [partition for partition in unknown if partition not in fenced]
    if not left:
        return fenced
    asked = _ask_coordinator(services, transactional_id, producer, left, support)
    if not isinstance(asked, Deferred):
        return fenced | asked
    answer: Deferred[dict[TopicPartition, ErrorCode]] = Deferred()
    asked.on_done(lambda done: answer.complete(fenced | done.result()))
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
    if not services.config.current.transaction_partition_verification_enable:
        return {}
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
