"""Imports of log directories: what becomes of them, and what is refused."""

import os
import shutil
import struct
from pathlib import Path

import anyio
import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import AlreadyLockedError, OsFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.coordinator.partitioning import partition_for
from kbroker.log_tools.import_plan import ImportRefused, ImportWishes
from kbroker.log_tools.known_topics import read_image
from kbroker.log_tools.log_import import ImportReport, LogImport
from kbroker.log_tools.verify import DirectoriesCheck
from kbroker.metadata.keys import Keys
from kbroker.metadata.sqlite_store import METADATA_FILE, SqliteStore
from kbroker.metadata.values import NumberValue
from kbroker.protocol.internal_records.access_control_entry_record import AccessControlEntryRecord
from kbroker.protocol.internal_records.client_quota_record import ClientQuotaRecord
from kbroker.protocol.internal_records.config_record import ConfigRecord
from kbroker.protocol.internal_records.remove_access_control_entry_record import (
    RemoveAccessControlEntryRecord,
)
from kbroker.protocol.internal_records.remove_user_scram_credential_record import (
    RemoveUserScramCredentialRecord,
)
from kbroker.protocol.internal_records.user_scram_credential_record import (
    UserScramCredentialRecord,
)
from kbroker.record.record import Record
from kbroker.storage.checkpoints import (
    encode_offset_checkpoint,
    read_meta_properties,
    read_offset_checkpoint,
)
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_loader import load_log
from tests.unit.log_tools.kafka_directory import (
    CLUSTER_ID,
    END,
    METADATA,
    close_directory,
    topic_records,
    write_kafka_directory,
    write_metadata_log,
)
from tests.unit.log_tools.partition_files import (
    TOPIC_ID,
    active_segment,
    legacy_message,
    legacy_wrapper,
    one_batch,
    write_partition,
)
from tests.unit.storage.log_fixture import batch, config, environment, read_all

OTHER_ID = bytes(range(1, 17))


@pytest.fixture
def source(tmp_path):
    return write_kafka_directory(tmp_path / "kafka")


@pytest.fixture
def target(tmp_path):
    return tmp_path / "data"


def run_import(target: Path, *sources: Path, **wishes: object) -> ImportReport:
    work = LogImport(
        [os.fspath(each) for each in sources],
        os.fspath(target),
        ImportWishes(**wishes),  # type: ignore[arg-type]
        node_id=4,
        entropy=SeededEntropy(1),
    )
    return anyio.run(work.run)


def refusal(target: Path, *sources: Path, **wishes: object) -> str:
    with pytest.raises(ImportRefused) as refused:
        run_import(target, *sources, **wishes)
    assert not (target / METADATA_FILE).exists()
    return str(refused.value)


def read_metadata(target: Path):
    """(image, next producer id)."""

    async def read():
        store = await SqliteStore.open(os.fspath(target / METADATA_FILE), InlineOffload())
        image = await read_image(store, Keys())
        _, entries = await store.list(Keys().producer_ids)
        numbers = [NumberValue.decode(entry.value).number async for entry in entries]
        await store.close()
        return image, numbers[0]

    return anyio.run(read)


def open_imported(target: Path, name: str = "orders-0"):
    key = (name.rpartition("-")[0], int(name.rpartition("-")[2]))
    points = read_offset_checkpoint(
        OsFileSystem(), os.fspath(target / "recovery-point-offset-checkpoint")
    )
    return load_log(
        environment(OsFileSystem()),
        os.fspath(target / name),
        *key,
        config=config(),
        is_clean=False,
        recovery_point=(points or {}).get(key, 0),
    )


