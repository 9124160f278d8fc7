"""What an import will make of log directories: topics, settings, and which copy of each partition.

With a cluster's metadata its topics are what is imported. Without it the directories' names are all
there is, and somebody must say what the topics' settings are to be.
"""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from kbroker.config.config_def import ConfigError
from kbroker.config.topic_config import LogConfig
from kbroker.log_tools.cluster_metadata import (
    ClusterMetadataError,
    KafkaMetadata,
    read_cluster_metadata,
)
from kbroker.log_tools.coordinator_partitions import PLACED_BY_ID, partition_count
from kbroker.log_tools.replica import Key, Replica, SourceDirectory, assess
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.topic_names import (
    CLUSTER_METADATA,
    CONSUMER_OFFSETS,
    INTERNAL_TOPICS,
    SHARE_GROUP_STATE,
    TRANSACTION_STATE,
)
from kbroker.storage.checkpoints import encode_uuid

STAGING_DIRECTORY: Final = "kbroker-import"
"""In the target's data directory: what an import that is not finished has copied."""

_RETENTION_MS: Final = "retention.ms"
_UNKNOWN_PRODUCER_IDS: Final = 1_000_000
"""Without metadata: ids below the largest one seen plus this may have been given to somebody."""

_INTERNAL_SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    CONSUMER_OFFSETS: {"cleanup.policy": "compact", "compression.type": "producer"},
    TRANSACTION_STATE: {"cleanup.policy": "compact", "compression.type": "uncompressed"},
    SHARE_GROUP_STATE: {"cleanup.policy": "delete", "retention.ms": "-1"},
}
"""What Kafka's own topics need where no metadata says it."""


class ImportRefused(Exception):
    """Nothing was done; each line says why and what would help."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


@dataclass(slots=True)
class PlannedPartition:
    """``replica`` is None for a partition that no directory has: it will be empty."""

    index: int
    replica: Replica | None
    leader_epoch: int


@dataclass(slots=True)
class PlannedTopic:
    """``topic_id`` is None where nothing tells it: it gets a new one."""

    name: str
    topic_id: bytes | None
    settings: dict[str, str]
    partitions: list[PlannedPartition] = field(default_factory=list)

    @property
    def is_internal(self) -> bool:
        return self.name in INTERNAL_TOPICS


@dataclass(slots=True)
class ImportPlan:
    """Everything that will be done, and what should be said of it."""

    cluster_id: str | None
    has_metadata: bool
    next_producer_id: int
    topics: list[PlannedTopic] = field(default_factory=list)
    resources: dict[tuple[int, str], dict[str, str]] = field(default_factory=dict)
    """Settings of groups and client metrics."""
    notes: list[str] = field(default_factory=list)

    @property
    def replicas(self) -> Iterator[Replica]:
        """The copies that will be taken."""
        for topic in self.topics:
            for partition in topic.partitions:
                if partition.replica is not None:
                    yield partition.replica


@dataclass(slots=True)
class ImportWishes:
    """What was asked for on the command line."""

    topic_config: Mapping[str, str] = field(default_factory=dict)
    keep_forever: bool = False
    allow_missing: bool = False
    topics: Collection[str] = ()
    """Empty: all of them."""

    @property
    def say_settings(self) -> bool:
        return self.keep_forever or bool(self.topic_config)

    def wants(self, topic: str) -> bool:
        return not self.topics or topic in self.topics


def make_plan(paths: Sequence[str], wishes: ImportWishes) -> ImportPlan:
    """Look at everything that is there. ImportRefused, OSError."""
    _check_settings(wishes)
    sources = _open_sources(paths)
    metadata = _newest_metadata(sources)
    cluster_id = _cluster_id(sources)
    if metadata is None and not wishes.say_settings:
        raise ImportRefused(
            [
                f"none of {', '.join(paths)} holds {CLUSTER_METADATA}-0, so the topics' settings "
                "are not known, and with the default retention what is older than a week would be "
                "deleted: name the controller's directory too, or say --keep-forever or "
                "--topic-config NAME=VALUE"
            ]
        )
    replicas, notes = _assess_all(sources, wishes)
    plan = ImportPlan(
        cluster_id=cluster_id,
        has_metadata=metadata is not None,
        next_producer_id=metadata.next_producer_id if metadata is not None else 0,
        notes=notes,
    )
    if metadata is not None:
        _plan_known(plan, metadata, replicas, wishes)
    else:
        _plan_found(plan, replicas, wishes)
    _check_complete(plan, wishes)
    return plan


def _check_settings(wishes: ImportWishes) -> None:
    problems = []
    for name, text in wishes.topic_config.items():
        row = LogConfig.settings().get(name)
        if row is None:
            problems.append(f"--topic-config {name}: there is no such topic setting")
            continue
        try:
            row.parse(text)
        except ConfigError as error:
            problems.append(f"--topic-config {name}={text}: {error}")
    if problems:
        raise ImportRefused(problems)


def _open_sources(paths: Sequence[str]) -> list[SourceDirectory]:
    sources = []
    problems = []
    for path in paths:
        try:
            source = SourceDirectory(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        except OSError as error:
            problems.append(f"{path} cannot be read: {error.strerror or error}")
            continue
        if not source.partitions:
            problems.append(f"{path} holds no partition: it is no log directory of a Kafka")
        sources.append(source)
    if problems:
        raise ImportRefused(problems)
    return sources


def _cluster_id(sources: Sequence[SourceDirectory]) -> str | None:
    found = {
        source.meta.cluster_id: source.path
        for source in sources
        if source.meta is not None and source.meta.cluster_id is not None
    }
    if len(found) > 1:
        raise ImportRefused(
            ["these are of different clusters: " + ", ".join(sorted(found.values()))]
        )
    return next(iter(found), None)


def _newest_metadata(sources: Sequence[SourceDirectory]) -> KafkaMetadata | None:
    """Of the controllers' copies the one that goes furthest; all have the same history."""
    found = []
    problems = []
    for source in sources:
        path = source.partitions.get((CLUSTER_METADATA, 0))
        if path is None:
            continue
        try:
            found.append(read_cluster_metadata(path))
        except ClusterMetadataError as error:
            problems.append(str(error))
    if problems and not found:
        raise ImportRefused(problems)
    return max(found, key=lambda metadata: metadata.end, default=None)


