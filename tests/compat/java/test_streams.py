"""Kafka Streams with exactly_once_v2; it, or the broker, is killed in its transactions."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from kafka import TopicPartition

from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import eventually
from tests.peers import maven
from tests.peers.kafka_tools import SHORT_LIVED, KafkaTools
from tests.peers.process import ChildProcess
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.compat.broker_under_test import OwnedBroker

pytestmark = pytest.mark.timeout(300)
WORD_COUNT = Path(__file__).with_name("WordCount.java")
WORDS = [f"word{number}" for number in range(15)]
WORDS_A_LINE = 3
LINES = 150
"""That are counted before a kill, and again while it happens."""
PARTITIONS = 2


class Counting:
    """The application on one state directory, and what it has counted and should have."""

    def __init__(self, tools: KafkaTools, bootstrap: str, prefix: str, folder: Path) -> None:
        self.lines, self.counts = f"{prefix}-lines", f"{prefix}-counts"
        for topic in (self.lines, self.counts):
            clients.create_topic(bootstrap, topic, partitions=PARTITIONS)
        self._bootstrap = bootstrap
        self._error_log = folder / "stderr.log"
        arguments = (bootstrap, prefix, self.lines, self.counts, str(folder / "state"))
        self._command = tools.command(str(WORD_COUNT), *arguments, flags=SHORT_LIVED)
        self._process: ChildProcess | None = None
        self._random = random.Random(7)
        self._partitions = [TopicPartition(self.counts, each) for each in range(PARTITIONS)]
        self._reader = clients.consumer(bootstrap, isolation_level="read_committed")
        self._reader.assign(self._partitions)
        self._watcher = clients.consumer(bootstrap)
        self.expected: Counter[str] = Counter()
        self.found: defaultdict[str, list[int]] = defaultdict(list)
        """Word to its committed counts, in the order of their partition."""

    def start(self) -> None:
        self._process = ChildProcess(self._command, error_log=self._error_log, environment=None)
        self._process.wait_for_line("running", timeout_s=120)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process = None

    def close(self) -> None:
        self.kill()
        self._reader.close()
        self._watcher.close()

    def send(self) -> None:
        samples = []
        for _ in range(LINES):
            words = self._random.choices(WORDS, k=WORDS_A_LINE)
            self.expected.update(words)
            samples.append(Sample(None, " ".join(words).encode(), now_ms()))
        with closing(clients.producer(self._bootstrap)) as producer:
            clients.send(producer, self.lines, samples)

    def read(self) -> int:
        """Reads what is committed; returns how many counts were read in all."""
        for records in self._reader.poll(timeout_ms=100).values():
            for record in records:
                self.found[record.key.decode()].append(int(record.value))
        return sum(map(len, self.found.values()))

    def written(self) -> int:
        """How much is in the output's log, whether committed or not."""
        return int(sum(self._watcher.end_offsets(self._partitions).values()))

    def begin_a_transaction(self) -> None:
        """Some outputs of new lines are written; it is long until their commit."""
        before = self.written()
        self.send()
        eventually(lambda: self.written() >= before + WORDS_A_LINE, what="uncommitted counts")

    def assert_each_once(self) -> None:
        """Each occurrence of a word has the next number."""
        self.wait_for(self.expected.total())
        self.kill()
        self.read()
        assert self.found == {
            word: list(range(1, count + 1)) for word, count in self.expected.items()
        }

    def wait_for(self, count: int) -> None:
        eventually(lambda: self.read() >= count, what=f"{count} committed counts", timeout_s=90)


@pytest.fixture(scope="module")
def streams() -> KafkaTools:
    try:
        return KafkaTools(maven.streams_jars)
    except PeerUnavailable as missing:
        skip_or_fail(missing)


@pytest.fixture
def counting(
    streams: KafkaTools, bootstrap: str, fresh_name: Callable[[str], str], tmp_path: Path
) -> Iterator[Counting]:
    with closing(Counting(streams, bootstrap, fresh_name("count"), tmp_path)) as counting:
        yield counting


def test_an_application_that_dies_counts_exactly_once(counting: Counting) -> None:
    """Its counts are in a state store with its changelog, behind a repartition topic."""
    for _ in range(size(ci=2, full=10)):
        counting.start()
        done = counting.read()
        counting.send()
        counting.wait_for(done + LINES)
        counting.begin_a_transaction()
        counting.kill()
    counting.start()
    counting.assert_each_once()


def test_a_broker_that_dies_has_counted_exactly_once(
    streams: KafkaTools, owned_broker: OwnedBroker, tmp_path: Path
) -> None:
    """The application lives on; its open transaction is there when the broker is back."""
    with closing(Counting(streams, owned_broker.bootstrap, "count", tmp_path)) as counting:
        counting.start()
        for _ in range(size(ci=2, full=10)):
            done = counting.read()
            counting.send()
            counting.wait_for(done + LINES)
            counting.begin_a_transaction()
            owned_broker.kill()
            owned_broker.start()
        counting.assert_each_once()
