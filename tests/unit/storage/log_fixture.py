"""Logs, batches and environments for the storage tests."""

import logging
from collections.abc import Sequence

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.files import FileSystem
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.config.topic_config import LogConfig
from kbroker.record.batch import RecordBatchHeader, build_batch, build_end_transaction_marker
from kbroker.record.record import Record, iter_records
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.log_loader import load_log
from kbroker.storage.log_validator import ValidatedRecords
from kbroker.storage.unified_log import LogAppendInfo, UnifiedLog

HW = FetchIsolation.HIGH_WATERMARK
END = FetchIsolation.LOG_END
COMMITTED = FetchIsolation.TXN_COMMITTED

DIRECTORY = "/data/topic-0"
TOPIC_ID = bytes(range(16))


def path(base_offset: int, suffix: str) -> str:
    """Of a segment's file."""
    return f"{DIRECTORY}/{base_offset:020d}{suffix}"


def copy_of(files: FileSystem) -> MemoryFileSystem:
    """The log's directory, to be damaged."""
    copied = MemoryFileSystem()
    copied.make_directory(DIRECTORY)
    for entry in files.list(DIRECTORY):
        file = copied.open(f"{DIRECTORY}/{entry.name}", create=True)
        file.write_at(files.read(f"{DIRECTORY}/{entry.name}"), 0)
    return copied


def config(**values: object) -> LogConfig:
    """Settings by attribute name; limits that validation would put on them do not apply."""
    return LogConfig.from_values({name.replace("_", "."): value for name, value in values.items()})


def environment(
    files: FileSystem | None = None,
    *,
    clock: ManualClock | None = None,
    faults: Faults = NO_FAULTS,
    open_segments_limit: int = 128,
) -> LogEnvironment:
    return LogEnvironment(
        files if files is not None else MemoryFileSystem(),
        clock or ManualClock(time_ms=2_000_000),
        SeededEntropy(1),
        faults=faults,
        log=logging.getLogger("test"),
        open_segments_limit=open_segments_limit,
    )


def new_log(env: LogEnvironment | None = None, log_config: LogConfig | None = None) -> UnifiedLog:
    return UnifiedLog(
        env or environment(), DIRECTORY, "topic", 0, topic_id=TOPIC_ID, config=log_config
    )


def small_segments() -> UnifiedLog:
    """About five one-record batches a segment."""
    return new_log(log_config=config(segment_bytes=400, index_interval_bytes=100))


def bases(log: UnifiedLog) -> list[int]:
    return log.segments.base_offsets


def reload(
    log: UnifiedLog,
    *,
    is_clean: bool = False,
    recovery_point: int = 0,
    log_start_offset: int = 0,
    files: FileSystem | None = None,
) -> UnifiedLog:
    """The log as the next process finds it; nothing is closed before."""
    env = environment(files or log.env.files)
    return load_log(
        env,
        log.directory,
        log.topic,
        log.partition,
        config=log.config,
        is_clean=is_clean,
        recovery_point=recovery_point,
        log_start_offset=log_start_offset,
    )


def batch(
    *values: bytes,
    timestamps: Sequence[int] | None = None,
    producer_id: int = -1,
    producer_epoch: int = 0,
    base_sequence: int = 0,
    transactional: bool = False,
    compression: int = 0,
    base_offset: int = 0,
    leader_epoch: int = -1,
    keys: Sequence[bytes | None] | None = None,
) -> bytearray:
    records = [
        Record(
            key=keys[index] if keys else None,
            value=value,
            timestamp=timestamps[index] if timestamps else 1000,
        )
        for index, value in enumerate(values)
    ]
    with_id = producer_id >= 0
    return build_batch(
        records,
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch if with_id else -1,
        base_sequence=base_sequence if with_id else -1,
        transactional=transactional,
        base_offset=base_offset,
        leader_epoch=leader_epoch,
    )


def validated(data: bytearray, *, log_append_time_ms: int = -1) -> ValidatedRecords:
    """What the validator would give for a good batch."""
    header = RecordBatchHeader(data)
    return ValidatedRecords(
        memoryview(data),
        header,
        attributes=header.attributes,
        max_timestamp=header.max_timestamp,
        offset_delta_of_max_timestamp=0,
        log_append_time_ms=log_append_time_ms,
    )


def append(
    log: UnifiedLog,
    data: bytearray,
    *,
    leader_epoch: int = 0,
    origin: AppendOrigin = AppendOrigin.CLIENT,
) -> LogAppendInfo:
    """Append as leader and let the high watermark follow, as a partition with one replica does."""
    info = log.append_as_leader(validated(data), leader_epoch=leader_epoch, origin=origin)
    log.update_high_watermark(log.log_end_offset)
    return info


def append_values(log: UnifiedLog, *values: bytes, leader_epoch: int = 0) -> LogAppendInfo:
    """One record a batch."""
    assert values
    for value in values:
        info = append(log, batch(value), leader_epoch=leader_epoch)
    return info


def filled(count: int = 13) -> UnifiedLog:
    """Segments at 0, 5 and 10, not closed; the values are the offsets."""
    log = small_segments()
    append_values(log, *[b"%d" % number for number in range(count)])
    return log


def marker(
    *, commit: bool, producer_id: int, producer_epoch: int = 0, coordinator_epoch: int = 0
) -> bytearray:
    return build_end_transaction_marker(
        commit=commit,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        coordinator_epoch=coordinator_epoch,
        timestamp=1000,
    )


def append_marker(log: UnifiedLog, *, commit: bool, producer_id: int) -> LogAppendInfo:
    data = marker(commit=commit, producer_id=producer_id)
    return append(log, data, origin=AppendOrigin.COORDINATOR)


def transactional(log: UnifiedLog, producer_id: int, sequence: int, *values: bytes) -> None:
    append(
        log,
        batch(*values, producer_id=producer_id, base_sequence=sequence, transactional=True),
    )


def aborted(log: UnifiedLog, offset: int) -> list[tuple[int, int]] | None:
    """(producer id, first offset) of the transactions that a read_committed reader is told of."""
    info = log.read(offset, max_bytes=10_000, isolation=COMMITTED, min_one_message=True)
    found = info.aborted_transactions
    return None if found is None else [tuple(each) for each in found]  # type: ignore[misc]


def read_bytes(
    log: UnifiedLog,
    offset: int = 0,
    *,
    max_bytes: int = 1 << 30,
    isolation: FetchIsolation = FetchIsolation.LOG_END,
    min_one_message: bool = True,
) -> bytes:
    info = log.read(
        offset, max_bytes=max_bytes, isolation=isolation, min_one_message=min_one_message
    )
    return b"".join(info.records.parts())


def records_of(data: bytes) -> list[Record]:
    """The records of the whole batches in ``data``."""
    records: list[Record] = []
    position = 0
    while len(data) - position >= 61:
        header = RecordBatchHeader(data, position)
        if position + header.size > len(data):
            break
        records += iter_records(data, header)
        position += header.size
    return records


def read_all(log: UnifiedLog, offset: int | None = None) -> list[tuple[int, bytes | None]]:
    """(offset, value) of every record, read as a consumer reads: fetch after fetch."""
    offset = log.log_start_offset if offset is None else offset
    found: list[tuple[int, bytes | None]] = []
    while offset < log.log_end_offset:
        records = records_of(read_bytes(log, offset, max_bytes=4096))
        fresh = [record for record in records if record.offset >= offset]
        if not fresh:
            break
        found += [(record.offset, record.value) for record in fresh]
        offset = fresh[-1].offset + 1
    return found
