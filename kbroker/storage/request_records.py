"""The framing of the records of a Produce request, as Kafka checks it before anything else, and
what it checks of a batch before it looks at the records."""

from typing import Final

from kbroker.config.topic_config import LogConfig
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import (
    LENGTH_POSITION,
    LOG_OVERHEAD,
    MAGIC,
    MAGIC_POSITION,
    RecordBatchHeader,
    base_offset,
    verify_crc,
)
from kbroker.record.compression import ZSTD, UndecodableDataError
from kbroker.storage.append_info import AppendOrigin

_MAX_INT32: Final = 0x7FFFFFFF
_MIN_BATCH_LENGTH: Final = 14
"""The overhead of a version 0 message, the least that Kafka's framing takes."""
_CODEC_POSITION: Final = 22
"""The low byte of the attributes."""


def check_request_records(records: memoryview, *, allow_zstd: bool) -> int:
    """Checks that there is exactly one whole batch of magic 2; returns its size in bytes.

    Raises KafkaError INVALID_RECORD, CORRUPT_MESSAGE, UNSUPPORTED_COMPRESSION_TYPE, or
    UNKNOWN_SERVER_ERROR for what Kafka fails the whole request for. Fewer than 12 bytes after the
    batch, or a second batch that is cut short, are ignored, here and when appending.
    """
    size = next_batch_size(records, 0)
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
        codec = records[_CODEC_POSITION] & 0x07
        if codec > ZSTD:
            raise UndecodableDataError(f"unknown compression type id: {codec}")
        if codec == ZSTD:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_COMPRESSION_TYPE,
                "Produce requests below version 7 are not allowed to use ZStandard compression",
            )
    if size != len(records) and next_batch_size(records, size) is not None:
        raise KafkaError(
            ErrorCode.INVALID_RECORD,
            "a Produce request may only contain exactly one record batch per partition",
        )
    return size


def next_batch_size(records: memoryview, position: int) -> int | None:
    """Size of the batch at ``position``, None when there is none or it is cut short.

    Raises KafkaError CORRUPT_MESSAGE, or UNKNOWN_SERVER_ERROR where Kafka's arithmetic overflows.
    """
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
        signed = magic - (magic >> 7 << 8)
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"Invalid magic found in record: {signed}")
    size = length + LOG_OVERHEAD
    if size > _MAX_INT32:  # Kafka's sum overflows, which its framing does not expect
        raise KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, f"a batch of {size} bytes")
    return None if remaining < size else size


def check_batch(batch: memoryview, config: LogConfig, origin: AppendOrigin) -> RecordBatchHeader:
    """Checks everything that the 61 bytes of the header and the CRC tell; KafkaError says what."""
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
    if header.codec > ZSTD:
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
