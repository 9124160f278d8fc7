"""What a new target assignment writes, whoever computes it."""

from kbroker.coordinator.group.assignor.assignor import GroupSpec, Partitions
from kbroker.coordinator.group.consumer_group import ConsumerGroup, ResolvedRegex
from kbroker.coordinator.group.consumer_groups import Step
from kbroker.coordinator.group.consumer_member import ConsumerGroupMember
from kbroker.protocol.internal_records.consumer_group_target_assignment_member_key import (
    ConsumerGroupTargetAssignmentMemberKey,
)
from kbroker.protocol.internal_records.consumer_group_target_assignment_metadata_key import (
    ConsumerGroupTargetAssignmentMetadataKey,
)
from tests.unit.coordinator.group.bench import GROUP, GroupBench, topic_id

T, U = topic_id("t"), topic_id("u")


def member(member_id: str, *topics: str, regex: str = "", **fields: str) -> ConsumerGroupMember:
    return ConsumerGroupMember(
        member_id=member_id,
        member_epoch=10,
        subscribed_topic_names=frozenset(topics),
        subscribed_topic_regex=regex,
        instance_id=fields.get("instance_id"),
    )


class FixedAssignor:
    """Gives what it is told to; remembers what it was asked."""

    name = "uniform"

    def __init__(self, answer: dict[str, Partitions]) -> None:
        self.answer = answer
        self.spec = GroupSpec({}, {})

    def assign(self, spec: GroupSpec) -> dict[str, Partitions]:
        self.spec = spec
        return self.answer


class Assigning:
    """A group at epoch 20 with targets of epoch 10, and what assigning it writes."""

    def __init__(self, *members: ConsumerGroupMember, **targets: Partitions) -> None:
        self.bench = GroupBench({"group.consumer.assignment.interval.ms": "0"})
        self.bench.set_topics(t=6, u=6)
        self.group = ConsumerGroup(GROUP)
        self.group.assignment_epoch = 10
        for each in members:
            self.group.put(each)
        self.group.target.update(targets)
        self.step = Step(self.group, [])
        self.step.group_epoch = 20
        self.assignor = FixedAssignor({})

    def run(
        self, changed: ConsumerGroupMember, replaced: str | None = None, **answer: Partitions
    ) -> tuple[int, Partitions]:
        self.assignor = FixedAssignor(answer)
        consumer = self.bench.shard._consumer
        consumer._assignors["uniform"] = self.assignor
        return consumer.assign(self.step, changed, replaced)

    def written(self) -> dict[str, dict[bytes, list[int]]]:
        """Targets by member; the epoch must follow them all."""
        *targets, epoch = self.step.records
        assert isinstance(epoch.key, ConsumerGroupTargetAssignmentMetadataKey)
        assert epoch.value is not None
        assert epoch.value.assignment_epoch == 20
        assert epoch.value.assignment_timestamp == self.bench.clock.time_ms()
        found = {}
        for record in targets:
            assert isinstance(record.key, ConsumerGroupTargetAssignmentMemberKey)
            assert record.value is not None
            topics = record.value.topic_partitions
            found[record.key.member_id] = {each.topic_id: each.partitions for each in topics}
        return found


def some(*partitions: int) -> Partitions:
    return {T: frozenset(partitions)}


def test_a_member_that_gets_nothing_has_a_target_too() -> None:
    assigning = Assigning()
    assert assigning.run(member("a")) == (20, {})
    assert assigning.written() == {"a": {}}
    assert assigning.assignor.spec.partition_counts == {}


def test_the_same_again_writes_the_epoch_only() -> None:
    a, b = member("a", "t"), member("b", "t")
    assigning = Assigning(a, b, a=some(0, 1), b=some(2, 3))
    assert assigning.run(a, a=some(0, 1), b=some(2, 3)) == (20, some(0, 1))
    assert assigning.written() == {}


def test_whose_target_changes_is_written() -> None:
    a, b, c = member("a", "t"), member("b", "t"), member("c", "t")
    assigning = Assigning(a, b, c, a=some(0, 1), b=some(2, 3), c=some(4, 5))
    assigning.run(a, a=some(2, 3), b=some(0, 1), c=some(4, 5))
    assert assigning.written() == {"a": {T: [2, 3]}, "b": {T: [0, 1]}}


def test_the_assignor_sees_members_topics_and_what_each_had() -> None:
    a, b = member("a", "t", instance_id="i"), member("b", "t", "u", "missing")
    assigning = Assigning(a, a=some(0))
    assigning.run(b, a=some(0), b=some(1))
    spec = assigning.assignor.spec
    assert spec.partition_counts == {T: 6, U: 6}
    assert spec.members["a"].topic_ids == {T}
    assert spec.members["a"].instance_id == "i"
    assert spec.members["a"].current == some(0)
    assert spec.members["b"].topic_ids == {T, U}
    assert spec.members["b"].current == {}
    assert assigning.written() == {"b": {T: [1]}}


def test_a_member_counts_as_it_is_now() -> None:
    assigning = Assigning(member("a", "t"), a=some(0))
    assigning.run(member("a", "u"), a={U: frozenset({0})})
    assert assigning.assignor.spec.members["a"].topic_ids == {U}
    assert assigning.written() == {"a": {U: [0]}}


def test_who_is_left_out_gets_nothing() -> None:
    a, b = member("a", "t"), member("b", "t")
    assigning = Assigning(a, b, a=some(0), b=some(1))
    assigning.run(a, a=some(0, 1))
    assert assigning.written() == {"a": {T: [0, 1]}, "b": {}}


def test_a_static_member_inherits_what_its_former_self_had() -> None:
    old = member("old", "t", instance_id="i")
    assigning = Assigning(old, member("b", "t"), old=some(0), b=some(1))
    new = member("new", "t", instance_id="i")
    _, target = assigning.run(new, "old", new=some(0, 2), b=some(1))
    assert set(assigning.assignor.spec.members) == {"new", "b"}
    assert assigning.assignor.spec.members["new"].current == some(0)
    assert target == some(0, 2)
    assert assigning.written() == {"new": {T: [0, 2]}}


def test_expressions_count_as_far_as_they_are_resolved() -> None:
    a, b = member("a", "u", regex="t.*"), member("b", regex="x.*")
    assigning = Assigning(a, b)
    assigning.group.resolved["t.*"] = ResolvedRegex(frozenset({"t", "gone"}))
    assigning.run(a, a=some(0))
    spec = assigning.assignor.spec
    assert spec.members["a"].topic_ids == {T, U}
    assert spec.members["b"].topic_ids == frozenset()


def test_up_to_date_or_not_due_is_what_there_was() -> None:
    a = member("a", "t")
    assigning = Assigning(a, a=some(0))
    assigning.step.group_epoch = 10
    assert assigning.run(a, a=some(1)) == (10, some(0))
    assert assigning.step.records == []
    assigning.bench.set_group_config(consumer_assignment_interval_ms="1000")
    assigning.bench.clock.advance(10)
    assigning.group.assignment_timestamp_ms = assigning.bench.clock.time_ms()
    assigning.step.group_epoch = 20
    assert assigning.run(a, a=some(1)) == (10, some(0))
    assert assigning.step.records == []
    assigning.bench.clock.advance(1)
    assert assigning.run(a, a=some(1)) == (20, some(1))
