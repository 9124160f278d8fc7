"""The assignors: what every assignment must be, and what each promises besides."""

import random

import pytest

from kbroker.coordinator.group.assignor.assignor import Assignor, GroupSpec, MemberSpec, Partitions
from kbroker.coordinator.group.assignor.range_assignor import RangeAssignor
from kbroker.coordinator.group.assignor.uniform_assignor import UniformAssignor
from tests.sizes import size

A, B, C = (name * 16 for name in (b"a", b"b", b"c"))


def spec(
    counts: dict[bytes, int],
    members: dict[str, set[bytes]],
    current: dict[str, Partitions] | None = None,
    instances: dict[str, str] | None = None,
) -> GroupSpec:
    return GroupSpec(
        {
            member_id: MemberSpec(
                frozenset(topics),
                (instances or {}).get(member_id),
                (current or {}).get(member_id, {}),
            )
            for member_id, topics in members.items()
        },
        counts,
    )


def numbers(partitions: Partitions) -> dict[bytes, list[int]]:
    return {topic: sorted(found) for topic, found in partitions.items()}


def check(group: GroupSpec, result: dict[str, Partitions]) -> None:
    """Every partition somebody subscribes to has one owner, who subscribes to it."""
    owners: dict[tuple[bytes, int], str] = {}
    for member_id, partitions in result.items():
        for topic, found in partitions.items():
            assert topic in group.members[member_id].topic_ids
            for partition in found:
                assert (topic, partition) not in owners
                owners[topic, partition] = member_id
    wanted = {topic for member in group.members.values() for topic in member.topic_ids}
    assert set(owners) == {
        (topic, partition) for topic in wanted for partition in range(group.partition_counts[topic])
    }


def count(partitions: Partitions) -> int:
    return sum(len(found) for found in partitions.values())


@pytest.mark.parametrize("assignor", [RangeAssignor(), UniformAssignor()])
class TestBoth:
    def test_nobody(self, assignor: Assignor) -> None:
        assert assignor.assign(spec({}, {})) == {}

    def test_no_topics(self, assignor: Assignor) -> None:
        result = assignor.assign(spec({}, {"m": set()}))
        assert result == {"m": {}}

    def test_more_members_than_partitions(self, assignor: Assignor) -> None:
        group = spec({A: 2}, {name: {A} for name in "wxyz"})
        result = assignor.assign(group)
        check(group, result)
        assert sorted(count(found) for found in result.values()) == [0, 0, 1, 1]

    def test_random_groups(self, assignor: Assignor) -> None:
        for seed in range(size(ci=150, full=5_000)):
            chance = random.Random(seed)
            topics = [bytes([number]) * 16 for number in range(chance.randint(1, 5))]
            counts = {topic: chance.randint(1, 12) for topic in topics}
            current: dict[str, Partitions] = {}
            members: dict[str, set[bytes]] = {}
            for _ in range(4):
                for number in range(chance.randint(1, 6)):
                    members.setdefault(f"m{number}", set())
                for name in list(members):
                    if chance.random() < 0.2 and len(members) > 1:
                        del members[name]
                    else:
                        members[name] = set(chance.sample(topics, chance.randint(0, len(topics))))
                group = spec(counts, members, current)
                current = assignor.assign(group)
                check(group, current)


class TestRange:
    def test_neighbours_and_co_partitioning(self) -> None:
        group = spec({A: 5, B: 5}, {"x": {A, B}, "y": {A, B}})
        result = RangeAssignor().assign(group)
        assert numbers(result["x"]) == {A: [0, 1, 2], B: [0, 1, 2]}
        assert numbers(result["y"]) == {A: [3, 4], B: [3, 4]}

    def test_different_subscriptions(self) -> None:
        group = spec({A: 3, B: 3}, {"x": {A}, "y": {A, B}})
        result = RangeAssignor().assign(group)
        assert numbers(result["x"]) == {A: [0, 1]}
        assert numbers(result["y"]) == {A: [2], B: [0, 1, 2]}

    def test_static_members_keep_their_range_across_restarts(self) -> None:
        instances = {"z": "first", "a": "second"}
        group = spec({A: 4}, {"z": {A}, "a": {A}, "b": {A}}, instances=instances)
        result = RangeAssignor().assign(group)
        assert numbers(result["z"]) == {A: [0, 1]}
        assert numbers(result["a"]) == {A: [2]}


class TestUniform:
    def test_even(self) -> None:
        group = spec({A: 7, B: 4}, {name: {A, B} for name in "xyz"})
        result = UniformAssignor().assign(group)
        check(group, result)
        assert sorted(count(found) for found in result.values()) == [3, 4, 4]

    def test_a_newcomer_takes_only_its_share(self) -> None:
        first = spec({A: 6}, {"x": {A}, "y": {A}})
        before = UniformAssignor().assign(first)
        group = spec({A: 6}, {"x": {A}, "y": {A}, "z": {A}}, before)
        after = UniformAssignor().assign(group)
        check(group, after)
        assert [count(after[name]) for name in "xyz"] == [2, 2, 2]
        assert after["x"][A] < before["x"][A]
        assert after["y"][A] < before["y"][A]

    def test_nothing_moves_without_need(self) -> None:
        current: dict[str, Partitions] = {
            "x": {A: frozenset({0, 3})},
            "y": {A: frozenset({1, 2, 4})},
        }
        group = spec({A: 5}, {"x": {A}, "y": {A}}, current)
        result = UniformAssignor().assign(group)
        assert {m: dict(p) for m, p in result.items()} == {m: dict(p) for m, p in current.items()}

    def test_who_leaves_leaves_its_partitions_to_the_others(self) -> None:
        current: dict[str, Partitions] = {
            "x": {A: frozenset({0, 1})},
            "y": {A: frozenset({2, 3})},
        }
        group = spec({A: 6}, {"x": {A}, "y": {A}}, current)
        result = UniformAssignor().assign(group)
        assert result["x"][A] > current["x"][A]
        assert result["y"][A] > current["y"][A]

    def test_different_subscriptions_are_as_even_as_they_can_be(self) -> None:
        group = spec({A: 4, B: 2, C: 6}, {"x": {A}, "y": {A, B}, "z": {B, C}})
        result = UniformAssignor().assign(group)
        check(group, result)
        assert numbers(result["z"]) == {C: [0, 1, 2, 3, 4, 5]}
        assert {count(result["x"]), count(result["y"])} == {3}

    def test_topics_that_shrink_or_go_are_given_up(self) -> None:
        current: dict[str, Partitions] = {
            "x": {A: frozenset({0, 1, 9}), B: frozenset({0})},
            "y": {A: frozenset({1})},
        }
        group = spec({A: 2}, {"x": {A}, "y": {A}}, current)
        result = UniformAssignor().assign(group)
        check(group, result)