def contents(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        os.fspath(path.relative_to(directory)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_topics_settings_and_ids(source, target):
    before = contents(source)
    report = run_import(target, source)
    assert contents(source) == before
    assert [topic.name for topic in report.topics] == ["orders"]
    assert report.notes == []
    image, next_producer_id = read_metadata(target)
    assert image.cluster_id == CLUSTER_ID
    topic = image.topics.get("orders")
    assert (topic.topic_id, len(topic.partitions)) == (TOPIC_ID, 2)
    for partition in topic.partitions:
        assert (partition.leader, partition.replicas, partition.isr) == (4, (4,), (4,))
        assert partition.leader_epoch == 6
    assert image.topic_overrides("orders") == {"retention.ms": "-1"}
    assert image.group_overrides("g") == {"consumer.session.timeout.ms": "50000"}
    assert next_producer_id == 4000
    meta = read_meta_properties(OsFileSystem(), os.fspath(target))
    assert (meta.cluster_id, meta.node_id) == (CLUSTER_ID, 4)


def test_records_keep_their_offsets(source, target):
    run_import(target, source)
    check = DirectoriesCheck([os.fspath(target)])
    check.run()
    assert check.findings.errors == []
    log = open_imported(target)
    assert (log.log_start_offset, log.log_end_offset) == (0, END)
    found = read_all(log)
    assert [offset for offset, _ in found] == list(range(END))
    assert found[3][1] == b"v1" * 20
    assert sorted(log.producer_state.producers) == [7, 8, 9]
    copied = active_segment(target / "orders-0").stat().st_mtime_ns
    assert copied == active_segment(source / "orders-0").stat().st_mtime_ns


def test_a_second_run_does_nothing(source, target):
    run_import(target, source)
    before = contents(target)
    report = run_import(target, source)
    assert (report.topics, report.topics_already_there) == ([], ["orders"])
    after = contents(target)
    assert {name for name in before if before[name] != after.get(name)} <= {METADATA_FILE}


def test_an_interrupted_import_goes_on(source, target, monkeypatch):
    """Dead after every file operation that it makes, one after the other, it is repeated."""
    operations = ("make_directory", "rename", "sync_directory", "remove_tree")
    visited = 0
    while True:
        shutil.rmtree(target, ignore_errors=True)
        count = 0
        died = False

        def dying(name, real, limit=visited):
            def call(self, *arguments, **options):
                nonlocal count, died
                count += 1
                if count > limit:
                    died = True
                    raise OSError(5, "the machine stops")
                return real(self, *arguments, **options)

            return call

        with monkeypatch.context() as patch:
            for name in operations:
                patch.setattr(OsFileSystem, name, dying(name, getattr(OsFileSystem, name)))
            try:
                run_import(target, source)
            except (OSError, DataDirectoryError):
                assert died
        if not died:
            break
        visited += 1
        run_import(target, source)
        image, _ = read_metadata(target)
        assert len(image.topics) == 1
        assert open_imported(target, "orders-1").log_end_offset == END
    assert visited > 10


def test_a_killed_kafka(source, target):
    """No clean shutdown, indexes preallocated, the end torn: as recovery takes it."""
    (source / ".kafka_cleanshutdown").unlink()
    point = encode_offset_checkpoint({("orders", 0): 80})
    (source / "recovery-point-offset-checkpoint").write_bytes(point)
    for suffix in (".index", ".timeindex"):
        with active_segment(source / "orders-0", suffix).open("ab") as file:
            file.write(bytes(10_000))
    with active_segment(source / "orders-0").open("ab") as file:
        file.write(b"\0\0\0\0\0\0\0\x5etorn")
    run_import(target, source)
    assert not active_segment(source / "orders-0", ".index").stat().st_size < 10_000
    assert not (target / "orders-0" / active_segment(source / "orders-0", ".index").name).exists()
    log = open_imported(target)
    assert [offset for offset, _ in read_all(log)] == list(range(END))


def test_the_longest_log_of_the_latest_epoch_is_taken(source, target, tmp_path):
    """Node 2 has fewer records; node 3 has more, but its leader epochs are older."""
    behind = tmp_path / "behind"
    shutil.copytree(source, behind, ignore=shutil.ignore_patterns(METADATA))
    last = active_segment(behind / "orders-0")
    for path in (behind / "orders-0").glob(f"{last.stem}.*"):
        path.unlink()
    (behind / "orders-0" / f"{END:020d}.snapshot").unlink()
    stale = tmp_path / "stale"
    write_partition(stale)
    with active_segment(stale / "orders-0").open("ab") as file:
        file.write(batch(b"never committed", base_offset=END, leader_epoch=2))
    shutil.copytree(source / "orders-0", tmp_path / "newer" / "orders-0")
    epochs = tmp_path / "newer" / "orders-0" / "leader-epoch-checkpoint"
    epochs.write_text("0\n4\n0 0\n1 60\n2 90\n3 94\n")
    for node_id, directory in ((2, behind), (3, stale), (5, tmp_path / "newer")):
        close_directory(directory, node_id=node_id)
    report = run_import(target, behind, stale, source, tmp_path / "newer")
    (topic,) = report.topics
    paths = [partition.replica.path for partition in topic.partitions]
    assert paths[0] == os.fspath(tmp_path / "newer" / "orders-0")
    assert open_imported(target).log_end_offset == END


def test_without_metadata_somebody_must_say_the_settings(source, target):
    shutil.rmtree(source / METADATA)
    text = refusal(target, source)
    assert "--keep-forever" in text and "--topic-config NAME=VALUE" in text
    report = run_import(target, source, keep_forever=True)
    assert report.topics[0].settings == {"retention.ms": "-1"}
    image, next_producer_id = read_metadata(target)
    assert image.topics.get("orders").topic_id == TOPIC_ID
    assert image.topics.get("orders").partitions[0].leader_epoch == 3
    assert next_producer_id == 1_000_010


def test_settings_for_every_topic(source, target):
    wishes = {"topic_config": {"segment.ms": "5", "retention.bytes": "9"}, "keep_forever": True}
    report = run_import(target, source, **wishes)
    assert report.topics[0].settings == {
        "retention.bytes": "-1",
        "retention.ms": "-1",
        "segment.ms": "5",
    }


def test_kafkas_own_topics_keep_their_settings(source, target):
    shutil.rmtree(source / METADATA)
    write_partition(source, "__consumer_offsets", topic_id=OTHER_ID)
    report = run_import(target, source, keep_forever=True)
    assert report.topics[0].name == "__consumer_offsets"
    assert report.topics[0].settings == {
        "cleanup.policy": "compact",
        "compression.type": "producer",
    }


def test_coordinators_find_what_was_committed(source, target):
    """Without metadata, of 7 partitions the two that hold the groups g-0 and g-1."""
    shutil.rmtree(source / METADATA)
    groups = [f"g-{number}" for number in range(12)]
    places = {partition_for(group, 7) for group in groups if partition_for(group, 7) < 5}
    for place in places:
        names = [group for group in groups if partition_for(group, 7) == place]
        records = [
            Record(key=struct.pack(">hh", 2, len(name)) + name.encode(), timestamp=1)
            for name in names
        ]
        one_batch(source / f"__consumer_offsets-{place}" / f"{0:020d}.log", *records)
    assert "no directory holds __consumer_offsets-" in refusal(target, source, keep_forever=True)
    run_import(target, source, keep_forever=True, allow_missing=True)
    image, _ = read_metadata(target)
    assert len(image.topics.get("__consumer_offsets").partitions) == 7


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("retention.sm", "1", "no such topic setting"), ("retention.ms", "long", "retention.ms")],
)
def test_bad_settings(source, target, name, value, text):
    assert text in refusal(target, source, topic_config={name: value})


