"""How a coordinator reads its partition back after start or fail-over."""

from collections.abc import AsyncIterator
from typing import Protocol


class CoordinatorLoader(Protocol):
    """Reads a partition from its log start to its end as it stood when asked."""

    def load(self, topic: str, partition: int) -> AsyncIterator[memoryview]:
        """The partition's record batches in order, each whole (61-byte header first).

        Gives way to other tasks between batches. Raises KafkaError(NOT_LEADER_OR_FOLLOWER) when
        this broker stops leading the partition meanwhile.
        """
        ...
