"""Clients of a simulated group that consume and commit: eager, cooperative, and of KIP-848.

Each knows what a real client knows: its member id, its generation or epoch, what it owns and how
far it has read it. An error sends it back to where the protocol says.
"""

import random
from collections.abc import Iterable
from typing import Any, Protocol

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.internal_records.consumer_protocol_assignment import (
    ConsumerProtocolAssignment,
    read_consumer_protocol_assignment,
    write_consumer_protocol_assignment,
)
from kbroker.protocol.internal_records.consumer_protocol_assignment import (
    TopicPartition as AssignedTopic,
)
from kbroker.protocol.internal_records.consumer_protocol_subscription import (
    ConsumerProtocolSubscription,
    read_consumer_protocol_subscription,
    write_consumer_protocol_subscription,
)
from kbroker.protocol.internal_records.consumer_protocol_subscription import (
    TopicPartition as OwnedTopic,
)
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id, waits

TOPIC = "topic"
SESSION_S = 10.0
REBALANCE_S = 12.0
AT_ONCE = 200
VERSION = 1

LOST = frozenset(
    {
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.ILLEGAL_GENERATION,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.GROUP_ID_NOT_FOUND,
    }
)
AGAIN = frozenset({ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR})


class World(Protocol):
    """What clients are in."""

    random: random.Random
    bench: GroupBench
    ends: list[int]

    def committed(self, client: "Client", offsets: dict[int, int], answer: Any) -> None:
        """A commit was sent."""


