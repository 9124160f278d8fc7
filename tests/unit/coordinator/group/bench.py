"""A group coordinator on a log in memory, a clock that stands still, and short ways to call it."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.timer import Timer
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.group.classic_group import ClassicGroup
from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.group_coordinator import GroupCoordinator
from kbroker.coordinator.group.group_records import GroupRecordSerde
from kbroker.coordinator.group.group_shard import GroupCoordinatorShard
from kbroker.metadata.delta import difference
from kbroker.metadata.image import MetadataImage, TopicImage, TopicsImage
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.values import PartitionValue
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    ConsumerGroupHeartbeatResponse,
)
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.join_group_request import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_commit_response import OffsetCommitResponse
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kbroker.protocol.messages.sync_group_request import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse
from kbroker.protocol.wire import ZERO_UUID
from tests.unit.coordinator.memory_log import MemoryLog

T = TypeVar("T")

GROUP = "group"
TOPIC_ID = bytes(range(16))
NONE = ErrorCode.NONE


def subscription(*topics: str) -> bytes:
    """Metadata of a consumer, version 0."""
    parts = [b"\x00\x00", len(topics).to_bytes(4, "big")]
    for topic in topics:
        parts += [len(topic).to_bytes(2, "big"), topic.encode()]
    return b"".join([*parts, b"\xff\xff\xff\xff"])


def topic_id(name: str) -> bytes:
    """The id that a topic of this name has here: the name itself."""
    return name.encode().ljust(16, b"\0")


def now(answer: Answer[T]) -> T:
    """The answer that must be there already."""
    if isinstance(answer, Deferred):
        assert answer.done, "the answer is not there yet"
        return answer.result()
    return answer


def waits(answer: Answer[T]) -> bool:
    """Whether the answer is still to come."""
    return isinstance(answer, Deferred) and not answer.done


class GroupBench:
    """One broker's coordinator with one partition of the offsets topic, elected already."""

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        log: MemoryLog | None = None,
        seed: int = 1,
        faults: Faults = NO_FAULTS,
    ) -> None:
        self.seed = seed
        self.faults = faults
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.log = log or MemoryLog()
        self.config = ConfigHolder(
            BrokerConfig.from_properties({"offsets.topic.num.partitions": "1", **(settings or {})})
        )
        self.coordinator = GroupCoordinator(
            node_id=1,
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            entropy=SeededEntropy(seed),
            writer=self.log,
            loader=self.log,
            log=logging.getLogger("test"),
            faults=faults,
        )
        self.image = MetadataImage()
        self.coordinator.on_elected(0, 0)

    # -- time

    def advance(self, seconds: float) -> None:
        """Let time pass in small steps, timers running."""
        left = seconds
        while left > 1e-9:
            deadline = self.timer.next_deadline()
            step = left
            if deadline is not None:
                step = min(left, max(deadline - self.clock.monotonic(), 0.0))
            self.clock.advance(step)
            left -= step
            self.timer.run_due()
            if step == 0.0 and deadline is not None:
                continue
        self.timer.run_due()

    def settle(self) -> None:
        """Run what is due now."""
        while self.timer.run_due():
            pass

    def load(self, **settings: Any) -> "GroupBench":
        """Another broker that takes the log over: at the same time, with ids of its own."""
        other = GroupBench(log=self.log, seed=self.seed + 1, faults=self.faults, **settings)
        other.clock.advance(self.clock.monotonic())
        other.clock.set_time_ms(self.clock.time_ms())
        other.set_topics(**{t.name: len(t.partitions) for t in self.image.topics.by_name.values()})

        async def run() -> None:
            with anyio.move_on_after(60):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(other.coordinator.run)
                    while other.coordinator._runtime.is_loading(0):
                        await anyio.lowlevel.checkpoint()
                    tasks.cancel_scope.cancel()

        anyio.run(run)
        return other

    # -- the inside

    @property
    def shard(self) -> GroupCoordinatorShard:
        return self.coordinator._runtime.shard(0)

    def group(self, group_id: str = GROUP) -> ClassicGroup:
        group = self.shard.groups[group_id]
        assert isinstance(group, ClassicGroup)
        return group

    def written(self) -> list[tuple[Any, Any]]:
        """All records as messages."""
        serde = GroupRecordSerde()
        return [
            serde.deserialize(record.key or b"", record.value) for record in self.log.records(0)
        ]

    # -- the cluster's topics

    def set_topics(self, **partition_counts: int) -> None:
        """The cluster has these topics, with so many partitions, from now on."""
        before = self.image
        by_name = {
            name: TopicImage(
                name,
                topic_id(name),
                [
                    PartitionValue(leader=1, leader_epoch=0, replicas=(1,), isr=(1,))
                    for _ in range(count)
                ],
                is_internal=False,
            )
            for name, count in partition_counts.items()
        }
        by_id = {topic.topic_id: topic for topic in by_name.values()}
        self.image = MetadataImage(topics=TopicsImage(by_name, by_id))
        self.coordinator.apply(difference(before, self.image), self.image)

    def set_group_config(self, group_id: str = GROUP, **values: str) -> None:
        """Settings of a group of its own, underscores for dots."""
        before = self.image
        configs = {name.replace("_", "."): value for name, value in values.items()}
        self.image = before._replace(configs={(int(ConfigResourceType.GROUP), group_id): configs})
        self.coordinator.apply(difference(before, self.image), self.image)

    # -- KIP-848

    def consumer(
        self,
        member_id: str = "m",
        epoch: int = 0,
        *,
        topics: Iterable[str] | None = (),
        owned: Mapping[str, Iterable[int]] | None = None,
        group_id: str = GROUP,
        instance_id: str | None = None,
        regex: str | None = None,
        rebalance_ms: int = 5_000,
        assignor: str | None = None,
        version: int = 1,
        client_id: str = "client",
    ) -> ConsumerGroupHeartbeatResponse:
        """A heartbeat; one that joins tells everything, others what is given."""
        joins = epoch == 0
        names = None if topics is None or (topics == () and not joins) else list(topics)
        reported = {} if joins and owned is None else owned
        request = ConsumerGroupHeartbeatRequest(
            group_id=group_id,
            member_id=member_id,
            member_epoch=epoch,
            instance_id=instance_id,
            rebalance_timeout_ms=rebalance_ms if joins else -1,
            subscribed_topic_names=names,
            subscribed_topic_regex=regex,
            server_assignor=assignor,
            topic_partitions=None
            if reported is None
            else [TopicPartitions(topic_id(name), list(p)) for name, p in reported.items()],
        )
        return now(
            self.coordinator.requests.consumer_group_heartbeat(
                ClientInfo(client_id, "/127.0.0.1", version), request
            )
        )

    def assigned(self, response: ConsumerGroupHeartbeatResponse) -> dict[str, list[int]] | None:
        """The assignment of an answer by topic name."""
        if response.assignment is None:
            return None
        return {
            entry.topic_id.rstrip(b"\0").decode(): list(entry.partitions)
            for entry in response.assignment.topic_partitions
        }

    def consumer_group(self, group_id: str = GROUP) -> ConsumerGroup:
        """The group, which is one of KIP-848."""
        group = self.shard.groups[group_id]
        assert isinstance(group, ConsumerGroup)
        return group

    # -- requests

    def join(
        self,
        member_id: str = "",
        *,
        group_id: str = GROUP,
        instance_id: str | None = None,
        protocols: Mapping[str, bytes] | None = None,
        protocol_type: str = "consumer",
        session_ms: int = 10_000,
        rebalance_ms: int = 60_000,
        client_id: str = "client",
        version: int = 9,
    ) -> Answer[JoinGroupResponse]:
        if protocols is None:
            protocols = {"range": subscription("topic")}
        request = JoinGroupRequest(
            group_id=group_id,
            session_timeout_ms=session_ms,
            rebalance_timeout_ms=rebalance_ms,
            member_id=member_id,
            group_instance_id=instance_id,
            protocol_type=protocol_type,
            protocols=[
                JoinGroupRequestProtocol(name=name, metadata=metadata)
                for name, metadata in protocols.items()
            ],
        )
        return self.coordinator.requests.join_group(
            ClientInfo(client_id, "/127.0.0.1", version), request
        )

    def join_new(self, **options: Any) -> tuple[str, Answer[JoinGroupResponse]]:
        """A dynamic member that is told its id and comes back with it."""
        told = now(self.join(**options))
        assert told.error_code == ErrorCode.MEMBER_ID_REQUIRED
        return told.member_id, self.join(told.member_id, **options)

    def sync(
        self,
        member_id: str,
        generation_id: int,
        assignments: Mapping[str, bytes] | None = None,
        *,
        group_id: str = GROUP,
        instance_id: str | None = None,
        protocol_type: str | None = None,
        protocol_name: str | None = None,
    ) -> Answer[SyncGroupResponse]:
        return self.coordinator.requests.sync_group(
            SyncGroupRequest(
                group_id=group_id,
                generation_id=generation_id,
                member_id=member_id,
                group_instance_id=instance_id,
                protocol_type=protocol_type,
                protocol_name=protocol_name,
                assignments=[
                    SyncGroupRequestAssignment(member_id=name, assignment=content)
                    for name, content in (assignments or {}).items()
                ],
            )
        )

    def heartbeat(
        self,
        member_id: str,
        generation_id: int,
        *,
        group_id: str = GROUP,
        instance_id: str | None = None,
    ) -> ErrorCode:
        response = now(
            self.coordinator.requests.heartbeat(
                HeartbeatRequest(group_id, generation_id, member_id, instance_id)
            )
        )
        return ErrorCode(response.error_code)

    def leave(self, *members: tuple[str, str | None], group_id: str = GROUP) -> LeaveGroupResponse:
        return now(
            self.coordinator.requests.leave_group(
                LeaveGroupRequest(
                    group_id=group_id,
                    members=[
                        MemberIdentity(member_id=member_id, group_instance_id=instance_id)
                        for member_id, instance_id in members
                    ],
                )
            )
        )

    def commit(
        self,
        offsets: Mapping[int, int],
        *,
        topic: str = "topic",
        topic_id: bytes = TOPIC_ID,
        group_id: str = GROUP,
        member_id: str = "",
        generation_id: int = -1,
        instance_id: str | None = None,
        metadata: str | None = "",
        leader_epoch: int = -1,
        retention_ms: int = -1,
        version: int = 9,
    ) -> Answer[OffsetCommitResponse]:
        return self.coordinator.requests.commit_offsets(
            OffsetCommitRequest(
                group_id=group_id,
                generation_id_or_member_epoch=generation_id,
                member_id=member_id,
                group_instance_id=instance_id,
                retention_time_ms=retention_ms,
                topics=[
                    OffsetCommitRequestTopic(
                        topic,
                        topic_id,
                        [
                            OffsetCommitRequestPartition(index, offset, leader_epoch, metadata)
                            for index, offset in offsets.items()
                        ],
                    )
                ],
            ),
            version,
        )

    def commit_error(self, **options: Any) -> ErrorCode:
        """The error of a commit of one partition."""
        response = now(self.commit({0: 1}, **options))
        return ErrorCode(response.topics[0].partitions[0].error_code)

    def committed(
        self, group_id: str = GROUP, *, require_stable: bool = False
    ) -> dict[tuple[str, int], int]:
        """All committed offsets of a group."""
        response = now(
            self.coordinator.requests.fetch_offsets(
                OffsetFetchRequestGroup(group_id=group_id, topics=None),
                require_stable=require_stable,
            )
        )
        assert response.error_code == NONE
        return {
            (topic.name, partition.partition_index): partition.committed_offset
            for topic in response.topics
            for partition in topic.partitions
        }

    def fetch_one(
        self, index: int, *, topic: str = "topic", topic_id: bytes = ZERO_UUID, **options: Any
    ) -> tuple[int, int, str | None, ErrorCode]:
        """(offset, leader epoch, metadata, error) of one partition."""
        request = OffsetFetchRequestGroup(
            group_id=options.pop("group_id", GROUP),
            topics=[OffsetFetchRequestTopics(topic, topic_id, [index])],
        )
        require_stable = options.pop("require_stable", False)
        response = now(
            self.coordinator.requests.fetch_offsets(
                request, require_stable=require_stable, **options
            )
        )
        (partition,) = response.topics[0].partitions
        return (
            partition.committed_offset,
            partition.committed_leader_epoch,
            partition.metadata,
            ErrorCode(partition.error_code),
        )

    def stable_group(self, count: int = 1, *, group_id: str = GROUP, **options: Any) -> list[str]:
        """A group of ``count`` members in Stable; the member ids, the leader first."""
        answers = [self.join_new(group_id=group_id, **options) for _ in range(count)]
        self.settle()
        for _ in range(100):
            if not waits(answers[0][1]):
                break
            self.advance(0.1)
        members = [member_id for member_id, _ in answers]
        first = now(answers[0][1])
        assert first.leader == members[0]
        syncs = [
            self.sync(
                member_id,
                first.generation_id,
                {m: b"for " + m.encode() for m in members} if member_id == first.leader else None,
                group_id=group_id,
            )
            for member_id in reversed(members)
        ]
        for answer in syncs:
            assert now(answer).error_code == NONE
        return members
