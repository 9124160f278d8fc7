"""Compacted logs, what is written to them, and a round of cleaning."""

import anyio

from kbroker.common.clock import ManualClock
from kbroker.common.files import FileSystem
from kbroker.record.batch import RecordBatchHeader, build_batch, iter_batches
from kbroker.record.record import Record, iter_records
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_cleaner import LogCleaner, find_dirty_range
from kbroker.storage.unified_log import UnifiedLog
from tests.unit.storage.log_fixture import (
    append,
    append_marker,
    batch,
    config,
    environment,
    new_log,
)

NOW = 2_000_000
SETTINGS = {"segment_bytes": 500, "index_interval_bytes": 100, "cleanup_policy": ("compact",)}


def compacted_log(
    clock: ManualClock | None = None, files: FileSystem | None = None, **settings: object
) -> UnifiedLog:
    env = environment(files, clock=clock or ManualClock(time_ms=NOW))
    return new_log(env, config(**{**SETTINGS, **settings}))


def put(log: UnifiedLog, key: bytes, value: bytes | None, **options: object) -> None:
    data = batch(value if value is not None else b"", keys=[key], **options)  # type: ignore[arg-type]
    if value is None:
        data = build_batch([Record(key=key, value=None, timestamp=1000)])
    append(log, data)


def fill(log: UnifiedLog, keys: int, rounds: int) -> None:
    for round_number in range(rounds):
        for key in range(keys):
            put(log, b"key%d" % key, b"value %d" % round_number)


def clean(
    log: UnifiedLog, first_dirty: int | None = None, cleaner: LogCleaner | None = None
) -> int:
    found = find_dirty_range(log, first_dirty, log.env.clock.time_ms())
    assert found is not None
    cleaner = cleaner or LogCleaner(log.env)
    reached = anyio.run(cleaner.clean, found)
    assert reached is not None
    return reached


def pairs(log: UnifiedLog) -> list[tuple[int, bytes | None, bytes | None]]:
    """(offset, key, value) of every record that a consumer sees."""
    found = []
    for data in log.read_batches(0):
        header = RecordBatchHeader(data)
        if not header.is_control:
            found += [(each.offset, each.key, each.value) for each in iter_records(data, header)]
    return found


def newest(log: UnifiedLog) -> dict[bytes | None, bytes | None]:
    return {key: value for _, key, value in pairs(log)}


def transaction(log: UnifiedLog, producer_id: int, *values: bytes, commit: bool) -> None:
    entry = log.producer_state.producers.get(producer_id)
    sequence = 0 if entry is None else entry.last_sequence + 1
    for number, value in enumerate(values):
        data = batch(
            value,
            keys=[b"t%d" % number],
            producer_id=producer_id,
            base_sequence=sequence + number,
            transactional=True,
        )
        append(log, data)
    append_marker(log, commit=commit, producer_id=producer_id)


def committed_values(log: UnifiedLog) -> dict[bytes | None, bytes | None]:
    """What a READ_COMMITTED consumer ends up with."""
    found: dict[bytes | None, bytes | None] = {}
    offset = log.log_start_offset
    while offset < log.last_stable_offset:
        info = log.read(
            offset, max_bytes=300, isolation=FetchIsolation.TXN_COMMITTED, min_one_message=True
        )
        data = b"".join(info.records.parts())
        aborted = {
            (each.producer_id, each.first_offset) for each in info.aborted_transactions or []
        }
        open_aborted: set[int] = set()
        for header in iter_batches(memoryview(data)):
            open_aborted |= {pid for pid, first in aborted if first <= header.last_offset}
            if header.is_control:
                aborted = {each for each in aborted if each[0] != header.producer_id}
                open_aborted.discard(header.producer_id)
            elif not (header.is_transactional and header.producer_id in open_aborted):
                for record in iter_records(data, header):
                    if record.offset >= offset:
                        found[record.key] = record.value
            offset = header.next_offset
        if not data:
            break
    return found