class Client:
    """What all have in common: ``positions`` of what it owns, None while it is not known."""

    def __init__(self, world: World, name: str, instance_id: str | None) -> None:
        self.world = world
        self.name = name
        self.instance_id = instance_id
        self.alive = True
        self.asleep_until = 0.0
        self.incarnation = 0
        self.positions: dict[int, int | None] = {}

    @property
    def owned(self) -> set[int]:
        return set(self.positions)

    member_id = ""
    epoch = -1

    def act(self) -> None:
        """One turn: the protocol, and some records."""
        self.take_part()
        self.consume()

    def take_part(self) -> None:
        raise NotImplementedError

    def restart(self) -> None:
        """The process starts again; what it knew is gone."""
        self.incarnation += 1
        self.alive = True
        self.lose()

    def lose(self) -> None:
        """The group has given it up: it owns nothing and begins anew."""
        self.positions = {}

    def leave(self) -> None:
        raise NotImplementedError

    def is_member(self) -> bool:
        """Whether it believes to be one, in a generation of its own."""
        return self.epoch > 0

    # -- records

    def consume(self) -> None:
        """Read on, and now and then commit."""
        for partition, position in self.positions.items():
            if position is None:
                position = self.fetch_committed(partition)
                if position is None:
                    continue
            end = self.world.ends[partition]
            self.positions[partition] = min(end, position + AT_ONCE)
        if self.positions and self.is_member() and self.world.random.random() < 0.5:
            self.commit(self.positions)

    def fetch_committed(self, partition: int) -> int | None:
        answer = self.world.bench.coordinator.requests.fetch_offsets(
            _one_partition(partition), require_stable=True
        )
        if waits(answer):
            return None
        response = now(answer)
        if response.error_code != NONE:
            return None
        (found,) = response.topics[0].partitions
        assert found.error_code == NONE
        return max(found.committed_offset, 0)

    def commit(self, partitions: Iterable[int]) -> None:
        offsets = {p: o for p in partitions if (o := self.positions[p]) is not None}
        if offsets:
            answer = self.world.bench.commit(
                offsets,
                topic=TOPIC,
                topic_id=topic_id(TOPIC),
                member_id=self.member_id,
                generation_id=self.epoch,
                instance_id=self.instance_id,
            )
            self.world.committed(self, offsets, answer)

    def take(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self.positions.setdefault(partition, None)

    def give_back(self, partitions: Iterable[int]) -> None:
        """Commits, as clients do from their callback, and lets go."""
        gone = [p for p in partitions if p in self.positions]
        if gone and self.is_member():
            self.commit(gone)
        for partition in gone:
            del self.positions[partition]


class ClassicClient(Client):
    """Joins, syncs, heartbeats. ``is_cooperative`` keeps what it owns over a rebalance."""

    def __init__(
        self, world: World, name: str, instance_id: str | None, *, is_cooperative: bool
    ) -> None:
        super().__init__(world, name, instance_id)
        self.is_cooperative = is_cooperative
        self.joining: Any = None
        self.syncing: Any = None
        self.leads = False
        self.assigned_partitions = 0
        self.heard_s = world.now_s  # of the group, when it last answered without an error

    def lose(self) -> None:
        super().lose()
        self.member_id = ""
        self.epoch = -1
        self.joining = self.syncing = None

    def is_member(self) -> bool:
        return super().is_member() and self.syncing is None

    def take_part(self) -> None:
        """A client that heard nothing for a session knows by itself that the group gave it up.

        One that joins under its old id instead is taken back into a group of both protocols, as by
        Kafka, and what it commits then sets back what the new owners have committed. Who waits in
        JoinGroup is held by the coordinator until it is answered, however long that takes.
        """
        if self.joining is not None and waits(self.joining):
            self.heard_s = self.world.now_s
            return
        silence_s = self.world.now_s - self.heard_s
        if self.owned and self.instance_id is None and silence_s > SESSION_S:
            self.lose()
        if self.joining is not None:
            self.on_joined(now(self.joining))
        elif self.syncing is not None:
            if waits(self.syncing):
                self.heartbeat()  # the session runs meanwhile, unlike in JoinGroup
            else:
                self.on_synced(now(self.syncing))
        elif self.epoch < 0:
            self.join()
        else:
            self.live()

    def join(self) -> None:
        self.joining = self.world.bench.join(
            self.member_id,
            instance_id=self.instance_id,
            protocols={"cooperative" if self.is_cooperative else "range": self.subscription()},
            session_ms=int(SESSION_S * 1000),
            rebalance_ms=int(REBALANCE_S * 1000),
            client_id=self.name,
        )

    def subscription(self) -> bytes:
        owned = [OwnedTopic(TOPIC, sorted(self.owned))] if self.owned else []
        parts: list[Any] = [VERSION.to_bytes(2, "big")]
        message = ConsumerProtocolSubscription(topics=[TOPIC], owned_partitions=owned)
        write_consumer_protocol_subscription(parts, message, VERSION)
        return b"".join(parts)

    def on_joined(self, response: Any) -> None:
        self.joining = None
        error = ErrorCode(response.error_code)
        if error is ErrorCode.MEMBER_ID_REQUIRED:
            self.member_id = response.member_id
        elif error is NONE:
            self.heard_s = self.world.now_s
            self.member_id = response.member_id
            self.epoch = response.generation_id
            self.leads = response.leader == response.member_id
            plan: dict[str, bytes] = {}
            if self.leads and not response.skip_assignment:
                plan = self.assign(response.members)
            self.syncing = self.world.bench.sync(
                self.member_id, self.epoch, plan, instance_id=self.instance_id
            )
        else:
            self.on_error(error)

    def assign(self, members: Any) -> dict[str, bytes]:
        """In turns; a cooperative leader gives nobody what another still owns."""
        count = self.assigned_partitions = len(self.world.ends)
        owners = {
            partition: member.member_id
            for member in members
            for entry in _subscription(member.metadata).owned_partitions
            for partition in entry.partitions
        }
        plan: dict[str, list[int]] = {member.member_id: [] for member in members}
        for partition in range(count):
            wanted = members[partition % len(members)].member_id
            if not self.is_cooperative or owners.get(partition, wanted) == wanted:
                plan[wanted].append(partition)
        return {member_id: _assignment(found) for member_id, found in plan.items()}

    def on_synced(self, response: Any) -> None:
        self.syncing = None
        error = ErrorCode(response.error_code)
        if error is not NONE:
            self.on_error(error)
            return
        self.heard_s = self.world.now_s
        assigned = _assigned(response.assignment)
        gone = self.owned - assigned
        self.give_back(gone)
        self.take(assigned)
        if gone:
            self.epoch = -1  # cooperative: what was given up can be given to others now

    def heartbeat(self) -> ErrorCode:
        answer = self.world.bench.coordinator.requests.heartbeat(
            HeartbeatRequest(GROUP, self.epoch, self.member_id, self.instance_id)
        )
        error = NONE if waits(answer) else ErrorCode(now(answer).error_code)
        if not waits(answer) and error in (NONE, ErrorCode.REBALANCE_IN_PROGRESS):
            self.heard_s = self.world.now_s
        return error

    def live(self) -> None:
        error = self.heartbeat()
        if error is not NONE:
            self.on_error(error)
        elif self.leads and self.assigned_partitions != len(self.world.ends):
            self.rejoin()

    def on_error(self, error: ErrorCode) -> None:
        if error is ErrorCode.FENCED_INSTANCE_ID:
            self.alive = False
        elif error in LOST:
            self.lose()
        elif error is ErrorCode.REBALANCE_IN_PROGRESS:
            self.rejoin()
        else:
            assert error in AGAIN, error
            self.rejoin()

    def rejoin(self) -> None:
        if not self.is_cooperative:
            self.give_back(self.owned)
        self.epoch = -1

    def leave(self) -> None:
        if self.member_id:
            self.world.bench.coordinator.requests.leave_group(
                LeaveGroupRequest(
                    group_id=GROUP, members=[MemberIdentity(self.member_id, self.instance_id)]
                )
            )
        self.lose()


class ConsumerClient(Client):
    """Heartbeats of KIP-848; revokes what it is told to, sometimes late."""

    def __init__(self, world: World, name: str, instance_id: str | None) -> None:
        super().__init__(world, name, instance_id)
        self.lose()

    def lose(self) -> None:
        super().lose()
        self.member_id = f"{self.name}-{self.incarnation}"
        self.epoch = 0
        self.wanted: set[int] | None = None

    def take_part(self) -> None:
        if self.wanted is not None and self.world.random.random() < 0.7:
            self.give_back(self.owned - self.wanted)
        joins = self.epoch == 0
        response = self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=GROUP,
                member_id=self.member_id,
                member_epoch=self.epoch,
                instance_id=self.instance_id,
                rebalance_timeout_ms=int(REBALANCE_S * 1000) if joins else -1,
                subscribed_topic_names=[TOPIC] if joins else None,
                topic_partitions=[TopicPartitions(topic_id(TOPIC), sorted(self.owned))]
                if self.owned
                else [],
            )
        )
        error = NONE if response is None else ErrorCode(response.error_code)
        if response is None or error in AGAIN or error is ErrorCode.UNRELEASED_INSTANCE_ID:
            return
        if error in LOST:
            self.lose()
        elif error is ErrorCode.FENCED_INSTANCE_ID:
            self.alive = False
        else:
            assert error is NONE, (error, response.error_message)
            self.epoch = response.member_epoch
            if response.assignment is not None:
                self.wanted = {
                    partition
                    for topic in response.assignment.topic_partitions
                    for partition in topic.partitions
                }
                self.take(self.wanted)

    def send(self, request: ConsumerGroupHeartbeatRequest) -> Any:
        """The answer; None when it does not come in time."""
        answer = self.world.bench.coordinator.requests.consumer_group_heartbeat(
            ClientInfo(self.name, "/127.0.0.1", 1), request
        )
        if isinstance(answer, Deferred) and not answer.done:
            return None
        return now(answer)

    def leave(self) -> None:
        self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=GROUP,
                member_id=self.member_id,
                member_epoch=-2 if self.instance_id and self.world.random.random() < 0.5 else -1,
                instance_id=self.instance_id,
            )
        )
        self.restart()


def _one_partition(partition: int) -> Any:
    from kbroker.protocol.messages.offset_fetch_request import (
        OffsetFetchRequestGroup,
        OffsetFetchRequestTopics,
    )

    topic = OffsetFetchRequestTopics(TOPIC, topic_id(TOPIC), [partition])
    return OffsetFetchRequestGroup(group_id=GROUP, topics=[topic])


def _subscription(metadata: bytes) -> ConsumerProtocolSubscription:
    return read_consumer_protocol_subscription(metadata, 2, VERSION)[0]


def _assignment(partitions: list[int]) -> bytes:
    topics = [AssignedTopic(TOPIC, partitions)] if partitions else []
    parts: list[Any] = [VERSION.to_bytes(2, "big")]
    message = ConsumerProtocolAssignment(assigned_partitions=topics)
    write_consumer_protocol_assignment(parts, message, VERSION)
    return b"".join(parts)


def _assigned(assignment: bytes) -> set[int]:
    if not assignment:
        return set()
    message, _ = read_consumer_protocol_assignment(assignment, 2, VERSION)
    return {partition for topic in message.assigned_partitions for partition in topic.partitions}
