"""What Metadata and DescribeTopicPartitions tell about a topic, as KRaftMetadataCache does.

Depends on the listener: a client is told only of brokers that it can reach through the listener it
came by. Partitions are described once and kept with the topic until the topic or the set of brokers
changes; whoever gets the list must not change it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from kbroker.metadata.image import BrokerImage, TopicImage
from kbroker.metadata.values import PartitionValue
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.metadata_response import MetadataResponsePartition

_NO_LEADER: Final = -1
_Brokers = Mapping[int, BrokerImage]


class _Cached:
    """One topic's partitions, described by listener and behaviour, under one set of brokers."""

    __slots__ = ("brokers", "partitions")

    def __init__(self, brokers: _Brokers) -> None:
        self.brokers = brokers
        self.partitions: dict[tuple[str, int], list[MetadataResponsePartition]] = {}


def describe_partitions(
    topic: TopicImage, brokers: _Brokers, listener: str, version: int
) -> list[MetadataResponsePartition]:
    """The partitions as Metadata of this version shows them.

    v0 names only reachable replicas and makes an error of it when some are not; from v6 a leader
    without this listener is LISTENER_NOT_FOUND, before it was LEADER_NOT_AVAILABLE.
    """
    behaviour = 2 if version >= 6 else 1 if version else 0
    cached = topic.view_cache
    if not isinstance(cached, _Cached) or cached.brokers is not brokers:
        topic.view_cache = cached = _Cached(brokers)
    described = cached.partitions.get((listener, behaviour))
    if described is None:
        described = cached.partitions[listener, behaviour] = [
            _describe(index, partition, brokers, listener, behaviour)
            for index, partition in enumerate(topic.partitions)
        ]
    return described


def _describe(
    index: int, partition: PartitionValue, brokers: _Brokers, listener: str, behaviour: int
) -> MetadataResponsePartition:
    replicas, isr = list(partition.replicas), list(partition.isr)
    unreachable = False
    if behaviour == 0:
        replicas = [node for node in replicas if is_reachable(brokers, node, listener)]
        isr = [node for node in isr if is_reachable(brokers, node, listener)]
        unreachable = (len(replicas), len(isr)) != (len(partition.replicas), len(partition.isr))
    described = MetadataResponsePartition(
        partition_index=index,
        leader_id=partition.leader,
        leader_epoch=partition.leader_epoch,
        replica_nodes=replicas,
        isr_nodes=isr,
        offline_replicas=offline_replicas(partition, brokers, listener),
    )
    if not is_reachable(brokers, partition.leader, listener):
        described.leader_id = _NO_LEADER
        if behaviour == 2 and partition.leader in brokers:
            described.error_code = ErrorCode.LISTENER_NOT_FOUND
        else:
            described.error_code = ErrorCode.LEADER_NOT_AVAILABLE
    elif unreachable:
        described.error_code = ErrorCode.REPLICA_NOT_AVAILABLE
    return described


def is_reachable(brokers: _Brokers, node_id: int, listener: str) -> bool:
    """Whether the broker is alive and has this listener."""
    broker = brokers.get(node_id)
    return broker is not None and not broker.fenced and listener in broker.endpoints


def offline_replicas(partition: PartitionValue, brokers: _Brokers, listener: str) -> list[int]:
    """Replicas on brokers that cannot be reached through this listener, or whose disk failed.

    A partition has no leader only while no replica that may lead is there: a disk failed those
    whose broker lives.
    """
    failed = () if partition.leader != _NO_LEADER else (*partition.isr, *partition.elr)
    return [
        node
        for node in partition.replicas
        if node in failed or not is_reachable(brokers, node, listener)
    ]


def alive_brokers(brokers: _Brokers, listener: str) -> Iterable[BrokerImage]:
    """Live brokers that have this listener."""
    return [b for b in brokers.values() if not b.fenced and listener in b.endpoints]
