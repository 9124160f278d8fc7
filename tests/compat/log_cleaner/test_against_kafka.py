"""The cleaner beside Apache Kafka's own: the same log, cleaned by both, round after round.

The logs are random: tombstones, batches of several records, records without a key, idempotent
producers, transactions that commit, abort or stay open. After each round both must have reached the
same offset and left the same segments, batches, indexes and aborted transactions.
"""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.files import OsFileSystem
from kbroker.record.batch import (
    HEADER_SIZE,
    LOG_APPEND_TIME_BIT,
    RecordBatchHeader,
    build_batch,
    build_end_transaction_marker,
    iter_batches,
    patch_timestamps,
)
from kbroker.record.compression import NONE, decompress
from kbroker.record.record import Record
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_cleaner import LogCleaner, find_dirty_range
from kbroker.storage.log_loader import load_log
from kbroker.storage.unified_log import UnifiedLog
from tests.peers import maven
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size
from tests.unit.storage.log_fixture import append, config, environment

SOURCE = Path(__file__).with_name("LogCleanerOracle.java")
START = 1_700_000_000_000
TRANSACTIONAL = (1, 2, 3)
SETTINGS: dict[str, object] = {
    "segment_bytes": 1200,
    "index_interval_bytes": 200,
    "cleanup_policy": ("compact",),
    "delete_retention_ms": 5000,
}


