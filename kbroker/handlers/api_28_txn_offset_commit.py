"""TxnOffsetCommit (28), versions 0-5: offsets that count when the transaction commits.

v2  the leader epoch of the last consumed record.
v3  the member of the group, checked as in OffsetCommit (KIP-447).
v4  a group that is not in the transaction is TRANSACTION_ABORTABLE, INVALID_TXN_STATE before.
v5  KIP-890: it joins without being asked.
Only the first commit of a transaction asks the transaction coordinator.
"""

from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.handlers.transaction_requests import TransactionSupport, answered, join_transaction
from kbroker.metadata.topic_names import CONSUMER_OFFSETS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.txn_offset_commit_response import (
    TxnOffsetCommitResponse,
    TxnOffsetCommitResponsePartition,
    TxnOffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.txn_offset_commit_request import TxnOffsetCommitRequest
    from kbroker.request_context import RequestContext

_GENERIC_ERROR_FROM: Final = 4
_JOINS_FROM: Final = 5
_LOADING_FROM: Final = 2

_Errors = dict[tuple[str, int], ErrorCode]


def handle(
    services: "Services", context: "RequestContext", request: "TxnOffsetCommitRequest"
) -> "TxnOffsetCommitResponse | Coroutine[Any, Any, TxnOffsetCommitResponse]":
    """Answers at once, unless records are not replicated yet."""
    asked = [
        (topic.name, [partition.partition_index for partition in topic.partitions])
        for topic in request.topics
    ]
    errors = _take_out_unknown(services, request)
    if not request.topics:
        return _response(asked, errors)
    if not request.group_id:
        return error_of_all(asked, errors, ErrorCode.INVALID_GROUP_ID)
    version = context.api_version

    def respond(committed: TxnOffsetCommitResponse) -> TxnOffsetCommitResponse:
        for topic in committed.topics:
            for partition in topic.partitions:
                error = ErrorCode(partition.error_code)
                errors[topic.name, partition.partition_index] = _as_version(error, version)
        return _response(asked, errors)

    joined = join_transaction(
        services,
        request.transactional_id,
        (request.producer_id, request.producer_epoch),
        [(CONSUMER_OFFSETS, services.group_coordinator.partition_for(request.group_id))],
        TransactionSupport.of(version, _GENERIC_ERROR_FROM, _JOINS_FROM),
    )
    if isinstance(joined, Deferred):
        return _commit_later(services, request, joined, asked, errors, version)
    if joined:
        (error,) = joined.values()
        return error_of_all(asked, errors, _as_version(error, version))
    return answered(_commit(services, request), respond)


def _as_version(error: ErrorCode, version: int) -> ErrorCode:
    if error is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS and version < _LOADING_FROM:
        return ErrorCode.COORDINATOR_NOT_AVAILABLE
    return error


def _commit(
    services: "Services", request: "TxnOffsetCommitRequest"
) -> Answer[TxnOffsetCommitResponse]:
    return services.group_coordinator.requests.commit_transactional_offsets(request)


async def _commit_later(
    services: "Services",
    request: "TxnOffsetCommitRequest",
    joining: "Deferred[_Errors]",
    asked: list[tuple[str, list[int]]],
    errors: _Errors,
    version: int,
) -> TxnOffsetCommitResponse:
    refused = await joining.wait()
    if refused:
        (error,) = refused.values()
        return error_of_all(asked, errors, _as_version(error, version))
    outcome = _commit(services, request)
    committed = await outcome.wait() if isinstance(outcome, Deferred) else outcome
    for topic in committed.topics:
        for partition in topic.partitions:
            found = ErrorCode(partition.error_code)
            errors[topic.name, partition.partition_index] = _as_version(found, version)
    return _response(asked, errors)


def _take_out_unknown(services: "Services", request: "TxnOffsetCommitRequest") -> _Errors:
    """Leave what exists in the request; the errors of the rest."""
    topics = services.metadata.image.topics
    errors: _Errors = {}
    known = []
    for topic in request.topics:
        image = topics.get(topic.name)
        count = 0 if image is None else len(image.partitions)
        sound = [each for each in topic.partitions if 0 <= each.partition_index < count]
        for each in topic.partitions:
            if not 0 <= each.partition_index < count:
                errors[topic.name, each.partition_index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        if sound:
            topic.partitions = sound
            known.append(topic)
    request.topics = known
    return errors


def error_of_all(
    asked: list[tuple[str, list[int]]], errors: _Errors, error: ErrorCode
) -> TxnOffsetCommitResponse:
    """``error`` for every partition that has none of its own."""
    every = {(name, index): error for name, indexes in asked for index in indexes}
    return _response(asked, {**every, **errors})


def _response(asked: list[tuple[str, list[int]]], errors: _Errors) -> TxnOffsetCommitResponse:
    return TxnOffsetCommitResponse(
        topics=[
            TxnOffsetCommitResponseTopic(
                name,
                [TxnOffsetCommitResponsePartition(index, errors[name, index]) for index in indexes],
            )
            for name, indexes in asked
        ]
    )


def error_response(
    request: "TxnOffsetCommitRequest", error: "KafkaError", version: int
) -> TxnOffsetCommitResponse:
    """Every partition with the error."""
    asked = [(t.name, [each.partition_index for each in t.partitions]) for t in request.topics]
    return error_of_all(asked, {}, error.error_code)
