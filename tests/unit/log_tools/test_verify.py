"""A sound data directory has no errors; each kind of damage is named, where it is."""

import os
import struct
from pathlib import Path

import anyio
import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import AlreadyLockedError, OsFileSystem
from kbroker.log_tools.import_plan import ImportWishes
from kbroker.log_tools.log_import import LogImport
from kbroker.log_tools.verify import DirectoriesCheck
from kbroker.storage.checkpoints import encode_clean_shutdown, encode_offset_checkpoint
from tests.unit.log_tools.kafka_directory import write_kafka_directory
from tests.unit.log_tools.partition_files import (
    active_segment,
    legacy_message,
    write_partition,
)

FIRST = "00000000000000000000"
META = "version=1\ncluster.id=c\nnode.id=1\ndirectory.id=AAECAwQFBgcICQoLDA0ODw\n"
END = 94


@pytest.fixture
def data_dir(tmp_path):
    """Two partitions of a topic, closed in order."""
    directory = tmp_path / "data"
    for partition in (0, 1):
        write_partition(directory, partition=partition)
    (directory / "meta.properties").write_text(META)
    (directory / ".kafka_cleanshutdown").write_bytes(encode_clean_shutdown(3))
    offsets = {("orders", partition): END for partition in (0, 1)}
    for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
        (directory / name).write_bytes(encode_offset_checkpoint(offsets))
    return directory


def verify(*directories: Path) -> DirectoriesCheck:
    check = DirectoriesCheck([os.fspath(each) for each in directories])
    check.run()
    return check


def errors(*directories: Path) -> list[str]:
    return [str(each) for each in verify(*directories).findings.errors]


def notes(*directories: Path) -> list[str]:
    return [str(each) for each in verify(*directories).findings.notes]


def test_a_sound_directory(data_dir):
    check = verify(data_dir)
    assert (check.findings.errors, check.findings.notes) == ([], [])
    assert (check.partitions, check.segments, check.batches) == (2, 6, 68)
    assert check.bytes == sum(path.stat().st_size for path in data_dir.rglob("*.log"))


def test_nothing_is_written(data_dir):
    def state():
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size) for path in data_dir.rglob("*")
        }

    before = state()
    data_dir.chmod(0o555)
    verify(data_dir)
    assert state() == before


def test_progress_comes_to_the_end(data_dir):
    shown: list[tuple[int, int]] = []
    DirectoriesCheck([os.fspath(data_dir)], lambda *size: shown.append(size)).run()
    assert shown[-1][0] == shown[-1][1] > 0


def test_a_directory_in_use(data_dir):
    lock = OsFileSystem().lock(os.fspath(data_dir / ".lock"))
    with pytest.raises(AlreadyLockedError):
        verify(data_dir)
    lock.release()
    assert errors(data_dir) == []


def test_a_flipped_byte_is_an_error_where_it_is(data_dir):
    path = data_dir / "orders-1" / f"{FIRST}.log"
    data = bytearray(path.read_bytes())
    data[70] ^= 1
    path.write_bytes(data)
    assert errors(data_dir) == [f"{path}: at byte 0: the checksum does not match"]


def test_a_torn_tail_is_an_error_after_a_clean_stop_only(data_dir):
    path = active_segment(data_dir / "orders-0")
    path.write_bytes(path.read_bytes()[:-10])
    found = errors(data_dir)
    assert any("is cut short" in each for each in found)
    assert any("behind its end, 93" in each for each in found)
    (data_dir / ".kafka_cleanshutdown").unlink()
    # Below the recovery point it was synced, so this is no torn tail either.
    assert any("is cut short" in each for each in errors(data_dir))
    point = encode_offset_checkpoint({("orders", 0): 90, ("orders", 1): END})
    (data_dir / "recovery-point-offset-checkpoint").write_bytes(point)
    assert errors(data_dir) == []
    assert any("the next start cuts it off" in each for each in notes(data_dir))


def test_offsets_that_go_back(data_dir):
    path = data_dir / "orders-0" / f"{FIRST}.log"
    data = bytearray(path.read_bytes())
    second = 12 + struct.unpack_from(">i", data, 8)[0]
    struct.pack_into(">q", data, second, 1)
    path.write_bytes(data)
    assert any(f"at byte {second}: offset 1 is below 3" in each for each in errors(data_dir))


def test_segments_that_overlap(data_dir):
    directory = data_dir / "orders-0"
    segment = sorted(directory.glob("*.log"))[1]
    wrong = directory / f"{int(segment.stem) - 1:020d}.log"
    segment.rename(wrong)
    found = errors(data_dir)
    assert any(f"{wrong}: begins below offset" in each for each in found)
    assert any("there is no log file beside it" in each for each in found)


def test_leader_epochs(data_dir):
    path = data_dir / "orders-0" / "leader-epoch-checkpoint"
    path.write_text("0\n3\n0 0\n1 63\n2 90\n")
    assert errors(data_dir) == [
        f"{path}: says that offset 60 has leader epoch 0; the log says 1",
    ]
    path.write_text("0\n1\n0 0\n1 63\n")
    assert errors(data_dir) == [
        f"{path}: is no checkpoint of version 0, is cut short, or does not ascend"
    ]


def test_a_wrong_index(data_dir):
    path = data_dir / "orders-0" / f"{FIRST}.timeindex"
    path.write_bytes(struct.pack(">qI", 999, 5))
    (error,) = errors(data_dir)
    assert "timestamp 999 at offset 5: the largest one up to there is 1001" in error


