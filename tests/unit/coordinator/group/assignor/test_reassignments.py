"""What becomes of an assignment when members, topics or subscriptions change."""

import pytest

from kbroker.coordinator.group.assignor.assignor import Assignor, GroupSpec, Partitions
from kbroker.coordinator.group.assignor.range_assignor import RangeAssignor
from kbroker.coordinator.group.assignor.uniform_assignor import UniformAssignor
from tests.unit.coordinator.group.assignor.test_assignors import (
    A,
    B,
    C,
    check,
    count,
    numbers,
    spec,
)

Result = dict[str, Partitions]


def assign(assignor: Assignor, group: GroupSpec) -> Result:
    result = assignor.assign(group)
    check(group, result)
    return result


def sets(result: Result) -> dict[str, dict[bytes, list[int]]]:
    return {member_id: numbers(found) for member_id, found in result.items()}


def of(**members: dict[bytes, set[int]]) -> Result:
    return {
        name: {topic: frozenset(found) for topic, found in topics.items()}
        for name, topics in members.items()
    }


def kept(before: Result, after: Result) -> int:
    """How many partitions stayed where they were."""
    return sum(
        len(partitions & after.get(member_id, {}).get(topic, frozenset()))
        for member_id, topics in before.items()
        for topic, partitions in topics.items()
    )


class TestRange:
    def test_each_topic_by_itself_among_its_subscribers(self) -> None:
        group = spec({A: 3, B: 3, C: 2}, {"x": {A, B}, "y": {C}, "z": {B, C}})
        assert sets(assign(RangeAssignor(), group)) == {
            "x": {A: [0, 1, 2], B: [0, 1]},
            "y": {C: [0]},
            "z": {B: [2], C: [1]},
        }

    def test_the_same_again_and_whatever_was_before(self) -> None:
        members = {"x": {A, B}, "y": {A, B}}
        first = assign(RangeAssignor(), spec({A: 4, B: 3}, members))
        assert assign(RangeAssignor(), spec({A: 4, B: 3}, members, first)) == first
        swapped = of(x={A: {2, 3}, B: {2}}, y={A: {0, 1}, B: {0, 1}})
        assert assign(RangeAssignor(), spec({A: 4, B: 3}, members, swapped)) == first

    def test_more_members_than_partitions_and_one_more(self) -> None:
        members = {"x": {A, B}, "y": {A, B}, "z": {A, B}}
        result = sets(assign(RangeAssignor(), spec({A: 2, B: 2}, members)))
        assert result == {"x": {A: [0], B: [0]}, "y": {A: [1], B: [1]}, "z": {}}
        members["a"] = {A, B}
        result = sets(assign(RangeAssignor(), spec({A: 2, B: 2}, members)))
        first, second = {A: [0], B: [0]}, {A: [1], B: [1]}
        assert result == {"a": first, "x": second, "y": {}, "z": {}}

    def test_a_partition_more(self) -> None:
        members = {"x": {A, B}, "y": {A, B}}
        result = sets(assign(RangeAssignor(), spec({A: 4, B: 3}, members)))
        assert result == {"x": {A: [0, 1], B: [0, 1]}, "y": {A: [2, 3], B: [2]}}

    def test_a_member_more_or_less(self) -> None:
        members = {"x": {A, B}, "y": {A, B}, "z": {A, B}}
        assert sets(assign(RangeAssignor(), spec({A: 3, B: 3}, members))) == {
            "x": {A: [0], B: [0]},
            "y": {A: [1], B: [1]},
            "z": {A: [2], B: [2]},
        }
        del members["x"]
        assert sets(assign(RangeAssignor(), spec({A: 3, B: 3}, members))) == {
            "y": {A: [0, 1], B: [0, 1]},
            "z": {A: [2], B: [2]},
        }

    def test_static_members_before_the_others_by_their_instances(self) -> None:
        members = {"x": {A}, "y": {A}, "z": {A}}
        for instances, expected in (
            ({"z": "1", "y": "2", "x": "3"}, "zyx"),
            ({"z": "1"}, "zxy"),
            ({"y": "b", "z": "a"}, "zyx"),
        ):
            result = assign(RangeAssignor(), spec({A: 3}, members, instances=instances))
            assert [sorted(result[name][A]) for name in expected] == [[0], [1], [2]]

    def test_subscriptions_that_shrink(self) -> None:
        group = spec({A: 3, B: 3}, {"x": {B}, "y": {A, B}, "z": {B}})
        assert sets(assign(RangeAssignor(), group)) == {
            "x": {B: [0]},
            "y": {A: [0, 1, 2], B: [1]},
            "z": {B: [2]},
        }