class Oracle:
    """Kafka's cleaner in a process of its own."""

    def __init__(self) -> None:
        java, jars = maven.find_java(), maven.kafka_jars()
        self._process = subprocess.Popen(
            [java, "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", str(SOURCE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def clean(
        self, folder: Path, log_start: int, first_dirty: int | None, now_ms: int, settings: str
    ) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        dirty = -1 if first_dirty is None else first_dirty
        self._process.stdin.write(f"{folder}|{log_start}|{dirty}|{now_ms}|{settings}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(20)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    try:
        oracle = Oracle()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    yield oracle
    oracle.close()


class Writer:
    """Appends whatever comes to its mind."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.open: set[int] = set()
        self.codecs = rng.choice([[0], [0, 0, 0, 1, 4]])
        self.epochs = dict.fromkeys((1, 2, 3, 4, 5), 0)

    def step(self, log: UnifiedLog, now_ms: int) -> None:
        choice = self.rng.random()
        if choice < 0.12:
            self.end(log, self.rng.choice(TRANSACTIONAL), now_ms)
        elif choice < 0.16 and log.segments.active is not None:
            log.roll()
        else:
            self.put(log, now_ms)

    def put(self, log: UnifiedLog, now_ms: int) -> None:
        rng = self.rng
        kind = rng.random()
        records = [
            Record(
                key=None if rng.random() < 0.03 else b"key %d" % rng.randint(0, 9),
                value=None if rng.random() < 0.2 else b"value %d" % log.log_end_offset,
                headers=[("name", b"x")] if rng.random() < 0.1 else [],
                timestamp=rng.choice([-1, 0]) if kind < 0.1 else now_ms - rng.randint(0, 3000),
            )
            for _ in range(rng.choice([1, 1, 1, 2, 4]))
        ]
        producer_id = rng.choice([-1, -1, 1, 2, 3, 4, 5])
        if producer_id not in (-1, *TRANSACTIONAL) and rng.random() < 0.1:
            self.epochs[producer_id] += 1
        epoch = self.epochs.get(producer_id, -1)
        entry = log.producer_state.producers.get(producer_id)
        sequence = -1 if producer_id < 0 else 0
        if entry is not None and entry.producer_epoch == epoch:
            sequence = entry.last_sequence + 1
        if producer_id in TRANSACTIONAL:
            self.open.add(producer_id)
        data = build_batch(
            records,
            compression=rng.choice(self.codecs),
            producer_id=producer_id,
            producer_epoch=epoch,
            base_sequence=sequence,
            transactional=producer_id in TRANSACTIONAL,
        )
        if 0.1 < kind < 0.2:
            attributes = RecordBatchHeader(data).attributes | LOG_APPEND_TIME_BIT
            patch_timestamps(data, 0, len(data), attributes=attributes, max_timestamp=now_ms)
        append(log, data)

    def end(self, log: UnifiedLog, producer_id: int, now_ms: int) -> None:
        """A marker, of either level: with the epoch of the records, or one above."""
        self.epochs[producer_id] += self.rng.choice([0, 1])
        data = build_end_transaction_marker(
            commit=self.rng.random() < 0.5,
            producer_id=producer_id,
            producer_epoch=self.epochs[producer_id],
            coordinator_epoch=0,
            timestamp=now_ms,
        )
        append(log, data, origin=AppendOrigin.COORDINATOR)
        self.open.discard(producer_id)

    def settle(self, log: UnifiedLog, now_ms: int) -> None:
        """Mostly no transaction is left open."""
        for producer_id in sorted(self.open):
            if self.rng.random() < 0.8:
                self.end(log, producer_id, now_ms)


def java_settings(settings: dict[str, object]) -> str:
    names = {"segment_bytes": "internal.segment.bytes"}
    values = {
        names.get(name, name.replace("_", ".")): "compact" if isinstance(value, tuple) else value
        for name, value in settings.items()
    }
    return ",,".join(f"{name}={value}" for name, value in values.items())


def batches(path: Path) -> list[tuple[object, ...]]:
    """Every batch of a segment, compressed ones inflated: two libraries compress differently."""
    data = memoryview(path.read_bytes())
    found: list[tuple[object, ...]] = []
    for header in iter_batches(data):
        body = data[header.position + HEADER_SIZE : header.position + header.size]
        plain = (
            decompress(header.codec, body, limit=1 << 20)
            if header.codec and header.record_count
            else body
        )
        fixed = data[header.position : header.position + HEADER_SIZE].tobytes()
        if header.codec != NONE:
            fixed = fixed[:8] + bytes(4) + fixed[12:17] + bytes(4) + fixed[21:]
        found.append((header.base_offset, header.record_count, fixed.hex(), bytes(plain)))
    return found


def contents(folder: Path, *, with_positions: bool) -> dict[str, object]:
    """What must be the same, by file name; of what ``close`` writes for itself nothing."""
    found: dict[str, object] = {}
    active = max(path.stem for path in folder.glob("*.log"))
    for path in sorted(folder.iterdir()):
        if path.suffix == ".log":
            found[path.name] = batches(path)
        elif path.suffix == ".txnindex" or (
            with_positions and path.suffix in (".index", ".timeindex") and path.stem < active
        ):
            found[path.name] = path.read_bytes().hex()
        elif path.suffix == ".snapshot" and path.stem <= active:
            found[path.name] = "there"
    return found


def describe_round(log: UnifiedLog, dirty: int | None, now_ms: int) -> tuple[str, int | None]:
    """Our round, in the oracle's words."""
    found = find_dirty_range(log, dirty, now_ms)
    if found is None:
        return "NONE", None
    reached = anyio.run(LogCleaner(log.env).clean, found)
    must = "true" if found.must_clean else "false"
    return (
        f"OK|{found.first_dirty_offset}|{found.first_uncleanable_offset}|{found.dirty_ratio!r}"
        f"|{must}|{reached}",
        reached,
    )


@pytest.mark.parametrize("seed", range(size(ci=4, full=400)))
def test_round_after_round(oracle: Oracle, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    ours, theirs = tmp_path / "ours" / "topic-0", tmp_path / "theirs" / "topic-0"
    ours.parent.mkdir()
    theirs.parent.mkdir()
    settings = dict(SETTINGS)
    if rng.random() < 0.3:
        settings["min_compaction_lag_ms"] = rng.choice([500, 2000])
    if rng.random() < 0.3:
        settings["delete_retention_ms"] = 0
    if rng.random() < 0.3:
        settings["max_compaction_lag_ms"] = rng.choice([3000, 9000])
    clock = ManualClock(time_ms=START)
    env = environment(OsFileSystem(), clock=clock)
    log = UnifiedLog(env, str(ours), "topic", 0, config=config(**settings))
    writer = Writer(rng)
    dirty: int | None = None
    for number in range(6):
        for _ in range(rng.randint(5, 60)):
            writer.step(log, clock.time_ms())
        writer.settle(log, clock.time_ms())
        if rng.random() < 0.5:
            log.roll()
        if rng.random() < 0.2:
            log.maybe_increment_log_start_offset(rng.randint(0, log.log_end_offset))
        if rng.random() < 0.1:
            dirty = None  # the checkpoint was lost
        start = log.log_start_offset
        log.close()
        for path in ours.iterdir():  # the time of the last write stands for missing timestamps
            os.utime(path, (clock.time_ms() / 1000, clock.time_ms() / 1000))
        shutil.rmtree(theirs, ignore_errors=True)
        shutil.copytree(ours, theirs)
        log = load_log(
            environment(OsFileSystem(), clock=clock),
            str(ours),
            "topic",
            0,
            config=log.config,
            is_clean=True,
            recovery_point=log.log_end_offset,
            log_start_offset=start,
        )
        log.update_high_watermark(log.log_end_offset)
        now_ms = clock.time_ms()
        answer = oracle.clean(theirs, start, dirty, now_ms, java_settings(settings))
        our_answer, reached = describe_round(log, dirty, now_ms)
        assert our_answer == answer, f"round {number}"
        plain = writer.codecs == [0]
        left, expected = (contents(each, with_positions=plain) for each in (ours, theirs))
        assert left == expected, f"round {number}"
        dirty = dirty if reached is None else reached
        clock.advance(rng.choice([0.1, 2, 6]))
    log.close()
