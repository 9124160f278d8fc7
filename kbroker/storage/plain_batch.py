"""The batch that nearly every producer sends, validated in one pass.

``validate_plain_batch`` accepts a batch only where ``log_validator`` would store it byte for byte
as it came; it refuses nothing. Whatever is out of the ordinary goes through ``log_validator``,
which knows the order of Kafka's checks and the error that belongs to each.
"""

from struct import Struct
from struct import error as struct_error
from typing import Final

from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import ATTRIBUTES_POSITION, HEADER, HEADER_SIZE, MAGIC
from kbroker.record.compression import ZSTD
from kbroker.record.crc import crc32c
from kbroker.record.inflate_at_once import AT_ONCE, AtOnceInflater, buffer_of
from kbroker.record.stream_walk import walk_on
from kbroker.record.walk import NO_MINIMUM, WalkResult
from kbroker.storage.batch_shapes import MOST_RECORDS, BatchShapes
from kbroker.storage.log_validator import WALK_SLICE
from kbroker.storage.validated_records import ValidatedRecords, as_they_came

_MAX_INT64: Final = 0x7FFFFFFFFFFFFFFF
_FOUR_BYTES: Final = Struct("4B")
_FEWEST_BYTES: Final = 6  # of a record behind its length: six fields of one byte
STORED_AS_THEY_CAME: Final = frozenset({"producer", "uncompressed"})
"""compression.type of topics that leave uncompressed batches alone."""
_UNUSUAL: Final = 0
_WITHOUT_KEY: Final = 1
_WITH_KEY: Final = 2


def validate_plain_batch(
    batch: memoryview,
    config: LogConfig,
    now_ms: int,
    *,
    at_once: AtOnceInflater | None = None,
    allow_zstd: bool = True,
    shapes: BatchShapes | None = None,
) -> ValidatedRecords | None:
    """What ``validate_records`` gives for a sound client batch; None says: ask it.

    ``batch`` is one whole batch. Plain is: uncompressed, or compressed so that ``at_once`` holds
    it, no other attribute set, timestamps of the producer within the topic's bounds, records that
    can be walked in one slice. ``allow_zstd``: the request is of a version that may have it.
    ``shapes``: of earlier batches.
    """
    size = len(batch)
    if size < HEADER_SIZE:
        return None
    (
        base_offset,
        _,
        _,
        magic,
        crc,
        attributes,
        last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
    ) = HEADER.unpack_from(batch)
    if (
        (attributes and not (at_once and _may_inflate(attributes, config, allow_zstd=allow_zstd)))
        or magic != MAGIC
        or base_offset
        or not 0 < record_count <= WALK_SLICE
        or last_offset_delta + 1 != record_count
        or (base_sequence < 0 <= producer_id)
        or size > config.max_message_bytes
        or size > config.segment_bytes
        or batch.readonly
        or config.compression_type not in STORED_AS_THEY_CAME
        or config.message_timestamp_type != "CreateTime"
        or crc32c(batch[ATTRIBUTES_POSITION:]) != crc
    ):
        return None
    lone = _UNUSUAL
    if record_count == 1 and base_timestamp >= 0 and not attributes:
        lone = _lone_record(batch, size)
    if lone:
        if max_timestamp != base_timestamp or (lone == _WITHOUT_KEY and config.compact):
            return None
        low, index_of_max_timestamp = base_timestamp, 0
    elif (
        shapes is not None
        and 1 < record_count <= MOST_RECORDS
        and not attributes
        and base_timestamp >= 0
        and (seen := shapes.look(batch, record_count)) is not None
    ):
        least, most, index_of_max_timestamp, has_null_key = seen
        if base_timestamp + most != max_timestamp or (has_null_key and config.compact):
            return None
        low = base_timestamp + least
    else:
        if at_once and attributes:
            result = _walked_inflated(batch, attributes, at_once, record_count, base_timestamp)
        else:
            result = _walked(batch, HEADER_SIZE, record_count, base_timestamp, strict=True)
        if (
            result is None
            or result.max_timestamp != max_timestamp
            or (result.has_null_key and config.compact)
        ):
            return None
        low, index_of_max_timestamp = result.min_timestamp, result.index_of_max_timestamp
    if low != NO_MINIMUM:  # some record has a timestamp
        age = now_ms - low
        if (
            age > config.message_timestamp_before_max_ms
            or age > _MAX_INT64
            or max_timestamp - now_ms > config.message_timestamp_after_max_ms
        ):
            return None
    return as_they_came(
        batch,
        attributes,
        last_offset_delta,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
        index_of_max_timestamp,
    )


def _may_inflate(attributes: int, config: LogConfig, *, allow_zstd: bool) -> bool:
    """Whether a batch with such attributes has a codec that is inflated here, and keeps it."""
    return (
        attributes in AT_ONCE
        and (allow_zstd or attributes != ZSTD)
        and config.compression_type == "producer"
    )


def _walked(
    data: memoryview,
    position: int,
    record_count: int,
    base_timestamp: int,
    *,
    strict: bool,
    buffer: bytearray | None = None,
) -> WalkResult | None:
    """What the walk says of the records; None when they are not sound, or not so many."""
    result = WalkResult()
    size = len(data)
    try:
        end = walk_on(
            data,
            position,
            size,
            limit=record_count,
            base_timestamp=base_timestamp,
            result=result,
            strict=strict,
            buffer=buffer,
        )
    except KafkaError:  # whose code and text are the validator's business
        return None
    return result if end == size and result.index == record_count else None


def _walked_inflated(
    batch: memoryview, codec: int, at_once: AtOnceInflater, record_count: int, base_timestamp: int
) -> WalkResult | None:
    """The same for compressed records; None too where a stream is needed to inflate them."""
    inflated = at_once.inflate(codec, batch[HEADER_SIZE:])
    if inflated is None:
        return None
    try:
        result = _walked(
            inflated,
            0,
            record_count,
            base_timestamp,
            strict=False,
            buffer=buffer_of(inflated),
        )
    finally:
        at_once.give_back(inflated)
    return result if result is not None and result.contiguous else None


def _lone_record(batch: memoryview, size: int) -> int:
    """Whether the only record, at the time of its batch, is sound; _UNUSUAL says: walk.

    Usual is: at most 8 KiB, a key below 64 bytes or none, no headers.
    """
    try:
        raw = batch[HEADER_SIZE]
        position = HEADER_SIZE + 1
        if raw >= 0x80:
            if (byte := batch[position]) >= 0x80:
                return _UNUSUAL
            raw += (byte - 1) << 7
            position += 1
        attributes, timestamp_delta, offset_delta, key = _FOUR_BYTES.unpack_from(batch, position)
        if (
            attributes
            or timestamp_delta
            or offset_delta
            or key >= 0x80
            or raw & 1
            or raw < 2 * _FEWEST_BYTES
            or position + (raw >> 1) != size
        ):
            return _UNUSUAL
        position += 4
        if not key & 1:
            position += key >> 1
        raw = batch[position]
        position += 1
        if raw >= 0x80:
            if (byte := batch[position]) >= 0x80:
                return _UNUSUAL
            raw += (byte - 1) << 7
            position += 1
        if not raw & 1:
            position += raw >> 1
        if position + 1 != size or batch[position]:
            return _UNUSUAL
    except (IndexError, struct_error):  # shorter than its fields
        return _UNUSUAL
    return _WITHOUT_KEY if key & 1 else _WITH_KEY
