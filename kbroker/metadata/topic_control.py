"""Which keys to write to create, delete and extend topics: Kafka's rules, no input or output.

Follows ReplicationControlManager and ControllerApis of Kafka 4.3: same checks in the same order,
same error codes and texts. The controller writes what is planned here.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from kbroker.common.entropy import Entropy
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.config.topic_config import MIN_INSYNC_REPLICAS, LogConfig, validate_topic_config
from kbroker.metadata.delta import MetadataDelta
from kbroker.metadata.image import BrokerImage, MetadataImage, TopicImage
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.placement import place_replicas
from kbroker.metadata.store import Delete, DeletePrefix, Operation, Put
from kbroker.metadata.topic_ids import new_topic_id
from kbroker.metadata.topic_names import (
    has_collision_characters,
    unify_collision_characters,
    validate_topic_name,
)
from kbroker.metadata.values import (
    PartitionValue,
    TopicValue,
    encode_config,
    encode_topic_id,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

MAX_PARTITIONS_PER_REQUEST: Final = 10_000
MAX_ADDED_PARTITIONS: Final = 100_000
_USE_DEFAULT: Final = -1


class NewTopic(NamedTuple):
    """A topic to create; -1 takes the broker's default; ``assignments`` are (index, node ids)."""

    name: str
    num_partitions: int = _USE_DEFAULT
    replication_factor: int = _USE_DEFAULT
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Sequence[tuple[str, str | None]] = ()


class CreatedTopic(NamedTuple):
    """What became of a NewTopic: an error, or the topic as it is."""

    name: str
    error: KafkaError | None = None
    topic_id: bytes = bytes(16)
    num_partitions: int = -1
    replication_factor: int = -1
    configs: Mapping[str, str] = MappingProxyType({})


class NewPartitions(NamedTuple):
    """Raise a topic's partition count; node ids of each new one, None to place them."""

    name: str
    num_partitions: int
    assignments: Sequence[Sequence[int]] | None = None


class TopicWrite:
    """The keys of one topic: ``early`` has no effect until ``final`` is there."""

    __slots__ = ("early", "final")

    def __init__(self, early: Iterable[Operation] = (), final: Iterable[Operation] = ()) -> None:
        self.early = list(early)
        self.final = list(final)


