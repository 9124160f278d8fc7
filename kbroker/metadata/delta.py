"""What changed between two images, and how the store's events make the next one."""

from collections.abc import Iterable, Mapping

from kbroker.common.named_tuple import NamedTuple
from kbroker.metadata.image import (
    BrokerImage,
    MetadataImage,
    TopicImage,
    TopicsImage,
)
from kbroker.metadata.keys import Keys, parse_config, parse_partition
from kbroker.metadata.store import Entry, Event
from kbroker.metadata.topic_names import is_internal
from kbroker.metadata.values import (
    BadValue,
    MetaValue,
    NumberValue,
    PartitionValue,
    RegistrationValue,
    TopicValue,
    decode_config,
)


class PartitionChange(NamedTuple):
    """One partition of a topic that existed before; ``old`` is None when the partition is new."""

    topic: TopicImage
    partition: int
    old: PartitionValue | None
    new: PartitionValue


class MetadataDelta:
    """Changes in the order to act on them: deletions, creations, partitions, settings.

    The partitions of a created topic are in ``created_topics`` only. A topic that was deleted and
    made again under its name is in both lists, with two ids.
    """

    __slots__ = (
        "changed_brokers",
        "changed_configs",
        "changed_partitions",
        "created_topics",
        "deleted_topics",
    )

    def __init__(self) -> None:
        self.deleted_topics: list[TopicImage] = []
        self.created_topics: list[TopicImage] = []
        self.changed_partitions: list[PartitionChange] = []
        self.changed_configs: list[tuple[int, str]] = []  # (type, name)
        self.changed_brokers: list[int] = []

    def __bool__(self) -> bool:
        return bool(
            self.deleted_topics
            or self.created_topics
            or self.changed_partitions
            or self.changed_configs
            or self.changed_brokers
        )


def difference(old: MetadataImage, new: MetadataImage) -> MetadataDelta:
    """Everything that differs, found by comparing: after a gap in the stream of events."""
    delta = MetadataDelta()
    for topic_id, topic in old.topics.by_id.items():
        if topic_id not in new.topics.by_id:
            delta.deleted_topics.append(topic)
    for topic_id, topic in new.topics.by_id.items():
        before = old.topics.get_by_id(topic_id)
        if before is None:
            delta.created_topics.append(topic)
        elif before is not topic:
            _compare_partitions(before, topic, delta)
    for resource in old.configs.keys() | new.configs.keys():
        if old.configs.get(resource) != new.configs.get(resource):
            delta.changed_configs.append(resource)
    for node_id in old.brokers.keys() | new.brokers.keys():
        if old.brokers.get(node_id) != new.brokers.get(node_id):
            delta.changed_brokers.append(node_id)
    return delta


def _compare_partitions(before: TopicImage, topic: TopicImage, delta: MetadataDelta) -> None:
    for index, partition in enumerate(topic.partitions):
        old = before.partitions[index] if index < len(before.partitions) else None
        if old is None or old.mod_revision != partition.mod_revision:
            delta.changed_partitions.append(PartitionChange(topic, index, old, partition))


