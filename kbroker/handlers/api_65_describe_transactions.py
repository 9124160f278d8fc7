"""DescribeTransactions (65), version 0: what is known of transactional ids.

An empty id is INVALID_REQUEST, one that nobody has used TRANSACTIONAL_ID_NOT_FOUND.
"""

from typing import TYPE_CHECKING, Any

from kbroker.coordinator.deferred import Answer, Deferred, all_of
from kbroker.coordinator.transaction.transaction_metadata import TransactionMetadata
from kbroker.coordinator.transaction.transaction_records import by_topic
from kbroker.handlers.transaction_requests import answered
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_transactions_response import (
    DescribeTransactionsResponse,
    TopicData,
    TransactionState,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.describe_transactions_request import (
        DescribeTransactionsRequest,
    )
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: "DescribeTransactionsRequest"
) -> "DescribeTransactionsResponse | Coroutine[Any, Any, DescribeTransactionsResponse]":
    """Answers at once, unless what it shows is not replicated yet."""
    outcomes = [_describe(services, each) for each in request.transactional_ids]
    return answered(
        all_of(outcomes), lambda states: DescribeTransactionsResponse(transaction_states=states)
    )


def _describe(services: "Services", transactional_id: str) -> Answer[TransactionState]:
    try:
        outcome = services.transaction_coordinator.describe(transactional_id)
    except KafkaError as error:
        return _unknown(transactional_id, error)
    if not isinstance(outcome, Deferred):
        return _shown(outcome)
    answer: Deferred[TransactionState] = Deferred()

    def on_done(done: Deferred[TransactionMetadata]) -> None:
        try:
            answer.complete(_shown(done.result()))
        except KafkaError as error:
            answer.complete(_unknown(transactional_id, error))

    outcome.on_done(on_done)
    return answer


def _unknown(transactional_id: str, error: KafkaError) -> TransactionState:
    return TransactionState(error.error_code, transactional_id)


def _shown(metadata: TransactionMetadata) -> TransactionState:
    return TransactionState(
        transactional_id=metadata.transactional_id,
        transaction_state=metadata.state.title,
        transaction_timeout_ms=metadata.timeout_ms,
        transaction_start_time_ms=metadata.start_ms,
        producer_id=metadata.producer_id,
        producer_epoch=metadata.producer_epoch,
        topics=[
            TopicData(name, indexes) for name, indexes in by_topic(metadata.partitions).items()
        ],
    )


def error_response(
    request: "DescribeTransactionsRequest", error: KafkaError, version: int
) -> DescribeTransactionsResponse:
    """Every id with the error."""
    return DescribeTransactionsResponse(
        transaction_states=[_unknown(each, error) for each in request.transactional_ids]
    )
