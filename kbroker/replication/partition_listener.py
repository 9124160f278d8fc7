"""What a partition tells those who follow it, the coordinators above all."""

from typing import Protocol


class PartitionListener(Protocol):
    """Plain calls on the event loop, made in the step that changed the partition."""

    def on_high_watermark_updated(self, offset: int) -> None:
        """Everything below ``offset`` is committed."""
        ...

    def on_failed(self) -> None:
        """The log went offline or this broker does not lead the partition any more."""
        ...

    def on_deleted(self) -> None:
        """The partition and its log are gone."""
        ...
