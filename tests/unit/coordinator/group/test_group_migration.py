"""Groups that change between the classic protocol and KIP-848, and groups of both."""

from typing import Any

import pytest

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import ClassicGroup, ClassicGroupState
from kbroker.coordinator.group.consumer_group import ConsumerGroup
from kbroker.coordinator.group.embedded_protocol import read_assignment, write_assignment
from kbroker.coordinator.group.topics_view import TopicsView
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.group.bench import (
    GROUP,
    NONE,
    GroupBench,
    now,
    subscription,
    topic_id,
    waits,
)

PROTOCOLS = {"range": subscription("t")}


def bench_with(**settings: str) -> GroupBench:
    given = {name.replace("_", "."): value for name, value in settings.items()}
    bench = GroupBench({"group.consumer.assignment.interval.ms": "0", **given})
    bench.set_topics(t=4)
    return bench


def view(bench: GroupBench) -> TopicsView:
    topics = TopicsView()
    topics.update(bench.image, topics_changed=True)
    return topics


def classic_member(bench: GroupBench, *partitions: int) -> str:
    """A classic group with one stable consumer that has these partitions of "t"."""
    member_id, answer = bench.join_new(protocols=PROTOCOLS)
    bench.settle()
    generation_id = now(answer).generation_id
    plan = write_assignment({topic_id("t"): set(partitions)}, PROTOCOLS["range"], view(bench))
    now(bench.sync(member_id, generation_id, {member_id: plan}))
    assert bench.group().state is ClassicGroupState.STABLE
    return member_id


def assigned(bench: GroupBench, answer: Any) -> list[int]:
    """Partitions of "t" in a SyncGroup answer."""
    response = now(answer)
    assert response.error_code == NONE
    found = read_assignment(response.assignment, view(bench))
    return sorted(found.get(topic_id("t"), ()))


