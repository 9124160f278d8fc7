"""A broker's data plane without a broker: real logs in memory, metadata that a test writes."""

import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

from kbroker.broker.adapters import LogLoader, ReplicaWriter
from kbroker.broker.transaction_markers import LocalMarkerWriter
from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.config.topic_config import LogConfig
from kbroker.coordinator.group.group_coordinator import GroupCoordinator
from kbroker.coordinator.transaction.transaction_coordinator import TransactionCoordinator
from kbroker.handlers.services import Services
from kbroker.metadata.delta import difference
from kbroker.metadata.image import (
    EMPTY_IMAGE,
    BrokerImage,
    MetadataImage,
    PartitionValue,
    TopicImage,
    TopicsImage,
)
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.topic_names import is_internal
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from kbroker.replication.fetch_session import FetchSessionCache
from kbroker.replication.partition import Partition
from kbroker.replication.replica_manager import ReplicaManager
from kbroker.request_context import ConnectionContext, RequestContext
from kbroker.storage.log_environment import LogEnvironment
from kbroker.storage.unified_log import UnifiedLog

NODE = 1
NOW_MS = 1_700_000_000_000


class Logs:
    """What the replica manager needs of a LogManager."""

    def __init__(self, env: LogEnvironment) -> None:
        self.env = env
        self.by_partition: dict[tuple[str, int], UnifiedLog] = {}
        self.directories = [SimpleNamespace(path="/data", failure=None)]
        self.moves = SimpleNamespace(get=lambda topic, partition: None)
        self.deleted: list[tuple[str, int]] = []

    def get_or_create_log(
        self,
        topic: str,
        partition: int,
        topic_id: bytes,
        config: LogConfig,
        *,
        may_be_new: bool = True,
    ) -> UnifiedLog:
        key = (topic, partition)
        if key not in self.by_partition:
            directory = f"/data/{topic}-{partition}"
            self.by_partition[key] = UnifiedLog(
                self.env, directory, topic, partition, topic_id=topic_id, config=config
            )
        return self.by_partition[key]

    def forget_offline(self, topic: str) -> None:
        """Nothing of its own is offline."""

    def delete_log(self, topic: str, partition: int) -> None:
        self.deleted.append((topic, partition))
        del self.by_partition[topic, partition]

    @property
    def logs(self) -> Iterator[UnifiedLog]:
        return iter(list(self.by_partition.values()))

    def directory_of(self, topic: str, partition: int) -> SimpleNamespace | None:
        return self.directories[0] if (topic, partition) in self.by_partition else None


class Metadata:
    """The publisher's one attribute that handlers read."""

    def __init__(self) -> None:
        self.image: MetadataImage = EMPTY_IMAGE


class ProducerIds:
    """Hands out 1000, 1001, ...; through a coroutine while ``slow``."""

    def __init__(self) -> None:
        self.next = 1000
        self.slow = False

    def generate(self) -> int | Coroutine[Any, Any, int]:
        producer_id = self.next
        self.next += 1
        return self._later(producer_id) if self.slow else producer_id

    async def _later(self, producer_id: int) -> int:
        return producer_id


