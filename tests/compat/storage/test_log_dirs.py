"""Two data directories: replicas move between them; one that fails takes only its own offline.

The same tests pass against an Apache Kafka (KBROKER_COMPAT_BROKER=apache-kafka): the answers are
its answers.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.compat.broker_under_test import BROKER_VARIABLE, external_bootstrap
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.probe import split_address
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.wire.connection import Closed, Conn, Silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STORAGE_ERROR = 56
LOG_DIR_NOT_FOUND = 57
UNKNOWN_TOPIC_OR_PARTITION = 3
INVALID_TOPIC = 17
LEADER_NOT_AVAILABLE = 5
PARTITIONS = 4
RECORDS = 50
SETTINGS = {"log.flush.offset.checkpoint.interval.ms": "300"}

pytestmark = pytest.mark.timeout(240)


class TwoDirectories:
    """A broker with the data directories ``one`` and ``two``; the metadata is in ``one``."""

    def __init__(self, folder: Path) -> None:
        self.one, self.two = folder / "one", folder / "two"
        paths = f"{self.one},{self.two}"
        self.process: ApacheKafka | KbrokerProcess
        if os.environ.get(BROKER_VARIABLE) == ApacheKafka.name:
            self.process = ApacheKafka(folder, settings={**SETTINGS, "log.dirs": paths})
        else:
            self.process = KbrokerProcess(folder, settings=SETTINGS)
            self.process.data_dir = paths  # type: ignore[assignment]

    def ask(self, name: str, version: int, body: dict[str, Any]) -> Any:
        host, port = split_address(self.process.bootstrap)
        connection = Conn(host, port, timeout=10)
        connection.send(name, version, body)
        answer = connection.recv()
        connection.sock.close()
        return answer[4]

    def alter(self, path: str, topic: str, *partitions: int) -> dict[int, int]:
        body = {
            "Dirs": [{"Path": path, "Topics": [{"Name": topic, "Partitions": list(partitions)}]}]
        }
        answer = self.ask("AlterReplicaLogDirs", 2, body)
        (result,) = answer["Results"]
        assert result["TopicName"] == topic
        return {each["PartitionIndex"]: each["ErrorCode"] for each in result["Partitions"]}

    def describe(self) -> dict[str, Any]:
        """Directory to error code, or to its partitions of ``t``: (size, lag, is future)."""
        answer = self.ask("DescribeLogDirs", 4, {"Topics": None})
        found: dict[str, Any] = {}
        for result in answer["Results"]:
            if result["ErrorCode"]:
                assert (result["TotalBytes"], result["UsableBytes"]) == (-1, -1)
                found[result["LogDir"]] = result["ErrorCode"]
                continue
            assert 0 < result["UsableBytes"] < result["TotalBytes"]
            found[result["LogDir"]] = {
                each["PartitionIndex"]: (
                    each["PartitionSize"],
                    each["OffsetLag"],
                    each["IsFutureKey"],
                )
                for topic in result["Topics"]
                if topic["Name"] == "t"
                for each in topic["Partitions"]
            }
        return found

    def partitions_of(self, directory: Path) -> set[int]:
        found = self.describe()[str(directory)]
        return set(found) if isinstance(found, dict) else set()

    def produce(self, topic: str, partition: int) -> int:
        records = bytes(build_batch([Record(key=None, value=b"v", timestamp=1)]))
        data = {"Name": topic, "PartitionData": [{"Index": partition, "Records": records}]}
        answer = self.ask("Produce", 9, {"Acks": 1, "TimeoutMs": 5000, "TopicData": [data]})
        return int(answer["Responses"][0]["PartitionResponses"][0]["ErrorCode"])

    def latest(self, partition: int) -> tuple[int, int]:
        wanted = {"PartitionIndex": partition, "Timestamp": -1}
        topics = [{"Name": "t", "Partitions": [wanted]}]
        answer = self.ask("ListOffsets", 7, {"ReplicaId": -1, "Topics": topics})
        found = answer["Topics"][0]["Partitions"][0]
        return found["ErrorCode"], found["Offset"]

    def fetch(self, partition: int) -> int:
        wanted = {"Partition": partition, "FetchOffset": 0, "PartitionMaxBytes": 1000}
        topics = [{"Topic": "t", "Partitions": [wanted]}]
        body = {"ReplicaId": -1, "MaxWaitMs": 10, "SessionEpoch": -1, "Topics": topics}
        answer = self.ask("Fetch", 11, body)
        return int(answer["Responses"][0]["Partitions"][0]["ErrorCode"])

    def metadata(self) -> dict[int, tuple[int, int, list[int], list[int]]]:
        """Partition to (error, leader, ISR, offline replicas)."""
        answer = self.ask("Metadata", 12, {"Topics": [{"Name": "t"}]})
        return {
            each["PartitionIndex"]: (
                each["ErrorCode"],
                each["LeaderId"],
                each["IsrNodes"],
                each["OfflineReplicas"],
            )
            for each in answer["Topics"][0]["Partitions"]
        }


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[TwoDirectories]:
    if external_bootstrap() is not None:
        pytest.skip("needs a broker with two data directories of its own")
    try:
        broker = TwoDirectories(tmp_path / "broker")
        broker.process.start()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    try:
        admin = AdminClient({"bootstrap.servers": broker.process.bootstrap})
        for name, count in (("t", PARTITIONS), ("empty", 1)):
            admin.create_topics([NewTopic(name, count)])[name].result()
        producer = Producer({"bootstrap.servers": broker.process.bootstrap})
        for partition in range(PARTITIONS):
            for _ in range(RECORDS):
                producer.produce("t", b"x" * 100, partition=partition)
        assert producer.flush(20) == 0
        yield broker
    finally:
        broker.process.kill()


def until(condition: Any, *, timeout_s: float = 15) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.1)


def test_replicas_move_between_directories(broker: TwoDirectories) -> None:
    assert len(broker.partitions_of(broker.one)) == len(broker.partitions_of(broker.two)) == 2
    one, two = str(broker.one), str(broker.two)
    assert broker.alter("/nowhere", "t", 0) == {0: LOG_DIR_NOT_FOUND}
    assert broker.alter("", "t", 0) == {0: LOG_DIR_NOT_FOUND}
    assert broker.alter(one + "/", "t", 0) == {0: LOG_DIR_NOT_FOUND}
    assert broker.alter(one, "nope", 0, 1) == dict.fromkeys((0, 1), UNKNOWN_TOPIC_OR_PARTITION)
    assert broker.alter(one, "t", 17) == {17: UNKNOWN_TOPIC_OR_PARTITION}
    assert broker.alter(one, "x" * 240, 0) == {0: INVALID_TOPIC}
    assert broker.alter(two, "t", *range(PARTITIONS)) == dict.fromkeys(range(PARTITIONS), 0)
    assert broker.alter(two, "empty", 0) == {0: 0}
    until(
        lambda: (
            len(broker.partitions_of(broker.two)) == PARTITIONS
            and not any(future for _, _, future in broker.describe()[two].values())
        )
    )
    assert broker.partitions_of(broker.one) == set()
    assert sorted(path.name for path in broker.two.glob("t-?")) == [f"t-{n}" for n in range(4)]
    for partition in range(PARTITIONS):
        assert broker.produce("t", partition) == 0
        assert broker.latest(partition) == (0, RECORDS + 1)
        assert broker.fetch(partition) == 0


def test_a_directory_that_fails_takes_only_its_partitions(broker: TwoDirectories) -> None:
    lost = broker.partitions_of(broker.two)
    kept = broker.partitions_of(broker.one)
    assert lost and kept
    _break(broker.two)
    for partition in range(PARTITIONS):
        broker.produce("t", partition)  # somebody uses it, so it is noticed
    until(lambda: broker.describe()[str(broker.two)] == STORAGE_ERROR)
    until(lambda: all(broker.metadata()[each][0] for each in lost))
    for partition in lost:
        assert broker.metadata()[partition] == (LEADER_NOT_AVAILABLE, -1, [], [1])
        assert broker.produce("t", partition) == STORAGE_ERROR
        assert broker.latest(partition) == (STORAGE_ERROR, -1)
        assert broker.fetch(partition) == STORAGE_ERROR
        assert broker.alter(str(broker.one), "t", partition) == {partition: STORAGE_ERROR}
    for partition in kept:
        assert broker.metadata()[partition] == (0, 1, [1], [])
        assert broker.produce("t", partition) == 0
        assert broker.latest(partition) == (0, RECORDS + 2)
        assert broker.fetch(partition) == 0
        assert broker.alter(str(broker.two), "t", partition) == {partition: STORAGE_ERROR}
    admin = AdminClient({"bootstrap.servers": broker.process.bootstrap})
    admin.create_topics([NewTopic("later", 3)])["later"].result()
    for partition in range(3):
        until(lambda partition=partition: broker.produce("later", partition) == 0)


def test_a_broker_ends_when_its_last_directory_fails(broker: TwoDirectories) -> None:
    _break(broker.two)
    _break(broker.one)
    for partition in range(PARTITIONS):
        try:
            broker.produce("t", partition)
        except (OSError, Closed, Silent):  # it may be gone by now
            break
    assert broker.process.wait_for_end(timeout_s=30) == 1


def _break(directory: Path) -> None:
    """Nothing in it can be opened or made any more, by root either."""
    shutil.rmtree(directory)
    directory.write_text("a file")
