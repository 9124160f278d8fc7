"""Finding records by their time, exact to the record, and reading transaction markers.

The time index gives a place to begin; from there batch headers tell which batch may hold the
record, and only such a batch is read and, when compressed, inflated.
"""

import struct

from kbroker.common.files import File
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import CONTROL_ABORT, HEADER_SIZE, read_control_type
from kbroker.record.record import iter_records
from kbroker.storage.batch_scan import BatchHeader, iter_headers
from kbroker.storage.fetch_info import TimestampAndOffset
from kbroker.storage.log_segment import LogSegment
from kbroker.storage.log_segments import LogSegments

_END_TRANSACTION_VALUE = struct.Struct(">hi")

_PLAIN_MARKER = struct.Struct(">5shhBhiB")
"""Behind the header, in a marker as Kafka and we write it: length of the record, no attributes,
deltas of 0 and the length of the key; the key's version and type; the length of the value, its
version and the coordinator's epoch; no headers."""
_PLAIN_MARKER_SIZE = HEADER_SIZE + _PLAIN_MARKER.size
_PLAIN_MARKER_START = bytes((32, 0, 0, 0, 8))
_PLAIN_VALUE_LENGTH = 12  # a varint: twice its 6 bytes


def find_offset_by_timestamp(
    segments: LogSegments, timestamp: int, start_offset: int, *, inflated_limit: int
) -> TimestampAndOffset | None:
    """First record at or above ``start_offset`` that is not older than ``timestamp``.

    As Kafka, the search begins in the first segment whose largest timestamp reaches ``timestamp``
    (if its records have none, the time at which the last one came) and stays in it. Unlike there,
    one that compaction emptied does not end it. A batch is inflated to ``inflated_limit`` bytes.
    OSError; KafkaError CORRUPT_MESSAGE for an unreadable batch.
    """
    for segment in segments:
        if segment.size and segment.largest_time_ms >= timestamp:
            return _search_segment(segment, timestamp, start_offset, inflated_limit)
    return None


def _search_segment(
    segment: LogSegment, timestamp: int, start_offset: int, limit: int
) -> TimestampAndOffset | None:
    entry = segment.time_index.lookup(timestamp)
    position = segment.offset_index.lookup(max(entry.offset, start_offset))
    file = segment.file()
    for header in iter_headers(file, position, segment.size):
        if header.max_timestamp >= timestamp and header.last_offset >= start_offset:
            for record in iter_records(_read_batch(file, header), limit=limit):
                if record.timestamp >= timestamp and record.offset >= start_offset:
                    return TimestampAndOffset(record.offset, record.timestamp, header.leader_epoch)
    return None


def find_max_timestamp(segments: LogSegments, *, inflated_limit: int) -> TimestampAndOffset | None:
    """First record with the largest timestamp of all segments; None without records."""
    best: LogSegment | None = None
    for segment in segments:
        if best is None or segment.largest_timestamp.timestamp > best.largest_timestamp.timestamp:
            best = segment
    if best is None:
        return None
    largest = best.largest_timestamp
    file = best.file()
    for header in iter_headers(file, best.offset_index.lookup(largest.offset), best.size):
        if header.max_timestamp == largest.timestamp:
            for record in iter_records(_read_batch(file, header), limit=inflated_limit):
                if record.timestamp == largest.timestamp:
                    return TimestampAndOffset(record.offset, record.timestamp, header.leader_epoch)
            return None
    return None


def _read_batch(file: File, header: BatchHeader) -> bytes:
    return file.read_at(header.size, header.position)


def read_end_transaction_marker(batch: memoryview | bytes | bytearray) -> tuple[bool, int]:
    """(is an abort, coordinator epoch) of the control batch at the start of ``batch``.

    KafkaError CORRUPT_MESSAGE or INVALID_RECORD when it is no such batch.
    """
    if len(batch) == _PLAIN_MARKER_SIZE:
        start, _, kind, value_length, _, epoch, headers = _PLAIN_MARKER.unpack_from(
            batch, HEADER_SIZE
        )
        if start == _PLAIN_MARKER_START and value_length == _PLAIN_VALUE_LENGTH and not headers:
            return kind == CONTROL_ABORT, epoch
    for record in iter_records(batch):
        value = record.value or b""
        if len(value) < _END_TRANSACTION_VALUE.size:
            break
        is_abort = read_control_type(record.key or b"") == CONTROL_ABORT
        return is_abort, int(_END_TRANSACTION_VALUE.unpack_from(value)[1])
    raise KafkaError(ErrorCode.INVALID_RECORD, "a control batch without an end of a transaction")
