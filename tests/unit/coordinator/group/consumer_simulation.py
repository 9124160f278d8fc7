"""Simulated members of KIP-848: they heartbeat, revoke late, sleep, crash, leave and come back.

After every step no partition is owned by two members that the coordinator still lets live (a member
that it has fenced is told so by its next heartbeat and drops everything; until then the coordinator
has given it up after its session, or its time to revoke, ran out). After the faults everybody is
stable and every partition has its owner.
"""

import random
from dataclasses import dataclass, field

from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id, waits

_REJOIN = frozenset(
    {
        ErrorCode.UNKNOWN_MEMBER_ID,
        ErrorCode.FENCED_MEMBER_EPOCH,
        ErrorCode.GROUP_ID_NOT_FOUND,
    }
)
_AGAIN = frozenset({ErrorCode.COORDINATOR_NOT_AVAILABLE, ErrorCode.NOT_COORDINATOR})


@dataclass
class ConsumerMember:
    """One client. ``owned`` is what it consumes, ``wanted`` what it was last told to have."""

    name: str
    instance_id: str | None
    topics: list[str]
    alive: bool = True
    asleep_until: float = 0.0
    incarnation: int = 0
    epoch: int = 0
    owned: set[tuple[str, int]] = field(default_factory=set)
    wanted: set[tuple[str, int]] | None = None
    tells_all: bool = True

    @property
    def member_id(self) -> str:
        return f"{self.name}-{self.incarnation}"

    def rejoin(self) -> None:
        self.epoch = 0
        self.owned = set()
        self.wanted = None
        self.tells_all = True


