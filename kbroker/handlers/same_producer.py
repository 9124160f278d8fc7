"""The next one-batch Produce request on a connection that sends one after the other.

What ``RepeatedProduce`` knows by what stands before the batch, this knows by all that stands
before it, the header included: one comparison instead of a header, a context and two look-ups.
"""

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.produce_outcome import ACKS_ALL, FIRST_VERSION_WITH_ZSTD
from kbroker.handlers.repeating import context_of
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.wire import read_compact_nullable_records
from kbroker.record.batch import HEADER_SIZE
from kbroker.request_context import RequestContext

if TYPE_CHECKING:
    from kbroker.common.parts import Part
    from kbroker.handlers.dispatch import Conclude
    from kbroker.handlers.repeated_produce import Known, RepeatedProduce
    from kbroker.handlers.services import Services
    from kbroker.replication.partition import Partition
    from kbroker.storage.unified_log import LogAppendInfo

_NO_TAGS: Final = b"\0\0\0"  # of the partition, the topic and the request
_BATCH_LENGTH: Final = Struct(">i")
_BATCH_LENGTH_POSITION: Final = 8
_LENGTH_SIZE: Final = 4
_LOG_OVERHEAD: Final = 12


class SameProducer:
    """A connection's ``Repeated``: the same bytes, but for the correlation id and the batch."""

    __slots__ = (
        "_allow_zstd",
        "_answer",
        "_answer_size",
        "_before",
        "_behind",
        "_conclude",
        "_context",
        "_era",
        "_fields",
        "_is_flexible",
        "_known",
        "_owner",
        "_services",
        "_start",
    )

    def __init__(
        self,
        owner: "RepeatedProduce",
        services: "Services",
        known: "Known",
        context: RequestContext,
        before_batch: bytes,
        *,
        is_flexible: bool,
        conclude: "Conclude",
    ) -> None:
        """``before_batch``: the frame up to the length of the batch."""
        self._owner = owner
        self._services = services
        self._known = known
        self._context = context
        self._era = owner.era
        self._is_flexible = is_flexible
        self._allow_zstd = context.api_version >= FIRST_VERSION_WITH_ZSTD
        self._conclude = conclude
        behind = len(before_batch) - 8
        self._before, self._behind = before_batch[:4], before_batch[8:]
        self._fields = Struct(f">4si{behind}s" if is_flexible else f">4si{behind}si8xi")
        self._start = len(before_batch) + (0 if is_flexible else _LENGTH_SIZE)
        self._answer = Struct(f">ii{len(known.head)}sqqq{len(known.tail)}s")
        self._answer_size = self._answer.size - 4

    def answer(self, frame: memoryview) -> "bytes | list[Part] | Any | None":
        """See ``Repeated``."""
        owner = self._owner
        if owner.era is not self._era or not owner.is_current:
            return None
        known = self._known
        try:
            if self._is_flexible:
                before, correlation_id, behind = self._fields.unpack_from(frame)
                if behind != self._behind or before != self._before:
                    return None
                found, end = read_compact_nullable_records(frame, self._start)
                if bytes(frame[end:]) != _NO_TAGS or found is None:
                    return None
                records = memoryview(found)
                size = len(records)
                (batch_length,) = _BATCH_LENGTH.unpack_from(records, _BATCH_LENGTH_POSITION)
            else:
                before, correlation_id, behind, size, batch_length = self._fields.unpack_from(frame)
                if behind != self._behind or before != self._before:
                    return None
                records = frame[self._start :]
            if size < HEADER_SIZE or len(records) != size or batch_length + _LOG_OVERHEAD != size:
                return None
        except Exception:  # the ordinary way meets it again and knows its answer
            return None
        replicas = self._services.replica_manager
        try:
            partition = replicas.get_partition_or_raise(known.name, known.index)
        except Exception:
            return None
        try:
            info = replicas.leader_append.append_plain_batch(
                partition, records, known.acks, allow_zstd=self._allow_zstd
            )
        except Exception as error:
            return self._concluded(frame, partition, error)
        if info is None:
            self._context.connection.forget_repeated()
            return None
        if (
            known.acks == ACKS_ALL
            and partition.check_enough_replicas_reach(info.last_offset + 1) is not ErrorCode.NONE
        ):
            return self._concluded(frame, partition, info)
        return self._answer.pack(
            self._answer_size,
            correlation_id,
            known.head,
            info.first_offset,
            info.log_append_time_ms,
            info.log_start_offset,
            known.tail,
        )

    def _concluded(
        self, frame: memoryview, partition: "Partition", outcome: "LogAppendInfo | Exception"
    ) -> Any:
        """The append failed, or its answer has to wait for replicas."""
        context = context_of(frame, self._context.connection, self._services)
        return self._conclude(
            context, *self._owner.conclude(context, self._known, partition, outcome)
        )
