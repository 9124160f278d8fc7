"""Record data from one codec to another, records renumbered where they must be."""

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.compression import (
    NONE,
    Buffer,
    decompress,
    open_deflater,
    open_inflater,
    stream_header,
)
from kbroker.record.encoding import encode_record, wrap_int64
from kbroker.record.record import read_record

_CHUNK_SIZE = 256 * 1024
MAX_RENUMBERED_SIZE = 32 * 1024 * 1024
"""Inflated bytes of a batch that is taken apart into records: they are objects for a while."""


def rebuild_records(
    data: Buffer,
    *,
    source: int,
    target: int,
    level: int | None,
    record_count: int,
    timestamp_shift: int,
    uniform_timestamp_delta: int | None,
    as_written: bool,
    inflated_limit: int,
    max_size: int,
) -> bytes | bytearray:
    """The record data of a batch, walked before, in codec ``target``.

    ``as_written`` passes the records through chunk by chunk; else they are numbered from 0, lose
    their attributes and get ``timestamp_shift`` added to their timestamp delta (or all of them
    ``uniform_timestamp_delta``). Raises KafkaError MESSAGE_TOO_LARGE as soon as the result is
    longer than ``max_size``.
    """
    if as_written:
        return _recode(data, source, target, level, inflated_limit, max_size)
    limit = min(inflated_limit, MAX_RENUMBERED_SIZE)
    if target == NONE:
        limit = min(limit, max_size * 2)  # renumbering shortens a record by a few bytes at most
    records = decompress(source, data, limit=max(limit, len(data) if source == NONE else 0))
    parts: list[bytes] = []
    position = 0
    for index in range(record_count):
        record, position = read_record(records, position)
        delta = wrap_int64(record.timestamp + timestamp_shift)
        parts.append(
            encode_record(
                timestamp_delta=delta
                if uniform_timestamp_delta is None
                else uniform_timestamp_delta,
                offset_delta=index,
                key=record.key,
                value=record.value,
                headers=record.headers,
            )
        )
    return _recode(b"".join(parts), NONE, target, level, inflated_limit, max_size)


def _recode(
    data: Buffer, source: int, target: int, level: int | None, limit: int, max_size: int
) -> bytearray:
    output = bytearray(stream_header(target))
    deflater = open_deflater(target, level) if target != NONE else None
    if source == NONE:
        output += data if deflater is None else deflater.write(data)
    else:
        inflater = open_inflater(source, data, limit=limit)
        while chunk := inflater.read(_CHUNK_SIZE):
            output += chunk if deflater is None else deflater.write(chunk)
            _check_size(output, max_size)
    if deflater is not None:
        output += deflater.finish()
    _check_size(output, max_size)
    return output


def _check_size(output: bytearray, max_size: int) -> None:
    if len(output) > max_size:
        raise KafkaError(
            ErrorCode.MESSAGE_TOO_LARGE,
            f"the records, rebuilt, take more than the {max_size} bytes that are left to them",
        )
