"""A fleet of clients of both protocols that consume and commit, through crashes and fail-overs.

Everything runs on one clock and one seed. ``check`` holds after every step:

* no two clients own a partition whose commits of it the coordinator would both take,
* what the coordinator itself believes is owned by one member each,
* a committed offset never goes back, also over a fail-over; it is an acknowledged one or one that
  was sent, and none that was acknowledged is lost,
* epochs and generations do not go back.

``is_settled`` is what must come within three session timeouts when the faults are over: a stable
group of everybody who lives, every partition owned by one of them, no lag.
"""

import random
from typing import Any

from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.coordinator.group.classic_group import ClassicGroup, ClassicGroupState
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id, waits
from tests.unit.coordinator.group.fleet_clients import (
    SESSION_S,
    TOPIC,
    ClassicClient,
    Client,
    ConsumerClient,
)

STEP_S = 0.5
MIXES = (
    ("eager",),
    ("cooperative",),
    ("consumer",),
    ("eager", "consumer"),
    ("cooperative", "consumer"),
    ("cooperative", "consumer", "consumer"),
)


class FleetSimulation:
    """One run. ``step`` lets some time pass and everybody act."""

    def __init__(self, seed: int, faults: Faults = NO_FAULTS) -> None:
        self.random = random.Random(seed)
        self.kinds = self.random.choice(MIXES)
        self.settings = {
            "group.initial.rebalance.delay.ms": self.random.choice(["0", "0", "1000"]),
            "group.consumer.session.timeout.ms": str(int(SESSION_S * 1000)),
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.assignment.interval.ms": self.random.choice(["0", "0", "1000"]),
        }
        self.bench = GroupBench(self.settings, seed=seed, faults=faults)
        self.ends = [0] * self.random.randint(1, 8)
        self.bench.set_topics(**{TOPIC: len(self.ends)})
        self.clients: list[Client] = []
        self.faults = True
        self.unanswered: list[tuple[dict[int, int], Any]] = []
        self.acked: dict[int, int] = {}
        self.sent: dict[int, set[int]] = {}
        self.stored: dict[int, int] = {}
        self.epoch = 0
        self.kind: type | None = None
        for _ in range(self.random.randint(1, 5)):
            self.add_client()

    def add_client(self) -> None:
        number = len(self.clients)
        name = f"c{number}"
        instance_id = f"i{number}" if self.random.random() < 0.25 else None
        kind = self.random.choice(self.kinds)
        if kind == "consumer":
            self.clients.append(ConsumerClient(self, name, instance_id))
        else:
            is_cooperative = kind == "cooperative"
            self.clients.append(
                ClassicClient(self, name, instance_id, is_cooperative=is_cooperative)
            )

    @property
    def now_s(self) -> float:
        return self.bench.clock.monotonic()

    # -- one step

    def step(self) -> None:
        self.bench.advance(self.random.choice([0.0, STEP_S, STEP_S]))
        if self.faults:
            self.ends = [end + self.random.choice([0, 0, 7, 30]) for end in self.ends]
            self.maybe_fault()
        for client in self.random.sample(self.clients, len(self.clients)):
            if client.alive and client.asleep_until <= self.now_s:
                client.act()
                self.check()
        if not self.bench.log.replicated and self.random.random() < 0.5:
            self.bench.log.commit("", 0)
        self.collect_commits()
        self.check()

    def maybe_fault(self) -> None:
        roll = self.random.random()
        client = self.random.choice(self.clients)
        if roll < 0.02:
            client.alive = False
        elif roll < 0.03 and not client.alive:
            client.restart()
        elif roll < 0.05 and len(self.clients) < 8:
            self.add_client()
        elif roll < 0.07:
            client.asleep_until = self.now_s + self.random.uniform(1, 25)
        elif roll < 0.09 and client.alive:
            client.leave()
            client.alive = self.random.random() < 0.6
        elif roll < 0.10 and len(self.ends) < 12:
            self.ends.append(0)
            self.bench.set_topics(**{TOPIC: len(self.ends)})
        elif roll < 0.11:
            self.bench.log.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
        elif roll < 0.14:
            self.bench.log.failure = None
        elif roll < 0.15 and "consumer" not in self.kinds:
            self.bench.log.replicated = not self.bench.log.replicated
            if self.bench.log.replicated:
                self.bench.log.commit("", 0)
        elif roll < 0.16:
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
        self.epoch = 0

    def heal(self) -> None:
        """No more faults; sleepers wake up; there is at least one client; some last records."""
        self.faults = False
        self.bench.log.failure = None
        self.bench.log.replicated = True
        self.bench.log.commit("", 0)
        self.ends = [end + self.random.randint(0, AT_MOST_LEFT) for end in self.ends]
        for client in self.clients:
            client.asleep_until = 0.0
        if not any(client.alive for client in self.clients):
            self.clients[0].restart()

    # -- commits

    def committed(self, client: Client, offsets: dict[int, int], answer: Any) -> None:
        """A client has sent a commit."""
        for partition, offset in offsets.items():
            self.sent.setdefault(partition, set()).add(offset)
        self.unanswered.append((offsets, answer))

    def collect_commits(self) -> None:
        left = []
        for offsets, answer in self.unanswered:
            if waits(answer):
                left.append((offsets, answer))
                continue
            for partition in now(answer).topics[0].partitions:
                if partition.error_code == NONE:
                    index = partition.partition_index
                    self.acked[index] = max(offsets[index], self.acked.get(index, 0))
        self.unanswered = left

    # -- what must hold

    def check(self) -> None:
        group = self.bench.shard.groups.get(GROUP)
        self.check_offsets()
        if group is None:
            return
        self.check_owners(group)
        if isinstance(group, ConsumerGroup):
            believed = [
                (topic, partition)
                for member in group.members.values()
                for held in (member.assigned, member.pending_revocation)
                for topic, partitions in held.items()
                for partition in partitions
            ]
            assert len(believed) == len(set(believed)), f"owned twice: {believed}"
        epoch = group.group_epoch if isinstance(group, ConsumerGroup) else group.generation_id
        # An empty group of the other kind is not converted, a new one begins.
        assert epoch >= self.epoch or type(group) is not self.kind, "a generation went back"
        self.epoch, self.kind = epoch, type(group)

    def check_owners(self, group: ClassicGroup | ConsumerGroup) -> None:
        owners: dict[int, str] = {}
        for client in self.clients:
            for partition in client.owned:
                if client.alive and client.is_member() and _may_commit(group, client, partition):
                    other = owners.setdefault(partition, client.name)
                    assert other == client.name, f"{partition}: {other} and {client.name} own it"

    def check_offsets(self) -> None:
        store = self.bench.shard.offsets.store.committed
        for partition in range(len(self.ends)):
            found = store.get(GROUP, TOPIC, partition)
            if found is None:
                assert partition not in self.stored, f"the offset of {partition} is gone"
                continue
            offset = found.committed_offset
            assert offset >= self.stored.get(partition, 0), f"the offset of {partition} went back"
            assert offset >= self.acked.get(partition, 0), f"a commit to {partition} is lost"
            assert offset in self.sent[partition], f"nobody committed {offset} to {partition}"
            self.stored[partition] = offset

    def is_settled(self) -> bool:
        """See above."""
        group = self.bench.shard.groups.get(GROUP)
        living = [client for client in self.clients if client.alive]
        if group is None or not living or len(group.members) != len(living):
            return False
        if isinstance(group, ConsumerGroup):
            if group.state_name != "Stable":
                return False
        elif group.state is not ClassicGroupState.STABLE:
            return False
        owned = sorted(partition for client in living for partition in client.owned)
        return (
            owned == list(range(len(self.ends)))
            and all(client.member_id in group.members for client in living)
            and all(self.stored.get(p, 0) == end for p, end in enumerate(self.ends))
        )


AT_MOST_LEFT = 500


def _may_commit(group: ClassicGroup | ConsumerGroup, client: Client, partition: int) -> bool:
    try:
        if isinstance(group, ClassicGroup):
            group.validate_offset_commit(
                client.member_id, client.instance_id, client.epoch, transactional=False
            )
            return True
        check = group.check_offset_commit(client.member_id, client.epoch, 9)
    except KafkaError:
        return False
    return check is None or check(topic_id(TOPIC), partition) is ErrorCode.NONE
