"""What a batch must be before it enters a log as its leader's: Kafka's LogValidator.

The order of the checks is Kafka's, so that a batch with two faults gets Kafka's error for it:

1. ``check_request_records``, as ProduceRequest.validateRecords: framing, magic, zstd below v7,
   exactly one batch. An UNKNOWN_SERVER_ERROR from here fails a Produce request as a whole.
2. as UnifiedLog.analyzeAndValidateRecords: base offset, max.message.bytes, size, CRC, codec.
3. as LogValidator: counts, control batches, sequences; the records, read to the end; then keys and
   timestamps with one error a record; then in-place changes or a rebuild.
4. sizes again after a rebuild, segment.bytes.

Well-formed bytes stay where they are: at most attributes, max timestamp and CRC are written over.
Bound where Kafka has no bound: inflated data is walked in chunks that are forgotten, and ends at
``inflated_limit``; work of more than INLINE_SIZE bytes or WALK_SLICE records is done by a
coroutine that decompresses through Offload and gives way between slices of the walk.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final

import anyio.lowlevel

from kbroker.common.offload import Offload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record import compression
from kbroker.record.batch import (
    HEADER_SIZE,
    KNOWN_ATTRIBUTES,
    LENGTH_POSITION,
    LOG_APPEND_TIME_BIT,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_POSITION,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    TRANSACTIONAL_BIT,
    RecordBatchHeader,
    assemble_batch,
    base_offset,
    patch_timestamps,
    verify_crc,
)
from kbroker.record.compression import Inflater, UndecodableDataError, open_inflater
from kbroker.record.encoding import wrap_int64
from kbroker.record.rebuild import rebuild_records
from kbroker.record.stream_walk import StreamWalker
from kbroker.record.walk import WalkResult, check_end, walk_records, walk_uncompressed
from kbroker.storage.append_info import AppendOrigin

INLINE_SIZE: Final = 64 * 1024
"""Inflated or compressed bytes that are worth no thread: about a quarter of a millisecond."""

WALK_SLICE: Final = 2048
"""Records that are walked before others get their turn: 1 to 2 ms interpreted."""

CHUNK_SIZE: Final = 512 * 1024
"""Inflated bytes that are held at a time."""

MIN_INFLATED_LIMIT: Final = 128 * 1024 * 1024
INFLATED_RATIO: Final = 16
"""A batch may inflate to 128 MiB, or 16 times max.message.bytes where that is more.

Kafka has no limit: 1 MiB of zstd makes it walk 32 GiB. At the default max.message.bytes this one
still takes data that shrinks to less than a hundredth, and ends a bomb within a second of decoding
in a thread. The answer makes a Java producer split the batch, see OutputLimitError."""

MAX_RECORD_ERRORS: Final = 10_000
"""Errors that are listed one by one; librdkafka's batches hold at most as many records."""
MAX_EXAMINED_RECORDS: Final = 200_000
"""Records that are looked at again, one by one, to tell which of them are wrong."""
MAX_NON_CONTIGUOUS_RECORDS: Final = 100_000
"""A compressed batch whose offset deltas are wrong is lost already: when it is walked on, to see
whether something in it has another error that Kafka would give, it is not walked on for long."""

_MAX_INT32 = 0x7FFFFFFF
_MAX_INT64 = 0x7FFFFFFFFFFFFFFF
_MIN_BATCH_LENGTH = 14  # the overhead of a version 0 message, the least that Kafka's framing takes
_TIMESTAMPS_MESSAGE = "One or more records have been rejected due to invalid timestamp"


class RecordValidationError(KafkaError):
    """Some records are refused, and with them the batch: (index in the batch, message) each."""

    def __init__(
        self, error_code: ErrorCode, message: str, record_errors: list[tuple[int, str | None]]
    ) -> None:
        super().__init__(error_code, message)
        self.record_errors = record_errors


