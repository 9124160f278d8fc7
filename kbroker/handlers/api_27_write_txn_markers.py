"""WriteTxnMarkers (27), versions 1-2: end transactions on partitions led here.

Asked by transaction coordinators, and by operators who abort hanging transactions
(kafka-transactions). v2 carries the transaction version. An older epoch than the partition has
seen is INVALID_PRODUCER_EPOCH, none at all UNKNOWN_SERVER_ERROR, as in Kafka; an older coordinator
TRANSACTION_COORDINATOR_FENCED. A group coordinator that is not ready is NOT_LEADER_OR_FOLLOWER,
after which markers are sent again.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.deferred import Answer, Deferred, all_of
from kbroker.coordinator.transaction.marker_writer import TransactionMarker
from kbroker.handlers.transaction_requests import answered
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.write_txn_markers_response import (
    WritableTxnMarkerPartitionResult,
    WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult,
    WriteTxnMarkersResponse,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.write_txn_markers_request import WriteTxnMarkersRequest
    from kbroker.request_context import RequestContext


_NOT_READY: Final = frozenset(
    {
        ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
        ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_COORDINATOR,
    }
)


def handle(
    services: "Services", context: "RequestContext", request: "WriteTxnMarkersRequest"
) -> "WriteTxnMarkersResponse | Coroutine[Any, Any, WriteTxnMarkersResponse]":
    """Answers at once, unless a marker is not replicated yet."""
    outcomes: list[Answer[ErrorCode]] = []
    for entry in request.markers:
        marker = TransactionMarker(
            entry.producer_id,
            entry.producer_epoch,
            entry.coordinator_epoch,
            entry.transaction_result,
            entry.transaction_version,
        )
        outcomes.extend(
            _write(services, topic.name, index, marker)
            for topic in entry.topics
            for index in topic.partition_indexes
        )
    return answered(all_of(outcomes), lambda errors: _response(request, errors))


def _write(
    services: "Services", topic: str, partition: int, marker: TransactionMarker
) -> Answer[ErrorCode]:
    try:
        outcome = services.transaction_coordinator.write_marker(topic, partition, marker)
    except KafkaError as error:
        return _error(error)
    if not isinstance(outcome, Deferred):
        return ErrorCode.NONE
    answer: Deferred[ErrorCode] = Deferred()

    def on_done(done: Deferred[None]) -> None:
        try:
            done.result()
            answer.complete(ErrorCode.NONE)
        except KafkaError as error:
            answer.complete(_error(error))

    outcome.on_done(on_done)
    return answer


def _error(error: KafkaError) -> ErrorCode:
    if error.error_code in _NOT_READY:
        return ErrorCode.NOT_LEADER_OR_FOLLOWER
    return error.error_code


def _response(
    request: "WriteTxnMarkersRequest", errors: list[ErrorCode]
) -> WriteTxnMarkersResponse:
    left = iter(errors)
    return WriteTxnMarkersResponse(
        markers=[
            WritableTxnMarkerResult(
                entry.producer_id,
                [
                    WritableTxnMarkerTopicResult(
                        topic.name,
                        [
                            WritableTxnMarkerPartitionResult(index, next(left))
                            for index in topic.partition_indexes
                        ],
                    )
                    for topic in entry.topics
                ],
            )
            for entry in request.markers
        ]
    )


def error_response(
    request: "WriteTxnMarkersRequest", error: KafkaError, version: int
) -> WriteTxnMarkersResponse:
    """Every partition with the error."""
    count = sum(len(t.partition_indexes) for entry in request.markers for t in entry.topics)
    return _response(request, [error.error_code] * count)