class TopicControl:
    """Plans changes of topics against an image. Knows which names would collide."""

    def __init__(
        self, keys: Keys, config: ConfigHolder, entropy: Entropy, image: MetadataImage
    ) -> None:
        """``image``: what ``on_metadata`` goes on from."""
        self._keys = keys
        self._config = config
        self._entropy = entropy
        self._collision_names: dict[str, set[str]] = {}
        self._note_names(image.topics.by_name)

    def on_metadata(self, delta: MetadataDelta) -> None:
        """Keeps the names that could collide."""
        for topic in delta.deleted_topics:
            if has_collision_characters(topic.name):
                unified = unify_collision_characters(topic.name)
                names = self._collision_names[unified]
                names.discard(topic.name)
                if not names:
                    del self._collision_names[unified]
        self._note_names(topic.name for topic in delta.created_topics)

    def _note_names(self, names: Iterable[str]) -> None:
        for name in names:
            if has_collision_characters(name):
                unified = unify_collision_characters(name)
                self._collision_names.setdefault(unified, set()).add(name)

    # -- creation

    def plan_creation(
        self, image: MetadataImage, topics: Sequence[NewTopic]
    ) -> tuple[list[TopicWrite], list[CreatedTopic]]:
        """What to write, and what to answer for each topic. Names differ from each other.

        Raises KafkaError(POLICY_VIOLATION) for too many partitions in one request.
        """
        config = self._config.current
        _check_total_partitions(topics, config)
        defaults = config.log_defaults()
        writes: list[TopicWrite] = []
        results: list[CreatedTopic] = []
        for topic in topics:
            try:
                write, result = self._plan_topic(image, topic, config, defaults)
                writes.append(write)
            except KafkaError as error:
                result = CreatedTopic(name=topic.name, error=error)
            results.append(result)
        return writes, results

    def _plan_topic(
        self, image: MetadataImage, topic: NewTopic, config: BrokerConfig, defaults: LogConfig
    ) -> tuple[TopicWrite, CreatedTopic]:
        self._check_name(image, topic.name)
        configs = _checked_configs(topic, defaults)
        if topic.assignments:
            partitions = _assigned_partitions(image, topic)
        else:
            partitions = self._placed_partitions(image, topic, config)
        min_isr = int(configs.get(MIN_INSYNC_REPLICAS, defaults.min_insync_replicas))
        topic_id = new_topic_id(self._entropy)
        keys = self._keys
        write = TopicWrite()
        write.early += self._partition_puts(image, topic_id, 0, partitions, min_isr)
        value = TopicValue(name=topic.name, partitions=len(partitions))
        write.final += (
            Put(keys.topic_name(topic.name), encode_topic_id(topic_id)),
            Put(keys.topic_id(topic_id), value.encode()),
        )
        if configs:
            config_key = keys.config(ConfigResourceType.TOPIC, topic.name)
            write.final.append(Put(config_key, encode_config(configs)))
        return write, CreatedTopic(
            name=topic.name,
            topic_id=topic_id,
            num_partitions=len(partitions),
            replication_factor=len(partitions[0]),
            configs=configs,
        )

    def _check_name(self, image: MetadataImage, name: str) -> None:
        if image.topics.get(name) is not None:  # tells more than that its name collides
            raise KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS, f"Topic '{name}' already exists.")
        validate_topic_name(name)
        if has_collision_characters(name):
            existing = self._collision_names.get(unify_collision_characters(name))
            if existing:
                raise KafkaError(
                    ErrorCode.INVALID_TOPIC_EXCEPTION,
                    f"Topic '{name}' collides with existing topic: {min(existing)}",
                )

    def _placed_partitions(
        self, image: MetadataImage, topic: NewTopic, config: BrokerConfig
    ) -> list[tuple[int, ...]]:
        count, factor = topic.num_partitions, topic.replication_factor
        if factor < _USE_DEFAULT or factor == 0:
            raise KafkaError(
                ErrorCode.INVALID_REPLICATION_FACTOR,
                "Replication factor must be larger than 0, or -1 to use the default value.",
            )
        if count < _USE_DEFAULT or count == 0:
            raise KafkaError(
                ErrorCode.INVALID_PARTITIONS,
                "Number of partitions was set to an invalid non-positive value.",
            )
        if factor == _USE_DEFAULT:
            factor = config.default_replication_factor
        try:
            return place_replicas(
                image.brokers.values(),
                partitions=config.num_partitions if count == _USE_DEFAULT else count,
                replication_factor=factor,
                entropy=self._entropy,
            )
        except KafkaError as error:
            raise KafkaError(
                error.error_code,
                f"Unable to replicate the partition {factor} time(s): {error.message}",
            ) from None

    def _partition_puts(
        self,
        image: MetadataImage,
        topic_id: bytes,
        first: int,
        partitions: Iterable[tuple[int, ...]],
        min_isr: int,
    ) -> list[Operation]:
        live = _live(image)
        puts: list[Operation] = []
        for index, replicas in enumerate(partitions, first):
            isr = tuple(node for node in replicas if node in live)
            value = PartitionValue(
                leader=isr[0], leader_epoch=0, replicas=replicas, isr=isr, min_isr=min_isr
            )
            puts.append(Put(self._keys.partition(topic_id, index), value.encode()))
        return puts

    # -- deletion

    def plan_deletion(self, topics: Iterable[TopicImage]) -> list[TopicWrite]:
        """What to write so that the topics and all that belongs to them are gone."""
        keys = self._keys
        return [
            TopicWrite(
                final=[
                    Delete(keys.topic_name(topic.name)),
                    Delete(keys.topic_id(topic.topic_id)),
                    DeletePrefix(keys.partitions(topic.topic_id)),
                    Delete(keys.config(ConfigResourceType.TOPIC, topic.name)),
                ]
            )
            for topic in topics
        ]

    # -- more partitions

    def plan_partitions(
        self, image: MetadataImage, requests: Sequence[NewPartitions]
    ) -> tuple[list[TopicWrite], list[tuple[str, KafkaError | None]]]:
        """What to write, and (name, error) for each topic. Names differ from each other."""
        writes: list[TopicWrite] = []
        results: list[tuple[str, KafkaError | None]] = []
        planned = 0
        for request in requests:
            error: KafkaError | None = None
            try:
                write = self._plan_more(image, request, MAX_ADDED_PARTITIONS - planned)
                planned += len(write.early)
                writes.append(write)
            except KafkaError as problem:
                error = problem
            results.append((request.name, error))
        return writes, results

    def _plan_more(self, image: MetadataImage, request: NewPartitions, allowed: int) -> TopicWrite:
        topic = image.topics.get(request.name)
        if topic is None:
            raise KafkaError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
        present = len(topic.partitions)
        if request.num_partitions == present:
            raise KafkaError(
                ErrorCode.INVALID_PARTITIONS, f"Topic already has {present} partition(s)."
            )
        if request.num_partitions < present:
            raise KafkaError(
                ErrorCode.INVALID_PARTITIONS,
                f"The topic {request.name} currently has {present} partition(s); "
                f"{request.num_partitions} would not be an increase.",
            )
        additional = request.num_partitions - present
        factor = len(topic.partitions[0].replicas)
        if request.assignments is not None:
            if len(request.assignments) != additional:
                raise KafkaError(
                    ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                    f"Attempted to add {additional} additional partition(s), but only "
                    f"{len(request.assignments)} assignment(s) were specified.",
                )
            partitions = _checked_assignments(
                image, enumerate(request.assignments, present), factor
            )
        elif additional > allowed:
            # Kafka has no such limit here and dies of the memory that it maps.
            raise _too_many_partitions()
        else:
            partitions = place_replicas(
                image.brokers.values(),
                partitions=additional,
                replication_factor=factor,
                entropy=self._entropy,
            )
        min_isr = topic.partitions[0].min_isr
        puts = self._partition_puts(image, topic.topic_id, present, partitions, min_isr)
        value = TopicValue(
            name=topic.name, partitions=request.num_partitions, generation=topic.generation + 1
        )
        final = Put(self._keys.topic_id(topic.topic_id), value.encode())
        return TopicWrite(early=puts, final=[final])


