"""The partition count of a coordinator's topic, told by the ids that its logs hold."""

import struct

import pytest

from kbroker.coordinator.partitioning import partition_for
from kbroker.log_tools.coordinator_partitions import partition_count
from kbroker.log_tools.replica import SourceDirectory, assess
from kbroker.record.record import Record
from tests.unit.log_tools.partition_files import one_batch

TOPIC = "__consumer_offsets"


def key(group: str) -> bytes:
    """Of a committed offset."""
    encoded = group.encode()
    return struct.pack(">hh", 1, len(encoded)) + encoded + struct.pack(">h1si", 1, b"t", 0)


def write(data_dir, groups, count):
    """The partitions that these groups belong to; returns them, assessed."""
    by_partition = {}
    for group in groups:
        by_partition.setdefault(partition_for(group, count), []).append(group)
    for partition, names in by_partition.items():
        records = [Record(key=key(name), value=b"v", timestamp=1) for name in names]
        one_batch(data_dir / f"{TOPIC}-{partition}" / f"{0:020d}.log", *records)
    source = SourceDirectory(str(data_dir))
    return [assess(source, (TOPIC, partition)) for partition in sorted(by_partition)]


@pytest.mark.parametrize("count", [50, 7, 93])
def test_partitions_that_are_not_at_hand_count(tmp_path, count):
    groups = [f"group-{number}" for number in range(200)]
    present = [each for each in groups if partition_for(each, count) < count - 3]
    replicas = write(tmp_path, present, count)
    found = max(replica.key[1] for replica in replicas) + 1
    assert found < count
    assert partition_count(found, replicas) == count


def test_what_is_found_is_believed_where_it_agrees(tmp_path):
    replicas = write(tmp_path, ["a", "b", "c"], 3)
    assert partition_count(3, replicas) == 3
    assert partition_count(12, []) == 12


def test_ids_that_no_count_explains(tmp_path):
    replicas = write(tmp_path, [f"g{n}" for n in range(40)], 5)
    moved = [replica._replace(key=(TOPIC, (replica.key[1] + 1) % 5)) for replica in replicas]
    assert partition_count(5, moved) is None


def test_damaged_and_foreign_records(tmp_path):
    path = tmp_path / f"{TOPIC}-0" / f"{0:020d}.log"
    odd = [Record(key=each, value=b"v", timestamp=1) for each in (None, b"", b"\0\1\0\x09x")]
    one_batch(path, *odd)
    source = SourceDirectory(str(tmp_path))
    assert partition_count(1, [assess(source, (TOPIC, 0))]) == 1
    path.write_bytes(path.read_bytes()[:-1])
    assert partition_count(1, [assess(source, (TOPIC, 0))]) == 1