class TestEmptyGroups:
    def test_a_classic_one_becomes_one_of_kip_848(self) -> None:
        bench = bench_with()
        member_id = classic_member(bench, 0)
        bench.leave((member_id, None))
        assert bench.commit_error() is NONE
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        assert isinstance(bench.shard.groups[GROUP], ConsumerGroup)
        assert bench.committed() == {("topic", 0): 1}
        assert bench.load().committed() == {("topic", 0): 1}

    def test_a_simple_one_too(self) -> None:
        bench = bench_with()
        now(bench.commit({0: 1}))
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        loaded = bench.load()
        assert isinstance(loaded.shard.groups[GROUP], ConsumerGroup)
        assert loaded.committed() == {("topic", 0): 1}

    def test_one_of_kip_848_becomes_a_classic_one(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        classic_member(bench, 0)
        assert isinstance(bench.load().shard.groups[GROUP], ClassicGroup)

    def test_unless_that_cannot_be_written(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        now(bench.join(version=0, protocols=PROTOCOLS))
        assert isinstance(bench.shard.groups[GROUP], ConsumerGroup)


class TestUpgrade:
    def test_classic_members_keep_what_they_have(self) -> None:
        bench = bench_with()
        old = classic_member(bench, 0, 1, 2, 3)
        joined = bench.consumer("a", topics=["t"])
        assert joined.error_code == NONE
        assert bench.assigned(joined) == {}
        group = bench.consumer_group()
        assert set(group.members) == {old, "a"}
        assert set(group.members[old].assigned[topic_id("t")]) == {0, 1, 2, 3}
        assert bench.load().consumer_group().members == group.members

    def test_the_classic_member_rejoins_until_it_is_reconciled(self) -> None:
        bench = bench_with()
        old = classic_member(bench, 0, 1, 2, 3)
        bench.consumer("a", topics=["t"])
        assert bench.heartbeat(old, 1) is ErrorCode.REBALANCE_IN_PROGRESS
        rejoined = now(bench.join(old, protocols=PROTOCOLS))
        assert rejoined.error_code == NONE
        assert (rejoined.leader, rejoined.members) == ("", [])
        assert (rejoined.protocol_type, rejoined.protocol_name) == ("consumer", "range")
        # An eager consumer has given everything up before it joined.
        assert assigned(bench, bench.sync(old, rejoined.generation_id)) == [0, 1]
        gets = bench.consumer("a", bench.consumer_group().members["a"].member_epoch)
        assert bench.assigned(gets) == {"t": [2, 3]}
        assert bench.heartbeat(old, rejoined.generation_id) is NONE
        assert bench.consumer_group().state_name == "Stable"

    def test_who_waits_in_the_classic_group_is_sent_back(self) -> None:
        bench = bench_with()
        classic_member(bench, 0)
        newcomer, answer = bench.join_new(protocols=PROTOCOLS)
        assert waits(answer)
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        assert now(answer).error_code == ErrorCode.REBALANCE_IN_PROGRESS
        assert newcomer in bench.consumer_group().members

    @pytest.mark.parametrize("policy", ["disabled", "downgrade"])
    def test_the_policy_may_forbid_it(self, policy: str) -> None:
        bench = bench_with(group_consumer_migration_policy=policy)
        classic_member(bench, 0)
        response = bench.consumer("a", topics=["t"])
        assert response.error_code == ErrorCode.GROUP_ID_NOT_FOUND

    def test_other_protocol_types_are_left_alone(self) -> None:
        bench = bench_with()
        bench.stable_group(protocol_type="connect")
        response = bench.consumer("a", topics=["t"])
        assert response.error_code == ErrorCode.GROUP_ID_NOT_FOUND
        assert response.error_message == (
            "Cannot upgrade classic group group to consumer group because the group does not use "
            "the consumer embedded protocol."
        )

    def test_what_a_cooperative_member_has_not_let_go_of_is_not_given_away(self) -> None:
        bench = bench_with()
        owns_0_and_1 = b"\0\1" + subscription("t")[2:] + b"\0\0\0\1\0\1t\0\0\0\2" + bytes(7) + b"\1"
        member_id, answer = bench.join_new(protocols={"range": owns_0_and_1})
        bench.settle()
        plan = write_assignment({topic_id("t"): {0}}, PROTOCOLS["range"], view(bench))
        now(bench.sync(member_id, now(answer).generation_id, {member_id: plan}))
        new = bench.assigned(bench.consumer("a", topics=["t"]))
        assert new is not None
        assert not {0, 1} & set(new["t"])
        assert bench.heartbeat(member_id, 1) is ErrorCode.REBALANCE_IN_PROGRESS
        now(bench.join(member_id, protocols=PROTOCOLS))
        assert bench.consumer("a", 2, owned={"t": new["t"]}).error_code == NONE
        member = bench.consumer_group().members["a"]
        assert len(member.assigned[topic_id("t")]) == 2

    @pytest.mark.parametrize(
        ("assignment", "expected"),
        [
            (b"for somebody", ErrorCode.UNKNOWN_SERVER_ERROR),
            (b"\0\0\0\0\0\1\0\1", ErrorCode.UNKNOWN_SERVER_ERROR),
            (b"\0", ErrorCode.GROUP_ID_NOT_FOUND),
            (b"\xff\xff\0\0\0\0\xff\xff\xff\xff", ErrorCode.GROUP_ID_NOT_FOUND),
            (b"\0\0\0\0\0\0", ErrorCode.GROUP_ID_NOT_FOUND),
        ],
    )
    def test_an_assignment_nobody_can_read(self, assignment: bytes, expected: ErrorCode) -> None:
        bench = bench_with()
        member_id, answer = bench.join_new(protocols=PROTOCOLS)
        bench.settle()
        now(bench.sync(member_id, now(answer).generation_id, {member_id: assignment}))
        response = bench.consumer("a", topics=["t"])
        assert response.error_code == expected
        assert bench.group().state is ClassicGroupState.STABLE


class TestClassicClients:
    def mixed(self) -> tuple[GroupBench, str, int]:
        """Member "a" of KIP-848 and a classic one, stable: (bench, its id, its generation)."""
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        told = now(bench.join(protocols=PROTOCOLS))
        assert told.error_code == ErrorCode.MEMBER_ID_REQUIRED
        joined = now(bench.join(told.member_id, protocols=PROTOCOLS))
        assert joined.error_code == NONE
        member_id, generation_id = joined.member_id, joined.generation_id
        assert assigned(bench, bench.sync(member_id, generation_id)) == []
        assert bench.heartbeat(member_id, generation_id) is NONE
        bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        bench.consumer("a", 2, owned={"t": [0, 1]})
        assert bench.heartbeat(member_id, generation_id) is ErrorCode.REBALANCE_IN_PROGRESS
        again = now(bench.join(member_id, protocols=PROTOCOLS))
        assert assigned(bench, bench.sync(member_id, again.generation_id)) == [2, 3]
        assert bench.consumer_group().state_name == "Stable"
        return bench, member_id, again.generation_id

    def test_join_a_group_of_kip_848(self) -> None:
        bench, member_id, generation_id = self.mixed()
        assert bench.heartbeat(member_id, generation_id) is NONE
        error = bench.commit_error(member_id=member_id, generation_id=generation_id, version=8)
        assert error is NONE
        illegal = ErrorCode.ILLEGAL_GENERATION
        assert bench.commit_error(member_id=member_id, generation_id=9) is illegal

    def test_errors(self) -> None:
        bench, member_id, generation_id = self.mixed()
        illegal, unknown = ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.heartbeat(member_id, 99) is illegal
        assert bench.heartbeat("nobody", 1) is unknown
        assert bench.heartbeat("a", 3) is unknown
        assert now(bench.sync(member_id, 99)).error_code == illegal
        assert now(bench.sync("nobody", 99)).error_code == unknown
        inconsistent = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        wrong = bench.sync(member_id, generation_id, protocol_name="other")
        assert now(wrong).error_code == inconsistent
        assert now(bench.join(protocol_type="connect")).error_code == inconsistent
        other = bench.join(version=0, protocols={"roundrobin": subscription("t")})
        assert now(other).error_code == inconsistent
        broken = bench.join(version=0, protocols={"range": b"\0"})
        assert now(broken).error_code == ErrorCode.UNKNOWN_SERVER_ERROR  # as Kafka

    def test_a_fenced_one_is_taken_back_under_its_old_id(self) -> None:
        bench, member_id, _ = self.mixed()
        bench.advance(10.1)
        owned = b"\0\1" + subscription("t")[2:] + b"\0\0\0\1\0\1t\0\0\0\1\0\0\0\0"
        back = bench.join(member_id, protocols={"range": owned})
        assert (now(back).error_code, now(back).member_id) == (NONE, member_id)

    def test_sessions_end(self) -> None:
        bench, member_id, _ = self.mixed()
        bench.advance(10.1)
        assert member_id not in bench.consumer_group().members

    def test_who_does_not_rejoin_when_told_is_removed(self) -> None:
        bench, member_id, generation_id = self.mixed()
        bench.set_topics(t=6)
        bench.consumer("a", 3)
        for _ in range(61):
            bench.heartbeat(member_id, generation_id)
            bench.consumer("a", bench.consumer_group().members["a"].member_epoch)
            bench.advance(1)
        assert member_id not in bench.consumer_group().members

    def test_it_leaves(self) -> None:
        bench, member_id, _ = self.mixed()
        response = bench.leave((member_id, None), ("nobody", None), (member_id, "i"))
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        assert [m.error_code for m in response.members] == [NONE, unknown, unknown]
        assert list(bench.consumer_group().members) == ["a"]

    def test_the_group_is_classic_when_the_last_of_kip_848_leaves(self) -> None:
        bench, member_id, generation_id = self.mixed()
        bench.consumer("a", -1)
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
        assert list(bench.group().members) == [member_id]
        assert bench.heartbeat(member_id, generation_id) is ErrorCode.REBALANCE_IN_PROGRESS
        rejoined = now(bench.join(member_id, protocols=PROTOCOLS))
        assert rejoined.leader == member_id
        loaded = bench.load()
        assert loaded.group().state is ClassicGroupState.STABLE
        assert list(loaded.group().members) == [member_id]

    def test_also_when_its_session_ends(self) -> None:
        bench, member_id, generation_id = self.mixed()
        for _ in range(46):
            bench.advance(1)
            bench.heartbeat(member_id, generation_id)
        assert isinstance(bench.shard.groups[GROUP], ClassicGroup)

    def test_unless_that_cannot_be_written(self) -> None:
        bench, member_id, _ = self.mixed()
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert bench.consumer("a", -1).error_code == error
        assert set(bench.consumer_group().members) == {"a", member_id}

    def test_unless_the_policy_forbids_it(self) -> None:
        bench = bench_with(group_consumer_migration_policy="upgrade")
        old = classic_member(bench, 0)
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        assert list(bench.consumer_group().members) == [old]

    def test_a_static_member_may_change_its_protocol(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("b", topics=["t"])
        answer = bench.join(instance_id="i", protocols=PROTOCOLS)
        assert not isinstance(answer, Deferred)
        assert answer.error_code == NONE
        assert set(bench.consumer_group().members) == {answer.member_id, "b"}
        fenced = ErrorCode.FENCED_INSTANCE_ID
        assert bench.consumer("a", 2, instance_id="i").error_code == fenced

    def test_the_last_one_takes_the_group_with_it(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        answer = now(bench.join(instance_id="i", protocols=PROTOCOLS))
        assert answer.error_code == NONE
        assert bench.group().state is ClassicGroupState.STABLE
        mine = bench.sync(answer.member_id, answer.generation_id, instance_id="i")
        assert assigned(bench, mine) == [0, 1, 2, 3]

    def test_an_administrator_removes_a_static_member_of_either_kind(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("b", topics=["t"])
        response = bench.leave(("", "i"))
        assert [m.error_code for m in response.members] == [NONE]
        assert list(bench.consumer_group().members) == ["b"]
