"""Produce requests that differ from an earlier one in nothing but their batch.

A producer that sends one batch for one partition sends the same bytes again and again before and
behind it, and the answer to a sound one differs in three numbers. Both are kept, by what stands
before the batch, so that such a request is neither decoded nor its answer encoded. What may change
meanwhile is looked at each time: the image of the cluster, the partition, the batch. Whatever is
not ordinary goes the ordinary way.
"""

from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.produce_outcome import (
    ACKS_ALL,
    FIRST_VERSION_WITH_TOPIC_IDS,
    FIRST_VERSION_WITH_ZSTD,
    Entry,
    fail,
    finish,
    succeed,
)
from kbroker.handlers.repeating import KnownOfImage
from kbroker.handlers.same_producer import SameProducer
from kbroker.handlers.several_batches import answer_several
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.produce_request import (
    FLEXIBLE_FROM,
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.wire import read_compact_nullable_records, read_nullable_records
from kbroker.record.batch import HEADER_SIZE

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer, Part
    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.produce_response import ProduceResponse
    from kbroker.replication.partition import Partition
    from kbroker.request_context import RequestContext
    from kbroker.storage.unified_log import LogAppendInfo

_CORRELATION_ID: Final = Struct(">i")
_NUMBERS: Final = Struct(">qqq")  # base offset, append time, log start
_NUMBERS_BEFORE_5: Final = Struct(">qq")
_PARTITION: Final = Struct(">ih")  # index and error code, before the numbers
_FIRST_VERSION_WITH_LOG_START: Final = 5
_NO_TAGS: Final = b"\0\0\0"  # of the partition, the topic and the request
_WIDEST_LENGTH: Final = 5  # bytes of a compact length
_SIGN: Final = Struct("14s")
"""So many bytes tell one producer's kind of request from another's: with a null transactional id
the length of the topic's name is among them."""
_MOST: Final = 1_024
_BATCH_LENGTH: Final = Struct(">i")
_BATCH_LENGTH_POSITION: Final = 8
_LENGTHS: Final = Struct(">i8xi")  # of the records, and of their only batch behind its offset
_LOG_OVERHEAD: Final = 12


class Known:
    """One partition of one topic as one kind of request names it."""

    __slots__ = ("acks", "head", "index", "name", "request", "tail", "topic_key")

    def __init__(
        self,
        *,
        name: str,
        topic_key: str | bytes,
        index: int,
        request: ProduceRequest,
        head: bytes,
        tail: bytes,
    ) -> None:
        self.name = name
        self.topic_key = topic_key
        self.index = index
        self.acks = request.acks
        self.request = request
        """The same without records."""
        self.head = head
        self.tail = tail


class _Version:
    """What is known of requests of one version."""

    __slots__ = ("before", "is_flexible", "numbers", "requests")

    def __init__(self, version: int) -> None:
        self.is_flexible = version >= FLEXIBLE_FROM
        self.numbers = _NUMBERS if version >= _FIRST_VERSION_WITH_LOG_START else _NUMBERS_BEFORE_5
        self.before: dict[tuple[bytes], Struct] = {}
        """What reads all that stands before the batch's length, by the first bytes of it."""
        self.requests: dict[tuple[bytes], Known] = {}
        """By all of that."""


class RepeatedProduce(KnownOfImage):
    """The ``Shortcut`` of Produce; everything is forgotten when the image changes."""

    __slots__ = ("_count", "_versions")

    def __init__(self, services: "Services") -> None:
        super().__init__(services)
        self._versions: dict[int, _Version] = {}
        self._count = 0

    def answer(
        self, context: "RequestContext", buffer: "Buffer", position: int
    ) -> "list[Part] | tuple[ProduceRequest, Any] | None":
        """The answer, or (request, what its handler gives); None: nothing has happened."""
        services = self._services
        known = version = None
        if services.metadata.image is self._image:
            version = self._versions.get(context.api_version)
        if version is not None:
            try:
                before = version.before.get(_SIGN.unpack_from(buffer, position))
                if before is not None:
                    known = version.requests.get(before.unpack_from(buffer, position))
            except struct_error:  # it is shorter than those before
                return None
        if known is None:
            return answer_several(services, context, buffer, position)
        assert version is not None and before is not None
        start = position + before.size
        try:
            if version.is_flexible:
                found, end = read_compact_nullable_records(buffer, start)
                if bytes(buffer[end:]) != _NO_TAGS or found is None or len(found) < HEADER_SIZE:
                    return None
                records = memoryview(found)
                size = len(records)
                (batch_length,) = _BATCH_LENGTH.unpack_from(records, _BATCH_LENGTH_POSITION)
            else:
                size, batch_length = _LENGTHS.unpack_from(buffer, start)
                start += _BATCH_LENGTH.size
                if start + size != len(buffer) or size < HEADER_SIZE:
                    return None
                rest = buffer[start:]
                records = rest if type(rest) is memoryview else memoryview(rest)
            if batch_length + _LOG_OVERHEAD != size:
                return None
            partition = services.replica_manager.get_partition_or_raise(known.name, known.index)
        except Exception:  # the ordinary way meets it again and knows its answer
            return None
        try:
            info = services.replica_manager.leader_append.append_plain_batch(
                partition,
                records,
                known.acks,
                allow_zstd=context.api_version >= FIRST_VERSION_WITH_ZSTD,
            )
        except Exception as error:
            return self.conclude(context, known, partition, error)
        if info is None:
            return None
        if (
            known.acks == ACKS_ALL
            and partition.check_enough_replicas_reach(info.last_offset + 1) is not ErrorCode.NONE
        ):
            return self.conclude(context, known, partition, info)
        if version.numbers is _NUMBERS:
            if self._conclude is not None and context.connection.is_repeated(known):
                context.connection.repeated = SameProducer(
                    self,
                    services,
                    known,
                    context,
                    bytes(buffer[: position + before.size]),
                    is_flexible=version.is_flexible,
                    conclude=self._conclude,
                )
            numbers = _NUMBERS.pack(
                info.first_offset, info.log_append_time_ms, info.log_start_offset
            )
        else:
            numbers = _NUMBERS_BEFORE_5.pack(info.first_offset, info.log_append_time_ms)
        return [_CORRELATION_ID.pack(context.correlation_id), known.head + numbers + known.tail]

    def conclude(
        self,
        context: "RequestContext",
        known: Known,
        partition: "Partition",
        outcome: "LogAppendInfo | Exception",
    ) -> tuple[ProduceRequest, Any]:
        """The append failed, or its answer has to wait for replicas."""
        entry = Entry(known.topic_key, known.index, None)
        entry.name, entry.partition = known.name, partition
        if isinstance(outcome, Exception):
            fail(self._services, entry, outcome)
        else:
            succeed(entry, outcome)
        return known.request, finish(self._services, context, known.request, [entry])

    # Remembering --------------------------------------------------------------------------------

    def remember(
        self,
        context: "RequestContext",
        buffer: "Buffer",
        position: int,
        request: ProduceRequest,
        response: "ProduceResponse",
        answer: "list[Part]",
    ) -> None:
        """The request at ``position`` of ``buffer`` was answered so just now."""
        image = self._services.metadata.image
        if self._image is not image or self._count >= _MOST:
            self._versions.clear()
            self._count = 0
            self.era = object()
            self._image = image
        version = context.api_version
        known = self._known(version, request, response, answer)
        if known is None:
            return
        records = request.topic_data[0].partition_data[0].records
        if records is None:
            return
        length = _length_before(buffer, position, version, len(records))
        if length is None:
            return
        place = self._versions.get(version)
        if place is None:
            place = self._versions[version] = _Version(version)
        before = Struct(f"{length}s")
        place.before[_SIGN.unpack_from(buffer, position)] = before
        place.requests[before.unpack_from(buffer, position)] = known
        self._count += 1

    def _known(
        self,
        version: int,
        request: ProduceRequest,
        response: "ProduceResponse",
        answer: "list[Part]",
    ) -> Known | None:
        """None for what is not one sound batch for one partition of an ordinary topic."""
        if request.transactional_id is not None or len(request.topic_data) != 1:
            return None
        [asked] = request.topic_data
        if (
            len(asked.partition_data) != 1
            or response.responses[0].partition_responses[0].error_code
        ):
            return None
        assert self._image is not None
        topics = self._image.topics
        uses_ids = version >= FIRST_VERSION_WITH_TOPIC_IDS
        topic = topics.get_by_id(asked.topic_id) if uses_ids else topics.get(asked.name)
        if topic is None or topic.is_internal:
            return None
        told = response.responses[0].partition_responses[0]
        if version >= _FIRST_VERSION_WITH_LOG_START:
            numbers = _NUMBERS.pack(
                told.base_offset, told.log_append_time_ms, told.log_start_offset
            )
        else:
            numbers = _NUMBERS_BEFORE_5.pack(told.base_offset, told.log_append_time_ms)
        encoded = b"".join(answer)  # type: ignore[arg-type]
        partition = _PARTITION.pack(told.index, told.error_code)
        if encoded.count(partition + numbers) != 1:
            return None
        head, _, tail = encoded.partition(partition + numbers)
        data = PartitionProduceData(told.index, None)
        return Known(
            name=topic.name,
            topic_key=topic.topic_id if uses_ids else topic.name,
            index=told.index,
            request=ProduceRequest(
                None,
                request.acks,
                request.timeout_ms,
                [TopicProduceData(asked.name, asked.topic_id, [data])],
            ),
            head=head[_CORRELATION_ID.size :] + partition,
            tail=tail,
        )


def _length_before(buffer: "Buffer", position: int, version: int, size: int) -> int | None:
    """How many bytes stand before the length of the only batch, which has ``size`` bytes.

    None when there are tagged fields behind it, or anything else.
    """
    is_flexible = version >= FLEXIBLE_FROM
    end = len(buffer) - (len(_NO_TAGS) if is_flexible else 0)
    if is_flexible and bytes(buffer[end:]) != _NO_TAGS:
        return None
    read = read_compact_nullable_records if is_flexible else read_nullable_records
    for width in range(1, _WIDEST_LENGTH + 1) if is_flexible else (4,):
        start = end - size - width
        if start < position + _SIGN.size:
            return None
        try:
            records, stop = read(buffer, start)
        except Exception:  # no length of a batch stands here
            continue
        if records is not None and len(records) == size and stop == end:
            return start - position
    return None
