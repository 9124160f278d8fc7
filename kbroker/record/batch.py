"""The version 2 record batch: its 61-byte header, CRC, in-place patches, and a builder.

Positions are those of Kafka's message format v2 (KIP-98, KIP-101, KIP-360). The CRC covers
everything from the attributes on, so the base offset and the leader epoch are patched without it.
"""

import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.crc import crc32c
from kbroker.record.encoding import Header, encode_record

BASE_OFFSET_POSITION = 0
LENGTH_POSITION = 8
LEADER_EPOCH_POSITION = 12
MAGIC_POSITION = 16
CRC_POSITION = 17
ATTRIBUTES_POSITION = 21
LAST_OFFSET_DELTA_POSITION = 23
BASE_TIMESTAMP_POSITION = 27
MAX_TIMESTAMP_POSITION = 35
PRODUCER_ID_POSITION = 43
PRODUCER_EPOCH_POSITION = 51
BASE_SEQUENCE_POSITION = 53
RECORD_COUNT_POSITION = 57
HEADER_SIZE = 61
LOG_OVERHEAD = 12
"""Base offset and length: what the length field does not count."""

MAGIC = 2
CODEC_MASK = 0x07
LOG_APPEND_TIME_BIT = 0x08
TRANSACTIONAL_BIT = 0x10
CONTROL_BIT = 0x20
DELETE_HORIZON_BIT = 0x40
KNOWN_ATTRIBUTES = 0x7F

NO_TIMESTAMP = -1
NO_PRODUCER_ID = -1
NO_PRODUCER_EPOCH = -1
NO_SEQUENCE = -1
NO_LEADER_EPOCH = -1
MAX_SEQUENCE = 0x7FFFFFFF

CONTROL_ABORT = 0
CONTROL_COMMIT = 1

HEADER = struct.Struct(">qiibIhiqqqhii")
"""base offset, length, leader epoch, magic, CRC, attributes, last offset delta, base timestamp,
max timestamp, producer id, producer epoch, base sequence, record count."""
_PREFIX = struct.Struct(">qiib")
_INT64 = struct.Struct(">q")
_INT32 = struct.Struct(">i")
_INT16 = struct.Struct(">h")
_UINT32 = struct.Struct(">I")
_CONTROL_KEY = struct.Struct(">hh")
_END_TRANSACTION_VALUE = struct.Struct(">hi")

Buffer = bytes | bytearray | memoryview
WritableBuffer = bytearray | memoryview


class RecordBatchHeader:
    """The header of the batch at ``position`` of some buffer; ``size`` counts the whole batch."""

    __slots__ = (
        "attributes",
        "base_offset",
        "base_sequence",
        "base_timestamp",
        "crc",
        "last_offset_delta",
        "leader_epoch",
        "magic",
        "max_timestamp",
        "position",
        "producer_epoch",
        "producer_id",
        "record_count",
        "size",
    )

    def __init__(self, buffer: Buffer, position: int = 0) -> None:
        """Raises KafkaError CORRUPT_MESSAGE when fewer than 61 bytes are left at ``position``."""
        if len(buffer) - position < HEADER_SIZE:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"Record batch is corrupt (the size {len(buffer) - position} is smaller than the "
                f"minimum allowed overhead {HEADER_SIZE})",
            )
        self.position = position
        length: int
        self.base_offset: int
        self.leader_epoch: int
        self.magic: int
        self.crc: int
        self.attributes: int
        self.last_offset_delta: int
        self.base_timestamp: int
        self.max_timestamp: int
        self.producer_id: int
        self.producer_epoch: int
        self.base_sequence: int
        self.record_count: int
        (
            self.base_offset,
            length,
            self.leader_epoch,
            self.magic,
            self.crc,
            self.attributes,
            self.last_offset_delta,
            self.base_timestamp,
            self.max_timestamp,
            self.producer_id,
            self.producer_epoch,
            self.base_sequence,
            self.record_count,
        ) = HEADER.unpack_from(buffer, position)
        self.size: int = length + LOG_OVERHEAD

    @property
    def last_offset(self) -> int:
        return self.base_offset + self.last_offset_delta

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_offset_delta + 1

    @property
    def last_sequence(self) -> int:
        """-1 without a base sequence, else the base plus the delta, wrapping to 0 at 2^31."""
        if self.base_sequence == NO_SEQUENCE:
            return NO_SEQUENCE
        return increment_sequence(self.base_sequence, self.last_offset_delta)

    @property
    def codec(self) -> int:
        return self.attributes & CODEC_MASK

    @property
    def is_log_append_time(self) -> bool:
        return self.attributes & LOG_APPEND_TIME_BIT != 0

    @property
    def is_transactional(self) -> bool:
        return self.attributes & TRANSACTIONAL_BIT != 0

    @property
    def is_control(self) -> bool:
        return self.attributes & CONTROL_BIT != 0

    @property
    def delete_horizon_ms(self) -> int | None:
        """When tombstones and markers of the batch may go; the base timestamp stands for it."""
        return self.base_timestamp if self.attributes & DELETE_HORIZON_BIT else None

    @property
    def has_producer_id(self) -> bool:
        return self.producer_id > NO_PRODUCER_ID

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"RecordBatchHeader({fields})"


