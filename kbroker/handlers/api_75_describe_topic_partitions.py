"""DescribeTopicPartitions (75), version 0: topics page by page (KIP-966).

Topics come sorted by name; an empty list asks for all. A page ends at the limit of partitions; its
cursor names the next topic and partition. A cursor must lie within the asked topics. Authorized
operations are always given, also for topics that do not exist, as in Kafka.
"""

from collections.abc import Collection
from typing import TYPE_CHECKING

from kbroker.handlers.authorized_operations import TOPIC_OPERATIONS
from kbroker.metadata.topic_metadata import is_reachable, offline_replicas
from kbroker.metadata.topic_names import is_internal, topic_name_problem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.describe_topic_partitions_request import (
    Cursor as RequestCursor,
)
from kbroker.protocol.messages.describe_topic_partitions_request import (
    DescribeTopicPartitionsRequest,
)
from kbroker.protocol.messages.describe_topic_partitions_response import (
    Cursor,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)

if TYPE_CHECKING:
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import MetadataImage, TopicImage
    from kbroker.request_context import RequestContext


def handle(
    services: "Services", context: "RequestContext", request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    """One page. Raises KafkaError(INVALID_REQUEST) for a cursor that leads nowhere."""
    image = services.metadata.image
    cursor = request.cursor
    everything = not request.topics
    asked = image.topics.by_name if everything else {topic.name for topic in request.topics}
    names = _from_cursor(asked, cursor, may_be_elsewhere=everything)
    if cursor is None and "" in names:
        # Kafka takes the empty name for that of the cursor which is not there, and stumbles.
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
    limit = services.config.current.max_request_partition_size_limit
    remaining = max(min(limit, request.response_partition_limit), 1)
    response = DescribeTopicPartitionsResponse()
    for name in names:
        if not remaining:
            response.next_cursor = Cursor(name, 0)
            break
        topic = image.topics.get(name)
        if topic is None:
            response.topics.append(_missing(name))
            continue
        start = cursor.partition_index if cursor and cursor.topic_name == name else 0
        end = min(len(topic.partitions), start + remaining)
        listener = context.connection.listener_name
        response.topics.append(_describe(image, topic, listener, range(start, end)))
        if end < len(topic.partitions):
            response.next_cursor = Cursor(name, end)
            break
        remaining -= max(end - start, 0)
    return response


def _utf16(name: str) -> bytes:
    """Java orders strings by UTF-16 code units."""
    return name.encode("utf-16-be", "surrogatepass")


def _from_cursor(
    asked: Collection[str],
    cursor: RequestCursor | None,
    *,
    may_be_elsewhere: bool,
) -> list[str]:
    """The asked names from the cursor's on, sorted."""
    names = sorted(asked, key=_utf16)
    if cursor is None:
        return names
    if not may_be_elsewhere and cursor.topic_name not in asked:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "DescribeTopicPartitionsRequest topic list should contain the cursor topic: "
            f"{cursor.topic_name}",
        )
    if cursor.partition_index < 0:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            f"DescribeTopicPartitionsRequest cursor partition must be valid: {cursor}",
        )
    start = _utf16(cursor.topic_name)
    return [name for name in names if _utf16(name) >= start]


def _missing(name: str) -> DescribeTopicPartitionsResponseTopic:
    valid = topic_name_problem(name) is None
    return DescribeTopicPartitionsResponseTopic(
        error_code=(
            ErrorCode.UNKNOWN_TOPIC_OR_PARTITION if valid else ErrorCode.INVALID_TOPIC_EXCEPTION
        ),
        name=name,
        is_internal=is_internal(name),
        topic_authorized_operations=TOPIC_OPERATIONS,
    )


def _describe(
    image: "MetadataImage", topic: "TopicImage", listener: str, indexes: range
) -> DescribeTopicPartitionsResponseTopic:
    partitions = []
    for index in indexes:
        partition = topic.partitions[index]
        reachable = is_reachable(image.brokers, partition.leader, listener)
        partitions.append(
            DescribeTopicPartitionsResponsePartition(
                partition_index=index,
                leader_id=partition.leader if reachable else -1,
                leader_epoch=partition.leader_epoch,
                replica_nodes=list(partition.replicas),
                isr_nodes=list(partition.isr),
                eligible_leader_replicas=list(partition.elr),
                last_known_elr=list(partition.last_known_elr),
                offline_replicas=offline_replicas(partition, image.brokers, listener),
            )
        )
    return DescribeTopicPartitionsResponseTopic(
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.is_internal,
        partitions=partitions,
        topic_authorized_operations=TOPIC_OPERATIONS,
    )


def error_response(
    request: DescribeTopicPartitionsRequest, error: KafkaError, version: int
) -> DescribeTopicPartitionsResponse:
    """The error for every topic that was asked for."""
    return DescribeTopicPartitionsResponse(
        topics=[
            DescribeTopicPartitionsResponseTopic(error_code=error.error_code, name=topic.name)
            for topic in request.topics
        ]
    )
