"""Names of partition directories. The rest is tested through the log manager."""

import pytest

from kbroker.storage.log_directory import (
    deleted_directory_name,
    parse_partition_directory_name,
    partition_directory_name,
)


@pytest.mark.parametrize(
    ("topic", "partition"),
    [("topic", 0), ("a.b_c-d", 12), ("x" * 249, 3), ("...", 1), ("-", 0), ("topic-1", 22)],
)
def test_names_of_partitions(topic: str, partition: int) -> None:
    name = partition_directory_name(topic, partition)
    assert parse_partition_directory_name(name) == (topic, partition)


@pytest.mark.parametrize(
    "name",
    ["", "topic", "topic-", "-0", "topic-x", "..-0", ".-0", "a/b-0", "a b-0", "t-0.x-delete"],
)
def test_names_of_something_else(name: str) -> None:
    assert parse_partition_directory_name(name) is None


def test_deleted_names_stay_within_what_a_file_system_takes() -> None:
    assert deleted_directory_name("topic", 3, "ab" * 16) == f"topic-3.{'ab' * 16}-delete"
    long = deleted_directory_name("x" * 249, 12, "ab" * 16)
    assert len(long) == 255
    assert long.endswith(f"x-12.{'ab' * 16}-delete")