def test_settings_that_cannot_be_honoured_are_named(source, target):
    write_metadata_log(
        source,
        *topic_records(),
        ConfigRecord(2, "orders", "remote.storage.enable", "true"),
        ConfigRecord(2, "orders", "min.cleanable.dirty.ratio", "0.2"),
        ConfigRecord(2, "orders", "from.the.future", "1"),
        ConfigRecord(4, "", "log.retention.ms", "5"),
    )
    report = run_import(target, source)
    assert report.topics[0].settings == {"min.cleanable.dirty.ratio": "0.2"}
    said = "\n".join(report.notes)
    assert "remote.storage.enable=true is left out" in said
    assert "from.the.future=1 is left out" in said
    assert "dynamic settings of all brokers are not taken over: log.retention.ms=5" in said
    assert "1 topics have no retention.ms of their own" in said


def test_a_partition_that_no_directory_has(source, target):
    write_metadata_log(source, *topic_records(partitions=3))
    assert "no directory holds orders-2" in refusal(target, source)
    report = run_import(target, source, allow_missing=True)
    assert "no directory holds orders-2: they will be empty" in "\n".join(report.notes)
    image, _ = read_metadata(target)
    assert len(image.topics.get("orders").partitions) == 3


def test_what_is_not_taken_over_is_said(source, target):
    write_metadata_log(
        source,
        *topic_records(),
        ConfigRecord(2, "orders", "retention.ms", "1"),
        AccessControlEntryRecord(id=OTHER_ID),
        AccessControlEntryRecord(id=TOPIC_ID),
        RemoveAccessControlEntryRecord(id=OTHER_ID),
        ClientQuotaRecord(key="a", value=1.0),
        UserScramCredentialRecord(name="u"),
        RemoveUserScramCredentialRecord(name="u"),
    )
    assert run_import(target, source).notes == ["not taken over: 1 ACLs, 1 quotas"]