class World:
    """One broker, node 1, and the cluster as a test describes it."""

    def __init__(
        self,
        *,
        faults: Faults = NO_FAULTS,
        make_logs: "Callable[[World], Any] | None" = None,
        **settings: str,
    ) -> None:
        """``make_logs`` gives a log manager in place of the simple one."""
        self.clock = ManualClock(monotonic=1000.0, time_ms=NOW_MS)
        self.timer = Timer(self.clock)
        self.entropy = SeededEntropy(7)
        self.offload = InlineOffload()
        self.env = LogEnvironment(MemoryFileSystem(), self.clock, self.entropy)
        self.env.files.make_directory("/data")
        self.logs = cast("Logs", make_logs(self)) if make_logs else Logs(self.env)
        properties = {name.replace("_", "."): value for name, value in settings.items()}
        self.config = ConfigHolder(BrokerConfig.from_properties(properties))
        self.metadata = Metadata()
        self.producer_ids = ProducerIds()
        self.manager = ReplicaManager(
            node_id=NODE,
            log_manager=cast("Any", self.logs),
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            offload=self.offload,
            faults=faults,
        )
        self.sessions = FetchSessionCache(1000, self.clock, self.entropy)
        nothing = cast("Any", None)
        self.services = Services(
            node_id=NODE,
            clock=self.clock,
            timer=self.timer,
            entropy=self.entropy,
            offload=self.offload,
            config=self.config,
            metadata=cast("Any", self.metadata),
            controller=nothing,
            replica_manager=self.manager,
            coordinators=SimpleNamespace(
                transaction=self._transactions(), group=self.group_coordinator
            ),
            fetch_sessions=self.sessions,
            producer_ids=cast("Any", self.producer_ids),
            log=logging.getLogger("kbroker.test"),
            client_metrics=nothing,
        )
        self._revision = 0
        self._ids = 0

    def _transactions(self) -> TransactionCoordinator:
        """A coordinator on this very data plane; it loads nothing."""
        self.group_coordinator = GroupCoordinator(
            node_id=NODE,
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            entropy=self.entropy,
            writer=ReplicaWriter(self.manager),
            loader=LogLoader(self.manager),
            log=logging.getLogger("kbroker.test"),
        )
        self.transactions = TransactionCoordinator(
            node_id=NODE,
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            writer=ReplicaWriter(self.manager),
            loader=LogLoader(self.manager),
            markers=LocalMarkerWriter(self.manager, lambda: self.group_coordinator, self.clock),
            generate_producer_id=self.producer_ids.generate,
            log=logging.getLogger("kbroker.test"),
        )
        return self.transactions

    # Metadata

    def publish(
        self,
        topics: Mapping[str, TopicImage] | None = None,
        configs: Mapping[tuple[int, str], Mapping[str, str]] | None = None,
    ) -> None:
        """Make the next image and let the replica manager act on what changed."""
        old = self.metadata.image
        self._revision += 1
        by_name = dict(old.topics.by_name if topics is None else topics)
        new = MetadataImage(
            cluster_id="test",
            revision=self._revision,
            brokers={
                node: BrokerImage(
                    node_id=node,
                    epoch=node,
                    endpoints={"PLAINTEXT": (f"host{node}", 9090 + node)},
                    fenced=False,
                )
                for node in (1, 2, 3)
            },
            topics=TopicsImage(by_name, {topic.topic_id: topic for topic in by_name.values()}),
            configs=dict(old.configs if configs is None else configs),
        )
        self.metadata.image = new
        delta = difference(old, new)
        self.manager.apply(delta, new)
        self.group_coordinator.apply(delta, new)
        self.transactions.apply(delta, new)

    def topic(
        self,
        name: str = "t",
        partitions: int = 1,
        *,
        leader: int = NODE,
        replicas: Sequence[int] = (NODE,),
        isr: Sequence[int] | None = None,
        leader_epoch: int = 0,
        **configs: str,
    ) -> TopicImage:
        """Create a topic; every partition has the same replicas."""
        self._ids += 1
        topic = TopicImage(
            name,
            self._ids.to_bytes(16, "big"),
            [
                partition_image(leader, replicas, isr, leader_epoch, self._revision + 1)
                for _ in range(partitions)
            ],
            is_internal=is_internal(name),
        )
        settings = {key.replace("_", "."): value for key, value in configs.items()}
        known = dict(self.metadata.image.configs)
        if settings:
            known[ConfigResourceType.TOPIC, name] = settings
        self.publish({**self.metadata.image.topics.by_name, name: topic}, known)
        return topic

    def change_partition(
        self,
        name: str = "t",
        index: int = 0,
        *,
        leader: int = NODE,
        replicas: Sequence[int] = (NODE,),
        isr: Sequence[int] | None = None,
        leader_epoch: int = 1,
    ) -> None:
        """Another leader, ISR or replica set of one partition."""
        old = self.metadata.image.topics.by_name[name]
        partitions = list(old.partitions)
        partitions[index] = partition_image(leader, replicas, isr, leader_epoch, self._revision + 1)
        new = TopicImage(name, old.topic_id, partitions, is_internal=old.is_internal)
        self.publish({**self.metadata.image.topics.by_name, name: new})

    def configure(self, name: str, **configs: str) -> None:
        """Replace the settings of a topic."""
        known = dict(self.metadata.image.configs)
        known[ConfigResourceType.TOPIC, name] = {
            key.replace("_", "."): value for key, value in configs.items()
        }
        self.publish(None, known)

    def delete_topic(self, name: str) -> None:
        """Remove a topic from the metadata."""
        topics = dict(self.metadata.image.topics.by_name)
        del topics[name]
        self.publish(topics)

    # Shortcuts

    def partition(self, name: str = "t", index: int = 0) -> Partition:
        """A partition that must be here."""
        partition = self.manager.get_partition(name, index)
        assert partition is not None
        return partition

    def append(self, *values: bytes, name: str = "t", index: int = 0, timestamp: int = 1000) -> int:
        """Append one batch of these values as a client with acks=1; returns its first offset."""
        partition = self.partition(name, index)
        info = self.manager.leader_append.append_records(
            partition, batch(*values, timestamp=timestamp), 1
        )
        assert not isinstance(info, Coroutine)
        return info.first_offset

    def context(self, api_key: int, version: int, client_id: str | None = "test") -> RequestContext:
        """A request over a connection to this broker."""
        connection = ConnectionContext(connection_id=1, local_host="127.0.0.1", local_port=9092)
        return RequestContext(connection, api_key, version, 1, client_id, self.clock.monotonic())

    def advance(self, seconds: float) -> None:
        """Let time pass and run what is due."""
        self.clock.advance(seconds)
        self.timer.run_due()


def partition_image(
    leader: int,
    replicas: Sequence[int],
    isr: Sequence[int] | None,
    leader_epoch: int,
    revision: int,
) -> PartitionValue:
    """A partition as the metadata has it; everything in sync unless ``isr`` says otherwise."""
    return PartitionValue(
        leader=leader,
        leader_epoch=leader_epoch,
        replicas=tuple(replicas),
        isr=tuple(replicas if isr is None else isr),
        partition_epoch=revision,
        mod_revision=revision,
    )


def batch(
    *values: bytes | None,
    timestamp: int = 1000,
    keys: Sequence[bytes | None] | None = None,
    compression: int = 0,
    producer_id: int = -1,
    producer_epoch: int = -1,
    base_sequence: int = -1,
    transactional: bool = False,
) -> bytearray:
    """A batch as a client sends it."""
    names = keys or [None] * len(values)
    return build_batch(
        [
            Record(key=key, value=value, timestamp=timestamp)
            for key, value in zip(names, values, strict=True)
        ],
        compression=compression,
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        transactional=transactional,
    )


async def finish(answer: Any) -> Any:
    """A handler's answer, awaited when it had to wait."""
    return await answer if isinstance(answer, Coroutine) else answer
