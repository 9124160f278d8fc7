"""The narrow view that a coordinator has of the log it writes to."""

from typing import Protocol


class PartitionListener(Protocol):
    """Told about the partition that backs a shard; plain calls on the event loop."""

    def on_high_watermark_updated(self, topic: str, partition: int, offset: int) -> None:
        """Everything below ``offset`` is committed."""
        ...

    def on_failed(self, topic: str, partition: int) -> None:
        """The log went offline or this broker does not lead the partition any more."""
        ...


class PartitionWriter(Protocol):
    """Appends record batches as the partition's leader."""

    def append(self, topic: str, partition: int, batch: bytearray) -> int:
        """Append one encoded batch whose base offset is 0.

        Returns the offset that the high watermark must reach to commit the batch (its last
        offset + 1). Raises KafkaError (NOT_LEADER_OR_FOLLOWER, KAFKA_STORAGE_ERROR,
        MESSAGE_TOO_LARGE, NOT_ENOUGH_REPLICAS...); nothing is written then.
        """
        ...

    def high_watermark(self, topic: str, partition: int) -> int:
        """The partition's high watermark now."""
        ...

    def max_batch_size(self, topic: str, partition: int) -> int:
        """max.message.bytes of the partition's topic."""
        ...

    def register_listener(
        self, topic: str, partition: int, listener: PartitionListener
    ) -> None: ...

    def deregister_listener(
        self, topic: str, partition: int, listener: PartitionListener
    ) -> None: ...
