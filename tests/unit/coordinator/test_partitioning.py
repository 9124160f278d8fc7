"""Partitions of keys: values that Java's String.hashCode gives."""

import pytest

from kbroker.coordinator.partitioning import java_string_hash, partition_for


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("a", 97),
        ("hello", 99162322),
        ("polygenelubricants", -(1 << 31)),
        ("é", 233),
        ("日本", 835047),
        ("😀", 0xD83D * 31 + 0xDE00),
    ],
)
def test_hash_is_javas(text: str, expected: int) -> None:
    assert java_string_hash(text) == expected


def test_the_smallest_integer_goes_to_partition_0() -> None:
    assert partition_for("polygenelubricants", 50) == 0


def test_partition_is_absolute_hash_modulo_count() -> None:
    for key in ("group", "another group", "ünïcode", "😀" * 9):
        assert partition_for(key, 50) == abs(java_string_hash(key)) % 50
