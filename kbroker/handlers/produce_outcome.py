"""What is answered for each partition of a Produce request, and when."""

from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.current_leader import current_leader
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.produce_response import (
    BatchIndexAndErrorMessage,
    LeaderIdAndEpoch,
    NodeEndpoint,
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.replication.delayed_produce import PendingAck
from kbroker.request_context import CloseConnection
from kbroker.storage.record_errors import RecordValidationError

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.produce_request import ProduceRequest
    from kbroker.replication.partition import Partition
    from kbroker.request_context import RequestContext
    from kbroker.storage.unified_log import LogAppendInfo

ACKS_ALL: Final = -1
FIRST_VERSION_WITH_TOPIC_IDS: Final = 13
FIRST_VERSION_WITH_ZSTD: Final = 7
_FIRST_VERSION_WITH_LEADER: Final = 10

_NO_LEADER: Final = LeaderIdAndEpoch()
"""Shared by answers and never changed: building one each costs more than writing it."""

_WITHOUT_LOG_START: Final = frozenset(
    {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_ID,
        ErrorCode.NOT_LEADER_OR_FOLLOWER,
        ErrorCode.MESSAGE_TOO_LARGE,
        ErrorCode.RECORD_LIST_TOO_LARGE,
        ErrorCode.CORRUPT_MESSAGE,
        ErrorCode.KAFKA_STORAGE_ERROR,
    }
)
"""Errors of an append with which Kafka does not tell where the log starts; with others it does."""


class Entry:
    """One partition of the request, and what is answered for it."""

    __slots__ = (
        "is_plain",
        "is_transactional",
        "name",
        "partition",
        "records",
        "required_offset",
        "response",
        "topic_key",
    )

    def __init__(self, topic_key: str | bytes, index: int, records: Any) -> None:
        self.topic_key = topic_key
        self.records = records
        self.is_plain = False
        self.is_transactional = False
        self.name = ""
        self.partition: Partition | None = None
        self.required_offset = -1
        self.response = PartitionProduceResponse(
            index, ErrorCode.NONE, -1, current_leader=_NO_LEADER
        )


class UnansweredProduce(CloseConnection):
    """Records with acks=0 were not all written; the only way to say so is to hang up."""

    def __init__(self, failed: list[Entry]) -> None:
        code = ErrorCode(failed[0].response.error_code)
        super().__init__(f"produce with acks=0 failed: {code.name}")
        self.failed = {(entry.topic_key, entry.response.index) for entry in failed}
        """(topic name or id, as the request has it; partition)"""


def succeed(entry: Entry, info: "LogAppendInfo") -> None:
    response = entry.response
    response.base_offset = info.first_offset
    response.log_append_time_ms = info.log_append_time_ms
    response.log_start_offset = info.log_start_offset
    entry.required_offset = info.last_offset + 1


def fail(services: "Services", entry: Entry, error: Exception) -> None:
    response = entry.response
    if isinstance(error, KafkaError):
        response.error_code = error.error_code
    elif isinstance(error, OSError):
        services.log.error("append to %s-%d failed", entry.name, response.index, exc_info=error)
        response.error_code = ErrorCode.KAFKA_STORAGE_ERROR
    else:
        services.log.error("append to %s-%d failed", entry.name, response.index, exc_info=error)
        response.error_code = ErrorCode.UNKNOWN_SERVER_ERROR
    if entry.partition is not None and response.error_code not in _WITHOUT_LOG_START:
        response.log_start_offset = entry.partition.log.log_start_offset
    if isinstance(error, RecordValidationError):
        response.error_message = error.message
        response.record_errors = [
            BatchIndexAndErrorMessage(index, message) for index, message in error.record_errors
        ]


def finish(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
) -> "ProduceResponse | Coroutine[Any, Any, ProduceResponse] | None":
    """The answer, or the wait for the replicas before it."""
    acks = request.acks
    if acks == 0:
        failed = [entry for entry in entries if entry.response.error_code]
        if failed:
            raise UnansweredProduce(failed)
        return None
    if acks == ACKS_ALL:
        pending = []
        for entry in entries:
            partition, required = entry.partition, entry.required_offset
            if required >= 0 and partition is not None:
                outcome = partition.check_enough_replicas_reach(required)
                if outcome is None:
                    pending.append(PendingAck(partition, required, entry.response))
                else:
                    entry.response.error_code = outcome
        if pending:
            return _wait_for_acks(services, context, request, entries, pending)
    return answer_all(services, context, entries)


async def _wait_for_acks(
    services: "Services",
    context: "RequestContext",
    request: "ProduceRequest",
    entries: list[Entry],
    pending: list[PendingAck],
) -> ProduceResponse:
    await services.replica_manager.wait_for_acks(pending, request.timeout_ms)
    return answer_all(services, context, entries)


def answer_all(
    services: "Services", context: "RequestContext", entries: list[Entry]
) -> ProduceResponse:
    version = context.api_version
    nodes: list[NodeEndpoint] = []
    if version >= _FIRST_VERSION_WITH_LEADER:
        for entry in entries:
            if entry.response.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER:
                _name_leader(services, context, entry, nodes)
    return respond(entries, version, nodes)


def _name_leader(
    services: "Services", context: "RequestContext", entry: Entry, nodes: list[NodeEndpoint]
) -> None:
    leader = current_leader(services, context, entry.name, entry.response.index)
    entry.response.current_leader = LeaderIdAndEpoch(leader.leader_id, leader.leader_epoch)
    if leader.node is not None and all(node.node_id != leader.leader_id for node in nodes):
        nodes.append(NodeEndpoint(*leader.node))


def respond(entries: list[Entry], version: int, nodes: list[NodeEndpoint]) -> ProduceResponse:
    uses_ids = version >= FIRST_VERSION_WITH_TOPIC_IDS
    topic_key: Any
    if len(entries) == 1:  # mostly
        topic_key = entries[0].topic_key
        name, topic_id = ("", topic_key) if uses_ids else (topic_key, ZERO_UUID)
        only = TopicProduceResponse(name, topic_id, [entries[0].response])
        return ProduceResponse([only], 0, nodes)
    topics: dict[str | bytes, TopicProduceResponse] = {}
    for entry in entries:
        topic_key = entry.topic_key
        topic = topics.get(topic_key)
        if topic is not None:
            topic.partition_responses.append(entry.response)
        elif uses_ids:
            topics[topic_key] = TopicProduceResponse("", topic_key, [entry.response])
        else:
            topics[topic_key] = TopicProduceResponse(topic_key, ZERO_UUID, [entry.response])
    return ProduceResponse(list(topics.values()), 0, nodes)