def increment_sequence(sequence: int, increment: int) -> int:
    """Sequence numbers run from 0 to 2^31 - 1 and around."""
    if sequence > MAX_SEQUENCE - increment:
        return increment - (MAX_SEQUENCE - sequence) - 1
    return sequence + increment


def batch_size(buffer: Buffer, position: int = 0) -> int:
    """Bytes of the batch at ``position`` by its length field, header and overhead included."""
    size: int = _INT32.unpack_from(buffer, position + LENGTH_POSITION)[0]
    return size + LOG_OVERHEAD


def base_offset(buffer: Buffer, position: int = 0) -> int:
    value: int = _INT64.unpack_from(buffer, position)[0]
    return value


def last_offset_delta(buffer: Buffer, position: int = 0) -> int:
    value: int = _INT32.unpack_from(buffer, position + LAST_OFFSET_DELTA_POSITION)[0]
    return value


def iter_batches(view: Buffer, position: int = 0) -> Iterator[RecordBatchHeader]:
    """The headers of the whole batches from ``position`` on; a cut last batch ends the walk.

    Raises KafkaError CORRUPT_MESSAGE for a length below a header's or another magic than 2.
    """
    end = len(view)
    while end - position >= HEADER_SIZE:
        header = RecordBatchHeader(view, position)
        if header.size < HEADER_SIZE:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE,
                f"a batch of {header.size} bytes at {position} is smaller than its header",
            )
        if header.magic != MAGIC:
            raise KafkaError(
                ErrorCode.CORRUPT_MESSAGE, f"a batch of magic {header.magic} at {position}"
            )
        if header.size > end - position:
            return
        yield header
        position += header.size


def stored_crc(buffer: Buffer, position: int = 0) -> int:
    value: int = _UINT32.unpack_from(buffer, position + CRC_POSITION)[0]
    return value


def compute_crc(view: Buffer, position: int, size: int) -> int:
    """CRC-32C of the attributes and all that follows them in the batch; nothing is copied."""
    return crc32c(memoryview(view)[position + ATTRIBUTES_POSITION : position + size])


def verify_crc(view: Buffer, position: int, size: int) -> bool:
    """Whether the batch of ``size`` bytes at ``position`` is whole and holds its checksum."""
    if size < HEADER_SIZE or len(view) - position < size:
        return False
    return compute_crc(view, position, size) == stored_crc(view, position)


def patch(buffer: WritableBuffer, position: int, base_offset: int, leader_epoch: int) -> None:
    """Gives the batch its place in a log; neither field is under the CRC."""
    _INT64.pack_into(buffer, position, base_offset)
    _INT32.pack_into(buffer, position + LEADER_EPOCH_POSITION, leader_epoch)


def patch_timestamps(
    buffer: WritableBuffer, position: int, size: int, *, attributes: int, max_timestamp: int
) -> None:
    """Writes attributes and max timestamp, then the CRC over the changed batch."""
    _INT16.pack_into(buffer, position + ATTRIBUTES_POSITION, attributes)
    _INT64.pack_into(buffer, position + MAX_TIMESTAMP_POSITION, max_timestamp)
    write_crc(buffer, position, size)


def write_crc(buffer: WritableBuffer, position: int, size: int) -> None:
    _UINT32.pack_into(buffer, position + CRC_POSITION, compute_crc(buffer, position, size))


class BuildableRecord(Protocol):
    """What a batch is built of; ``kbroker.record.record.Record`` is one."""

    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[Header]: ...


