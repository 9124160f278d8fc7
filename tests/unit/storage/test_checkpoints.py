"""The small text files: Kafka's bytes, and damaged files that stop nobody."""

import pytest

from kbroker.common.files import write_atomically
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.storage.checkpoints import (
    EpochEntry,
    MetaProperties,
    decode_uuid,
    encode_clean_shutdown,
    encode_leader_epoch_checkpoint,
    encode_offset_checkpoint,
    encode_uuid,
    read_leader_epoch_checkpoint,
    read_meta_properties,
    read_offset_checkpoint,
    read_partition_metadata,
    write_meta_properties,
    write_partition_metadata,
)

UUID = bytes(range(240, 256))
UUID_TEXT = "8PHy8_T19vf4-fr7_P3-_w"


@pytest.fixture
def files() -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.make_directory("/d")
    return files


def write(files: MemoryFileSystem, name: str, data: bytes) -> str:
    write_atomically(files, f"/d/{name}", data)
    return f"/d/{name}"


def test_offsets_by_partition(files: MemoryFileSystem) -> None:
    offsets = {("a-b", 0): 5, ("a-b", 12): 2**62}
    data = encode_offset_checkpoint(offsets)
    assert data == b"0\n2\na-b 0 5\na-b 12 4611686018427387904\n"
    assert read_offset_checkpoint(files, write(files, "o", data)) == offsets
    assert read_offset_checkpoint(files, write(files, "o", b"0\n0\n")) == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0\n",
        b"1\n0\n",
        b"0\n2\na 0 5\n",
        b"0\n1\na 0 5",
        b"0\n1\na 0\n",
        b"0\n1\na 0 x\n",
        b"0\nx\na 0 5\n",
        b"0\n1\na b 0 5\n",
        b"\xff\xfe",
        b"0\n1\n\x00\x00\x00\x00",
    ],
)
def test_an_unreadable_offset_checkpoint_counts_as_missing(
    files: MemoryFileSystem, data: bytes
) -> None:
    assert read_offset_checkpoint(files, write(files, "o", data)) is None
    assert read_offset_checkpoint(files, "/d/none") is None


def test_leader_epochs(files: MemoryFileSystem) -> None:
    entries = [EpochEntry(0, 0), EpochEntry(3, 17)]
    data = encode_leader_epoch_checkpoint(entries)
    assert data == b"0\n2\n0 0\n3 17\n"
    assert read_leader_epoch_checkpoint(files, write(files, "e", data)) == entries


@pytest.mark.parametrize(
    "data", [b"", b"0\n1\n0 x\n", b"0\n2\n1 0\n1 5\n", b"0\n2\n2 0\n1 5\n", b"0\n2\n1 5\n2 4\n"]
)
def test_unreadable_leader_epochs_count_as_missing(files: MemoryFileSystem, data: bytes) -> None:
    assert read_leader_epoch_checkpoint(files, write(files, "e", data)) is None


def test_uuids_are_kafkas_text() -> None:
    assert encode_uuid(UUID) == UUID_TEXT
    assert decode_uuid(UUID_TEXT) == UUID
    with pytest.raises(ValueError, match="uuid"):
        decode_uuid("abcd")


def test_partition_metadata(files: MemoryFileSystem) -> None:
    write_partition_metadata(files, "/d", UUID)
    assert files.read("/d/partition.metadata") == f"version: 0\ntopic_id: {UUID_TEXT}".encode()
    assert read_partition_metadata(files, "/d") == UUID


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"version: 1\ntopic_id: 8PHy8_T19vf4-fr7_P3-_w",
        b"version: 0",
        b"version: 0\ntopic_id: short",
    ],
)
def test_unreadable_partition_metadata_counts_as_missing(
    files: MemoryFileSystem, data: bytes
) -> None:
    assert read_partition_metadata(files, "/d") is None
    write(files, "partition.metadata", data)
    assert read_partition_metadata(files, "/d") is None


def test_meta_properties(files: MemoryFileSystem) -> None:
    assert read_meta_properties(files, "/d") is None
    meta = MetaProperties("cluster", 3, UUID_TEXT)
    write_meta_properties(files, "/d", meta)
    assert files.read("/d/meta.properties").decode().splitlines() == [
        "#",
        "cluster.id=cluster",
        f"directory.id={UUID_TEXT}",
        "node.id=3",
        "version=1",
    ]
    assert read_meta_properties(files, "/d") == meta


def test_meta_properties_of_an_older_kafka(files: MemoryFileSystem) -> None:
    write(files, "meta.properties", b"#\n#Mon Jan 01\nversion=0\nbroker.id=7\ncluster.id=x==\n")
    assert read_meta_properties(files, "/d") == MetaProperties("x==", 7, None)


@pytest.mark.parametrize("data", [b"version=9\n", b"version=1\nnode.id=one\n"])
def test_meta_properties_are_not_guessed_around(files: MemoryFileSystem, data: bytes) -> None:
    write(files, "meta.properties", data)
    with pytest.raises(ValueError, match=r"meta\.properties"):
        read_meta_properties(files, "/d")


def test_the_clean_shutdown_marker_is_kafkas() -> None:
    assert encode_clean_shutdown(17) == b'{"version":0,"brokerEpoch":17}'
