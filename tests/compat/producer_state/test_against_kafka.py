"""The producer state beside Apache Kafka's own: the same history, step by step the same answers."""

import random
import subprocess
from pathlib import Path

import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.files import OsFileSystem
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import increment_sequence
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.producer_state_entry import MAX_SEQUENCE, BatchMetadata
from kbroker.storage.producer_state_manager import ProducerStateManager
from tests.peers import maven
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size
from tests.unit.storage.log_fixture import environment

SOURCE = Path(__file__).with_name("ProducerStateOracle.java")
EXPIRATION_MS = 10_000
START = 1_700_000_000_000
PRODUCERS = (1, 2, 3)


class History:
    """Steps at random, taken by our state at once; ``lines`` are those for the oracle."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.rng = random.Random(seed)
        self.clock = ManualClock(time_ms=START)
        env = environment(OsFileSystem(), clock=self.clock)
        env.producer_id_expiration_ms = EXPIRATION_MS
        (folder / "ours").mkdir()
        (folder / "theirs").mkdir()
        self.state = ProducerStateManager(env, str(folder / "ours"), "topic-0")
        self.steps = [str(folder / "theirs")]
        self.answers: list[str] = []
        self.start = 0
        self.high_watermark = 0

    def run(self, count: int) -> None:
        kinds = [self.data] * 10 + [self.marker] * 4 + [self.move, self.expire, self.snapshot]
        for _ in range(count):
            self.clock.advance(self.rng.choice([0, 0.1, 1]))
            kind = self.rng.choice([*kinds, self.reload, self.cut_front])
            step, answer = kind()
            self.steps.append(step)
            self.answers.append(f"{answer} | {self.summary()}")

    def summary(self) -> str:
        parts = [f"{self.state.map_end_offset} {self.state.first_unstable_offset}"]
        for _, entry in sorted(self.state.producers.items()):
            batches = "".join(
                f" {one.first_sequence}-{one.last_sequence}@{one.first_offset}-{one.last_offset}"
                for one in entry.batches
            )
            parts.append(
                f"[{entry.producer_id} {entry.producer_epoch} {entry.coordinator_epoch} "
                f"{entry.last_timestamp} {entry.current_txn_first_offset}{batches}]"
            )
        return " ".join(parts)

    def data(self) -> tuple[str, str]:
        rng, state = self.rng, self.state
        producer_id = rng.choice(PRODUCERS)
        entry = state.producers.get(producer_id)
        epoch, sequence = 0, 0
        if entry is not None:
            epoch = max(entry.producer_epoch + rng.choice([0] * 8 + [1, -1]), 0)
            following = increment_sequence(max(entry.last_sequence, 0), 1)
            repeated = rng.choice([0, *(each.first_sequence for each in entry.batches)])
            sequence = rng.choice([following] * 6 + [repeated, 0, 7])
        elif rng.random() < 0.3:
            sequence = rng.choice([5, MAX_SEQUENCE - 1, MAX_SEQUENCE])
        count = rng.choice([1, 1, 2, 3])
        transactional = rng.random() < 0.5
        if entry is not None and entry.current_txn_first_offset >= 0 and rng.random() < 0.8:
            transactional = True
        # A topic is written to by clients or by a coordinator; here a producer is of one of them.
        origin = AppendOrigin.COORDINATOR if producer_id == 3 else AppendOrigin.CLIENT
        now_ms = self.clock.time_ms()
        fields = (producer_id, epoch, sequence, count, int(transactional), origin.name, now_ms)
        step = f"D {' '.join(map(str, fields))}"
        last = increment_sequence(sequence, count - 1)
        try:
            duplicate = state.check_data_batch(
                producer_id, epoch, sequence, last, is_transactional=transactional, origin=origin
            )
        except KafkaError as error:
            return step, error.error_code.name
        if duplicate is not None:
            return step, f"DUPLICATE {duplicate.first_offset}"
        end = state.map_end_offset
        batch = BatchMetadata(sequence, last, end, end + count - 1, now_ms)
        state.append_data_batch(producer_id, epoch, batch, is_transactional=transactional)
        state.map_end_offset = end + count
        return step, "OK"

    def marker(self) -> tuple[str, str]:
        rng, state = self.rng, self.state
        producer_id = rng.choice(PRODUCERS)
        entry = state.producers.get(producer_id)
        epoch, coordinator_epoch = 0, rng.choice([0, 0, 0, 1, 2])
        if entry is not None:
            epoch = max(entry.producer_epoch + rng.choice([0, 0, 1, 1, -1]), 0)
            coordinator_epoch = max(entry.coordinator_epoch + rng.choice([0, 0, 0, 1, -1]), 0)
        abort, version = rng.random() < 0.5, rng.choice([0, 1, 2])
        now_ms = self.clock.time_ms()
        step = f"M {producer_id} {epoch} {coordinator_epoch} {int(abort)} {version} {now_ms}"
        try:
            state.check_marker(producer_id, epoch, coordinator_epoch, ends_epoch=version == 2)
        except KafkaError as error:
            return step, error.error_code.name
        end = state.map_end_offset
        completed = state.append_marker(
            producer_id,
            epoch,
            coordinator_epoch=coordinator_epoch,
            offset=end,
            timestamp=now_ms,
            is_abort=abort,
        )
        state.map_end_offset = end + 1
        if completed is None:
            return step, "OK"
        stable = state.last_stable_offset(completed)
        state.complete_txn(completed)
        return step, f"OK {completed.first_offset} {stable}"

    def move(self) -> tuple[str, str]:
        self.high_watermark = self.rng.randint(self.high_watermark, self.state.map_end_offset)
        self.state.on_high_watermark_updated(self.high_watermark)
        return f"H {self.high_watermark}", "OK"

    def expire(self) -> tuple[str, str]:
        now_ms = self.clock.time_ms()
        self.state.remove_expired(now_ms)
        return f"E {now_ms}", "OK"

    def snapshot(self) -> tuple[str, str]:
        self.state.take_snapshot()
        return "S", "OK"

    def reload(self) -> tuple[str, str]:
        end = self.state.map_end_offset - self.rng.choice([0, 0, 1, 5])
        end = max(end, self.high_watermark, self.start)
        self.state.truncate_and_load(self.start, end)
        self.high_watermark = min(self.high_watermark, self.state.map_end_offset)
        return f"R {self.start} {end} {self.clock.time_ms()}", "OK"

    def cut_front(self) -> tuple[str, str]:
        self.start = self.rng.randint(self.start, max(self.high_watermark, self.start))
        self.state.on_log_start_offset_incremented(self.start)
        return f"L {self.start}", "OK"


@pytest.mark.timeout(300)
def test_every_step_ends_as_in_kafka(tmp_path: Path) -> None:
    try:
        java, jars = maven.find_java(), maven.kafka_jars()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    histories = []
    for seed in range(size(ci=60, full=2000)):
        folder = tmp_path / str(seed)
        folder.mkdir()
        history = History(folder, seed)
        history.run(80)
        histories.append(history)
    lines = "".join(";".join(history.steps) + "\n" for history in histories)
    run = subprocess.run(
        [java, "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", str(SOURCE)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    answers = run.stdout.splitlines()
    assert len(answers) == len(histories)
    seen = set()
    for history, answer in zip(histories, answers, strict=True):
        theirs = answer.rstrip(";").split(";")
        for step, ours, expected in zip(history.steps[1:], history.answers, theirs, strict=True):
            assert ours == expected, f"{step}: {history.steps[1:]}"
            seen.add(ours.split(" ")[0])
    assert seen >= {
        "OK",
        "DUPLICATE",
        "INVALID_PRODUCER_EPOCH",
        "OUT_OF_ORDER_SEQUENCE_NUMBER",
        "INVALID_TXN_STATE",
        "TRANSACTION_COORDINATOR_FENCED",
    }
