"""The log engine by itself, in this process: ``python -m benchmarks.log [--full] [--folder DIR]``.

Appends and reads of 16 KiB batches through ``UnifiedLog``, recovery of a log that was not closed,
compaction, and what an idle partition takes. Starts of whole brokers with many partitions, beside
Apache Kafka's, are in ``benchmarks.partitions``.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
import tempfile
import time
from functools import partial
from typing import TYPE_CHECKING

import anyio

from benchmarks.process_stats import rss_mb
from benchmarks.table import OURS, Figures
from kbroker.common.clock import SystemClock
from kbroker.common.entropy import SystemEntropy
from kbroker.common.files import OsFileSystem
from kbroker.common.offload import ThreadOffload
from kbroker.common.timer import Timer
from kbroker.config.topic_config import LogConfig
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_manager import LogManager
from kbroker.storage.plain_batch import validate_plain_batch

if TYPE_CHECKING:
    from kbroker.storage.unified_log import UnifiedLog

TOPIC_ID = b"benchmark-topic!"
RECORDS_A_BATCH = 16
MIB = 1024 * 1024
READ_SIZE = MIB


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log", description=__doc__)
    parser.add_argument("--full", action="store_true", help="1 GiB and 10,000 partitions")
    parser.add_argument("--folder", help="where the data goes (default: the temporary folder)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    figures = Figures()
    gc.disable()
    size = 1024 * MIB if options.full else 128 * MIB
    with tempfile.TemporaryDirectory(prefix="kbroker-log-", dir=options.folder) as folder:
        _measure_one_log(figures, os.path.join(folder, "one"), size)
        _measure_compaction(figures, os.path.join(folder, "compacted"), size // 8)
        count = 10_000 if options.full else 1_000
        _measure_partitions(figures, os.path.join(folder, "many"), count)
    print(figures.render())
    return 0


def _manager(folder: str, config: LogConfig) -> LogManager:
    clock = SystemClock()
    return LogManager(
        OsFileSystem(), [folder], config, clock, Timer(clock), ThreadOffload(), SystemEntropy()
    )


def _let_go(manager: LogManager) -> None:
    """As a crash does."""
    anyio.run(partial(manager.shutdown, clean=False))


def _note(figures: Figures, name: str, unit: str, value: float) -> None:
    figures.line(name, unit, digits=2).add(OURS, value)


def _append(log: UnifiedLog, batch: bytes | bytearray) -> None:
    """As a produce request does: a fresh buffer, validated, appended, replicated on one broker."""
    validated = validate_plain_batch(memoryview(bytearray(batch)), log.config, 2)
    assert validated is not None, "the batch is an ordinary one"
    log.append_as_leader(validated, leader_epoch=0)
    log.update_high_watermark(log.log_end_offset)


def _read_all(log: UnifiedLog, batch_size: int) -> float:
    """MiB/s of fetches of up to 1 MiB from the log's start, bytes included."""
    offset, moved, started = log.log_start_offset, 0, time.perf_counter()
    while offset < log.log_end_offset:
        found = log.read(
            offset,
            max_bytes=READ_SIZE,
            isolation=FetchIsolation.HIGH_WATERMARK,
            min_one_message=True,
        )
        moved += sum(map(len, found.records.parts()))
        offset += max(1, len(found.records) // batch_size) * RECORDS_A_BATCH
    return moved / MIB / (time.perf_counter() - started)


def _measure_one_log(figures: Figures, folder: str, size: int) -> None:
    records = [Record(key=None, value=os.urandom(1000), timestamp=1)] * RECORDS_A_BATCH
    batch = build_batch(records)
    manager = _manager(folder, LogConfig())
    anyio.run(manager.load)
    log = manager.get_or_create_log("t", 0, TOPIC_ID, LogConfig())
    count = size // len(batch)
    started = time.perf_counter()
    for _ in range(count):
        _append(log, batch)
    took = time.perf_counter() - started
    _note(figures, "append, 16 KiB batches", "MiB/s", count * len(batch) / MIB / took)
    _note(figures, "append, 16 KiB batches: a batch", "us", took / count * 1e6)
    _note(figures, "read hot, 1 MiB", "MiB/s", _read_all(log, len(batch)))
    anyio.run(log.flush)
    for segment in log.segments:
        descriptor = segment.file().fileno()
        assert descriptor is not None
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    _note(figures, "read cold, 1 MiB", "MiB/s", _read_all(log, len(batch)))
    _let_go(manager)
    again = _manager(folder, LogConfig())
    started = time.perf_counter()
    anyio.run(again.load)
    took = time.perf_counter() - started
    found = again.get_log("t", 0)
    assert found is not None and found.log_end_offset == count * RECORDS_A_BATCH
    _note(figures, "recovery of a whole log", "s/GiB", took * 1024 * MIB / (count * len(batch)))
    _let_go(again)


def _measure_compaction(figures: Figures, folder: str, size: int) -> None:
    config = LogConfig.from_values({"cleanup.policy": "compact", "segment.bytes": 16 * MIB})
    manager = _manager(folder, config)
    anyio.run(manager.load)
    log = manager.get_or_create_log("t", 0, TOPIC_ID, config)
    keys = size // 4 // 300  # a fourth of the records are the newest of their key
    number = 0
    while log.size < size:
        records = []
        for _ in range(RECORDS_A_BATCH):
            key = b"key %08d" % (number * 2654435761 % keys)
            records.append(Record(key=key, value=b"v" * 250, timestamp=1))
            number += 1
        _append(log, build_batch(records))
    log.roll()
    before = log.size
    started = time.perf_counter()
    rounds = anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner())
    took = time.perf_counter() - started
    assert rounds >= 1 and log.size < before
    _note(figures, "compaction", "MiB/s", before / MIB / took)
    _let_go(manager)


def _measure_partitions(figures: Figures, folder: str, count: int) -> None:
    """One record in each; times and memory are for 1,000 of them."""
    scale = 1000 / count
    batch = build_batch([Record(key=None, value=b"v" * 100, timestamp=1)])
    manager = _manager(folder, LogConfig())
    anyio.run(manager.load)
    pid = os.getpid()
    before = rss_mb(pid)
    for partition in range(count):
        _append(manager.get_or_create_log("t", partition, TOPIC_ID, LogConfig()), batch)
    _note(figures, "1,000 partitions: memory, just used", "MB", (rss_mb(pid) - before) * scale)
    _let_go(manager)
    del manager
    gc.collect()
    for name in ("recovery", "recovery again"):
        again = _manager(folder, LogConfig())
        before, started = rss_mb(pid), time.perf_counter()
        anyio.run(again.load)
        took = time.perf_counter() - started
        ends = [log.log_end_offset for log in again.logs]
        assert ends == [1] * count
        _note(figures, f"1,000 partitions: {name}", "ms", took * 1000 * scale)
        _note(
            figures, f"1,000 partitions: memory after {name}", "MB", (rss_mb(pid) - before) * scale
        )
        anyio.run(again.checkpoint)
        _let_go(again)
        del again
        gc.collect()


if __name__ == "__main__":
    sys.exit(main())
