"""ListTransactions (66), versions 0-2: the transactional ids that this broker coordinates.

Filters: states (names nobody knows are told back), producer ids; v1 those whose transaction began
longer ago than a duration (-1: all), and, as in Kafka, those that never had one; v2 a regular
expression (RE2) that the whole id must match.
"""

from typing import TYPE_CHECKING

from kbroker.coordinator.transaction.transaction_metadata import (
    TransactionMetadata,
    TransactionState,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_transactions_response import ListTransactionsResponse
from kbroker.protocol.messages.list_transactions_response import (
    TransactionState as ListedTransaction,
)

if TYPE_CHECKING:
    from kbroker.coordinator.group.topic_regex import TopicRegex
    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.list_transactions_request import ListTransactionsRequest
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: "ListTransactionsRequest"
) -> ListTransactionsResponse:
    """What passes all filters."""
    known = {state.title: state for state in TransactionState}
    unknown = [name for name in request.state_filters if name not in known]
    states = {known[name] for name in request.state_filters if name in known}
    try:
        pattern = _pattern(request.transactional_id_pattern)
        transactions = services.transaction_coordinator.transactions()
    except KafkaError as error:
        return error_response(request, error, context.api_version)
    if unknown and not states:
        return ListTransactionsResponse(unknown_state_filters=unknown)
    now_ms = services.clock.time_ms()

    def is_asked_for(metadata: TransactionMetadata) -> bool:
        return (
            (not states or metadata.state in states)
            and (
                not request.producer_id_filters
                or metadata.producer_id in request.producer_id_filters
            )
            and (
                request.duration_filter < 0
                or now_ms - metadata.start_ms > request.duration_filter  # -1 is long ago
            )
            and (pattern is None or pattern.matches(metadata.transactional_id))
        )

    return ListTransactionsResponse(
        unknown_state_filters=unknown,
        transaction_states=[
            ListedTransaction(metadata.transactional_id, metadata.producer_id, metadata.state.title)
            for metadata in transactions
            if is_asked_for(metadata)
        ],
    )


def _pattern(pattern: str | None) -> "TopicRegex | None":
    """KafkaError INVALID_REGULAR_EXPRESSION."""
    if not pattern:
        return None
    from kbroker.coordinator.group.topic_regex import TopicRegex

    return TopicRegex(pattern)


def error_response(
    request: "ListTransactionsRequest", error: KafkaError, version: int
) -> ListTransactionsResponse:
    """Only the code."""
    return ListTransactionsResponse(error_code=ErrorCode(error.error_code))
