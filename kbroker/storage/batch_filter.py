"""Rewriting a record batch without some of its records (KIP-534 for the delete horizon).

Base offset, last offset, producer, sequence and epoch stay, so that offsets and duplicates are
still recognised; a batch without records may stay as its header for that alone.
"""

import enum
from collections.abc import Callable
from typing import NamedTuple

from kbroker.record.batch import (
    CODEC_MASK,
    DELETE_HORIZON_BIT,
    NO_TIMESTAMP,
    RecordBatchHeader,
    assemble_batch,
)
from kbroker.record.compression import compress
from kbroker.record.encoding import encode_record
from kbroker.record.record import DEFAULT_INFLATED_LIMIT, Record, iter_records


class BatchRetention(enum.Enum):
    """What becomes of a batch."""

    DELETE = enum.auto()
    """It goes, whatever is in it."""
    RETAIN_EMPTY = enum.auto()
    """Its header stays even when no record does."""
    DELETE_EMPTY = enum.auto()
    """It goes when no record stays."""


class FilteredBatch(NamedTuple):
    """What stays of a batch: its bytes, and what the indexes need to know."""

    data: bytes | bytearray | memoryview
    max_timestamp: int
    last_offset: int


def filter_batch(
    data: memoryview,
    *,
    retention: BatchRetention,
    keep: Callable[[Record], bool],
    has_marker_of_empty_transaction: bool,
    delete_horizon_ms: int,
    inflated_limit: int = DEFAULT_INFLATED_LIMIT,
) -> FilteredBatch | None:
    """The batch with the records that ``keep`` wants; None when nothing of it stays.

    A batch that keeps a tombstone, or the marker of a transaction whose records are all gone, is
    given ``delete_horizon_ms`` as the time from which these may go too, unless it has one. Then
    the base timestamp holds it and every record's delta is rewritten. Bytes that need no change
    are returned as they are. KafkaError CORRUPT_MESSAGE for an unreadable batch.
    """
    header = RecordBatchHeader(data)
    if retention is BatchRetention.DELETE:
        return None
    records: list[Record] = []
    has_tombstone = False
    for record in iter_records(data, header, limit=inflated_limit):
        if keep(record):
            records.append(record)
            has_tombstone = has_tombstone or record.value is None
    if not records:
        if retention is BatchRetention.RETAIN_EMPTY:
            return FilteredBatch(_empty_batch(header), header.max_timestamp, header.last_offset)
        return None
    horizon = header.delete_horizon_ms
    needs_horizon = (has_tombstone or has_marker_of_empty_transaction) and horizon is None
    if len(records) == header.record_count and not needs_horizon:
        return FilteredBatch(data[: header.size], header.max_timestamp, header.last_offset)
    rebuilt = _rebuild(header, records, delete_horizon_ms if needs_horizon else horizon)
    max_timestamp = RecordBatchHeader(rebuilt).max_timestamp
    return FilteredBatch(rebuilt, max_timestamp, header.last_offset)


def _rebuild(header: RecordBatchHeader, records: list[Record], horizon: int | None) -> bytearray:
    base_timestamp = records[0].timestamp if horizon is None else horizon
    body = b"".join(
        encode_record(
            timestamp_delta=record.timestamp - base_timestamp,
            offset_delta=record.offset - header.base_offset,
            key=record.key,
            value=record.value,
            headers=record.headers,
        )
        for record in records
    )
    if header.codec:
        body = compress(header.codec, body)
    attributes = header.attributes & ~DELETE_HORIZON_BIT
    if horizon is not None:
        attributes |= DELETE_HORIZON_BIT
    if header.is_log_append_time:
        max_timestamp = header.max_timestamp
    else:
        max_timestamp = max(record.timestamp for record in records)
    return _assemble(
        header,
        body,
        count=len(records),
        attributes=attributes,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
    )


def _empty_batch(header: RecordBatchHeader) -> bytearray:
    return _assemble(
        header,
        b"",
        count=0,
        attributes=header.attributes & ~(DELETE_HORIZON_BIT | CODEC_MASK),
        base_timestamp=NO_TIMESTAMP,
        max_timestamp=header.max_timestamp,
    )


def _assemble(
    header: RecordBatchHeader,
    body: bytes,
    *,
    count: int,
    attributes: int,
    base_timestamp: int,
    max_timestamp: int,
) -> bytearray:
    return assemble_batch(
        body,
        record_count=count,
        base_timestamp=base_timestamp,
        max_timestamp=max_timestamp,
        attributes=attributes,
        last_offset_delta=header.last_offset_delta,
        producer_id=header.producer_id,
        producer_epoch=header.producer_epoch,
        base_sequence=header.base_sequence,
        base_offset=header.base_offset,
        leader_epoch=header.leader_epoch,
    )
