"""The order in which Java's HashMap walks text keys, where Kafka's answers depend on it."""

from collections.abc import Iterable

from kbroker.coordinator.partitioning import java_string_hash


def java_hash_order(keys: Iterable[str]) -> list[str]:
    """``keys``, which were added in this order, as iterating a HashMap gives them."""
    listed = list(keys)
    buckets = 16
    while len(listed) > buckets * 3 // 4:
        buckets *= 2

    def bucket(key: str) -> int:
        value = java_string_hash(key) & 0xFFFFFFFF
        return (value ^ value >> 16) & (buckets - 1)

    return sorted(listed, key=bucket)