class ValidatedRecords:
    """One batch that may enter the log: base offset still 0, leader epoch not set.

    ``data`` is a writable view of exactly the batch. ``offset_delta_of_max_timestamp`` is the
    index of the first record with the max timestamp (0 for LogAppendTime: all have it); Kafka's
    time index takes the last offset of the batch instead. ``log_append_time_ms`` is -1 for
    CreateTime.
    """

    __slots__ = (
        "attributes",
        "base_sequence",
        "data",
        "is_control",
        "is_transactional",
        "last_offset_delta",
        "log_append_time_ms",
        "max_timestamp",
        "offset_delta_of_max_timestamp",
        "producer_epoch",
        "producer_id",
        "record_count",
    )

    def __init__(
        self,
        data: memoryview,
        header: RecordBatchHeader,
        *,
        attributes: int,
        max_timestamp: int,
        offset_delta_of_max_timestamp: int,
        log_append_time_ms: int,
    ) -> None:
        self.data = data
        self.record_count = header.record_count
        self.last_offset_delta = header.last_offset_delta
        self.producer_id = header.producer_id
        self.producer_epoch = header.producer_epoch
        self.base_sequence = header.base_sequence
        self.attributes = attributes
        self.is_transactional = header.is_transactional
        self.is_control = header.is_control
        self.max_timestamp = max_timestamp
        self.offset_delta_of_max_timestamp = offset_delta_of_max_timestamp
        self.log_append_time_ms = log_append_time_ms


Validated = ValidatedRecords | Coroutine[Any, Any, ValidatedRecords]


def inflated_limit(config: LogConfig) -> int:
    """Bytes that the records of one batch of a topic may inflate to."""
    return max(MIN_INFLATED_LIMIT, INFLATED_RATIO * config.max_message_bytes)


def check_request_records(records: memoryview, *, allow_zstd: bool) -> int:
    """Checks that there is exactly one whole batch of magic 2; returns its size in bytes.

    Raises KafkaError INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE, or
    UNKNOWN_SERVER_ERROR for what Kafka fails the whole request for. Fewer than 12 bytes after the
    batch, or a second batch that is cut short, are ignored, here and when appending.
    """
    size = _next_batch_size(records, 0)
    if size is None:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            "a Produce request must have at least one record batch per partition",
        )
    if records[MAGIC_POSITION] != MAGIC:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            "a Produce request may only contain record batches with magic version 2",
        )
    if not allow_zstd:
        codec = records[22] & 0x07
        if codec > compression.ZSTD:
            raise UndecodableDataError(f"unknown compression type id: {codec}")
        if codec == compression.ZSTD:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
                "Produce requests below version 7 are not allowed to use ZStandard compression",
            )
    if size != len(records) and _next_batch_size(records, size) is not None:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            "a Produce request may only contain exactly one record batch per partition",
        )
    return size


def _next_batch_size(records: memoryview, position: int) -> int | None:
    """Size of the batch at ``position``, None when there is none or it is cut short."""
    remaining = len(records) - position
    if remaining < LOG_OVERHEAD:
        return None
    start = position + LENGTH_POSITION
    length = int.from_bytes(records[start : start + 4], "big", signed=True)
    if length < _MIN_BATCH_LENGTH:
        raise KafkaError(
            ErrorCode.CORRUPT_MESSAGE,
            f"Record size {length} is less than the minimum record overhead ({_MIN_BATCH_LENGTH})",
        )
    if remaining <= MAGIC_POSITION:
        return None
    magic = records[position + MAGIC_POSITION]
    if magic > MAGIC:
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"Invalid magic found in record: {magic}")
    size = length + LOG_OVERHEAD
    if size > _MAX_INT32:  # Kafka's sum overflows, which its framing does not expect
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"a batch of {size} bytes")
    return None if remaining < size else size


def validate_records(
    records: memoryview,
    *,
    config: LogConfig,
    origin: AppendOrigin,
    now_ms: int,
    offload: Offload,
    allow_zstd: bool = True,
    topic_partition: str = "",
    walk: bool = True,
) -> Validated:
    """Validates one batch for a topic with ``config``; a coroutine when it is much work.

    ``records`` may be changed in place, and is what ``ValidatedRecords.data`` shows unless the
    batch is rebuilt; it must stay untouched until a coroutine has ended. ``topic_partition`` only
    appears in messages. ``walk=False`` (kbroker.record.validation=header) trusts the records
    wherever nothing depends on them. Raises KafkaError, RecordValidationError; UndecodableDataError
    and OutputLimitError are KafkaErrors too.
    """
    if origin is AppendOrigin.CLIENT:
        size = check_request_records(records, allow_zstd=allow_zstd)
    else:
        size = _next_batch_size(records, 0) or len(records)
    batch = records if size == len(records) else records[:size]
    header = _check_batch(batch, config, origin)
    validation = _Validation(batch, header, config, now_ms, offload, topic_partition)
    if not walk and validation.in_place and not config.compact:
        return validation.trust()
    return validation.run()


