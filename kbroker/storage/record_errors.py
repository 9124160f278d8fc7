"""What is wrong with single records of a produced batch, worded as Kafka words it."""

from typing import Final

from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import NO_TIMESTAMP, RecordBatchHeader
from kbroker.record.encoding import wrap_int64
from kbroker.record.stream_walk import StreamWalker

MAX_RECORD_ERRORS: Final = 10_000
"""Errors that are listed one by one; librdkafka's batches hold at most as many records."""
MAX_EXAMINED_RECORDS: Final = 200_000
"""Records that are looked at again, one by one, to tell which of them are wrong."""
_TIMESTAMPS_MESSAGE = "One or more records have been rejected due to invalid timestamp"


class RecordValidationError(KafkaError):
    """Some records are refused, and with them the batch: (index in the batch, message) each."""

    def __init__(
        self, error_code: ErrorCode, message: str, record_errors: list[tuple[int, str | None]]
    ) -> None:
        super().__init__(error_code, message)
        self.record_errors = record_errors


class RecordErrors:
    """An observer of the walk that notes what is wrong with single records."""

    __slots__ = (
        "_config",
        "_has_timestamp_error",
        "_header",
        "_now_ms",
        "_skips_fields",
        "_topic_partition",
        "errors",
        "total",
    )

    def __init__(
        self,
        config: LogConfig,
        header: RecordBatchHeader,
        *,
        now_ms: int,
        topic_partition: str,
        skips_fields: bool,
    ) -> None:
        """``skips_fields``: Kafka has skipped keys and values here; it words messages by that."""
        self._config = config
        self._header = header
        self._now_ms = now_ms
        self._topic_partition = topic_partition
        self._skips_fields = skips_fields
        self._has_timestamp_error = False
        self.errors: list[tuple[int, str | None]] = []
        self.total = 0

    def __call__(
        self, index: int, timestamp: int, offset_delta: int, key_size: int, value_size: int
    ) -> None:
        config, header = self._config, self._header
        if config.compact and key_size < 0:
            self._add(
                index,
                "Compacted topic cannot accept message without key in topic partition "
                f"{self._topic_partition}",
            )
            return
        if header.is_log_append_time:
            timestamp = header.max_timestamp
        if config.message_timestamp_type == "CreateTime" and timestamp != NO_TIMESTAMP:
            now = self._now_ms
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
            kind = "PartialDefaultRecord"
            if not self._skips_fields:
                kind = "DefaultRecord"
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
