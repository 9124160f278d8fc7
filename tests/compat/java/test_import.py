"""Log directories that an Apache Kafka wrote: dumped, verified, imported and served."""

from __future__ import annotations

import os
import re
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    ResourceType,
)

from kbroker.common.files import OsFileSystem
from kbroker.storage.log_loader import load_log
from kbroker.storage.unified_log import UnifiedLog
from tests.compat.cli.command import kbroker, refuse, succeed, succeed_json
from tests.compat.confluent_kafka import clients
from tests.compat.java.dump_log import assert_kafka_finds_nothing_wrong, dump, files_of
from tests.compat.samples import CODECS, Sample, now_ms, varied_samples
from tests.compat.waiting import PATIENCE_S, eventually
from tests.peers.apache_kafka import ApacheKafka
from tests.peers.kbroker_process import KbrokerProcess
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.unit.log_tools.partition_files import legacy_message, legacy_wrapper
from tests.unit.storage.log_fixture import (
    append,
    append_marker,
    batch,
    config,
    environment,
    read_all,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.kafka_tools import KafkaTools

pytestmark = pytest.mark.timeout(600)  # the first one starts an Apache Kafka twice

SETTINGS = {
    "log.cleaner.backoff.ms": "200",
    "offsets.topic.num.partitions": "7",
    "transaction.state.log.num.partitions": "5",
    "metadata.log.max.record.bytes.between.snapshots": "3000",
    "log.segment.delete.delay.ms": "0",
}
OURS = "written-by-kbroker"
OURS_BEGAN = now_ms() - 1_000_000
EOF_EVENT = KafkaError._PARTITION_EOF

Record = tuple[int, bytes | None, bytes | None, int]
"""Offset, key, value, timestamp in ms."""


@dataclass
class Seen:
    """What clients see of a broker."""

    records: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    settings: dict[str, dict[str, str]] = field(default_factory=dict)
    topic_ids: dict[str, str] = field(default_factory=dict)
    committed: dict[str, list[int]] = field(default_factory=dict)


def _read(bootstrap: str, topics: dict[str, int]) -> dict[tuple[str, int], list[Record]]:
    """Every committed record of every partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "unused",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    found: dict[tuple[str, int], list[Record]] = {
        (topic, index): [] for topic, count in topics.items() for index in range(count)
    }
    open_partitions = set(found)
    consumer.assign([TopicPartition(topic, index, 0) for topic, index in found])
    deadline = time.monotonic() + PATIENCE_S
    while open_partitions:
        assert time.monotonic() < deadline, f"{open_partitions} have no end"
        message = consumer.poll(1)
        if message is None:
            continue
        key = (message.topic(), message.partition())
        if message.error() is None:
            found[key].append(
                (message.offset(), message.key(), message.value(), message.timestamp()[1])
            )
        else:
            assert message.error().code() == EOF_EVENT, message.error()
            open_partitions.discard(key)
    consumer.close()
    return found


def look(bootstrap: str) -> Seen:
    admin = clients.admin(bootstrap)
    listed = admin.list_topics(timeout=PATIENCE_S).topics
    own = {name: len(topic.partitions) for name, topic in listed.items() if name[:2] != "__"}
    seen = Seen(records=_read(bootstrap, own))
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in listed]
    for resource, future in admin.describe_configs(resources).items():
        seen.settings[resource.name] = {
            name: entry.value
            for name, entry in future.result(timeout=PATIENCE_S).items()
            if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
        }
    for name, future in admin.describe_topics(TopicCollection(list(listed))).items():
        seen.topic_ids[name] = str(future.result(timeout=PATIENCE_S).topic_id)
    for group in ("classic", "consumer"):
        consumer = clients.consumer(bootstrap, group)
        at = [TopicPartition("codec-gzip", index) for index in (0, 1)]
        committed = consumer.committed(at, timeout=PATIENCE_S)
        seen.committed[group] = [partition.offset for partition in committed]
        consumer.close()
    return seen


def _write(bootstrap: str) -> None:
    """Codecs, segments, compaction, transactions, groups of both protocols, changed settings."""
    for codec in CODECS:
        clients.create_topic(bootstrap, f"codec-{codec}", partitions=2)
        producer = clients.producer(
            bootstrap, compression_type=codec, enable_idempotence=True, linger_ms=20
        )
        for partition in (0, 1):
            clients.send(producer, f"codec-{codec}", varied_samples(60, seed=partition), partition)
    small = {"internal.segment.bytes": "20000", "index.interval.bytes": "1000"}
    clients.create_topic(bootstrap, "segments", configs={**small, "retention.ms": "-1"})
    samples = [Sample(b"k%d" % n, b"%d" % n * 100, now_ms()) for n in range(800)]
    clients.send(clients.producer(bootstrap, batch_size=3000), "segments", samples)
    compaction = {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.01",
        "internal.segment.bytes": "5000",
    }
    clients.create_topic(bootstrap, "compacted", configs=compaction)
    samples = [Sample(b"k%d" % (n % 9), b"%d" % n * 30, now_ms()) for n in range(900)]
    clients.send(clients.producer(bootstrap, batch_size=2000), "compacted", samples)
    clients.create_topic(bootstrap, "transactions", partitions=2)
    clients.create_topic(bootstrap, "ended", configs=compaction)
    for number in range(4):
        producer = clients.producer(bootstrap, transactional_id=f"t{number % 2}")
        producer.init_transactions(PATIENCE_S)
        producer.begin_transaction()
        for partition in (0, 1):
            samples = [Sample(b"%d" % number, b"v", now_ms())] * 5
            clients.send(producer, "transactions", samples, partition)
        samples = [Sample(b"k", b"%d" % number * 300, now_ms())] * 10
        clients.send(producer, "ended", samples)
        if number % 2:
            producer.abort_transaction(PATIENCE_S)
        else:
            producer.commit_transaction(PATIENCE_S)
    clients.create_topic(bootstrap, OURS)
    for magic in (0, 1):
        clients.create_topic(bootstrap, f"old-{magic}", configs={"retention.ms": "-1"})
    clients.create_topic(bootstrap, "deleted")
    _commit_and_change(bootstrap)


def _commit_and_change(bootstrap: str) -> None:
    for group in ("classic", "consumer"):
        consumer = clients.consumer(bootstrap, group, group_protocol=group)
        consumer.subscribe(["codec-gzip"])
        clients.receive(consumer, 50)
        clients.commit(
            consumer, [TopicPartition("codec-gzip", 0, 11), TopicPartition("codec-gzip", 1, 22)]
        )
        consumer.close()
    admin = clients.admin(bootstrap)
    admin.delete_topics(["deleted"])["deleted"].result(timeout=PATIENCE_S)
    changed = ConfigResource(ResourceType.TOPIC, "transactions")
    for name, value in (("retention.ms", "123456789"), ("max.message.bytes", "2000000")):
        changed.add_incremental_config(
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
        )
    admin.incremental_alter_configs([changed])[changed].result(timeout=PATIENCE_S)
    more = admin.create_partitions([NewPartitions("codec-zstd", 4)])
    more["codec-zstd"].result(timeout=PATIENCE_S)


def _write_ours(partition: Path) -> None:
    """Put a closed log of ours into the directory of an empty partition; the topic id stays.

    Many segments with their indexes, an idempotent producer, and every tenth batch a transaction,
    of which every other is aborted.
    """
    for path in partition.glob("0*"):
        path.unlink()
    log = UnifiedLog(
        environment(OsFileSystem()),
        str(partition),
        OURS,
        0,
        config=config(segment_bytes=4000, index_interval_bytes=300),
    )
    for number in range(200):
        is_transaction = number % 10 == 9
        data = batch(
            b"v%d" % number * 9,
            timestamps=[OURS_BEGAN + 1000 * number],
            producer_id=3 + is_transaction,
            base_sequence=number // 10 if is_transaction else number - number // 10,
            transactional=is_transaction,
        )
        append(log, data)
        if is_transaction:
            append_marker(log, commit=number % 20 == 9, producer_id=4)
    log.take_producer_snapshot()
    log.close()


def _wait_for_the_cleaner(partition: Path) -> None:
    """Until it has cleaned everything: what is read then must stay."""
    first = partition / f"{0:020d}.log"
    eventually(lambda: first.stat().st_size < 2000, what="the first segment is cleaned")
    before: list[tuple[str, int]] = []
    while True:
        now = sorted((path.name, path.stat().st_size) for path in partition.glob("*.log"))
        if now == before:
            return
        before = now
        time.sleep(1)  # five times as long as the cleaner sleeps


def _write_old(partition: Path, magic: int) -> None:
    """A segment as Kafka wrote it before 0.11, with compressed messages and a gap."""
    for path in partition.glob("0*"):
        path.unlink()
    segment = partition / f"{0:020d}.log"
    segment.write_bytes(
        b"".join(legacy_message(magic, n, b"k%d" % n, b"v%d" % n, time=1000 + n) for n in range(4))
        + legacy_wrapper(magic, 8, [b"a", b"b", b"c"])
        + legacy_wrapper(magic, 10, [b"d", b"e"], codec=2)
    )


@dataclass
class KafkaWrote:
    """Directories of one Apache Kafka, and what clients saw before it ended so."""

    closed: Path
    seen_before_close: Seen
    killed: Path
    seen_before_kill: Seen
    refused_while_running: str
    offset_in_ours: int
    """Which Kafka found for the time of the 150th record."""


@pytest.fixture(scope="module")
def kafka_wrote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaWrote]:
    """Stopped in order; then, with partitions of ours and of old in it, started and killed."""
    folder = tmp_path_factory.mktemp("kafka")
    try:
        kafka = ApacheKafka(folder / "node", settings=SETTINGS)
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    with kafka:
        _write(kafka.bootstrap)
        for topic in ("compacted", "ended"):
            _wait_for_the_cleaner(kafka.data_dir / f"{topic}-0")
        before_close = look(kafka.bootstrap)
        kafka.stop()
        shutil.copytree(kafka.data_dir, folder / "closed")
        _write_ours(kafka.data_dir / f"{OURS}-0")
        for magic in (0, 1):
            _write_old(kafka.data_dir / f"old-{magic}-0", magic)
        kafka.start()
        samples = [Sample(None, b"after the restart", now_ms())]
        clients.send(clients.producer(kafka.bootstrap), "segments", samples)
        refused = refuse("log", "verify", str(kafka.data_dir))
        before_kill = look(kafka.bootstrap)
        consumer = clients.consumer(kafka.bootstrap)
        at = TopicPartition(OURS, 0, OURS_BEGAN + 1000 * 149 - 1)
        (found,) = consumer.offsets_for_times([at], timeout=PATIENCE_S)
        consumer.close()
        kafka.kill()
        shutil.copytree(kafka.data_dir, folder / "killed")
    yield KafkaWrote(
        folder / "closed", before_close, folder / "killed", before_kill, refused, found.offset
    )


def test_a_running_kafka_is_left_alone(kafka_wrote: KafkaWrote) -> None:
    assert "is in use by a broker; stop it first" in kafka_wrote.refused_while_running


def test_kafka_serves_old_message_formats(kafka_wrote: KafkaWrote) -> None:
    """Which is why an import keeps them, and what it is compared with."""
    for magic in (0, 1):
        records = kafka_wrote.seen_before_kill.records[f"old-{magic}", 0]
        assert [offset for offset, _, _, _ in records] == [0, 1, 2, 3, 6, 7, 8, 9, 10]


def test_kafka_reads_a_partition_directory_of_ours(kafka_wrote: KafkaWrote) -> None:
    """As its own: with our indexes and our snapshot, aborted records hidden."""
    offsets = [offset for offset, _, _, _ in kafka_wrote.seen_before_kill.records[OURS, 0]]
    values = [value for _, _, value, _ in kafka_wrote.seen_before_kill.records[OURS, 0]]
    assert values == [b"v%d" % number * 9 for number in range(200) if number % 20 != 19]
    assert offsets == [number + number // 10 for number in range(200) if number % 20 != 19]
    assert kafka_wrote.offset_in_ours == 149 + 149 // 10


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_kafka_wrote_is_verified(kafka_wrote: KafkaWrote, end: str) -> None:
    directory: Path = getattr(kafka_wrote, end)
    report = succeed_json("log", "verify", str(directory))
    assert report["errors"] == []
    assert report["partitions"] > 25
    was_closed = not any("was not closed" in note["text"] for note in report["notes"])
    assert was_closed == (end == "closed")


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_a_partition_directory_of_kafka_opens(kafka_wrote: KafkaWrote, end: str, tmp_path: Path):
    """The storage engine takes it as it is, with nothing imported."""
    seen = kafka_wrote.seen_before_close if end == "closed" else kafka_wrote.seen_before_kill
    for topic in ("segments", "compacted", "codec-zstd"):
        copy = tmp_path / f"{topic}-0"
        shutil.copytree(getattr(kafka_wrote, end) / f"{topic}-0", copy)
        log = load_log(
            environment(OsFileSystem()),
            str(copy),
            topic,
            0,
            config=config(),
            is_clean=end == "closed",
        )
        expected = [(offset, value) for offset, _, value, _ in seen.records[topic, 0]]
        assert read_all(log) == expected, topic
        log.abandon()


@pytest.mark.parametrize("end", ["closed", "killed"])
def test_what_kafka_wrote_is_imported_and_served(
    tools: KafkaTools, kafka_wrote: KafkaWrote, end: str, tmp_path: Path
) -> None:
    source: Path = getattr(kafka_wrote, end)
    expected = kafka_wrote.seen_before_close if end == "closed" else kafka_wrote.seen_before_kill
    before = _state(source)
    broker = KbrokerProcess(tmp_path / "broker")
    imported = succeed("log", "import", str(source), "--data-dir", str(broker.data_dir))
    assert "retention.ms=123456789" in imported
    again = succeed_json("log", "import", str(source), "--data-dir", str(broker.data_dir))
    assert again["topics"] == [] and len(again["already_there"]) == len(expected.topic_ids)
    assert _state(source) == before

    with broker:
        seen = look(broker.bootstrap)
        assert _with_times(seen.records) == _with_times(expected.records)
        assert seen.settings == expected.settings
        assert seen.topic_ids == expected.topic_ids
        assert seen.committed == expected.committed == {"classic": [11, 22], "consumer": [11, 22]}
        _go_on(broker.bootstrap, seen)
        broker.stop()
        succeed("log", "verify", str(broker.data_dir))
        if end == "killed":  # where indexes were made anew
            assert_kafka_finds_nothing_wrong(tools, broker.data_dir)


def _with_times(records: dict[tuple[str, int], list[Record]]) -> dict[tuple[str, int], object]:
    """All that was read; message format 0 has no times, which clients tell from -1."""
    return {
        key: [each[:3] for each in found] if key == ("old-0", 0) else found
        for key, found in records.items()
    }


def _state(directory: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def _go_on(bootstrap: str, seen: Seen) -> None:
    """Producers, transactions and groups continue where Kafka's ended."""
    producer = clients.producer(bootstrap, transactional_id="t1")
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    clients.send(producer, "transactions", [Sample(b"new", b"v", now_ms())], 0)
    producer.commit_transaction(PATIENCE_S)
    (offset, key, _, _) = _read(bootstrap, {"transactions": 1})["transactions", 0][-1]
    assert key == b"new"
    assert offset > seen.records["transactions", 0][-1][0]
    consumer = clients.consumer(bootstrap, "classic")
    consumer.subscribe(["codec-gzip"])
    received = clients.receive(consumer, 49 + 38)
    firsts = {index: min(r.offset for r in received if r.partition == index) for index in (0, 1)}
    assert firsts == {0: 11, 1: 22}
    consumer.close()


def test_without_the_clusters_metadata(kafka_wrote: KafkaWrote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(kafka_wrote.closed, source)
    shutil.rmtree(source / "__cluster_metadata-0")
    target = tmp_path / "broker" / "data"
    line = refuse("log", "import", str(source), "--data-dir", str(target))
    assert "--keep-forever" in line
    printed = succeed("log", "import", str(source), "--data-dir", str(target), "--keep-forever")
    assert "retention.ms=-1 on every topic" in printed
    with KbrokerProcess(tmp_path / "broker") as broker:
        counts = {"codec-gzip": 2, "segments": 1, "transactions": 2}
        expected = kafka_wrote.seen_before_close.records
        found = _read(broker.bootstrap, counts)
        assert found == {key: expected[key] for key in found}
        consumer = clients.consumer(broker.bootstrap, "classic")
        (committed,) = consumer.committed([TopicPartition("codec-gzip", 1)], timeout=PATIENCE_S)
        assert committed.offset == 22
        consumer.close()


def test_serve_names_the_import(kafka_wrote: KafkaWrote, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(kafka_wrote.closed, source)
    done = kbroker("serve", "--port", "0", "--data-dir", str(source))
    assert done.returncode == 1
    assert f"`kbroker log import {source} --data-dir DIR`" in done.stderr.decode()


def test_dumps_are_those_of_kafkas_tool(tools: KafkaTools, kafka_wrote: KafkaWrote) -> None:
    """Line for line, records of Kafka's own topics included."""
    kinds = {
        "--print-data-log": "(?!__|codec)",  # those hold bytes that are no text
        "--offsets-decoder": "__consumer_offsets",
        "--transaction-log-decoder": "__transaction_state",
        "--cluster-metadata-decoder": "__cluster_metadata",
    }
    every = files_of(kafka_wrote.closed) + files_of(kafka_wrote.closed, ".checkpoint")
    for option, pattern in kinds.items():
        files = [
            path
            for path in every
            if re.match(pattern, path.parent.name)
            and (path.suffix == ".log" or path.stat().st_size)
        ]
        theirs, _ = dump(tools, files, option)
        ours = succeed("log", "dump", "--deep", *map(os.fspath, files))
        assert ours.splitlines() == theirs.splitlines(), option
