"""The log engine by itself, in this process: ``python -m benchmarks.log [--full] [--folder DIR]``.

Appends and reads of 16 KiB batches through ``UnifiedLog``, recovery of a log that was not closed,
and compaction, in turn with Apache Kafka's own ``UnifiedLog`` and ``Cleaner`` in a warm JVM; and
what an idle partition takes. Starts of whole brokers with many partitions, beside Apache Kafka's,
are in ``benchmarks.partitions``.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from benchmarks.kafka_log import KafkaLog
from benchmarks.process_stats import rss_mb
from benchmarks.table import OURS, PEER, Figures
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
from tests.peers.require import PeerUnavailable

if TYPE_CHECKING:
    from kbroker.storage.unified_log import UnifiedLog

TOPIC_ID = b"benchmark-topic!"
RECORDS_A_BATCH = 16
MIB = 1024 * 1024
READ_SIZE = MIB


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.log", description=__doc__)
    parser.add_argument("--full", action="store_true", help="1 GiB and 10,000 partitions")
    parser.add_argument("--rounds", type=int, default=3, help="of each log; default 3")
    parser.add_argument("--folder", help="where the data goes (default: the temporary folder)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    figures = Figures()
    gc.disable()
    size = 1024 * MIB if options.full else 128 * MIB
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory(prefix="kbroker-log-", dir=options.folder) as folder,
    ):
        try:
            kafka = stack.enter_context(KafkaLog())
        except PeerUnavailable as missing:
            print(f"without Apache Kafka: {missing}", file=sys.stderr)
            kafka = None
        _compare(figures, Path(folder), size, kafka, options.rounds)
        count = 10_000 if options.full else 1_000
        _measure_partitions(figures, os.path.join(folder, "many"), count)
    print(figures.render())
    return 0


def _compare(
    figures: Figures, folder: Path, size: int, kafka: KafkaLog | None, rounds: int
) -> None:
    """In turn: ours, theirs; theirs, ours."""
    batch = build_batch([Record(key=None, value=os.urandom(1000), timestamp=1)] * RECORDS_A_BATCH)
    one, compacted, copied = folder / "one", folder / "compacted", folder / "copied-0"
    (folder / "batch").write_bytes(batch)

    def ours() -> None:
        _measure_one_log(figures, str(one), size, batch)
        shutil.rmtree(one)

    def theirs(figures: Figures = figures, size: int = size) -> None:
        if kafka is not None:
            _measure_kafkas_log(figures, kafka, folder, size, len(batch))

    theirs(Figures(), size // 4)  # a JVM has to be warm
    for number in range(rounds):
        for measure in (ours, theirs) if number % 2 == 0 else (theirs, ours):
            measure()
    for number in range(-1, rounds):
        _measure_compaction(figures, str(compacted), size // 8, copied)
        shutil.rmtree(compacted)
        if kafka is not None:
            _compact_by_kafka(figures if number >= 0 else Figures(), kafka, copied)
        shutil.rmtree(copied)


def _manager(folder: str, config: LogConfig) -> LogManager:
    clock = SystemClock()
    return LogManager(
        OsFileSystem(), [folder], config, clock, Timer(clock), ThreadOffload(), SystemEntropy()
    )


def _let_go(manager: LogManager) -> None:
    """As a crash does."""
    anyio.run(partial(manager.shutdown, clean=False))


def _note(figures: Figures, name: str, unit: str, value: float, broker: str = OURS) -> None:
    figures.line(name, unit, digits=2).add(broker, value)


def _note_appends(
    figures: Figures, count: int, batch_size: int, took: float, broker: str = OURS
) -> None:
    _note(figures, "append, 16 KiB batches", "MiB/s", count * batch_size / MIB / took, broker)
    _note(figures, "append, 16 KiB batches: a batch", "us", took / count * 1e6, broker)


def _note_recovery(figures: Figures, size: int, took: float, broker: str = OURS) -> None:
    _note(figures, "recovery of a whole log", "s/GiB", took * 1024 * MIB / size, broker)


def _forget_pages(path: str | Path) -> None:
    """What is synced is read from the device again."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


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


def _measure_one_log(figures: Figures, folder: str, size: int, batch: bytearray) -> None:
    manager = _manager(folder, LogConfig())
    anyio.run(manager.load)
    log = manager.get_or_create_log("t", 0, TOPIC_ID, LogConfig())
    count = size // len(batch)
    started = time.perf_counter()
    for _ in range(count):
        _append(log, batch)
    _note_appends(figures, count, len(batch), time.perf_counter() - started)
    _note(figures, "read hot, 1 MiB", "MiB/s", _read_all(log, len(batch)))
    anyio.run(log.flush)
    for path in Path(log.directory).glob("*.log"):
        _forget_pages(path)
    _note(figures, "read cold, 1 MiB", "MiB/s", _read_all(log, len(batch)))
    _let_go(manager)
    again = _manager(folder, LogConfig())
    started = time.perf_counter()
    anyio.run(again.load)
    _note_recovery(figures, count * len(batch), time.perf_counter() - started)
    found = again.get_log("t", 0)
    assert found is not None
    assert found.log_end_offset == count * RECORDS_A_BATCH
    _let_go(again)


def _measure_kafkas_log(
    figures: Figures, kafka: KafkaLog, folder: Path, size: int, batch_size: int
) -> None:
    """The same steps."""
    directory = folder / "t-0"
    count = size // batch_size
    kafka.do("open", directory, "clean")
    took, _ = kafka.do("append", folder / "batch", count)
    _note_appends(figures, count, batch_size, took, PEER)
    took, [read] = kafka.do("read")
    _note(figures, "read hot, 1 MiB", "MiB/s", read / MIB / took, PEER)
    kafka.do("flush")
    for path in directory.glob("*.log"):
        _forget_pages(path)
    took, [read] = kafka.do("read")
    assert read >= count * batch_size
    _note(figures, "read cold, 1 MiB", "MiB/s", read / MIB / took, PEER)
    kafka.do("close")
    took, _ = kafka.do("open", directory, "unclean")
    _note_recovery(figures, count * batch_size, took, PEER)
    kafka.do("close")
    shutil.rmtree(directory)


def _measure_compaction(figures: Figures, folder: str, size: int, copied: Path) -> None:
    """``copied``: where the log is put as it was before."""
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
    shutil.copytree(log.directory, copied)
    before = log.size
    started = time.perf_counter()
    rounds = anyio.run(manager.cleaner.clean_logs, manager.cleaner.make_cleaner())
    took = time.perf_counter() - started
    assert rounds >= 1 and log.size < before
    _note(figures, "compaction", "MiB/s", before / MIB / took)
    _let_go(manager)


def _compact_by_kafka(figures: Figures, kafka: KafkaLog, directory: Path) -> None:
    kafka.do("open", directory, "clean", "cleanup.policy=compact", f"segment.bytes={16 * MIB}")
    took, [before, after] = kafka.do("clean")
    assert after < before
    _note(figures, "compaction", "MiB/s", before / MIB / took, PEER)
    kafka.do("close")


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