def _check_batch(batch: memoryview, config: LogConfig, origin: AppendOrigin) -> RecordBatchHeader:
    """Everything that the 61 bytes of the header and the CRC tell."""
    is_client = origin is AppendOrigin.CLIENT
    size = len(batch)
    if is_client and base_offset(batch) != 0:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, "the base offset of a produced record batch should be 0"
        )
    if size > config.max_message_bytes:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"The record batch size in the append is {size} bytes which exceeds the maximum "
            f"configured value of {config.max_message_bytes}.",
        )
    if not verify_crc(batch, 0, size):
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, "Record is corrupt (size or CRC)")
    header = RecordBatchHeader(batch)
    if header.codec > compression.ZSTD:
        raise UndecodableDataError(f"unknown compression type id: {header.codec}")
    if is_client:
        _check_client_batch(header)
    elif header.record_count < 0:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, f"Found invalid record count {header.record_count}"
        )
    return header


def _check_client_batch(header: RecordBatchHeader) -> None:
    count = header.record_count
    if header.last_offset_delta < 0 or count <= 0 or header.last_offset_delta + 1 != count:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            f"Inconsistent batch offset range [0, {header.last_offset_delta}] and count of "
            f"records {count}",
        )
    if header.is_control:
        raise KafkaError(
            ErrorCode.INVALID_RECORD, "Clients are not allowed to write control records"
        )
    if header.has_producer_id and header.base_sequence < 0:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            f"Invalid sequence number {header.base_sequence} in record batch with producerId "
            f"{header.producer_id}",
        )


