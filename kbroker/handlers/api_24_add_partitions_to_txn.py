"""AddPartitionsToTxn (24), versions 0-5: partitions join a transaction.

v0-3  of clients: one transaction, all partitions or none. One that does not exist has its error,
      the others OPERATION_NOT_ATTEMPTED. v2 knows PRODUCER_FENCED.
v4-5  of brokers (KIP-890): many transactions, internal topics too; ``VerifyOnly`` only looks. A
      partition that is not in its transaction is TRANSACTION_ABORTABLE.
Apache Kafka never answers v4 and v5 without transactions; here the answer is empty.
"""

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from kbroker.coordinator.deferred import Answer, Deferred, all_of
from kbroker.coordinator.transaction.transaction_metadata import (
    TopicPartition,
    TransactionVersion,
)
from kbroker.handlers.transaction_requests import answered, fenced_before
from kbroker.metadata.topic_names import is_internal
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.add_partitions_to_txn_response import (
    AddPartitionsToTxnPartitionResult,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopicResult,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.protocol.errors import KafkaError
    from kbroker.protocol.messages.add_partitions_to_txn_request import (
        AddPartitionsToTxnRequest,
        AddPartitionsToTxnTopic,
        AddPartitionsToTxnTransaction,
    )
    from kbroker.request_context import RequestContext

_FIRST_OF_BROKERS: Final = 4
_FENCED_FROM: Final = 2

_Errors = dict[TopicPartition, ErrorCode]


def handle(
    services: "Services", context: "RequestContext", request: "AddPartitionsToTxnRequest"
) -> AddPartitionsToTxnResponse | Coroutine[Any, Any, AddPartitionsToTxnResponse]:
    """Answers at once, unless the records are not replicated yet."""
    version = context.api_version
    if version >= _FIRST_OF_BROKERS:
        outcome = all_of([_one(services, each) for each in request.transactions])
        return answered(outcome, lambda errors: _response_to_broker(request.transactions, errors))
    topics = request.v3_and_below_topics
    partitions = _partitions(topics)
    bad = _bad_partitions(services, partitions, by_client=True)
    if bad:
        return _response_to_client(topics, _refused(partitions, bad), version)
    outcome_of_client = _add(
        services,
        request.v3_and_below_transactional_id,
        request.v3_and_below_producer_id,
        request.v3_and_below_producer_epoch,
        partitions,
        TransactionVersion.TV_0,
    )
    return answered(outcome_of_client, lambda errors: _response_to_client(topics, errors, version))


def _partitions(topics: "Sequence[AddPartitionsToTxnTopic]") -> list[TopicPartition]:
    return [(topic.name, index) for topic in topics for index in topic.partitions]


def _one(services: "Services", transaction: "AddPartitionsToTxnTransaction") -> Answer[_Errors]:
    """What a broker asks for: its groups' offsets may be added too."""
    partitions = _partitions(transaction.topics)
    bad = _bad_partitions(services, partitions, by_client=False)
    if bad:
        return _refused(partitions, bad)
    if not transaction.verify_only:
        return _add(
            services,
            transaction.transactional_id,
            transaction.producer_id,
            transaction.producer_epoch,
            partitions,
            TransactionVersion.TV_2,
        )
    return services.transaction_coordinator.verify_partitions(
        transaction.transactional_id,
        transaction.producer_id,
        transaction.producer_epoch,
        partitions,
    )


def _refused(partitions: list[TopicPartition], bad: _Errors) -> _Errors:
    return {each: bad.get(each, ErrorCode.OPERATION_NOT_ATTEMPTED) for each in partitions}


def _add(
    services: "Services",
    transactional_id: str,
    producer_id: int,
    producer_epoch: int,
    partitions: list[TopicPartition],
    client_version: int,
) -> Answer[_Errors]:
    if not partitions:
        return {}
    outcome = services.transaction_coordinator.add_partitions(
        transactional_id, producer_id, producer_epoch, partitions, client_version
    )
    if not isinstance(outcome, Deferred):
        return dict.fromkeys(partitions, outcome)
    answer: Deferred[_Errors] = Deferred()
    outcome.on_done(lambda done: answer.complete(dict.fromkeys(partitions, done.result())))
    return answer


def _bad_partitions(
    services: "Services", partitions: Sequence[TopicPartition], *, by_client: bool
) -> _Errors:
    """Partitions that cannot be added: those that are not there, internal ones by a client."""
    topics = services.metadata.image.topics
    bad: _Errors = {}
    for name, index in partitions:
        topic = topics.get(name)
        if by_client and is_internal(name):
            bad[name, index] = ErrorCode.TOPIC_AUTHORIZATION_FAILED
        elif topic is None or not 0 <= index < len(topic.partitions):
            bad[name, index] = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    return bad


def _results(
    topics: "Sequence[AddPartitionsToTxnTopic]", errors: _Errors, version: int
) -> list[AddPartitionsToTxnTopicResult]:
    return [
        AddPartitionsToTxnTopicResult(
            topic.name,
            [
                AddPartitionsToTxnPartitionResult(
                    index, fenced_before(version, _FENCED_FROM, errors[topic.name, index])
                )
                for index in topic.partitions
            ],
        )
        for topic in topics
    ]


def _response_to_client(
    topics: "Sequence[AddPartitionsToTxnTopic]", errors: _Errors, version: int
) -> AddPartitionsToTxnResponse:
    return AddPartitionsToTxnResponse(
        results_by_topic_v3_and_below=_results(topics, errors, version)
    )


def _response_to_broker(
    transactions: "Sequence[AddPartitionsToTxnTransaction]", errors: list[_Errors]
) -> AddPartitionsToTxnResponse:
    return AddPartitionsToTxnResponse(
        results_by_transaction=[
            AddPartitionsToTxnResult(
                each.transactional_id, _results(each.topics, found, _FIRST_OF_BROKERS)
            )
            for each, found in zip(transactions, errors, strict=True)
        ]
    )


def error_response(
    request: "AddPartitionsToTxnRequest", error: "KafkaError", version: int
) -> AddPartitionsToTxnResponse:
    """Every partition with the error; brokers are told it once."""
    if version >= _FIRST_OF_BROKERS:
        return AddPartitionsToTxnResponse(error_code=error.error_code)
    topics = request.v3_and_below_topics
    errors = dict.fromkeys(_partitions(topics), error.error_code)
    return _response_to_client(topics, errors, version)
