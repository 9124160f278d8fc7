"""What a coordinator knows of the cluster's topics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbroker.metadata.image import MetadataImage


class TopicsView:
    """The topics of the newest image, and a number that grows when they change."""

    __slots__ = ("image", "version")

    def __init__(self) -> None:
        self.image: MetadataImage | None = None
        self.version = 0

    def update(self, image: "MetadataImage", *, topics_changed: bool) -> None:
        """Take the next image over."""
        self.image = image
        if topics_changed:
            self.version += 1

    def topic_id(self, name: str) -> bytes | None:
        """The id of a topic, None when there is none of the name."""
        topic = self.image.topics.get(name) if self.image is not None else None
        return topic.topic_id if topic is not None else None

    def topic_ids(self, names: Iterable[str]) -> frozenset[bytes]:
        """The ids of those that exist."""
        found = (self.topic_id(name) for name in names)
        return frozenset(topic_id for topic_id in found if topic_id is not None)

    def name(self, topic_id: bytes) -> str | None:
        """The name of a topic, None when no topic has the id."""
        topic = self.image.topics.get_by_id(topic_id) if self.image is not None else None
        return topic.name if topic is not None else None

    def partition_count(self, topic_id: bytes) -> int:
        """How many partitions a topic has; 0 when there is no such topic."""
        topic = self.image.topics.get_by_id(topic_id) if self.image is not None else None
        return len(topic.partitions) if topic is not None else 0

    def names(self) -> list[str]:
        """All topics."""
        return list(self.image.topics.by_name) if self.image is not None else []

    def metadata_hash(self, names: Iterable[str]) -> int:
        """A number that changes when one of the topics comes, goes or gets partitions.

        0 when none of them exists. Signed, 64 bits; the value means nothing to anybody else.
        """
        import hashlib  # for groups of KIP-848 only

        digest = hashlib.blake2b(digest_size=8)
        found = False
        for name in sorted(names):
            topic_id = self.topic_id(name)
            if topic_id is None:
                continue
            found = True
            digest.update(topic_id)
            digest.update(self.partition_count(topic_id).to_bytes(4, "big"))
        return int.from_bytes(digest.digest(), "big", signed=True) if found else 0