def test_snapshots(data_dir):
    directory = data_dir / "orders-0"
    snapshot = active_segment(directory, ".snapshot")
    early = directory / f"{10:020d}.snapshot"
    early.write_bytes(snapshot.read_bytes())
    assert any("wrote at or behind offset 10" in each for each in errors(data_dir))
    early.write_bytes(b"junk")
    assert errors(data_dir) == [f"{early}: 4 bytes are too few for a snapshot"]


def test_checkpoints_behind_the_end(data_dir):
    path = data_dir / "replication-offset-checkpoint"
    path.write_bytes(encode_offset_checkpoint({("orders", 0): END + 1}))
    (error,) = errors(data_dir)
    assert "the checkpoint of its high watermark, 95, is behind its end, 94" in error
    path.write_bytes(encode_offset_checkpoint({("orders", 0): 1, ("gone", 5): 1}))
    assert notes(data_dir) == [f"{path}: names gone-5, which has no directory"]
    path.write_bytes(b"0\n9\n")
    assert errors(data_dir) == [f"{path}: is no checkpoint of version 0, or is cut short"]


def test_topic_ids_differ(data_dir):
    path = data_dir / "orders-1" / "partition.metadata"
    path.write_text("version: 0\ntopic_id: BAECAwQFBgcICQoLDA0ODw")
    (error,) = errors(data_dir)
    assert "has topic id BAECAwQFBgcICQoLDA0ODw" in error
    path.write_text("version: 9")
    assert errors(data_dir) == [f"{path}: holds no version 0 and topic id"]


def test_whose_directory(data_dir, tmp_path):
    other = tmp_path / "other"
    write_partition(other, partition=1)
    found = errors(data_dir, other)
    assert found == [
        f"{other / 'meta.properties'}: is missing: it is not known whose data this is",
        f"{other / 'orders-1'}: is in {data_dir} as well",
    ]
    (other / "meta.properties").write_text(META.replace("node.id=1", "node.id=2"))
    assert any("node 2 of cluster c" in each for each in errors(data_dir, other))
    (other / "meta.properties").write_text(META)
    assert any("has the directory id of" in each for each in errors(data_dir, other))
    (other / "meta.properties").write_text("version=7")
    assert any("version 7 is unknown" in each for each in errors(data_dir, other))


def test_strays(data_dir):
    (data_dir / "notes.txt").write_text("x")
    (data_dir / "orders-0" / "core").write_text("x")
    (data_dir / "lost+found").mkdir()
    (data_dir / f"orders-7.{'a' * 32}-delete").mkdir()
    (data_dir / "orders-0" / f"{FIRST}.log.deleted").write_text("x")
    check = verify(data_dir)
    assert check.findings.errors == []
    assert len(check.findings.notes) == 5


def test_partitions_that_the_metadata_does_not_know(tmp_path):
    data_dir = tmp_path / "data"
    source = write_kafka_directory(tmp_path / "kafka")
    work = LogImport(
        [os.fspath(source)],
        os.fspath(data_dir),
        ImportWishes(),
        node_id=1,
        entropy=SeededEntropy(1),
    )
    anyio.run(work.run)
    assert errors(data_dir) == []
    before = {path.name: path.read_bytes() for path in data_dir.glob("metadata.db*")}
    write_partition(data_dir, "orders", 2)
    write_partition(data_dir, "unknown", 0)
    assert [each.partition(": ")[0] for each in errors(data_dir)] == [
        os.fspath(data_dir / "orders-2"),
        os.fspath(data_dir / "unknown-0"),
    ]
    assert {path.name: path.read_bytes() for path in data_dir.glob("metadata.db*")} == before
    for partition in (0, 1, 2):
        metadata = data_dir / f"orders-{partition}" / "partition.metadata"
        metadata.write_text("version: 0\ntopic_id: BAECAwQFBgcICQoLDA0ODw")
    assert any("says AAECAwQFBgcICQoLDA0ODw" in each for each in errors(data_dir))
    (data_dir / "metadata.db").write_bytes(b"no database" * 100)
    assert any("metadata.db: cannot read the metadata store" in each for each in errors(data_dir))


def test_an_import_that_was_not_finished(data_dir):
    (data_dir / "kbroker-import").mkdir()
    (note,) = notes(data_dir)
    assert "an import was not finished" in note


def test_an_old_message_format_is_said_once(data_dir):
    path = data_dir / "old-0" / f"{FIRST}.log"
    path.parent.mkdir()
    path.write_bytes(b"".join(legacy_message(1, n, None, b"v", time=n) for n in range(5)))
    check = verify(data_dir)
    assert check.findings.errors == []
    (said,) = [str(each) for each in check.findings.notes if "format 1" in each.text]
    assert "before 0.11" in said


def test_much_damage_is_counted_and_not_listed(data_dir):
    path = data_dir / "old-0" / f"{FIRST}.log"
    path.parent.mkdir()
    path.write_bytes(b"".join(legacy_message(1, 0, None, b"v") for _ in range(500)))
    check = verify(data_dir)
    assert len(check.findings.errors) == 20
    assert check.findings.error_count == 499


def test_a_report_for_machines(data_dir):
    path = data_dir / "orders-0" / f"{FIRST}.log"
    path.write_bytes(b"x" * 100)
    report = verify(data_dir).report()
    assert report["partitions"] == 2
    assert report["error_count"] == len(report["errors"]) > 0
    assert report["errors"][0]["path"] == os.fspath(path)