class ConsumerSimulation:
    """One run."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        interval_ms = self.random.choice(["0", "0", "1000"])
        self.settings = {
            "group.consumer.assignment.interval.ms": interval_ms,
            "group.consumer.assignors": self.random.choice(["uniform,range", "range,uniform"]),
        }
        self.bench = GroupBench(self.settings, seed=seed)
        self.topics = {"t": self.random.randint(1, 6), "u": self.random.randint(1, 4)}
        self.bench.set_topics(**self.topics)
        self.faults = True
        self.members: list[ConsumerMember] = []
        for _ in range(self.random.randint(1, 5)):
            self.add_member()

    def add_member(self) -> None:
        number = len(self.members)
        static = f"i{number}" if self.random.random() < 0.3 else None
        self.members.append(ConsumerMember(f"m{number}", static, self.some_topics()))

    def some_topics(self) -> list[str]:
        return self.random.choice([["t"], ["t"], ["t", "u"], ["u"]])

    # -- one step

    def step(self) -> None:
        self.bench.advance(self.random.choice([0.0, 0.5, 1.0]))
        if self.faults:
            self.maybe_fault()
        for member in self.random.sample(self.members, len(self.members)):
            if member.alive and member.asleep_until <= self.bench.clock.monotonic():
                self.act(member)
                self.check()

    def maybe_fault(self) -> None:
        roll = self.random.random()
        member = self.random.choice(self.members)
        if roll < 0.02:
            member.alive = False
        elif roll < 0.04 and len(self.members) < 7:
            self.add_member()
        elif roll < 0.06:
            member.asleep_until = self.bench.clock.monotonic() + self.random.uniform(1, 60)
        elif roll < 0.08 and member.alive and member.epoch > 0:
            self.leave(member)
        elif roll < 0.10:
            member.topics = self.some_topics()
            member.tells_all = True
        elif roll < 0.11:
            self.topics["t"] += 1
            self.bench.set_topics(**self.topics)
        elif roll < 0.12:
            self.bench.log.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        elif roll < 0.16:
            self.bench.log.failure = None
        elif roll < 0.17:
            self.fail_over()

    def fail_over(self) -> None:
        old = self.bench
        old.log.failure = None
        old.coordinator.on_resigned(0)
        self.bench = old.load(settings=self.settings)
        self.bench.timer.run_due()

    def heal(self) -> None:
        self.faults = False
        self.bench.log.failure = None
        for member in self.members:
            member.asleep_until = 0.0
        if not any(member.alive for member in self.members):
            self.members[0].alive = True
            self.members[0].rejoin()

    # -- what a member does

    def act(self, member: ConsumerMember) -> None:
        self.give_up(member)
        joins = member.epoch == 0
        tells = member.tells_all or joins
        response = self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=GROUP,
                member_id=member.member_id,
                member_epoch=member.epoch,
                instance_id=member.instance_id,
                rebalance_timeout_ms=10_000 if tells else -1,
                subscribed_topic_names=list(member.topics) if tells else None,
                topic_partitions=_reported(member.owned),
            )
        )
        error = ErrorCode(response.error_code)
        if error in _REJOIN:
            member.rejoin()
            return
        if error is ErrorCode.UNRELEASED_INSTANCE_ID or error in _AGAIN:
            return
        if error is ErrorCode.FENCED_INSTANCE_ID:
            member.alive = False
            return
        assert error is NONE, error
        member.tells_all = False
        member.epoch = response.member_epoch
        if response.assignment is not None:
            member.wanted = {
                (topic.topic_id.rstrip(b"\0").decode(), partition)
                for topic in response.assignment.topic_partitions
                for partition in topic.partitions
            }
            member.owned |= member.wanted

    def give_up(self, member: ConsumerMember) -> None:
        """Revoke what is not wanted any more, sometimes late."""
        if member.wanted is not None and (not self.faults or self.random.random() < 0.7):
            member.owned &= member.wanted

    def leave(self, member: ConsumerMember) -> None:
        epoch = -1
        if member.instance_id is not None and self.random.random() < 0.7:
            epoch = -2
        response = self.send(
            ConsumerGroupHeartbeatRequest(
                group_id=GROUP,
                member_id=member.member_id,
                member_epoch=epoch,
                instance_id=member.instance_id,
            )
        )
        if ErrorCode(response.error_code) in _AGAIN:
            return
        member.incarnation += 1
        member.rejoin()
        member.alive = self.random.random() < 0.6

    def send(self, request: ConsumerGroupHeartbeatRequest):  # type: ignore[no-untyped-def]
        answer = self.bench.coordinator.requests.consumer_group_heartbeat(
            ClientInfo("c", "/127.0.0.1", 1), request
        )
        assert not waits(answer)
        return now(answer)

    # -- what must hold

    def check(self) -> None:
        group = self.bench.shard.groups.get(GROUP)
        if group is None:
            return
        known = self.bench.consumer_group()
        owners: dict[tuple[str, int], str] = {}
        for member in self.members:
            if not member.alive or member.member_id not in known.members:
                continue  # its session, or its time to revoke, has run out
            for key in member.owned:
                assert key not in owners, f"{key} belongs to {owners[key]} and {member.name}"
                owners[key] = member.name
        believed: set[tuple[bytes, int]] = set()
        for value in known.members.values():
            for assigned in (value.assigned, value.pending_revocation):
                for topic, partitions in assigned.items():
                    for partition in partitions:
                        assert (topic, partition) not in believed
                        believed.add((topic, partition))
        assert set(known.static_members.values()) <= set(known.members)
        assert known.assignment_epoch <= known.group_epoch

    def is_settled(self) -> bool:
        known = self.bench.consumer_group()
        living = {member.member_id: member for member in self.members if member.alive}
        if set(known.members) != set(living) or known.state_name != "Stable":
            return False
        wanted = {
            (topic, partition)
            for member in living.values()
            for topic in member.topics
            for partition in range(self.topics[topic])
        }
        owned = [key for member in living.values() for key in member.owned]
        return len(owned) == len(set(owned)) and set(owned) == wanted


def _reported(owned: set[tuple[str, int]]) -> list[TopicPartitions]:
    by_topic: dict[str, list[int]] = {}
    for topic, partition in sorted(owned):
        by_topic.setdefault(topic, []).append(partition)
    return [TopicPartitions(topic_id(topic), found) for topic, found in by_topic.items()]