class _Validation:
    """One batch on its way through the records and what follows."""

    __slots__ = (
        "_batch",
        "_config",
        "_header",
        "_limit",
        "_now_ms",
        "_offload",
        "_source",
        "_target",
        "_topic_partition",
        "in_place",
    )

    def __init__(
        self,
        batch: memoryview,
        header: RecordBatchHeader,
        config: LogConfig,
        now_ms: int,
        offload: Offload,
        topic_partition: str,
    ) -> None:
        self._batch = batch
        self._header = header
        self._config = config
        self._now_ms = now_ms
        self._offload = offload
        self._topic_partition = topic_partition
        self._source = header.codec
        self._target = self._source
        wanted = config.compression_type
        if wanted == "uncompressed":
            self._target = compression.NONE
        elif wanted != "producer":
            self._target = compression.CODEC_IDS[wanted]
        # Control records are not compressed unless they were written so.
        self.in_place = self._source == self._target or (
            self._source == compression.NONE and header.is_control
        )
        self._limit = inflated_limit(config)

    def trust(self) -> ValidatedRecords:
        """Accepts the records as the header describes them."""
        header = self._header
        return self._keep(header.max_timestamp, header.last_offset_delta)

    def run(self) -> Validated:
        """Walks the records, then concludes; inline where it is little work."""
        header = self._header
        if self._source == compression.NONE or not header.record_count:
            if header.record_count > WALK_SLICE:
                return self._run_in_slices()
            return self._conclude(self._walk_uncompressed(), self._record_data(), small=True)
        data = self._record_data()
        if len(data) > INLINE_SIZE:
            return self._run_inflating(data)
        inflated = _inflate_small(open_inflater(self._source, data, limit=self._limit))
        if inflated is None:
            return self._run_inflating(data)
        walker = self._walker()
        for chunk in inflated.chunks:
            walker.feed(chunk)
        if inflated.error is not None:
            raise inflated.error
        return self._conclude(walker.finish(), b"".join(inflated.chunks), small=True)

    def _record_data(self) -> memoryview:
        return self._batch[HEADER_SIZE:]

    def _walk_uncompressed(self) -> WalkResult:
        header = self._header
        if not header.record_count:
            return WalkResult()  # an empty batch: nothing is read, whatever follows the header
        return walk_uncompressed(
            self._batch,
            HEADER_SIZE,
            record_count=header.record_count,
            base_timestamp=header.base_timestamp,
        )

    async def _run_in_slices(self) -> ValidatedRecords:
        header, batch = self._header, self._batch
        result = WalkResult()
        position, end = HEADER_SIZE, len(batch)
        while result.index < header.record_count:
            limit = min(header.record_count, result.index + WALK_SLICE)
            position = walk_records(
                batch,
                position,
                end,
                limit=limit,
                base_timestamp=header.base_timestamp,
                result=result,
                strict=True,
                length_error=ErrorCode.UNKNOWN_SERVER_ERROR,
            )
            if result.index < limit:
                break
            await anyio.lowlevel.checkpoint()
        check_end(result, position, end, header.record_count)
        return await self._conclude_later(result)

    def _walker(self, observer: Callable[..., None] | None = None) -> StreamWalker:
        header = self._header
        return StreamWalker(
            record_count=header.record_count,
            base_timestamp=header.base_timestamp,
            strict=self._source == compression.NONE or not self.in_place,
            observer=observer,
        )

    async def _run_inflating(self, data: memoryview) -> ValidatedRecords:
        walker = self._walker()
        await self._feed(walker, self._check_progress)
        return await self._conclude_later(walker.finish())

    def _check_progress(self, walker: StreamWalker) -> bool:
        result = walker.result
        if self.in_place and not result.contiguous and result.index > MAX_NON_CONTIGUOUS_RECORDS:
            raise _wrong_offsets()
        return True

    async def _feed(self, walker: StreamWalker, go_on: Callable[[StreamWalker], bool]) -> None:
        """Feeds the record data, inflated chunk by chunk in a thread, until ``go_on`` is False."""
        data = self._record_data()
        if self._source == compression.NONE:
            chunks = _Chunks(None, [data])
        else:
            chunks = _Chunks(open_inflater(self._source, data, limit=self._limit), [])
        while chunk := await self._offload.run(chunks.next):
            walker.begin(chunk)
            finished = False
            while not finished:
                finished = walker.advance(WALK_SLICE)
                if not go_on(walker):
                    return
                await anyio.lowlevel.checkpoint()

    def _conclude(
        self, result: WalkResult, record_data: bytes | memoryview, *, small: bool
    ) -> Validated:
        """Inline conclusion for a batch whose record data, inflated, is at hand."""
        if self._is_suspicious(result):
            errors = _RecordErrors(self)
            walker = self._walker(errors)
            walker.feed(record_data)
            errors.maybe_raise()
        if self.in_place:
            return self._keep_walked(result)
        if small and len(record_data) <= INLINE_SIZE:
            return self._rebuild(result)
        return self._rebuild_later(result)

    async def _conclude_later(self, result: WalkResult) -> ValidatedRecords:
        """The same for a batch that needs a coroutine anyway."""
        if self._is_suspicious(result):
            errors = _RecordErrors(self)
            await self._feed(self._walker(errors), errors.wants_more)
            errors.maybe_raise()
        if self.in_place:
            return self._keep_walked(result)
        return await self._rebuild_later(result)

    async def _rebuild_later(self, result: WalkResult) -> ValidatedRecords:
        return await self._offload.run(partial(self._rebuild, result))

    def _is_suspicious(self, result: WalkResult) -> bool:
        """Whether some record may have an error of its own; the exact look costs more."""
        config, header = self._config, self._header
        if config.compact and result.has_null_key:
            return True
        if not header.record_count:
            return False
        append_time = header.is_log_append_time
        if config.message_timestamp_type != "CreateTime":
            return append_time
        low = header.max_timestamp if append_time else result.min_timestamp
        high = header.max_timestamp if append_time else result.max_timestamp
        if append_time and high == NO_TIMESTAMP:
            return True
        if low == _MAX_INT64:  # no record has a timestamp
            return False
        age = self._now_ms - low
        return (
            age > config.message_timestamp_before_max_ms
            or age > _MAX_INT64
            or high - self._now_ms > config.message_timestamp_after_max_ms
        )

    def _keep_walked(self, result: WalkResult) -> ValidatedRecords:
        header = self._header
        if self._source != compression.NONE and not result.contiguous:
            raise _wrong_offsets()
        if header.is_log_append_time:  # every record has the time that the producer put there
            return self._keep(max(header.max_timestamp, NO_TIMESTAMP), 0)
        return self._keep(result.max_timestamp, result.index_of_max_timestamp)

    def _keep(self, max_timestamp: int, index_of_max: int) -> ValidatedRecords:
        """The batch as it came, with attributes, max timestamp and CRC as they must be."""
        header, batch = self._header, self._batch
        append_time_ms = -1
        attributes = header.attributes & ~LOG_APPEND_TIME_BIT
        if self._config.message_timestamp_type != "CreateTime":
            append_time_ms = max_timestamp = self._now_ms
            index_of_max = 0
            attributes = header.attributes | LOG_APPEND_TIME_BIT
        if batch.readonly:
            batch = memoryview(bytearray(batch))
        if attributes != header.attributes or max_timestamp != header.max_timestamp:
            attributes &= KNOWN_ATTRIBUTES  # Kafka writes those it knows, and only then
            patch_timestamps(
                batch, 0, len(batch), attributes=attributes, max_timestamp=max_timestamp
            )
        self._check_segment_size(len(batch))
        return ValidatedRecords(
            batch,
            header,
            attributes=attributes,
            max_timestamp=max_timestamp,
            offset_delta_of_max_timestamp=index_of_max,
            log_append_time_ms=append_time_ms,
        )

    def _check_segment_size(self, size: int) -> None:
        if size > self._config.segment_bytes:
            raise KafkaError(
                ErrorCode.RECORD_LIST_TOO_LARGE,
                f"Message batch size is {size} bytes which exceeds the maximum configured segment "
                f"size of {self._config.segment_bytes}.",
            )

    def _check_rebuildable(self, result: WalkResult) -> None:
        """What Kafka's builder does not take, and answers with -1."""
        header = self._header
        lowest = header.max_timestamp if header.is_log_append_time else result.min_timestamp
        problem = ""
        if lowest < 0 and lowest != NO_TIMESTAMP:
            problem = f"Invalid negative timestamp {lowest}"
        elif header.is_transactional and header.producer_id == NO_PRODUCER_ID:
            problem = "Cannot write transactional messages without a valid producer ID"
        elif header.producer_id != NO_PRODUCER_ID:
            if header.producer_epoch == NO_PRODUCER_EPOCH:
                problem = "Invalid negative producer epoch"
            elif header.base_sequence < 0:
                problem = "Invalid negative sequence number used"
        if problem:
            raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, problem)

    def _rebuild(self, result: WalkResult) -> ValidatedRecords:
        """A new batch with the topic's codec, offsets 0 to n - 1, the first timestamp as base."""
        self._check_rebuildable(result)
        header, config = self._header, self._config
        append_time_ms = -1
        index_of_max = result.index_of_max_timestamp
        if header.is_log_append_time:
            uniform_timestamp: int | None = header.max_timestamp
            base_timestamp = max_timestamp = header.max_timestamp
            index_of_max = 0
        else:
            uniform_timestamp = None
            base_timestamp = result.first_timestamp
            max_timestamp = result.max_timestamp
        attributes = self._target | (header.attributes & TRANSACTIONAL_BIT)
        if config.message_timestamp_type != "CreateTime":
            append_time_ms = max_timestamp = self._now_ms
            index_of_max = 0
            attributes |= LOG_APPEND_TIME_BIT
        max_size = config.max_message_bytes
        as_written = (
            result.plain
            and result.contiguous
            and uniform_timestamp is None
            and base_timestamp == header.base_timestamp
        )
        body = rebuild_records(
            self._record_data(),
            source=self._source,
            target=self._target,
            level=_level(config, self._target),
            record_count=header.record_count,
            timestamp_shift=header.base_timestamp - base_timestamp,
            uniform_timestamp_delta=None if uniform_timestamp is None else 0,
            as_written=as_written,
            inflated_limit=self._limit,
            max_size=max_size - HEADER_SIZE,
        )
        batch = assemble_batch(
            body,
            record_count=header.record_count,
            base_timestamp=base_timestamp,
            max_timestamp=max_timestamp,
            attributes=attributes,
            producer_id=header.producer_id,
            producer_epoch=header.producer_epoch,
            base_sequence=header.base_sequence,
        )
        self._check_segment_size(len(batch))
        return ValidatedRecords(
            memoryview(batch),
            header,
            attributes=attributes,
            max_timestamp=max_timestamp,
            offset_delta_of_max_timestamp=index_of_max,
            log_append_time_ms=append_time_ms,
        )


