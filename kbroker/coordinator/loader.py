"""How a coordinator reads its partition back after start or fail-over."""

from collections.abc import AsyncIterator
from typing import Protocol


class CoordinatorLoader(Protocol):
    """Reads a partition from its log start to its end as it stood when asked."""

    def is_empty(self, topic: str, partition: int) -> bool:
        """True when the partition's log holds no batch: the shard is ready without loading.

        Partitions of a topic that has just been created are; so the first request of a new
        group need not be told that its coordinator is loading.
        """
        ...

    def load(self, topic: str, partition: int) -> AsyncIterator[bytes]:
        """The partition's record batches in order, whole ones, one or many small ones at a time.

        Gives way to other tasks in between. Raises KafkaError(NOT_LEADER_OR_FOLLOWER) when
        this broker stops leading the partition meanwhile.
        """
        ...
