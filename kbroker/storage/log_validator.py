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
``inflated_limit``. Work of more than INLINE_SIZE bytes (AT_ONCE_SIZE where a batch can be inflated
at once) or WALK_SLICE records is done by a coroutine, which gives way between slices of the walk.
What fits one buffer is inflated in the loop's thread, within a millisecond: the way to a thread and
back costs as much. All else goes through Offload, chunk by chunk.
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
    LOG_APPEND_TIME_BIT,
    NO_PRODUCER_EPOCH,
    NO_PRODUCER_ID,
    NO_TIMESTAMP,
    TRANSACTIONAL_BIT,
    RecordBatchHeader,
    assemble_batch,
    patch_timestamps,
)
from kbroker.record.chunks import CHUNK_SIZE, ChunkReader, inflate_small
from kbroker.record.compression import open_inflater
from kbroker.record.inflate_at_once import AT_ONCE, AtOnceInflater, buffer_of
from kbroker.record.rebuild import rebuild_records
from kbroker.record.stream_walk import StreamWalker, walk_on, walk_uncompressed, walkable
from kbroker.record.walk import NO_MINIMUM, WalkResult, check_end
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.record_errors import RecordErrors, RecordValidationError
from kbroker.storage.request_records import (
    check_batch,
    check_request_records,
    next_batch_size,
)
from kbroker.storage.validated_records import ValidatedRecords

__all__ = [
    "RecordValidationError",
    "ValidatedRecords",
    "check_request_records",
    "inflated_limit",
    "validate_records",
]

INLINE_SIZE: Final = 64 * 1024
"""Inflated or compressed bytes that are worth no thread: about a quarter of a millisecond."""

AT_ONCE_SIZE: Final = 256 * 1024
"""The same for inflating at once, which takes no longer for them."""

WALK_SLICE: Final = 2048
"""Records that are walked before others get their turn: 1 to 2 ms interpreted."""

MIN_INFLATED_LIMIT: Final = 128 * 1024 * 1024
INFLATED_RATIO: Final = 16
"""A batch may inflate to 128 MiB, or 16 times max.message.bytes where that is more.

Kafka has no limit: 1 MiB of zstd makes it walk 32 GiB. At the default max.message.bytes this one
still takes data that shrinks to less than a hundredth, and ends a bomb within a second of decoding
in a thread. The answer makes a Java producer split the batch, see OutputLimitError."""

MAX_NON_CONTIGUOUS_RECORDS: Final = 100_000
"""A compressed batch whose offset deltas are wrong is lost already: when it is walked on, to see
whether something in it has another error that Kafka would give, it is not walked on for long."""

_MAX_INT64 = 0x7FFFFFFFFFFFFFFF


Validated = ValidatedRecords | Coroutine[Any, Any, ValidatedRecords]


def inflated_limit(config: LogConfig) -> int:
    """Bytes that the records of one batch of a topic may inflate to."""
    return max(MIN_INFLATED_LIMIT, INFLATED_RATIO * config.max_message_bytes)


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
    is_one_batch: bool = False,
    at_once: AtOnceInflater | None = None,
) -> Validated:
    """Validates one batch for a topic with ``config``; a coroutine when it is much work.

    ``records`` may be changed in place, and is what ``ValidatedRecords.data`` shows unless the
    batch is rebuilt; it must stay untouched until a coroutine has ended. ``topic_partition`` only
    appears in messages. Records of our own coordinators are never a coroutine: they are trusted, or
    rebuilt at once where the topic asks for another codec. ``walk=False``
    (kbroker.record.validation=header) trusts the records wherever nothing depends on them.
    ``is_one_batch``: the caller has looked, ``records`` is one whole batch of magic 2, no more.
    ``at_once`` belongs to the caller's thread and spares what fits its buffer the way to another.
    Raises KafkaError, RecordValidationError; UndecodableDataError and OutputLimitError are
    KafkaErrors too.
    """
    if is_one_batch:
        size = len(records)
    elif origin is AppendOrigin.CLIENT:
        size = check_request_records(records, allow_zstd=allow_zstd)
    else:
        size = next_batch_size(records, 0) or len(records)
    batch = records if size == len(records) else records[:size]
    header = check_batch(batch, config, origin)
    validation = _Validation(batch, header, config, now_ms, offload, topic_partition, at_once)
    if origin is AppendOrigin.COORDINATOR:
        return validation.trust() if validation.in_place else validation.rebuild_at_once()
    if not walk and validation.in_place and not config.compact:
        return validation.trust()
    return validation.run()