def _assess_all(
    sources: Sequence[SourceDirectory], wishes: ImportWishes
) -> tuple[dict[Key, list[Replica]], list[str]]:
    """Every copy of every partition, the furthest first."""
    replicas: dict[Key, list[Replica]] = {}
    notes = []
    for source in sources:
        for key in source.partitions:
            if key[0] == CLUSTER_METADATA or not wishes.wants(key[0]):
                continue
            try:
                replicas.setdefault(key, []).append(assess(source, key))
            except OSError as error:
                path = source.partitions[key]
                notes.append(f"{path} cannot be read and is passed over: {error.strerror}")
    for copies in replicas.values():
        copies.sort(key=lambda replica: (not replica.is_damaged, replica.end), reverse=True)
    return replicas, notes


def _plan_known(
    plan: ImportPlan,
    metadata: KafkaMetadata,
    replicas: Mapping[Key, list[Replica]],
    wishes: ImportWishes,
) -> None:
    """The topics are those of the metadata."""
    used: set[str] = set()
    behind: list[str] = []
    unlimited = 0
    for topic in sorted(metadata.topics.values(), key=lambda topic: topic.name):
        if not wishes.wants(topic.name):
            continue
        overrides = metadata.configs.get((ConfigResourceType.TOPIC, topic.name), {})
        planned = PlannedTopic(topic.name, topic.topic_id, _settings(plan, topic.name, overrides))
        _apply_wishes(planned, wishes)
        if not planned.is_internal and _RETENTION_MS not in planned.settings:
            unlimited += planned.settings.get("cleanup.policy") != "compact"
        for index in range(max(topic.partitions, default=-1) + 1):
            copies = [
                replica
                for replica in replicas.get((topic.name, index), [])
                if replica.topic_id in (None, topic.topic_id)
            ]
            known = topic.partitions.get(index)
            planned.partitions.append(
                _plan_partition(index, copies, known.leader_epoch if known else 0)
            )
            used.update(replica.path for replica in copies)
            if copies and known and not known.holders.intersection(map(_node_id, copies)):
                behind.append(copies[0].name)
        plan.topics.append(planned)
    for copies in replicas.values():
        for replica in copies:
            if replica.path not in used:
                plan.notes.append(f"{replica.path} belongs to no topic of the cluster: left out")
    if behind:
        plan.notes.append(
            f"no directory of a broker in sync holds {_some(behind)}: the last committed records "
            "may be missing; name the log directories of the other brokers too"
        )
    if unlimited:
        plan.notes.append(
            f"{unlimited} topics have no retention.ms of their own: kbroker's default will be "
            "theirs, 7 days unless log.retention.ms says otherwise (--keep-forever keeps all)"
        )
    _plan_resources(plan, metadata)


def _node_id(replica: Replica) -> int:
    meta = replica.source.meta
    return -1 if meta is None or meta.node_id is None else meta.node_id


