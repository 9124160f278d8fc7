"""Produce requests with a batch for each of several partitions, answered without messages.

So the Java client sends what it has for the partitions of one leader. Such a request is read by its
bytes: every batch is looked at before the first one is appended, and what is not ordinary (a
transaction, acks=0, a topic or partition that is not here, a batch that is not plain, tagged
fields) goes the ordinary way before anything has happened. What an append raises is the error of
its partition, as there.
"""

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.produce_outcome import (
    ACKS_ALL,
    FIRST_VERSION_WITH_TOPIC_IDS,
    Entry,
    fail,
    finish,
    succeed,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.produce_request import (
    FLEXIBLE_FROM,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.wire import ZERO_UUID
from kbroker.record.batch import HEADER_SIZE

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer, Part
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import TopicImage
    from kbroker.replication.partition import Partition
    from kbroker.request_context import RequestContext
    from kbroker.storage.unified_log import LogAppendInfo

MOST_BATCHES: Final = 64
"""Of more, other connections get their turn in between."""
_FRONT: Final = Struct(">BhiB")  # transactional id, acks, timeout, topics
_PARTITION: Final = Struct(">iBBB")  # index, and what the length of the batch begins with
_BATCH_LENGTH: Final = Struct(">i")
_BATCH_LENGTH_POSITION: Final = 8
_LOG_OVERHEAD: Final = 12
_UUID_SIZE: Final = 16
_ONE: Final = 2  # a compact count of one
_SEVERAL_BYTES: Final = 0x80  # what a count, or a length, of more than one byte begins with
_CORRELATION_ID: Final = Struct(">ixB")  # no tagged fields behind it; then how many topics
_ANSWER: Final = Struct(">ihqqq3s")
_NOTHING_MORE: Final = b"\1\0\0"  # no errors of records, no message, no tagged fields
_NO_TAGS: Final = b"\0"
_END: Final = b"\0\0\0\0\0"  # throttle time, no tagged fields


class _Topic:
    """One topic of the request."""

    __slots__ = ("batches", "front", "image", "indexes")

    def __init__(self, image: "TopicImage", front: bytes) -> None:
        self.image = image
        self.front = front
        """What stands before its partitions, in the answer as in the request."""
        self.indexes: list[int] = []
        self.batches: list[tuple[Partition, memoryview]] = []


def answer_several(
    services: "Services", context: "RequestContext", buffer: "Buffer", position: int
) -> "list[Part] | tuple[ProduceRequest, Any] | None":
    """The answer, or (request, what its handler gives); None: nothing has happened."""
    if context.api_version < FLEXIBLE_FROM:
        return None
    try:
        no_id, acks, timeout_ms, count = _FRONT.unpack_from(buffer, position)
        if no_id or acks not in (1, ACKS_ALL) or not _ONE <= count < _SEVERAL_BYTES:
            return None
        topics = _read_topics(
            services,
            memoryview(buffer),
            position + _FRONT.size,
            count - 1,
            uses_ids=context.api_version >= FIRST_VERSION_WITH_TOPIC_IDS,
        )
    except (KafkaError, IndexError, UnicodeDecodeError, struct_error):
        return None  # the ordinary way meets it again and knows its answer
    if topics is None:
        return None
    batches = topics[0].batches
    if len(topics) > 1:
        batches = [each for topic in topics for each in topic.batches]
    if len({partition for partition, _ in batches}) != len(batches):
        return None
    outcomes = services.replica_manager.leader_append.append_plain_batches(batches, acks)
    if outcomes is None:
        return None
    answer: list[Part] = [_CORRELATION_ID.pack(context.correlation_id, count)]
    left = iter(outcomes)
    for topic in topics:
        answer.append(topic.front)
        for index, (partition, _) in zip(topic.indexes, topic.batches, strict=True):
            info = next(left)
            if isinstance(info, Exception) or (
                acks == ACKS_ALL
                and partition.check_enough_replicas_reach(info.last_offset + 1)
                is not ErrorCode.NONE
            ):
                return _conclude(services, context, topics, outcomes, acks, timeout_ms)
            answer.append(
                _ANSWER.pack(
                    index,
                    0,
                    info.first_offset,
                    info.log_append_time_ms,
                    info.log_start_offset,
                    _NOTHING_MORE,
                )
            )
        answer.append(_NO_TAGS)
    answer.append(_END)
    return [b"".join(answer)]  # type: ignore[arg-type]


def _read_topics(
    services: "Services", view: memoryview, place: int, count: int, *, uses_ids: bool
) -> list[_Topic] | None:
    """The topics from ``place`` on, which end the request; None when they are not ordinary.

    Raises KafkaError for a partition that is not here, others for a request that is cut.
    """
    known = services.metadata.image.topics
    topics: list[_Topic] = []
    total = 0
    for _ in range(count):
        start = place
        if uses_ids:
            place += _UUID_SIZE
            image = known.get_by_id(bytes(view[start:place]))
        else:
            size = view[place]
            if size >= _SEVERAL_BYTES:
                return None
            place += max(1, size)
            image = known.get(str(view[start + 1 : place], "utf-8"))
        partitions = view[place]
        place += 1
        if (
            image is None
            or image.is_internal
            or not _ONE <= partitions < _SEVERAL_BYTES
            or any(topic.image is image for topic in topics)
        ):
            return None
        total += partitions - 1
        if total > MOST_BATCHES or total == count == 1:
            return None
        topic = _Topic(image, bytes(view[start:place]))
        end = _read_batches(services, view, place, partitions - 1, topic)
        if end is None or view[end]:
            return None
        place = end + 1
        topics.append(topic)
    return topics if len(view) == place + 1 and not view[place] else None


def _read_batches(
    services: "Services", view: memoryview, place: int, count: int, topic: _Topic
) -> int | None:
    """The position behind the batches of a topic; None when one cannot be a plain batch."""
    manager = services.replica_manager
    name, partitions = topic.image.name, len(topic.image.partitions)
    for _ in range(count):
        index, first, second, third = _PARTITION.unpack_from(view, place)
        if first < _SEVERAL_BYTES:
            size = first - 1
            place += 5
        elif second < _SEVERAL_BYTES:
            size = (first & 0x7F | second << 7) - 1
            place += 6
        elif third < _SEVERAL_BYTES:
            size = (first & 0x7F | (second & 0x7F) << 7 | third << 14) - 1
            place += 7
        else:
            return None
        end = place + size
        if (
            size < HEADER_SIZE
            or not 0 <= index < partitions
            or view[end]  # tagged fields
            or _BATCH_LENGTH.unpack_from(view, place + _BATCH_LENGTH_POSITION)[0]
            != size - _LOG_OVERHEAD
        ):
            return None
        topic.indexes.append(index)
        topic.batches.append((manager.get_partition_or_raise(name, index), view[place:end]))
        place = end + 1
    return place


def _conclude(
    services: "Services",
    context: "RequestContext",
    topics: list[_Topic],
    outcomes: "list[LogAppendInfo | Exception]",
    acks: int,
    timeout_ms: int,
) -> tuple[ProduceRequest, Any]:
    """An append failed, or the answer has to wait for replicas."""
    uses_ids = context.api_version >= FIRST_VERSION_WITH_TOPIC_IDS
    request = ProduceRequest(None, acks, timeout_ms, [])
    entries: list[Entry] = []
    left = iter(outcomes)
    for topic in topics:
        image = topic.image
        asked = TopicProduceData(
            "" if uses_ids else image.name,
            image.topic_id if uses_ids else ZERO_UUID,
            [PartitionProduceData(index) for index in topic.indexes],
        )
        request.topic_data.append(asked)
        for index, (partition, _) in zip(topic.indexes, topic.batches, strict=True):
            entry = Entry(image.topic_id if uses_ids else image.name, index, None)
            entry.name, entry.partition = image.name, partition
            entries.append(entry)
            outcome = next(left)
            if isinstance(outcome, Exception):
                fail(services, entry, outcome)
            else:
                succeed(entry, outcome)
    return request, finish(services, context, request, entries)
