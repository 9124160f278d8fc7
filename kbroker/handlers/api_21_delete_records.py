"""DeleteRecords, versions 0-2: let partitions start at a later offset, -1: the high watermark.

Answers the low watermark, the lowest log start of all replicas, once it has reached the offset.
Internal topics are refused, and topics that are only compacted.
"""

from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.delete_records_response import (
    DeleteRecordsPartitionResult,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)
from kbroker.replication.delayed_delete_records import PendingDeletion

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.delete_records_request import DeleteRecordsRequest
    from kbroker.request_context import RequestContext

_UNKNOWN: Final = -1
_AT_ONCE: Final = 64
"""Partitions that are cut before other connections get their turn."""

_Result = tuple[str, DeleteRecordsPartitionResult]


def handle(
    services: "Services", context: "RequestContext", request: "DeleteRecordsRequest"
) -> "DeleteRecordsResponse | Coroutine[Any, Any, DeleteRecordsResponse]":
    """Cut what can be cut, wait for the other replicas."""
    wanted = {
        (topic.name, partition.partition_index): partition.offset
        for topic in request.topics
        for partition in topic.partitions
    }
    if len(wanted) > _AT_ONCE:
        return _delete_giving_way(services, request, wanted)
    results: list[_Result] = []
    pending: list[PendingDeletion] = []
    for (name, index), offset in wanted.items():
        _delete(services, name, index, offset, results, pending)
    return _finish(services, request, results, pending)


async def _delete_giving_way(
    services: "Services", request: "DeleteRecordsRequest", wanted: dict[tuple[str, int], int]
) -> DeleteRecordsResponse:
    results: list[_Result] = []
    pending: list[PendingDeletion] = []
    for number, ((name, index), offset) in enumerate(wanted.items(), 1):
        _delete(services, name, index, offset, results, pending)
        if number % _AT_ONCE == 0:
            await checkpoint()
    finished = _finish(services, request, results, pending)
    return finished if isinstance(finished, DeleteRecordsResponse) else await finished


def _delete(
    services: "Services",
    name: str,
    index: int,
    offset: int,
    results: list[_Result],
    pending: list[PendingDeletion],
) -> None:
    result = DeleteRecordsPartitionResult(index, _UNKNOWN)
    results.append((name, result))
    try:
        topic = services.metadata.image.topics.get(name)
        if topic is None or not 0 <= index < len(topic.partitions):
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        if topic.is_internal:
            raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION)
        partition = services.replica_manager.get_partition_or_raise(name, index)
        deletion = PendingDeletion(partition, partition.delete_records(offset), result)
    except KafkaError as error:
        result.error_code = error.error_code
        return
    if not deletion.settle():
        pending.append(deletion)


def _finish(
    services: "Services",
    request: "DeleteRecordsRequest",
    results: list[_Result],
    pending: list[PendingDeletion],
) -> "DeleteRecordsResponse | Coroutine[Any, Any, DeleteRecordsResponse]":
    if pending:
        return _wait(services, request, results, pending)
    return _respond(results)


async def _wait(
    services: "Services",
    request: "DeleteRecordsRequest",
    results: list[_Result],
    pending: list[PendingDeletion],
) -> DeleteRecordsResponse:
    await services.replica_manager.wait_for_deletions(pending, request.timeout_ms)
    return _respond(results)


def _respond(results: "Iterable[_Result]") -> DeleteRecordsResponse:
    topics: dict[str, DeleteRecordsTopicResult] = {}
    for name, result in results:
        topic = topics.get(name)
        if topic is None:
            topic = topics[name] = DeleteRecordsTopicResult(name)
        topic.partitions.append(result)
    return DeleteRecordsResponse(topics=list(topics.values()))


def error_response(
    request: "DeleteRecordsRequest", error: KafkaError, version: int
) -> DeleteRecordsResponse:
    """Every partition with the same error."""
    return _respond(
        (
            topic.name,
            DeleteRecordsPartitionResult(partition.partition_index, _UNKNOWN, error.error_code),
        )
        for topic in request.topics
        for partition in topic.partitions
    )