@pytest.mark.parametrize("entry", [b"", b"\0" * 8, b"\0\0\0\1\0\0\0\7", b"\xff" * 8])
def test_an_index_that_is_no_good_does_not_shorten_a_log(source, target, entry):
    active_segment(source / "orders-0", ".index").write_bytes(entry)
    (topic,) = run_import(target, source).topics
    replica = topic.partitions[0].replica
    assert (replica.end.log_end_offset, replica.is_damaged) == (END, False)
    assert open_imported(target).log_end_offset == END


def test_a_copy_that_was_not_in_sync(source, target):
    close_directory(source, node_id=2)
    (note,) = run_import(target, source).notes
    assert "no directory of a broker in sync holds orders-0, orders-1" in note


def test_directories_of_deleted_topics_are_left_out(source, target):
    write_partition(source, "gone", topic_id=OTHER_ID)
    (source / f"orders-5.{'a' * 32}-delete").mkdir()
    report = run_import(target, source)
    assert [topic.name for topic in report.topics] == ["orders"]
    (note,) = report.notes
    assert note.endswith("gone-0 belongs to no topic of the cluster: left out")


def test_some_topics_only(source, target):
    write_partition(source, "other", topic_id=OTHER_ID)
    write_metadata_log(source, *topic_records(), *topic_records("other", OTHER_ID, 1))
    assert "there is no topic unknown" in refusal(target, source, topics=["unknown"])
    run_import(target, source, topics=["other"])
    image, _ = read_metadata(target)
    assert list(image.topics.by_name) == ["other"]
    report = run_import(target, source)
    assert (report.topics_already_there, len(report.topics)) == (["other"], 1)


def test_a_topic_of_the_same_name(source, target, tmp_path):
    run_import(target, source)
    other = tmp_path / "other"
    write_partition(other, topic_id=OTHER_ID)
    write_metadata_log(other, *topic_records("orders", OTHER_ID, 1))
    close_directory(other)
    with pytest.raises(ImportRefused, match="has another topic orders"):
        run_import(target, other)


def test_what_is_no_log_directory(source, target, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no partition" in refusal(target, empty)
    assert "cannot be read: No such file" in refusal(target, tmp_path / "missing")
    assert "cannot be imported into itself" in refusal(source, source)
    stranger = tmp_path / "stranger"
    write_partition(stranger)
    close_directory(stranger)
    properties = stranger / "meta.properties"
    properties.write_text(properties.read_text().replace(CLUSTER_ID, "another"))
    assert "of different clusters" in refusal(target, source, stranger)


def test_a_kafka_that_runs(source, target):
    lock = OsFileSystem().lock(os.fspath(source / ".lock"))
    with pytest.raises(AlreadyLockedError):
        run_import(target, source)
    lock.release()


@pytest.mark.parametrize("magic", [0, 1])
def test_old_message_formats_are_rewritten(source, target, magic):
    directory = source / "orders-1"
    for path in directory.glob("0*"):
        path.unlink()
    (directory / "leader-epoch-checkpoint").unlink()
    first = b"".join(
        legacy_message(magic, number, b"k%d" % number, b"v%d" % number) for number in range(4)
    )
    # Offset 5 was compacted away; the wrapper of three ends at 8.
    path = directory / f"{0:020d}.log"
    path.write_bytes(first + legacy_wrapper(magic, 8, [b"a", b"b", b"c"]))
    (source / "recovery-point-offset-checkpoint").write_bytes(
        encode_offset_checkpoint({("orders", 1): 9})
    )
    report = run_import(target, source)
    assert report.rewritten_segments == 1
    check = DirectoriesCheck([os.fspath(target)])
    check.run()
    assert check.findings.errors == []
    log = open_imported(target, "orders-1")
    assert read_all(log) == [
        *((number, b"v%d" % number) for number in range(4)),
        (6, b"a"),
        (7, b"b"),
        (8, b"c"),
    ]
    assert log.log_end_offset == 9
