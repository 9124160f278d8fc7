"""A simulated group: members that join, commit, leave, crash and sleep; a broker that fails over.

Everything runs on one clock and one seed. Members behave as clients do: an error sends them back to
where the protocol says. ``check`` holds after every step:

* no partition belongs to two members in one generation,
* a generation that was handed out by the leader is never handed out again with another plan,
* the generation only grows, as long as the broker stays,
* a committed offset is the last acknowledged one, or one that was sent after it.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, subscription, waits

PARTITIONS = 6
SESSION_S = 10.0
STEP_S = 0.5


@dataclass
class Member:
    """One client: what it knows, what it waits for."""

    name: str
    instance_id: str | None
    alive: bool = True
    asleep_until: float = 0.0
    member_id: str = ""
    generation_id: int = -1
    leads: bool = False
    roster: list[str] = field(default_factory=list)
    joining: Any = None
    syncing: Any = None
    owned: tuple[int, ...] = ()
    topics: tuple[str, ...] = ("topic",)

    def reset(self) -> None:
        """Forget everything: the coordinator does not know us."""
        self.member_id = ""
        self.rejoin()

    def rejoin(self) -> None:
        """Join again with the id we have."""
        self.generation_id = -1
        self.owned = ()
        self.joining = self.syncing = None


class Simulation:
    """One run. ``step`` lets some time pass and everybody act."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        delay_ms = self.random.choice([0, 0, 1_000])
        self.settings = {"group.initial.rebalance.delay.ms": str(delay_ms)}
        self.bench = GroupBench(self.settings, seed=seed)
        self.members: list[Member] = []
        self.faults = True
        self.plans: dict[tuple[int, int], dict[str, tuple[int, ...]]] = {}
        self.incarnation = 0
        self.acknowledged: dict[int, int] = {}
        self.sent: dict[int, list[int]] = {index: [] for index in range(PARTITIONS)}
        self.next_offset = 0
        self.commits: list[tuple[int, int, Any]] = []
        self.seen_generation = 0
        for number in range(self.random.randint(1, 5)):
            self.add_member(number)

    def add_member(self, number: int) -> None:
        static = self.random.random() < 0.3
        self.members.append(Member(f"c{number}", f"static-{number}" if static else None))

    # -- one step

    def step(self) -> None:
        self.bench.advance(self.random.choice([0.0, STEP_S, STEP_S]))
        if self.faults:
            self.maybe_fault()
        for member in self.random.sample(self.members, len(self.members)):
            if member.alive and member.asleep_until <= self.bench.clock.monotonic():
                self.act(member)
        if not self.bench.log.replicated and self.random.random() < 0.5:
            self.bench.log.commit("", 0)
        self.collect_commits()
        self.check()

    def maybe_fault(self) -> None:
        roll = self.random.random()
        member = self.random.choice(self.members)
        if roll < 0.02:
            member.alive = False
        elif roll < 0.04 and len(self.members) < 8:
            self.add_member(len(self.members))
        elif roll < 0.06:
            member.asleep_until = self.bench.clock.monotonic() + self.random.uniform(1, 25)
        elif roll < 0.07 and member.member_id and member.alive:
            self.bench.coordinator.requests.leave_group(
                LeaveGroupRequest(
                    group_id=GROUP,
                    members=[MemberIdentity(member.member_id, member.instance_id)],
                )
            )
            member.reset()
            member.alive = self.random.random() < 0.5
        elif roll < 0.08:
            member.topics = ("topic", self.random.choice(["a", "b"]))
        elif roll < 0.09:
            self.bench.log.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        elif roll < 0.12:
            self.bench.log.failure = None
        elif roll < 0.13:
            self.bench.log.replicated = not self.bench.log.replicated
            if self.bench.log.replicated:
                self.bench.log.commit("", 0)
        elif roll < 0.135:
            self.fail_over()

    def fail_over(self) -> None:
        """Another broker takes the log over; requests that wait are sent there."""
        old = self.bench
        old.log.failure = None
        old.log.replicated = True
        old.coordinator.on_resigned(0)
        old.log.commit("", 0)
        self.bench = old.load(settings=self.settings)
        self.bench.timer.run_due()
        self.incarnation += 1
        self.seen_generation = 0

    def heal(self) -> None:
        """No more faults; sleepers wake up; there is at least one member."""
        self.faults = False
        self.bench.log.failure = None
        self.bench.log.replicated = True
        self.bench.log.commit("", 0)
        for member in self.members:
            member.asleep_until = 0.0
        if not any(member.alive for member in self.members):
            self.members[0].alive = True
            self.members[0].reset()

    # -- what a member does

    def act(self, member: Member) -> None:
        if member.joining is not None:
            if not waits(member.joining):
                self.on_joined(member, now(member.joining))
        elif member.syncing is not None:
            if not waits(member.syncing):
                self.on_synced(member, now(member.syncing))
        elif member.generation_id < 0:
            member.joining = self.bench.join(
                member.member_id,
                instance_id=member.instance_id,
                protocols={"range": subscription(*member.topics)},
                session_ms=int(SESSION_S * 1000),
                rebalance_ms=15_000,
                client_id=member.name,
            )
        else:
            self.live(member)

    def on_joined(self, member: Member, response: Any) -> None:
        member.joining = None
        error = ErrorCode(response.error_code)
        if error is ErrorCode.MEMBER_ID_REQUIRED:
            member.member_id = response.member_id
        elif error is NONE:
            member.member_id = response.member_id
            member.generation_id = response.generation_id
            member.leads = response.leader == response.member_id
            member.roster = [entry.member_id for entry in response.members]
            self.send_sync(member, response)
        elif error is ErrorCode.FENCED_INSTANCE_ID:
            member.alive = False
        elif error is ErrorCode.UNKNOWN_MEMBER_ID:
            member.reset()

    def send_sync(self, member: Member, response: Any) -> None:
        plan: dict[str, bytes] = {}
        if member.leads and not response.skip_assignment:
            assert member.member_id in member.roster
            for index in range(PARTITIONS):
                owner = member.roster[index % len(member.roster)]
                plan[owner] = plan.get(owner, b"") + bytes([index])
        member.syncing = self.bench.sync(
            member.member_id, member.generation_id, plan, instance_id=member.instance_id
        )

    def on_synced(self, member: Member, response: Any) -> None:
        member.syncing = None
        error = ErrorCode(response.error_code)
        if error is NONE:
            member.owned = tuple(response.assignment)
            plans = self.plans.setdefault((self.incarnation, member.generation_id), {})
            plans[member.instance_id or member.member_id] = member.owned
        else:
            self.on_error(member, error)

    def on_error(self, member: Member, error: ErrorCode) -> None:
        if error is ErrorCode.FENCED_INSTANCE_ID:
            member.alive = False
        elif error is ErrorCode.UNKNOWN_MEMBER_ID:
            member.reset()
        elif error in (ErrorCode.ILLEGAL_GENERATION, ErrorCode.REBALANCE_IN_PROGRESS):
            member.rejoin()
        else:
            assert error in (
                ErrorCode.NOT_COORDINATOR,
                ErrorCode.COORDINATOR_NOT_AVAILABLE,
            ), error
            member.rejoin()

    def live(self, member: Member) -> None:
        if member.owned and self.random.random() < 0.3:
            self.commit(member)
        code = self.heartbeat(member)
        if code is not NONE:
            self.on_error(member, code)

    def heartbeat(self, member: Member) -> ErrorCode:
        answer = self.bench.coordinator.requests.heartbeat(
            HeartbeatRequest(GROUP, member.generation_id, member.member_id, member.instance_id)
        )
        return NONE if waits(answer) else ErrorCode(now(answer).error_code)

    def commit(self, member: Member) -> None:
        index = self.random.choice(member.owned)
        self.next_offset += 1
        offset = self.next_offset
        self.sent[index].append(offset)
        answer = self.bench.commit(
            {index: offset},
            member_id=member.member_id,
            generation_id=member.generation_id,
            instance_id=member.instance_id,
        )
        self.commits.append((index, offset, answer))

    def collect_commits(self) -> None:
        left = []
        for index, offset, answer in self.commits:
            if isinstance(answer, Deferred) and not answer.done:
                left.append((index, offset, answer))
                continue
            error = now(answer).topics[0].partitions[0].error_code
            if error == NONE:
                self.acknowledged[index] = max(offset, self.acknowledged.get(index, 0))
        self.commits = left

    # -- what must hold

    def check(self) -> None:
        for plans in self.plans.values():
            owned = [index for plan in plans.values() for index in plan]
            assert len(owned) == len(set(owned)), f"a partition has two owners: {plans}"
        groups = self.bench.shard.groups
        group = groups.get(GROUP)
        if group is not None:
            assert group.generation_id >= self.seen_generation
            self.seen_generation = group.generation_id
            if group.members:
                assert group.leader_id in group.members
            awaiting = sum(member.awaiting_join is not None for member in group.members.values())
            assert awaiting == group.awaiting_join_count
            if group.state is ClassicGroupState.STABLE:
                assert awaiting == 0
                assert all(m.awaiting_sync is None for m in group.members.values())
            assert set(group.static_members.values()) <= set(group.members)
        store = self.bench.shard.offsets.store.committed
        for index, offset in self.acknowledged.items():
            stored = store.get(GROUP, "topic", index)
            assert stored is not None, f"the offset of partition {index} is lost"
            assert stored.committed_offset >= offset, "a committed offset went back"
            assert stored.committed_offset in self.sent[index]

    def is_settled(self) -> bool:
        """Everybody alive is in a stable group, and every partition has its owner."""
        group = self.bench.shard.groups.get(GROUP)
        living = [member for member in self.members if member.alive]
        if group is None or group.state is not ClassicGroupState.STABLE:
            return False
        if any(m.generation_id != group.generation_id or m.syncing for m in living):
            return False
        owned = sorted(index for member in living for index in member.owned)
        return owned == list(range(PARTITIONS)) and len(group.members) == len(living)
