"""What kbroker writes in every situation, as Kafka's own tool reads it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import TopicPartition

from kbroker.common.files import OsFileSystem
from kbroker.storage.unified_log import UnifiedLog
from tests.compat.cli.command import kbroker
from tests.compat.confluent_kafka import clients
from tests.compat.java.dump_log import assert_kafka_finds_nothing_wrong, files_of
from tests.compat.samples import CODECS, Sample, now_ms
from tests.compat.waiting import PATIENCE_S, eventually
from tests.peers.kbroker_process import KbrokerProcess
from tests.unit.storage.log_fixture import append, batch, config, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.kafka_tools import KafkaTools

pytestmark = pytest.mark.timeout(300)

SMALL_SEGMENTS = {"internal.segment.bytes": "20000", "index.interval.bytes": "500"}
SETTINGS = {
    "log.cleaner.backoff.ms": "200",
    "log.retention.check.interval.ms": "300",
    "log.initial.task.delay.ms": "300",
    "offsets.topic.num.partitions": "3",
    "transaction.state.log.num.partitions": "3",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[KbrokerProcess]:
    broker = KbrokerProcess(tmp_path / "broker", settings=SETTINGS)
    broker.start()
    yield broker
    broker.kill()


def _segments(broker: KbrokerProcess, topic: str) -> list[Path]:
    return sorted((broker.data_dir / f"{topic}-0").glob("*.log"))


def _send(broker: KbrokerProcess, topic: str, samples: list[Sample], **settings: object) -> None:
    producer = clients.producer(broker.bootstrap, **settings)
    clients.send(producer, topic, samples)


def _compacted(broker: KbrokerProcess) -> None:
    """Many segments, most of which are cleaned away; tombstones; then more."""
    clients.create_topic(
        broker.bootstrap,
        "compacted",
        configs={
            **SMALL_SEGMENTS,
            "cleanup.policy": "compact",
            "min.cleanable.dirty.ratio": "0.01",
            "file.delete.delay.ms": "0",
        },
    )
    start = now_ms()
    for codec in ("none", "zstd"):
        samples = [
            Sample(b"k%d" % (n % 20), None if n % 97 == 0 else b"%d" % n * 60, start + n)
            for n in range(600)
        ]
        _send(broker, "compacted", samples, compression_type=codec, batch_size=3000)
    first = broker.data_dir / "compacted-0" / f"{0:020d}.log"
    eventually(lambda: first.stat().st_size < 15_000, what="the first segment is cleaned")


def _retained(broker: KbrokerProcess) -> None:
    """Retention by size removes segments; DeleteRecords moves the start into one."""
    for topic, settings in (
        ("retained", {"retention.bytes": "40000", "file.delete.delay.ms": "0"}),
        ("cut", {}),
    ):
        clients.create_topic(broker.bootstrap, topic, configs={**SMALL_SEGMENTS, **settings})
        samples = [Sample(None, b"%d" % n * 100, now_ms()) for n in range(600)]
        _send(broker, topic, samples, batch_size=2000)
    eventually(
        lambda: int(_segments(broker, "retained")[0].stem) > 0, what="retention removes a segment"
    )
    admin = clients.admin(broker.bootstrap)
    at = TopicPartition("cut", 0, 333)
    admin.delete_records([at])[at].result(timeout=PATIENCE_S)


def _transactions(broker: KbrokerProcess) -> None:
    """Committed, aborted, and one that is open when the broker dies; one topic is compacted."""
    compaction = {"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}
    for topic, settings in (("transactions", {}), ("ended", compaction)):
        clients.create_topic(broker.bootstrap, topic, configs={**SMALL_SEGMENTS, **settings})
    for number in range(12):
        producer = clients.producer(broker.bootstrap, transactional_id=f"t{number % 3}")
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        samples = [Sample(b"k", b"%d" % number * 300, now_ms())] * 10
        for topic in ("transactions", "ended"):
            clients.send(producer, topic, samples)
        if number % 2:
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
    first = broker.data_dir / "ended-0" / f"{0:020d}.log"
    eventually(lambda: first.stat().st_size < 15_000, what="ended transactions are cleaned")
    producer = clients.producer(broker.bootstrap, transactional_id="open")
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    clients.send(producer, "transactions", [Sample(None, b"open", now_ms())])


def _codecs_and_times(broker: KbrokerProcess) -> None:
    """Every codec with large batches; times that go back; LogAppendTime; preallocated files."""
    bootstrap = broker.bootstrap
    for codec in CODECS:
        clients.create_topic(bootstrap, f"codec-{codec}")
        samples = [Sample(b"k%d" % n, b"%d" % n * 9000, now_ms()) for n in range(100)]
        _send(broker, f"codec-{codec}", samples, compression_type=codec, batch_size=900_000)
    for topic, settings in (
        ("back", {}),
        ("append-time", {"message.timestamp.type": "LogAppendTime"}),
        ("preallocated", {"preallocate": "true"}),
    ):
        clients.create_topic(bootstrap, topic, configs={**SMALL_SEGMENTS, **settings})
        times = [now_ms() - n * 1000 for n in range(500)]
        samples = [Sample(b"k", b"%d" % n * 50, time) for n, time in enumerate(times)]
        _send(broker, topic, samples, batch_size=1500)


def _group(broker: KbrokerProcess) -> None:
    consumer = clients.consumer(broker.bootstrap, "readers")
    clients.commit(consumer, [TopicPartition("codec-none", 0, 42)])
    consumer.close()


def _assert_verified(data_dir: Path) -> None:
    done = kbroker("log", "verify", str(data_dir))
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()


def test_every_situation(tools: KafkaTools, broker: KbrokerProcess) -> None:
    """While it lives, after kill -9, after recovery and a clean stop: Kafka finds nothing wrong."""
    _compacted(broker)
    _retained(broker)
    _transactions(broker)
    _codecs_and_times(broker)
    _group(broker)
    broker.kill()
    _assert_verified(broker.data_dir)
    preallocated = broker.data_dir / "preallocated-0"
    hidden = broker.data_dir.parent / "preallocated-0"
    preallocated.rename(hidden)  # zeros behind its last batch are what preallocation is
    assert_kafka_finds_nothing_wrong(tools, broker.data_dir)
    hidden.rename(preallocated)

    broker.start()
    _send(broker, "compacted", [Sample(b"k1", b"after the restart", now_ms())])
    _send(broker, "transactions", [Sample(b"k1", b"after the restart", now_ms())])
    broker.stop()

    _assert_verified(broker.data_dir)
    printed = assert_kafka_finds_nothing_wrong(tools, broker.data_dir)
    assert printed.count("payload: after the restart") == 2
    assert printed.count("endTxnMarker: ABORT") >= 6
    assert printed.count("endTxnMarker: COMMIT") >= 6
    for topic in ("compacted", "retained", "cut", "transactions", "back", "preallocated"):
        assert len(_segments(broker, topic)) > 1, topic
    assert any(path.stat().st_size for path in files_of(broker.data_dir, ".txnindex"))
    codecs = set(re.findall(r"compresscodec: (\w+)", printed))
    assert codecs == set(CODECS)


def test_a_truncated_log(tools: KafkaTools, tmp_path: Path) -> None:
    """As a follower truncates: inside of a segment, at a segment's start, and to nothing."""
    for number, offset in enumerate((170, 101, 0)):
        log = UnifiedLog(
            environment(OsFileSystem()),
            str(tmp_path / f"truncated-{number}"),
            "truncated",
            number,
            topic_id=bytes(range(16)),
            config=config(segment_bytes=4000, index_interval_bytes=300),
        )
        for value in range(200):
            data = batch(
                b"%d" % value * 20,
                timestamps=[1000 + value],
                producer_id=3,
                base_sequence=value,
            )
            append(log, data, leader_epoch=value // 50)
        log.truncate_to(offset)
        append(log, batch(b"after", timestamps=[5000]), leader_epoch=9)
        log.close()
    printed = assert_kafka_finds_nothing_wrong(tools, tmp_path)
    assert printed.count("payload: after") == 3