class ImageBuilder:
    """Applies the store's events, revision by revision, to the image.

    Holds partitions whose topic does not count them yet: they are written before the key that
    makes them exist.
    """

    def __init__(self, keys: Keys, image: MetadataImage) -> None:
        self._keys = keys
        self.image = image
        self._early: dict[bytes, dict[int, PartitionValue]] = {}

    def load(self, entries: Iterable[Entry], revision: int) -> MetadataDelta:
        """The first image, from everything there is."""
        return self.apply([Event(entry.key, entry) for entry in entries], revision)

    def apply(self, events: Iterable[Event], revision: int) -> MetadataDelta:
        """Make ``self.image`` the image at ``revision``; returns what changed."""
        changes = _Changes()
        for event in events:
            kind, rest = self._keys.split(event.key)
            collect = _COLLECTORS.get(kind)
            if collect is not None:
                collect(changes, rest, event.entry)
        delta = MetadataDelta()
        image = self.image
        fields = changes.fields
        topics = self._next_topics(image.topics, changes, delta)
        if topics is not image.topics:
            fields["topics"] = topics
        if changes.registrations or changes.admissions:
            fields["brokers"] = _next_brokers(image, changes, delta)
        if changes.configs:
            configs = dict(image.configs)
            for resource, entry in changes.configs.items():
                if entry is not None:
                    configs[resource] = decode_config(entry.value)
                else:
                    configs.pop(resource, None)
                delta.changed_configs.append(resource)
            fields["configs"] = configs
        self.image = _replace(image, revision, fields)
        return delta

    def _next_topics(
        self, topics: TopicsImage, changes: "_Changes", delta: MetadataDelta
    ) -> TopicsImage:
        touched = {**changes.topics, **changes.partitions}  # in the order of the events
        if not touched:
            return topics
        by_name, by_id = dict(topics.by_name), dict(topics.by_id)
        for topic_id in touched:
            old = by_id.get(topic_id)
            new = self._next_topic(topic_id, old, changes)
            if new is old:
                continue
            if new is None:
                assert old is not None
                del by_id[topic_id]
                if by_name[old.name] is old:
                    del by_name[old.name]
                delta.deleted_topics.append(old)
                continue
            by_id[topic_id] = by_name[new.name] = new
            if old is None:
                delta.created_topics.append(new)
            else:
                _compare_partitions(old, new, delta)
        return TopicsImage(by_name, by_id)

    def _next_topic(
        self, topic_id: bytes, old: TopicImage | None, changes: "_Changes"
    ) -> TopicImage | None:
        partitions = changes.partitions.get(topic_id, {})
        entry = changes.topics.get(topic_id)
        if old is None and entry is not None and topic_id not in self._early:
            whole = _whole_topic(topic_id, entry, partitions)
            if whole is not None:
                return whole
        removed = topic_id in changes.topics and changes.topics[topic_id] is None
        if removed:
            self._early.pop(topic_id, None)
            return None
        early = self._early.setdefault(topic_id, {})
        early.update((i, p) for i, p in partitions.items() if p is not None)
        for index, partition in partitions.items():
            if partition is None:
                early.pop(index, None)
        if entry is None and old is None:
            if not early:
                del self._early[topic_id]
            return None
        topic = self._merge(topic_id, old, entry, early)
        if not early:
            del self._early[topic_id]
        return topic

    def _merge(
        self,
        topic_id: bytes,
        old: TopicImage | None,
        entry: Entry | None,
        early: dict[int, PartitionValue],
    ) -> TopicImage:
        """``old`` with the topic's new value, if any, and the partitions that it counts."""
        if entry is not None:
            value = TopicValue.decode(entry.value)
            name, count, generation = value.name, value.partitions, value.generation
            mod_revision = entry.mod_revision
        else:
            assert old is not None
            name, count, generation = old.name, len(old.partitions), old.generation
            mod_revision = old.mod_revision
        known = old.partitions if old is not None else ()
        merged = []
        for index in range(count):
            partition = early.pop(index, None)
            if partition is None:
                if index >= len(known):
                    raise BadValue(f"topic {name} counts {count} partitions, {index} is missing")
                partition = known[index]
            merged.append(partition)
        if old is not None and entry is None and all(map(_same, merged, known)):
            return old
        return TopicImage(
            name,
            topic_id,
            merged,
            is_internal=is_internal(name),
            generation=generation,
            mod_revision=mod_revision,
        )


def _whole_topic(
    topic_id: bytes, entry: Entry, partitions: Mapping[int, PartitionValue | None]
) -> TopicImage | None:
    """A topic that came with all its partitions, as nearly every one does."""
    value = TopicValue.decode(entry.value)
    if len(partitions) != value.partitions:
        return None
    merged = []
    for index in range(value.partitions):
        partition = partitions.get(index)
        if partition is None:
            return None
        merged.append(partition)
    return TopicImage(
        value.name,
        topic_id,
        merged,
        is_internal=is_internal(value.name),
        generation=value.generation,
        mod_revision=entry.mod_revision,
    )


def _same(one: PartitionValue, other: PartitionValue) -> bool:
    return one is other


def _replace(image: MetadataImage, revision: int, fields: dict[str, object]) -> MetadataImage:
    values = {
        "cluster_id": image.cluster_id,
        "incarnation": image.incarnation,
        "brokers": image.brokers,
        "controller_id": image.controller_id,
        "controller_epoch": image.controller_epoch,
        "topics": image.topics,
        "configs": image.configs,
        **fields,
    }
    return MetadataImage(revision=revision, **values)  # type: ignore[arg-type]


