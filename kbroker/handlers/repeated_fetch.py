"""Fetch requests that differ from an earlier one in nothing but their offset.

A consumer of one partition that keeps no session (librdkafka, kafka-python) asks for the same again
and again, further on each time, and the answer differs in three offsets and its records. The rest
of both is kept, so that such a request is neither decoded nor its answer encoded. What may
change meanwhile is looked at each time: the image of the cluster, the settings, the partition and
its leader. Whatever is not ordinary, a request that has to wait above all, goes the ordinary way.
"""

from struct import Struct
from typing import TYPE_CHECKING, Final

from kbroker.protocol.messages.fetch_request import FetchPartition
from kbroker.protocol.wire import uvarint
from kbroker.replication.fetch_session import FINAL_EPOCH, INVALID_SESSION_ID
from kbroker.storage.fetch_info import FetchIsolation

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer, Part
    from kbroker.config.broker_config import BrokerConfig
    from kbroker.handlers.services import Services
    from kbroker.metadata.image import MetadataImage
    from kbroker.protocol.messages.fetch_request import FetchRequest
    from kbroker.protocol.messages.fetch_response import FetchResponse
    from kbroker.replication.partition import Partition
    from kbroker.request_context import RequestContext

_CORRELATION_ID: Final = Struct(">i")
_OFFSET: Final = Struct(">q")
_OFFSET_END: Final = _OFFSET.size
_OFFSETS: Final = Struct(">qqq")  # high watermark, last stable offset, log start
_PARTITION: Final = Struct(">ih")  # index and error code, before the offsets
_LENGTH: Final = Struct(">i")
_FIRST_VERSION_WITH_LOG_START: Final = 5
_FIRST_VERSION_WITH_EPOCH: Final = 9
_FIRST_VERSION_FOR_FOLLOWERS: Final = 11
_FLEXIBLE_FROM: Final = 12
_NO_REPLICA: Final = -1
_MOST: Final = 1_024
_ISOLATION: Final = (FetchIsolation.HIGH_WATERMARK, FetchIsolation.TXN_COMMITTED)


class _Known:
    """One kind of request, of one partition, and what surrounds the offsets of its answer."""

    __slots__ = (
        "between",
        "head",
        "index",
        "is_flexible",
        "isolation",
        "leader_epoch",
        "max_bytes",
        "min_bytes",
        "name",
        "only_leader",
        "partition",
        "tail",
    )

    def __init__(
        self,
        *,
        name: str,
        request: "FetchRequest",
        partition: "Partition",
        version: int,
        max_bytes: int,
        around: tuple[bytes, bytes, bytes],
    ) -> None:
        """``max_bytes`` of the whole answer; ``around``: in front of the offsets, behind them up to
        the length of the records, behind the records."""
        asked = request.topics[0].partitions[0]
        self.name = name
        self.index = asked.partition
        self.partition = partition
        self.leader_epoch = asked.current_leader_epoch
        self.isolation = _ISOLATION[request.isolation_level]
        self.max_bytes = min(asked.partition_max_bytes, max_bytes)
        self.min_bytes = min(request.min_bytes, max_bytes)
        self.only_leader = version < _FIRST_VERSION_FOR_FOLLOWERS
        self.is_flexible = version >= _FLEXIBLE_FROM
        self.head, self.between, self.tail = around


