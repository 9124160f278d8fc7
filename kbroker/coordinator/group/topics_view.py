"""What a coordinator knows of the cluster's topics."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kbroker.metadata.image import MetadataImage


class TopicsView:
    """The topics of the newest image, and a number that grows when they change."""

    __slots__ = ("_digests", "image", "new_topics_version", "version")

    def __init__(self) -> None:
        self.image: MetadataImage | None = None
        self.version = 0
        self.new_topics_version = 0
        """The version at which topics were created last: expressions may match more since."""
        self._digests: dict[str, bytes] = {}

    def update(
        self, image: "MetadataImage", *, topics_changed: bool, topics_created: bool = False
    ) -> None:
        """Take the next image over."""
        self.image = image
        if topics_changed:
            self.version += 1
            self._digests.clear()
        if topics_created:
            self.new_topics_version = self.version

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
        """A number that changes when one of the topics comes, goes, gets partitions or has
        replicas in other racks.

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
            one = self._digests.get(name)
            if one is None:
                one = self._digests[name] = self._digest(topic_id)
            digest.update(one)
        return int.from_bytes(digest.digest(), "big", signed=True) if found else 0

    def _digest(self, topic_id: bytes) -> bytes:
        """What is hashed of a topic that exists: its id, partitions and, where brokers have any,
        the racks of every partition."""
        assert self.image is not None
        topic = self.image.topics.get_by_id(topic_id)
        assert topic is not None
        racks = {broker_id: broker.rack for broker_id, broker in self.image.brokers.items()}
        parts = [topic_id, len(topic.partitions).to_bytes(4, "big")]
        if any(racks.values()):
            for partition in topic.partitions:
                names = sorted(rack for node in partition.replicas if (rack := racks.get(node)))
                parts.append("\0".join([str(len(names)), *names]).encode())
        return b"".join(parts)