class _Changes:
    """Events of one revision, sorted by what they are about; None stands for a removed key."""

    __slots__ = (
        "admissions",
        "configs",
        "fields",
        "last_partition",
        "partitions",
        "registrations",
        "topics",
    )

    def __init__(self) -> None:
        self.last_partition: tuple[Entry, PartitionValue] | None = None
        self.fields: dict[str, object] = {}
        self.topics: dict[bytes, Entry | None] = {}
        self.partitions: dict[bytes, dict[int, PartitionValue | None]] = {}
        self.registrations: dict[int, Entry | None] = {}
        self.admissions: dict[int, Entry | None] = {}
        self.configs: dict[tuple[int, str], Entry | None] = {}

    def meta(self, rest: bytes, entry: Entry | None) -> None:
        if entry is not None:
            value = MetaValue.decode(entry.value)
            self.fields["cluster_id"] = value.cluster_id
            self.fields["incarnation"] = value.incarnation

    def controller(self, rest: bytes, entry: Entry | None) -> None:
        self.fields["controller_id"] = -1
        self.fields["controller_epoch"] = -1
        if entry is not None:
            self.fields["controller_id"] = NumberValue.decode(entry.value).number
            self.fields["controller_epoch"] = entry.create_revision

    def registration(self, rest: bytes, entry: Entry | None) -> None:
        self.registrations[int(rest)] = entry

    def admission(self, rest: bytes, entry: Entry | None) -> None:
        self.admissions[int(rest)] = entry

    def topic(self, rest: bytes, entry: Entry | None) -> None:
        self.topics[bytes.fromhex(rest.decode())] = entry

    def partition(self, rest: bytes, entry: Entry | None) -> None:
        topic_id, index = parse_partition(rest)
        partition = None
        if entry is not None:
            partition = self._decoded(entry)
        self.partitions.setdefault(topic_id, {})[index] = partition

    def _decoded(self, entry: Entry) -> PartitionValue:
        """Partitions that are made and led together are equal: one object for all of them."""
        if self.last_partition is not None:
            last, partition = self.last_partition
            if (
                last.value == entry.value
                and last.version == entry.version
                and last.mod_revision == entry.mod_revision
            ):
                return partition
        partition = PartitionValue.decode(entry.value)
        partition.partition_epoch = entry.version
        partition.mod_revision = entry.mod_revision
        self.last_partition = entry, partition
        return partition

    def config(self, rest: bytes, entry: Entry | None) -> None:
        self.configs[parse_config(rest)] = entry


_COLLECTORS = {
    b"meta": _Changes.meta,
    b"controller": _Changes.controller,
    b"b/reg": _Changes.registration,
    b"b/act": _Changes.admission,
    b"ti": _Changes.topic,
    b"p": _Changes.partition,
    b"cfg": _Changes.config,
}


def _next_brokers(
    image: MetadataImage, changes: _Changes, delta: MetadataDelta
) -> dict[int, BrokerImage]:
    """Registrations and admissions together: a broker is fenced until its epoch is admitted."""
    brokers = dict(image.brokers)
    for node_id, entry in changes.registrations.items():
        delta.changed_brokers.append(node_id)
        if entry is None:
            brokers.pop(node_id, None)
            continue
        value = RegistrationValue.decode(entry.value)
        old = brokers.get(node_id)
        brokers[node_id] = BrokerImage(
            node_id=node_id,
            epoch=entry.create_revision,
            endpoints=value.endpoints,
            rack=value.rack,
            incarnation=value.incarnation,
            fenced=old is None or old.epoch != entry.create_revision or old.fenced,
        )
    for node_id, entry in changes.admissions.items():
        broker = brokers.get(node_id)
        if broker is None:
            continue
        admitted = entry is not None and NumberValue.decode(entry.value).number == broker.epoch
        if broker.fenced == admitted:
            brokers[node_id] = BrokerImage(
                node_id=node_id,
                epoch=broker.epoch,
                endpoints=broker.endpoints,
                rack=broker.rack,
                incarnation=broker.incarnation,
                fenced=not admitted,
            )
            delta.changed_brokers.append(node_id)
    return brokers
