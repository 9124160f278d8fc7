"""Decoded records, for those who need keys and values: lookups, coordinators, tools, tests."""

from collections.abc import Iterator, Sequence

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import HEADER_SIZE, NO_TIMESTAMP, RecordBatchHeader
from kbroker.record.compression import NONE, decompress
from kbroker.record.encoding import (
    Bytes,
    Header,
    VarintTooLongError,
    read_varint,
    read_varlong,
    wrap_int64,
)

DEFAULT_INFLATED_LIMIT = 128 * 1024 * 1024
"""Bytes that the records of one batch may inflate to: what produce accepts, see LogValidator."""


class Record:
    """One record: offset, timestamp in ms (-1 for none), key, value, headers, attributes."""

    __slots__ = ("attributes", "headers", "key", "offset", "timestamp", "value")

    def __init__(
        self,
        *,
        key: bytes | None = None,
        value: bytes | None = None,
        headers: Sequence[Header] = (),
        timestamp: int = NO_TIMESTAMP,
        offset: int = 0,
        attributes: int = 0,
    ) -> None:
        self.offset = offset
        self.timestamp = timestamp
        self.key = key
        self.value = value
        self.headers = headers
        self.attributes = attributes

    def __repr__(self) -> str:
        return (
            f"Record(offset={self.offset}, timestamp={self.timestamp}, key={self.key!r}, "
            f"value={self.value!r}, headers={list(self.headers)!r})"
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Record):
            return NotImplemented
        return (
            self.offset == other.offset
            and self.timestamp == other.timestamp
            and self.key == other.key
            and self.value == other.value
            and list(self.headers) == list(other.headers)
        )

    __hash__ = None  # type: ignore[assignment] # mutable


def iter_records(
    batch: Bytes,
    header: RecordBatchHeader | None = None,
    *,
    limit: int = DEFAULT_INFLATED_LIMIT,
) -> Iterator[Record]:
    """The records of one batch in order, inflated when compressed, to at most ``limit`` bytes.

    ``header`` saves reading it again; its position is where the batch starts in ``batch``. In a
    batch with the LogAppendTime bit every record has the batch's max timestamp. Raises KafkaError
    CORRUPT_MESSAGE for data that is no record, and what ``decompress`` raises. The CRC is the
    caller's business.
    """
    if header is None:
        header = RecordBatchHeader(batch)
    start = header.position
    if header.size < HEADER_SIZE or start + header.size > len(batch):
        raise KafkaError(ErrorCode.CORRUPT_MESSAGE, f"a batch of {header.size} bytes is cut short")
    data: Bytes = memoryview(batch)[start + HEADER_SIZE : start + header.size]
    if header.codec != NONE and header.record_count:
        data = decompress(header.codec, data, limit=limit)
    append_time = header.max_timestamp if header.is_log_append_time else None
    position = 0
    for _ in range(header.record_count):
        try:
            record, position = read_record(data, position)
        except (IndexError, VarintTooLongError) as error:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"an unreadable record in the batch at offset {header.base_offset}: {error}",
            ) from None
        record.offset += header.base_offset
        if append_time is None:
            record.timestamp = wrap_int64(record.timestamp + header.base_timestamp)
        else:
            record.timestamp = append_time
        yield record


def read_record(data: Bytes, position: int) -> tuple[Record, int]:
    """The record at ``position`` with its deltas for offset and timestamp, and where it ends.

    Raises IndexError or VarintTooLongError.
    """
    size, position = read_varint(data, position)
    end = position + size
    if size < 0 or end > len(data):
        raise IndexError(f"a record of {size} bytes where {len(data) - position} are left")
    attributes = data[position]
    timestamp_delta, position = read_varlong(data, position + 1)
    offset_delta, position = read_varint(data, position)
    key, position = _read_bytes(data, position, end)
    value, position = _read_bytes(data, position, end)
    count, position = read_varint(data, position)
    if count < 0 or count > end - position:
        raise IndexError(f"{count} record headers")
    headers: list[Header] = []
    for _ in range(count):
        name, position = _read_bytes(data, position, end)
        content, position = _read_bytes(data, position, end)
        if name is None:
            raise IndexError("a record header without a key")
        headers.append((name.decode(errors="replace"), content))  # as Kafka reads them
    if position != end:
        raise IndexError("the fields of a record do not end where its length says")
    record = Record(
        key=key,
        value=value,
        headers=headers,
        timestamp=timestamp_delta,
        offset=offset_delta,
        attributes=attributes,
    )
    return record, end


def _read_bytes(data: Bytes, position: int, end: int) -> tuple[bytes | None, int]:
    size, position = read_varint(data, position)
    if size < 0:
        return None, position
    if size > end - position:
        raise IndexError(f"a field of {size} bytes where {end - position} are left")
    return bytes(data[position : position + size]), position + size
