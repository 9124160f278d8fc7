"""The cluster's metadata at one revision: immutable, shared, read without a lock or an await.

A change makes the next image, which shares everything that did not change. Objects of an image are
never modified; who keeps one keeps a consistent view.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from kbroker.common.named_tuple import NamedTuple
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.values import PartitionValue

_EMPTY: Final[Mapping[Any, Any]] = MappingProxyType({})


class TopicImage:
    """One topic. ``partitions[i]`` is partition i."""

    __slots__ = (
        "generation",
        "is_internal",
        "mod_revision",
        "name",
        "partitions",
        "topic_id",
        "view_cache",
    )

    def __init__(
        self,
        name: str,
        topic_id: bytes,
        partitions: Sequence[PartitionValue],
        *,
        is_internal: bool,
        generation: int = 0,
        mod_revision: int = 0,
    ) -> None:
        self.name = name
        self.topic_id = topic_id
        self.partitions = tuple(partitions)
        self.is_internal = is_internal
        self.generation = generation
        self.mod_revision = mod_revision
        self.view_cache: object = None  # derived, see topic_metadata: what Metadata answers

    def __repr__(self) -> str:
        count = len(self.partitions)
        return f"TopicImage({self.name!r}, {self.topic_id.hex()}, {count} partitions)"


class TopicsImage:
    """All topics, by name and by id."""

    __slots__ = ("by_id", "by_name", "get", "get_by_id")

    def __init__(
        self, by_name: Mapping[str, TopicImage], by_id: Mapping[bytes, TopicImage]
    ) -> None:
        self.by_name = by_name
        self.by_id = by_id
        self.get = by_name.get
        self.get_by_id = by_id.get

    def __len__(self) -> int:
        return len(self.by_name)


_NO_TOPICS: Final = TopicsImage(_EMPTY, _EMPTY)


class BrokerImage(NamedTuple):
    """A registered broker; ``fenced`` until the controller has admitted this registration."""

    node_id: int
    epoch: int
    endpoints: Mapping[str, tuple[str, int]]
    rack: str | None = None
    incarnation: bytes = bytes(16)
    fenced: bool = True


class MetadataImage(NamedTuple):
    """The whole cluster at ``revision``."""

    cluster_id: str = ""
    incarnation: bytes = b""
    revision: int = 0
    brokers: Mapping[int, BrokerImage] = _EMPTY
    controller_id: int = -1
    controller_epoch: int = -1
    topics: TopicsImage = _NO_TOPICS
    configs: Mapping[tuple[int, str], Mapping[str, str]] = _EMPTY

    def overrides(self, resource_type: int, name: str) -> Mapping[str, str]:
        """What was set for one configuration resource; empty when nothing was."""
        return self.configs.get((resource_type, name), _EMPTY)

    def topic_overrides(self, name: str) -> Mapping[str, str]:
        """Settings of a topic of its own."""
        return self.overrides(ConfigResourceType.TOPIC, name)

    def broker_overrides(self, node_id: int) -> Mapping[str, str]:
        """Dynamic settings of one broker."""
        return self.overrides(ConfigResourceType.BROKER, str(node_id))

    def cluster_overrides(self) -> Mapping[str, str]:
        """Dynamic settings of all brokers."""
        return self.overrides(ConfigResourceType.BROKER, "")

    def group_overrides(self, group_id: str) -> Mapping[str, str]:
        """Settings of a group of its own (KIP-848)."""
        return self.overrides(ConfigResourceType.GROUP, group_id)

    def client_metrics_overrides(self, name: str) -> Mapping[str, str]:
        """A client-metrics subscription (KIP-714)."""
        return self.overrides(ConfigResourceType.CLIENT_METRICS, name)


EMPTY_IMAGE: Final = MetadataImage()