def _live(image: MetadataImage) -> set[int]:
    return {node for node, broker in image.brokers.items() if not broker.fenced}


def _too_many_partitions() -> KafkaError:
    return KafkaError(
        ErrorCode.POLICY_VIOLATION, "Excessively large number of partitions per request."
    )


def _check_total_partitions(topics: Iterable[NewTopic], config: BrokerConfig) -> None:
    total = 0
    for topic in topics:
        if topic.assignments:
            total += len(topic.assignments)
        elif topic.num_partitions == _USE_DEFAULT:
            total += config.num_partitions
        elif topic.num_partitions > 0:
            total += topic.num_partitions
        if total > MAX_PARTITIONS_PER_REQUEST:
            raise _too_many_partitions()


def _checked_configs(topic: NewTopic, defaults: LogConfig) -> dict[str, str]:
    without_value = [name for name, value in topic.configs if value is None]
    if without_value:
        raise KafkaError(
            ErrorCode.INVALID_CONFIG,
            f"Null value not supported for topic configs: {','.join(without_value)}",
        )
    configs = {name: value for name, value in topic.configs if value is not None}
    if configs:
        validate_topic_config(configs, defaults)
    return configs


def _assigned_partitions(image: MetadataImage, topic: NewTopic) -> list[tuple[int, ...]]:
    """Replicas by partition index, from a manual assignment."""
    if topic.replication_factor != _USE_DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, "
            "but replication factor was not set to -1.",
        )
    if topic.num_partitions != _USE_DEFAULT:
        raise KafkaError(
            ErrorCode.INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        )
    by_index: dict[int, tuple[int, ...]] = {}
    factor: int | None = None
    for index, node_ids in topic.assignments:
        if index in by_index:
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                f"Found multiple manual partition assignments for partition {index}",
            )
        (by_index[index],) = _checked_assignments(image, [(index, node_ids)], factor)
        factor = len(node_ids)
    if any(index not in by_index for index in range(len(by_index))):
        raise KafkaError(
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "partitions should be a consecutive 0-based integer sequence",
        )
    return [by_index[index] for index in range(len(by_index))]


def _checked_assignments(
    image: MetadataImage, assignments: Iterable[tuple[int, Sequence[int]]], factor: int | None
) -> list[tuple[int, ...]]:
    checked = []
    for index, node_ids in assignments:
        _check_manual_assignment(image.brokers, node_ids, factor)
        if not any(not image.brokers[node].fenced for node in node_ids):
            raise KafkaError(
                ErrorCode.INVALID_REPLICA_ASSIGNMENT,
                "All brokers specified in the manual partition assignment for partition "
                f"{index} are fenced or in controlled shutdown.",
            )
        checked.append(tuple(node_ids))
    return checked


def _check_manual_assignment(
    brokers: Mapping[int, BrokerImage], node_ids: Sequence[int], factor: int | None
) -> None:
    def problem(what: str) -> KafkaError:
        text = f"The manual partition assignment includes {what}"
        return KafkaError(ErrorCode.INVALID_REPLICA_ASSIGNMENT, text)

    if not node_ids:
        raise problem("an empty replica list.")
    previous = None
    for node_id in sorted(node_ids):
        if node_id not in brokers:
            raise problem(f"broker {node_id}, but no such broker is registered.")
        if node_id == previous:
            raise problem(f"the broker {node_id} more than once.")
        previous = node_id
    if factor is not None and len(node_ids) != factor:
        raise problem(
            f"a partition with {len(node_ids)} replica(s), but this is not consistent with "
            f"previous partitions, which have {factor} replica(s)."
        )