def _wrong_offsets() -> KafkaError:
    # Kafka would rebuild such a batch, but has skipped the keys and values that it needs for it.
    return KafkaError(
        ErrorCode.UNKNOWN_SERVER_ERROR,
        "the offset deltas of a compressed batch are not 0, 1, 2 and so on",
    )


def _level(config: LogConfig, codec: int) -> int | None:
    if codec == compression.GZIP:
        return config.compression_gzip_level
    if codec == compression.LZ4:
        return config.compression_lz4_level
    if codec == compression.ZSTD:
        return config.compression_zstd_level
    return None


class _RecordErrors:
    """An observer of the walk that notes what is wrong with single records."""

    __slots__ = ("_has_timestamp_error", "_validation", "errors", "total")

    def __init__(self, validation: _Validation) -> None:
        self._validation = validation
        self._has_timestamp_error = False
        self.errors: list[tuple[int, str | None]] = []
        self.total = 0

    def __call__(
        self, index: int, timestamp: int, offset_delta: int, key_size: int, value_size: int
    ) -> None:
        validation = self._validation
        config, header = validation._config, validation._header
        if config.compact and key_size < 0:
            self._add(
                index,
                "Compacted topic cannot accept message without key in topic partition "
                f"{validation._topic_partition}",
            )
            return
        if header.is_log_append_time:
            timestamp = header.max_timestamp
        if config.message_timestamp_type == "CreateTime" and timestamp != NO_TIMESTAMP:
            now = validation._now_ms
            before = config.message_timestamp_before_max_ms
            after = config.message_timestamp_after_max_ms
            age = wrap_int64(now - timestamp)
            if age > before or wrap_int64(-age) > after:
                self._has_timestamp_error = True
                self._add(
                    index,
                    f"Timestamp {timestamp} of message with offset {offset_delta} is out of range."
                    f" The timestamp should be within [{wrap_int64(now - before)}, "
                    f"{wrap_int64(now + after)}]",
                )
        elif header.is_log_append_time:
            self._has_timestamp_error = True
            kind = "DefaultRecord"
            if header.codec and validation.in_place:
                kind = "PartialDefaultRecord"
            else:
                key_size, value_size = max(key_size, 0), max(value_size, 0)
            self._add(
                index,
                f"Invalid timestamp type in message {kind}(offset={offset_delta}, "
                f"timestamp={timestamp}, key={key_size} bytes, value={value_size} bytes). "
                "Producer should not set timestamp type to LogAppendTime.",
            )

    def _add(self, index: int, message: str) -> None:
        self.total += 1
        if len(self.errors) < MAX_RECORD_ERRORS:
            self.errors.append((index, message))

    def wants_more(self, walker: StreamWalker) -> bool:
        return walker.result.index < MAX_EXAMINED_RECORDS

    def maybe_raise(self) -> None:
        """Raises RecordValidationError when a record has an error."""
        if not self.total:
            return
        if self._has_timestamp_error:
            raise RecordValidationError(
                ErrorCode.INVALID_TIMESTAMP, _TIMESTAMPS_MESSAGE, self.errors
            )
        shown = ", ".join(
            f"RecordError(batchIndex={index}, message='{message}')"
            for index, message in self.errors[:3]
        )
        raise RecordValidationError(
            ErrorCode.INVALID_RECORD,
            f"One or more records have been rejected due to {self.total} record errors in total, "
            f"and only showing the first three errors at most: [{shown}]",
            self.errors,
        )