class _Validation:
    """One batch on its way through the records and what follows."""

    __slots__ = (
        "_at_once",
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
        at_once: AtOnceInflater | None,
    ) -> None:
        self._batch = batch
        self._header = header
        self._config = config
        self._now_ms = now_ms
        self._offload = offload
        self._topic_partition = topic_partition
        self._at_once = at_once
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

    def rebuild_at_once(self) -> ValidatedRecords:
        """Another codec for records of our own, which are uncompressed and few."""
        return self._rebuild(self._walk_uncompressed())

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
        if self._at_once is not None and self._source in AT_ONCE:
            most = min(AT_ONCE_SIZE, self._limit + 1)
            whole = self._at_once.inflate(self._source, data, most)
            if whole is None:
                return self._run_inflating(data)
            return self._run_at_once(self._at_once, whole)
        inflated = inflate_small(open_inflater(self._source, data, limit=self._limit), INLINE_SIZE)
        if inflated is None:
            return self._run_inflating(data)
        walker = self._walker()
        for chunk in inflated.chunks:
            walker.feed(chunk)
        if inflated.error is not None:
            raise inflated.error
        return self._conclude(walker.finish(), b"".join(inflated.chunks), small=True)

    def _run_at_once(self, at_once: AtOnceInflater, inflated: memoryview) -> Validated:
        if self._header.record_count > WALK_SLICE:
            return self._run_inflated(at_once, inflated)
        try:
            walker = self._walker()
            walker.feed(inflated, buffer_of(inflated))
            return self._conclude(walker.finish(), inflated, small=True)
        finally:
            at_once.give_back(inflated)

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
        header, batch = self._header, walkable(self._batch)
        result = WalkResult()
        position, end = HEADER_SIZE, len(batch)
        while result.index < header.record_count:
            limit = min(header.record_count, result.index + WALK_SLICE)
            position = walk_on(
                batch,
                position,
                end,
                limit=limit,
                base_timestamp=header.base_timestamp,
                result=result,
                strict=True,
                length_error=ErrorCode.UNKNOWN_SERVER_ERROR,
                count=header.record_count,
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
        if self._at_once is not None:
            most = min(CHUNK_SIZE, self._limit + 1)
            inflated = self._at_once.inflate(self._source, data, most)
            if inflated is not None:
                return await self._run_inflated(self._at_once, inflated)
        walker = self._walker()
        await self._feed(walker, self._check_progress)
        return await self._conclude_later(walker.finish())

    async def _run_inflated(
        self, at_once: AtOnceInflater, inflated: memoryview
    ) -> ValidatedRecords:
        try:
            walker = self._walker()
            buffer = buffer_of(inflated)
            await self._walk_slices(walker, inflated, self._check_progress, buffer)
        finally:
            at_once.give_back(inflated)
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
            chunks = ChunkReader(None, [data])
        else:
            chunks = ChunkReader(open_inflater(self._source, data, limit=self._limit), [])
        while chunk := await self._offload.run(chunks.next):
            if not await self._walk_slices(walker, chunk, go_on) or chunks.is_at_end:
                return

    @staticmethod
    async def _walk_slices(
        walker: StreamWalker,
        chunk: bytes | memoryview,
        go_on: Callable[[StreamWalker], bool],
        buffer: bytearray | None = None,
    ) -> bool:
        """Walks a chunk, others have their turn in between; False when ``go_on`` was."""
        walker.begin(chunk, buffer)
        finished = False
        while not finished:
            finished = walker.advance(WALK_SLICE)
            if not go_on(walker):
                return False
            await anyio.lowlevel.checkpoint()
        return True

    def _conclude(
        self, result: WalkResult, record_data: bytes | memoryview, *, small: bool
    ) -> Validated:
        """Inline conclusion for a batch whose record data, inflated, is at hand."""
        if self._is_suspicious(result):
            errors = self._record_errors()
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
            errors = self._record_errors()
            await self._feed(self._walker(errors), errors.wants_more)
            errors.maybe_raise()
        if self.in_place:
            return self._keep_walked(result)
        return await self._rebuild_later(result)

    async def _rebuild_later(self, result: WalkResult) -> ValidatedRecords:
        return await self._offload.run(partial(self._rebuild, result))

    def _record_errors(self) -> RecordErrors:
        return RecordErrors(
            self._config,
            self._header,
            now_ms=self._now_ms,
            topic_partition=self._topic_partition,
            skips_fields=self._source != compression.NONE and self.in_place,
        )

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
        if low == NO_MINIMUM:  # no record has a timestamp
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