def assemble_batch(
    body: bytes | bytearray | memoryview,
    *,
    record_count: int,
    base_timestamp: int,
    max_timestamp: int,
    attributes: int = 0,
    last_offset_delta: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    base_offset: int = 0,
    leader_epoch: int = NO_LEADER_EPOCH,
) -> bytearray:
    """A batch around record data that is encoded, and compressed, already."""
    batch = bytearray(HEADER_SIZE)
    batch += body
    HEADER.pack_into(
        batch,
        0,
        base_offset,
        len(batch) - LOG_OVERHEAD,
        leader_epoch,
        MAGIC,
        0,
        attributes,
        record_count - 1 if last_offset_delta is None else last_offset_delta,
        base_timestamp,
        max_timestamp,
        producer_id,
        producer_epoch,
        base_sequence,
        record_count,
    )
    write_crc(batch, 0, len(batch))
    return batch


def build_batch(
    records: Iterable[BuildableRecord],
    *,
    compression: int = 0,
    level: int | None = None,
    producer_id: int = NO_PRODUCER_ID,
    producer_epoch: int = NO_PRODUCER_EPOCH,
    base_sequence: int = NO_SEQUENCE,
    transactional: bool = False,
    control: bool = False,
    base_offset: int = 0,
    leader_epoch: int = NO_LEADER_EPOCH,
    log_append_time: int | None = None,
) -> bytearray:
    """A batch of our own: offsets follow each other, the first record's timestamp is the base.

    ``compression`` is a codec id of ``kbroker.record.compression``; ``log_append_time`` sets the
    bit and the time that readers take for every record. Raises ValueError without records: only
    the cleaner writes empty batches, by ``assemble_batch``.
    """
    parts: list[bytes] = []
    base_timestamp = max_timestamp = NO_TIMESTAMP
    for index, record in enumerate(records):
        timestamp = record.timestamp
        if index == 0:
            base_timestamp = timestamp
        max_timestamp = max(max_timestamp, timestamp)
        parts.append(
            encode_record(
                timestamp_delta=timestamp - base_timestamp,
                offset_delta=index,
                key=record.key,
                value=record.value,
                headers=record.headers,
            )
        )
    if not parts:
        raise ValueError("a batch holds at least one record")
    body = b"".join(parts)
    attributes = compression
    if compression:
        from kbroker.record.compression import compress

        body = compress(compression, body, level)
    if log_append_time is not None:
        attributes |= LOG_APPEND_TIME_BIT
        max_timestamp = log_append_time
    if transactional:
        attributes |= TRANSACTIONAL_BIT
    if control:
        attributes |= CONTROL_BIT
    return assemble_batch(
        body,
        record_count=len(parts),
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        attributes=attributes,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
    )


def build_end_transaction_marker(
    *,
    commit: bool,
    producer_id: int,
    producer_epoch: int,
    coordinator_epoch: int,
    timestamp: int,
    base_offset: int = 0,
    leader_epoch: int = NO_LEADER_EPOCH,
) -> bytearray:
    """The control batch that ends a transaction on a partition; it takes one offset.

    Key: int16 version 0, int16 type (0 abort, 1 commit). Value: int16 version 0, int32 epoch of
    the transaction coordinator (EndTxnMarker.json).
    """
    record = encode_record(
        timestamp_delta=0,
        offset_delta=0,
        key=_CONTROL_KEY.pack(0, CONTROL_COMMIT if commit else CONTROL_ABORT),
        value=_END_TRANSACTION_VALUE.pack(0, coordinator_epoch),
    )
    return assemble_batch(
        record,
        record_count=1,
        base_timestamp=timestamp,
        max_timestamp=timestamp,
        attributes=TRANSACTIONAL_BIT | CONTROL_BIT,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
    )


def read_control_type(key: Buffer) -> int:
    """The type in a control record's key (CONTROL_ABORT, CONTROL_COMMIT, others to be ignored).

    Raises KafkaError INVALID_RECORD for a key that is too short or of a negative version.
    """
    if len(key) < _CONTROL_KEY.size:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"a control record's key of {len(key)} bytes")
    version, control_type = _CONTROL_KEY.unpack_from(key)
    if version < 0:
        raise KafkaError(ErrorCode.INVALID_RECORD, f"control record version {version}")
    return int(control_type)