def _plan_resources(plan: ImportPlan, metadata: KafkaMetadata) -> None:
    others = [f"{count} {what}" for what, count in sorted(metadata.others.items()) if count]
    if others:
        plan.notes.append(f"not taken over: {', '.join(others)}")
    kept = (ConfigResourceType.GROUP, ConfigResourceType.CLIENT_METRICS)
    for (kind, name), settings in metadata.configs.items():
        if kind in kept:
            plan.resources[kind, name] = dict(settings)
        elif kind == ConfigResourceType.BROKER and (
            name or set(settings) != {"min.insync.replicas"}
        ):
            whose = f"broker {name}" if name else "all brokers"
            plan.notes.append(
                f"dynamic settings of {whose} are not taken over: "
                + ", ".join(f"{key}={value}" for key, value in sorted(settings.items()))
            )


def _plan_found(
    plan: ImportPlan, replicas: Mapping[Key, list[Replica]], wishes: ImportWishes
) -> None:
    """The topics are those that the directories name."""
    plan.notes.append("no cluster metadata: partition counts are those of the directories found")
    by_topic: dict[str, dict[int, list[Replica]]] = {}
    for (topic, index), copies in replicas.items():
        by_topic.setdefault(topic, {})[index] = copies
    largest = -1
    for name in sorted(by_topic):
        partitions = by_topic[name]
        every = [replica for copies in partitions.values() for replica in copies]
        ids = {replica.topic_id for replica in every if replica.topic_id is not None}
        if len(ids) > 1:
            raise ImportRefused(
                [
                    f"{name} has several topic ids ({', '.join(sorted(map(encode_uuid, ids)))}): "
                    "one topic of this name was deleted and made anew; give the directories of one"
                ]
            )
        settings = dict(_INTERNAL_SETTINGS.get(name, {}))
        planned = PlannedTopic(name, next(iter(ids), None), settings)
        _apply_wishes(planned, wishes)
        count = max(partitions) + 1
        if name in PLACED_BY_ID:
            told = partition_count(count, [copies[0] for copies in partitions.values()])
            if told is None:
                plan.notes.append(
                    f"{name}: no partition count explains where its ids are; with {count}, what "
                    "was committed may not be found"
                )
            count = told or count
        for index in range(count):
            planned.partitions.append(_plan_partition(index, partitions.get(index, []), 0))
        plan.topics.append(planned)
        largest = max([largest, *(replica.largest_producer_id for replica in every)])
    plan.next_producer_id = largest + 1 + _UNKNOWN_PRODUCER_IDS


def _plan_partition(index: int, copies: Sequence[Replica], known_epoch: int) -> PlannedPartition:
    """The next leader's epoch is above all that the cluster and the logs know."""
    replica = copies[0] if copies else None
    latest = max([known_epoch, *(each.end.leader_epoch for each in copies)])
    return PlannedPartition(index, replica, latest + 1)


def _settings(plan: ImportPlan, topic: str, overrides: Mapping[str, str]) -> dict[str, str]:
    """Those that kbroker can honour; of the others it is said that they are left out."""
    kept = {}
    for name, text in sorted(overrides.items()):
        row = LogConfig.settings().get(name)
        try:
            if row is None:
                raise ConfigError("there is no such setting")
            if name == "remote.storage.enable" and text == "true":
                raise ConfigError("there is no tiered storage; only what was on its disks is taken")
            row.parse(text)
        except ConfigError as error:
            plan.notes.append(f"{topic}: {name}={text} is left out: {error}")
            continue
        kept[name] = text
    return kept


def _apply_wishes(topic: PlannedTopic, wishes: ImportWishes) -> None:
    if topic.is_internal:
        return
    topic.settings.update(wishes.topic_config)
    if wishes.keep_forever:
        topic.settings[_RETENTION_MS] = "-1"
        if int(topic.settings.get("retention.bytes", "-1")) >= 0:
            topic.settings["retention.bytes"] = "-1"


def _check_complete(plan: ImportPlan, wishes: ImportWishes) -> None:
    problems = []
    missing = [
        f"{topic.name}-{partition.index}"
        for topic in plan.topics
        for partition in topic.partitions
        if partition.replica is None
    ]
    if missing and not wishes.allow_missing:
        problems.append(
            f"no directory holds {_some(missing)}: name the log directories of the other brokers "
            "too, or say --allow-missing to have these partitions empty"
        )
    elif missing:
        plan.notes.append(f"no directory holds {_some(missing)}: they will be empty")
    damaged = [replica.path for replica in plan.replicas if replica.is_damaged]
    for path in damaged:
        plan.notes.append(f"{path} is damaged: what is behind the damage is not imported")
    unknown = [name for name in wishes.topics if name not in {topic.name for topic in plan.topics}]
    if unknown:
        problems.append(f"there is no topic {', '.join(sorted(unknown))}")
    if problems:
        raise ImportRefused(problems)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:10])
    return shown if len(names) <= 10 else f"{shown} and {len(names) - 10} more"


def is_same_directory(one: str, other: str) -> bool:
    """Whether both name one directory; False when one is not there."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False