class _Chunks:
    """Inflated data in chunks of about CHUNK_SIZE; an error comes after what preceded it."""

    __slots__ = ("_error", "_inflater", "_ready")

    def __init__(self, inflater: Inflater | None, ready: list[memoryview]) -> None:
        self._inflater = inflater
        self._ready = ready
        self._error: KafkaError | None = None

    def next(self) -> bytes | memoryview:
        """The next chunk, b"" at the end."""
        if self._ready:
            return self._ready.pop()
        if self._error is not None:
            raise self._error
        if self._inflater is None:
            return b""
        parts: list[bytes] = []
        size = 0
        try:
            while size < CHUNK_SIZE and (part := self._inflater.read(CHUNK_SIZE - size)):
                parts.append(part)
                size += len(part)
        except KafkaError as error:
            if not parts:
                raise
            self._error = error
        return parts[0] if len(parts) == 1 else b"".join(parts)


class _SmallData:
    __slots__ = ("chunks", "error")

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.error: KafkaError | None = None


def _inflate_small(inflater: Inflater) -> _SmallData | None:
    """The whole output when it is at most INLINE_SIZE bytes (up to an error), else None."""
    small = _SmallData()
    left = INLINE_SIZE
    try:
        while chunk := inflater.read(left + 1):
            left -= len(chunk)
            if left < 0:
                return None
            small.chunks.append(chunk)
    except KafkaError as error:
        small.error = error
    return small