class RepeatedFetch:
    """The ``Shortcut`` of Fetch; everything is forgotten when the image or the settings change."""

    __slots__ = ("_config", "_image", "_places", "_requests", "_services")

    def __init__(self, services: "Services") -> None:
        self._services = services
        self._image: MetadataImage | None = None
        self._config: BrokerConfig | None = None
        # Where the offset begins, by version and length of a request.
        self._places: dict[tuple[int, int], int] = {}
        # By version and all bytes but the offset's.
        self._requests: dict[tuple[int, bytes], _Known] = {}

    def answer(
        self, context: "RequestContext", buffer: "Buffer", position: int
    ) -> "list[Part] | None":
        """The answer; None: nothing has happened."""
        services = self._services
        if (
            services.metadata.image is not self._image
            or services.config.current is not self._config
        ):
            return None
        version = context.api_version
        at = self._places.get((version, len(buffer) - position))
        if at is None:
            return None
        body = bytes(buffer[position:])
        known = self._requests.get((version, body[:at] + body[at + _OFFSET_END :]))
        if known is None:
            return None
        try:
            partition = services.replica_manager.get_partition_or_raise(known.name, known.index)
            if partition is not known.partition:
                return None
            if known.leader_epoch >= 0:
                partition.check_leader_epoch(known.leader_epoch)
            if known.only_leader:
                partition.leader_log()
            log = partition.log
            offset = _OFFSET.unpack_from(body, at)[0]
            if offset >= log.high_watermark:
                return None
            # Taken before the read, as it is done in the ordinary way.
            offsets = _OFFSETS.pack(
                log.high_watermark, log.last_stable_offset, log.log_start_offset
            )
            info = log.read(
                offset,
                max_bytes=known.max_bytes,
                isolation=known.isolation,
                min_one_message=True,
            )
        except Exception:  # the ordinary way meets it again and knows its answer
            return None
        records = info.records
        size = len(records)
        if not size or size < known.min_bytes or info.aborted_transactions:
            return None
        length = uvarint(size + 1) if known.is_flexible else _LENGTH.pack(size)
        parts: list[Part] = [
            _CORRELATION_ID.pack(context.correlation_id),
            known.head + offsets + known.between + length,
            records,
        ]
        if known.tail:
            parts.append(known.tail)
        return parts

    # Remembering --------------------------------------------------------------------------------

    def remember(
        self,
        context: "RequestContext",
        buffer: "Buffer",
        position: int,
        request: "FetchRequest",
        response: "FetchResponse",
        answer: "list[Part]",
    ) -> None:
        """The request at ``position`` of ``buffer`` was answered so just now."""
        version = context.api_version
        if version < _FIRST_VERSION_WITH_LOG_START or not _is_ordinary(request, response):
            return
        services = self._services
        image, config = services.metadata.image, services.config.current
        if self._image is not image or self._config is not config or len(self._requests) >= _MOST:
            self._places.clear()
            self._requests.clear()
            self._image, self._config = image, config
        body = bytes(buffer[position:])
        at = _place_of_offset(body, request.topics[0].partitions[0], version)
        around = _around_offsets(response, answer, version)
        if at is None or around is None:
            return
        topic = request.topics[0]
        named = image.topics.get(topic.topic) or image.topics.get_by_id(topic.topic_id)
        if named is None or self._places.setdefault((version, len(body)), at) != at:
            return
        index = topic.partitions[0].partition
        self._requests[version, body[:at] + body[at + _OFFSET_END :]] = _Known(
            name=named.name,
            request=request,
            partition=services.replica_manager.get_partition_or_raise(named.name, index),
            version=version,
            max_bytes=min(request.max_bytes, config.fetch_max_bytes),
            around=around,
        )


def _is_ordinary(request: "FetchRequest", response: "FetchResponse") -> bool:
    """One partition for a consumer without a session, and records of it without anything else."""
    if len(request.topics) != 1 or len(request.topics[0].partitions) != 1:
        return False
    if request.session_epoch != FINAL_EPOCH or request.session_id != INVALID_SESSION_ID:
        return False
    if request.replica_id != _NO_REPLICA or request.replica_state.replica_id != _NO_REPLICA:
        return False
    if request.topics[0].partitions[0].last_fetched_epoch >= 0 or response.node_endpoints:
        return False
    told = response.responses[0].partitions[0]
    return not told.error_code and not told.aborted_transactions and len(told.records or b"") > 0


def _place_of_offset(body: bytes, asked: FetchPartition, version: int) -> int | None:
    """Where the fetch offset stands in a request; None when that cannot be told."""
    if version >= _FIRST_VERSION_WITH_EPOCH:
        before = Struct(">ii").pack(asked.partition, asked.current_leader_epoch)
    else:
        before = _LENGTH.pack(asked.partition)
    wanted = before + _OFFSET.pack(asked.fetch_offset)
    if version >= _FLEXIBLE_FROM:
        wanted += _LENGTH.pack(asked.last_fetched_epoch)
    wanted += _OFFSET.pack(asked.log_start_offset) + _LENGTH.pack(asked.partition_max_bytes)
    found = body.find(wanted)
    if found < 0 or body.find(wanted, found + 1) >= 0:
        return None
    return found + len(before)


def _around_offsets(
    response: "FetchResponse", answer: "list[Part]", version: int
) -> tuple[bytes, bytes, bytes] | None:
    """What stands before the offsets, between them and the records' length, and at the end."""
    told = response.responses[0].partitions[0]
    records = told.records
    header, before, sent, *rest = answer
    if sent is not records or records is None or not isinstance(before, bytes) or len(rest) > 1:
        return None
    size = len(records)
    length = uvarint(size + 1) if version >= _FLEXIBLE_FROM else _LENGTH.pack(size)
    partition = _PARTITION.pack(told.partition_index, 0)
    offsets = _OFFSETS.pack(told.high_watermark, told.last_stable_offset, told.log_start_offset)
    if before.count(partition + offsets) != 1 or not before.endswith(length):
        return None
    head, _, between = before[: -len(length)].partition(partition + offsets)
    assert isinstance(header, bytes)
    tail = bytes(rest[0]) if rest and isinstance(rest[0], bytes) else b""
    return header[_CORRELATION_ID.size :] + head + partition, between, tail
