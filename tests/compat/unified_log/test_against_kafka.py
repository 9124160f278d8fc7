"""A log beside Apache Kafka's own UnifiedLog, step by step: same answer, same state.

Random steps: appends as leader and as follower, transactions, rolls, truncation, deleted records,
retention, restarts with and without a clean close, reads and searches.
"""

from __future__ import annotations

import random
import subprocess
import zlib
from pathlib import Path

import anyio
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.errors import KafkaError
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.fetch_info import FetchIsolation
from kbroker.storage.log_loader import load_log
from kbroker.storage.log_retention import delete_old_segments
from tests.peers import maven
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size
from tests.unit.storage.log_fixture import batch, config, environment, marker, new_log, validated

SOURCE = Path(__file__).with_name("UnifiedLogOracle.java")
ISOLATIONS = (FetchIsolation.LOG_END, FetchIsolation.HIGH_WATERMARK, FetchIsolation.TXN_COMMITTED)
STEPS = 60
_NO_LIMIT = str(2**63 - 1)
_ANY = "any"


class Script:
    """Random steps on one of our logs: what each was, what it gave, and the state behind it."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.answers: list[str] = []
        self.clock = ManualClock(time_ms=2_000_000)
        pick = self.random.choice
        settings = {
            "internal.segment.bytes": pick((700, 1000, 3000)),
            "index.interval.bytes": pick((0, 50, 300)),
            "segment.ms": pick((100, 10**9)),
            "retention.bytes": pick((-1, 1500)),
            "retention.ms": pick((-1, 500, 5000)),
            "cleanup.policy": pick(("delete", "delete", "compact", "compact+delete")),
        }
        values = {name.replace(".", "_"): value for name, value in settings.items()}
        values["segment_bytes"] = values.pop("internal_segment_bytes")
        values["cleanup_policy"] = tuple(str(values["cleanup_policy"]).split("+"))
        self.log = new_log(environment(MemoryFileSystem(), clock=self.clock), config(**values))
        self.log.make_files()
        self.epoch = 0
        self.sequences: dict[int, int] = {}
        self.epochs: dict[int, int] = {}
        self.ends: list[int] = []  # of batches: a high watermark is at one of them
        self.knows_all = True  # until producers are restored, of which Kafka knows less then
        limits = {
            "message.timestamp.before.max.ms": _NO_LIMIT,
            "message.timestamp.after.max.ms": _NO_LIMIT,
        }
        pairs = {**settings, **limits}
        self._note("new|" + ",".join(f"{name}={value}" for name, value in pairs.items()), "")

    def _note(self, line: str, answer: str) -> None:
        self.lines.append(line)
        self.answers.append(f"{answer}|{self._state()}")

    def _state(self) -> str:
        log = self.log
        start = log.log_start_offset
        # Where a transaction began below the log's start Kafka looks for the next batch.
        is_cut = 0 <= log.producer_state.first_unstable_offset < start
        stable = _ANY if is_cut else max(log.last_stable_offset, start)
        offsets = (start, log.log_end_offset, log.high_watermark, stable)
        epochs = (f"{entry.epoch}:{entry.start_offset}" for entry in log.epochs.entries())
        segments = (
            f"{each.base_offset}:{each.size}:{each.largest_timestamp.timestamp}"
            for each in log.segments
        )
        producers = (
            f"{each}:{entry.producer_epoch}:{entry.last_sequence}"
            f":{entry.current_txn_first_offset}:{entry.coordinator_epoch}"
            for each, entry in sorted(log.producer_state.producers.items())
        )
        parts = (map(str, offsets), epochs, segments, producers)
        return "|".join(" ".join(part) for part in parts)

    # Appends

    def leader(self) -> None:
        producer_id = self.random.choice((-1, -1, 0, 1, 2))
        count = self.random.randint(1, 4)
        sequence = self.sequences.get(producer_id, 0)
        fault = self.random.random()
        if fault < 0.1 and self.knows_all:
            sequence = max(0, sequence + self.random.randint(-6, 2))
        if fault > 0.95:
            self.epochs[producer_id] = self.epochs.get(producer_id, 0) + 1
            sequence = 0
        data = self._batch(
            count,
            producer_id=producer_id,
            producer_epoch=self.epochs.get(producer_id, 0) - (0.1 < fault < 0.13),
            base_sequence=sequence,
            transactional=producer_id == 2,
        )
        if self._is_odd(data) and self._changes_more(data):
            return
        line = f"leader|{self.epoch}|{data.hex()}"
        answer = self._append(data, AppendOrigin.CLIENT)
        if not answer.startswith("ERR"):
            self.sequences[producer_id] = sequence + count
            self.ends.append(self.log.log_end_offset)
        self._note(line, answer)

    def _is_odd(self, data: bytearray) -> bool:
        records = validated(data)
        known = self.log.producer_state.producers.get(records.producer_id)
        return known is not None and (records.producer_epoch, records.base_sequence) != (
            known.producer_epoch,
            known.last_sequence + 1,
        )

    def _changes_more(self, data: bytearray) -> bool:
        """Kafka notes an epoch and rolls before it finds that a batch is refused or a duplicate."""
        records, active = validated(data), self.log.segments.active
        assert active is not None
        last_offset = self.log.log_end_offset + records.last_offset_delta
        return self.epoch != self.log.latest_epoch or active.should_roll(
            len(data), records.max_timestamp, last_offset, self.log.config
        )

    def _batch(self, count: int, **values: int | bool) -> bytearray:
        if values["producer_epoch"] < 0:
            values["producer_epoch"] = 0
        contents = [b"%d" % self.random.randint(0, 10 ** self.random.randint(1, 40))] * count
        return batch(
            *contents,
            keys=[b"k"] * count,
            timestamps=[self.random.randint(0, 1000) for _ in contents],
            compression=self.random.choice((0, 0, 1)),
            **values,  # type: ignore[arg-type]
        )

    def _append(self, data: bytearray, origin: AppendOrigin) -> str:
        try:
            info = self.log.append_as_leader(
                validated(bytearray(data)), leader_epoch=self.epoch, origin=origin
            )
        except KafkaError as error:
            return f"ERR {int(error.error_code)}"
        return f"{info.first_offset}-{info.last_offset}"

    def marker(self) -> None:
        producer_id = self.random.choice((1, 2, 2))
        data = marker(
            commit=self.random.random() < 0.5,
            producer_id=producer_id,
            producer_epoch=self.epochs.get(producer_id, 0),
            coordinator_epoch=self.random.choice((3, 3, 3, 2)),
        )
        if self._changes_more(data):
            return
        line = f"marker|{self.epoch}|{data.hex()}"
        self._note(line, self._append(data, AppendOrigin.COORDINATOR))

    def follower(self) -> None:
        """Batches of a leader; some were compacted away in between."""
        self.epoch += self.random.random() < 0.2
        offset = self.log.log_end_offset
        data = bytearray()
        gap = self.random.choice((0, 0, 0, 5, 2**31 + 7 if self.random.random() < 0.1 else 1))
        for _ in range(self.random.randint(1, 3)):
            offset += gap
            gap = self.random.choice((0, 0, 3))
            count = self.random.randint(1, 3)
            data += self._batch(
                count,
                producer_id=self.random.choice((-1, 3)),
                producer_epoch=0,
                base_sequence=offset % 2**31,
                base_offset=offset,
                leader_epoch=self.epoch,
            )
            offset += count
        line = f"follower|{self.epoch}|{data.hex()}"
        try:
            info = self.log.append_as_follower(memoryview(data))
            answer = "" if info is None else f"{info.first_offset}-{info.last_offset}"
        except KafkaError as error:
            answer = f"ERR {int(error.error_code)}"
        self._note(line, answer)
        self._commit_all()

    # Everything else

    def watermark(self) -> None:
        end = self.log.log_end_offset
        self.ends = [each for each in self.ends if self.log.high_watermark <= each < end]
        offset = self.random.choice([end, end, *self.ends])
        self.ends.append(end)
        self.log.update_high_watermark(offset)
        self._note(f"watermark|{offset}", "")

    def _commit_all(self) -> None:
        """No place before a gap or a cut, but the end, is one where a batch begins."""
        self.ends = []
        end = self.log.log_end_offset
        self.log.update_high_watermark(end)
        self._note(f"watermark|{end}", "")

    def roll(self) -> None:
        if self.log.segments.active is not None and self.log.segments.active.size:
            self.log.roll()
            self._note("roll", "")

    def truncate(self) -> None:
        end = self.log.log_end_offset
        offset = max(0, end - self.random.randint(-1, 12))
        cut = self.log.truncate_to(offset)
        self.ends, self.knows_all = [], self.knows_all and not cut
        self._note(f"truncate|{offset}", str(cut).lower())
        self._commit_all()

    def restart_at(self) -> None:
        offset = max(0, self.log.log_end_offset + self.random.randint(-5, 5))
        self.log.truncate_fully_and_start_at(offset)
        self.ends = []
        self._note(f"restart_at|{offset}", "")

    def delete_records(self) -> None:
        offset = self.random.randint(self.log.log_start_offset, self.log.high_watermark + 1)
        offset = min(offset, self.log.log_start_offset + 20)
        try:
            answer = str(self.log.maybe_increment_log_start_offset(offset)).lower()
        except KafkaError as error:
            answer = f"ERR {int(error.error_code)}"
        self._note(f"delete_records|{offset}", answer)

    def retain(self) -> None:
        self._note("retain", str(delete_old_segments(self.log)))

    def flush(self) -> None:
        anyio.run(self.log.flush)
        self._note("flush", "")

    def tick(self) -> None:
        ms = self.random.choice((1, 90, 400))
        self.clock.advance(ms / 1000)
        self._note(f"tick|{ms}", "")

    def new_epoch(self) -> None:
        self.epoch += self.random.randint(1, 2)
        self.log.maybe_assign_epoch_start_offset(self.epoch, self.log.log_end_offset)
        self._note(f"epoch|{self.epoch}|{self.log.log_end_offset}", "")

    def epoch_end(self) -> None:
        epoch = self.random.randint(0, self.epoch + 1)
        found = self.log.end_offset_for_epoch(epoch)
        self._note(f"epoch_end|{epoch}", f"{found[0]}:{found[1]}")

    def reopen(self) -> None:
        log = self.log
        point, start = log.recovery_point, log.log_start_offset
        # Which producers of deleted records recovery knows depends on where snapshots lie.
        kind = self.random.choice(("clean", "unclean")) if not start else "clean"
        if kind == "clean":
            log.close()
        self.log = load_log(
            environment(log.env.files, clock=self.clock),
            log.directory,
            log.topic,
            log.partition,
            config=log.config,
            is_clean=kind == "clean",
            recovery_point=point,
            log_start_offset=start,
        )
        self.ends, self.knows_all = [], False
        self._note(f"reopen|{kind}|{point}|{start}", "")
        self.watermark()

    def time(self) -> None:
        timestamp = self.random.choice((-3, self.random.randint(0, 1010)))
        log = self.log
        if not all(each.size for each in list(log.segments)[:-1]):
            return  # Kafka's search ends at an emptied segment
        found = (
            log.max_timestamp_offset() if timestamp == -3 else log.offset_for_timestamp(timestamp)
        )
        answer = "-" if found is None else f"{found.offset}:{found.timestamp}:{found.leader_epoch}"
        self._note(f"time|{timestamp}", answer)

    def read(self) -> None:
        log = self.log
        offset = self.random.randint(max(0, log.log_end_offset - 40), log.log_end_offset + 1)
        max_bytes = self.random.randint(0, 600)
        isolation = self.random.randrange(3)
        min_one = self.random.random() < 0.5
        line = f"read|{offset}|{max_bytes}|{isolation}|{int(min_one)}"
        try:
            info = log.read(
                offset,
                max_bytes=max_bytes,
                isolation=ISOLATIONS[isolation],
                min_one_message=min_one,
            )
        except KafkaError as error:
            self._note(line, f"ERR {int(error.error_code)}")
            return
        data = b"".join(info.records.parts())
        aborted = "-"
        if data and info.aborted_transactions is not None:
            aborted = ",".join(
                f"{each.producer_id}@{each.first_offset}" for each in info.aborted_transactions
            )
        incomplete = str(info.first_entry_incomplete).lower()
        self._note(line, f"{zlib.crc32(data)}:{len(data)}:{incomplete}:{aborted}")

    def run(self) -> None:
        often = [self.leader] * 8 + [self.watermark, self.marker, self.read, self.read] * 2
        seldom = [
            self.follower, self.roll, self.truncate, self.delete_records, self.retain, self.flush,
            self.tick, self.new_epoch, self.epoch_end, self.reopen, self.time,
        ]  # fmt: skip
        for _ in range(STEPS):
            step = self.random.choice(often + seldom)
            step()
            if step == self.leader and self.random.random() < 0.7:
                self.watermark()
            if self.random.random() < 0.01:
                self.restart_at()


def ask_kafka(lines: list[str], folder: Path) -> list[str]:
    java, jars = maven.find_java(), maven.kafka_jars()
    run = subprocess.run(
        [java, "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", str(SOURCE), str(folder)],
        input="".join(line + "\n" for line in lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.returncode:
        raise AssertionError(run.stderr[-2000:])
    return [line[1:] for line in run.stdout.splitlines() if line.startswith("=")]  # else a log line


def _without_stable(answer: str) -> str:
    given, offsets, rest = answer.split("|", 2)
    return f"{given}|{offsets.rpartition(' ')[0]} {_ANY}|{rest}"


@pytest.mark.timeout(400)
def test_kafkas_log_says_the_same(tmp_path: Path) -> None:
    scripts = [Script(seed) for seed in range(size(ci=40, full=2000))]
    for script in scripts:
        script.run()
    try:
        answers = ask_kafka([line for script in scripts for line in script.lines], tmp_path)
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    differing = []
    for seed, script in enumerate(scripts):
        theirs, answers = answers[: len(script.lines)], answers[len(script.lines) :]
        assert len(theirs) == len(script.lines)
        for number, (line, ours, kafkas) in enumerate(
            zip(script.lines, script.answers, theirs, strict=True)
        ):
            if ours != (_without_stable(kafkas) if f" {_ANY}|" in ours else kafkas):
                differing.append(
                    f"seed {seed} step {number}: {line[:200]}\n  Kafka {kafkas}\n  here  {ours}"
                )
                break
    assert not differing, f"{len(differing)} differ:\n" + "\n".join(differing[:12])
