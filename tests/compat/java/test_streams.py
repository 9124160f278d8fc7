"""Kafka Streams with exactly_once_v2, killed in the middle again and again."""

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

    def kill_in_a_transaction(self) -> None:
        """After some outputs of new lines, and long before their commit."""
        before = self.written()
        self.send()
        eventually(lambda: self.written() >= before + WORDS_A_LINE, what="uncommitted counts")
        self.kill()

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


def test_words_are_counted_exactly_once(counting: Counting) -> None:
    """Each occurrence of a word has the next number, whatever was killed in between.

    The counts are in a state store with its changelog, behind a repartition topic.
    """
    for _ in range(size(ci=2, full=10)):
        counting.start()
        done = counting.read()
        counting.send()
        counting.wait_for(done + LINES)
        counting.kill_in_a_transaction()
    counting.start()
    counting.wait_for(counting.expected.total())
    counting.kill()
    counting.read()
    assert counting.found == {
        word: list(range(1, count + 1)) for word, count in counting.expected.items()
    }