class TestUniformOfOneMind:
    """All members subscribe to the same topics."""

    def test_topics_are_dealt_out_one_after_the_other(self) -> None:
        result = assign(UniformAssignor(), spec({A: 3, B: 3}, {"x": {A, B}, "y": {A, B}}))
        assert sets(result) == {"x": {A: [0, 1, 2]}, "y": {B: [0, 1, 2]}}

    def test_what_is_even_stays(self) -> None:
        before = of(x={A: {0, 2}, B: {0}}, y={A: {1}, B: {1, 2}})
        group = spec({A: 3, B: 3}, {"x": {A, B}, "y": {A, B}}, before)
        assert assign(UniformAssignor(), group) == before

    def test_what_is_not_even_gives_up_no_more_than_it_must(self) -> None:
        before = of(x={A: {0, 1}, B: {0, 1, 2}}, y={A: {2}})
        group = spec({A: 3, B: 3}, {"x": {A, B}, "y": {A, B}}, before)
        after = assign(UniformAssignor(), group)
        assert [count(after[name]) for name in "xy"] == [3, 3]
        assert kept(before, after) == 4

    def test_partitions_that_are_added_go_to_who_has_least(self) -> None:
        before = of(x={A: {0, 2}, B: {0}}, y={A: {1}, B: {1, 2}})
        group = spec({A: 5, B: 5}, {"x": {A, B}, "y": {A, B}}, before)
        after = assign(UniformAssignor(), group)
        assert [count(after[name]) for name in "xy"] == [5, 5]
        assert kept(before, after) == 6

    def test_a_member_more_and_one_less(self) -> None:
        topics = {A, B}
        before = of(x={A: {0, 2}, B: {0}}, y={A: {1}, B: {1, 2}})
        group = spec({A: 3, B: 3}, {"x": topics, "y": topics, "z": topics}, before)
        after = assign(UniformAssignor(), group)
        assert [count(after[name]) for name in "xyz"] == [2, 2, 2]
        assert kept(before, after) == 4
        last = assign(UniformAssignor(), spec({A: 3, B: 3}, {"x": topics, "z": topics}, after))
        assert [count(last[name]) for name in "xz"] == [3, 3]
        assert kept(after, last) == 4

    def test_a_topic_that_nobody_wants_any_more(self) -> None:
        before = of(x={A: {0, 1}, B: {0}}, y={A: {2}, B: {1, 2}})
        group = spec({B: 3}, {"x": {B}, "y": {B}}, before)
        after = assign(UniformAssignor(), group)
        assert sets(after) == {"x": {B: [0]}, "y": {B: [1, 2]}}

    def test_many_members(self) -> None:
        topics = {bytes([number]) * 16: 37 for number in range(1, 20)}
        members = {f"m{number}": set(topics) for number in range(100)}
        first = assign(UniformAssignor(), spec(topics, members))
        assert {count(found) for found in first.values()} <= {7, 8}
        del members["m7"]
        second = assign(UniformAssignor(), spec(topics, members, first))
        assert {count(found) for found in second.values()} <= {7, 8}
        assert kept(first, second) == sum(map(count, first.values())) - count(first["m7"])


class TestUniformOfSeveralMinds:
    def test_what_is_even_stays(self) -> None:
        before = of(x={A: {0, 1}}, y={A: {2}, B: {0}}, z={B: {1, 2}})
        members = {"x": {A}, "y": {A, B}, "z": {B}}
        assert assign(UniformAssignor(), spec({A: 3, B: 3}, members, before)) == before

    def test_who_takes_nothing_gets_nothing(self) -> None:
        result = assign(UniformAssignor(), spec({A: 3}, {"x": {A}, "y": set()}))
        assert sets(result) == {"x": {A: [0, 1, 2]}, "y": {}}

    def test_scarce_partitions(self) -> None:
        group = spec({A: 1, B: 2}, {"x": {A}, "y": {A, B}, "z": {A, B}})
        after = assign(UniformAssignor(), group)
        assert [count(after[name]) for name in "xyz"] == [1, 1, 1]

    def test_what_is_not_even_gives_up_no_more_than_it_must(self) -> None:
        before = of(x={A: {0, 1, 2, 3}}, y={B: {0}})
        group = spec({A: 4, B: 1, C: 1}, {"x": {A}, "y": {A, B, C}}, before)
        after = assign(UniformAssignor(), group)
        assert [count(after[name]) for name in "xy"] == [3, 3]
        assert kept(before, after) == 4

    def test_a_member_and_partitions_more(self) -> None:
        before = of(x={A: {0, 1}}, y={A: {2}, B: {0, 1}})
        members = {"x": {A}, "y": {A, B}, "z": {B}}
        after = assign(UniformAssignor(), spec({A: 4, B: 4}, members, before))
        assert sorted(count(found) for found in after.values()) == [2, 3, 3]
        assert kept(before, after) >= 4

    def test_a_member_less(self) -> None:
        before = of(x={A: {0, 1}}, y={B: {0, 1}}, z={B: {2}, C: {0, 1}})
        members = {"x": {A, B}, "y": {B, C}}
        after = assign(UniformAssignor(), spec({A: 2, B: 3, C: 2}, members, before))
        assert sets(after)["y"] == {B: [0, 1], C: [0, 1]}
        assert sets(after)["x"] == {A: [0, 1], B: [2]}

    def test_a_subscription_less(self) -> None:
        before = of(x={A: {0, 1}, B: {0}}, y={A: {2}, B: {1, 2}})
        after = assign(UniformAssignor(), spec({A: 3, B: 3}, {"x": {A}, "y": {B}}, before))
        assert sets(after) == {"x": {A: [0, 1, 2]}, "y": {B: [0, 1, 2]}}

    @pytest.mark.parametrize("assignor", [RangeAssignor(), UniformAssignor()])
    def test_who_gets_nothing_may_get_something_later(self, assignor: Assignor) -> None:
        first = assign(assignor, spec({A: 1}, {"x": {A}, "y": {A}}))
        assert sorted(count(found) for found in first.values()) == [0, 1]
        second = assign(assignor, spec({A: 2}, {"x": {A}, "y": {A}}, first))
        assert [count(found) for found in second.values()] == [1, 1]
