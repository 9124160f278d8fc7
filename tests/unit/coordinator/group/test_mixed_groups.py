"""Members of both protocols in one group: who may come, what they are told, who may go."""

from typing import Any

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroup, ClassicGroupState
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
ILLEGAL, UNKNOWN = ErrorCode.ILLEGAL_GENERATION, ErrorCode.UNKNOWN_MEMBER_ID
FENCED, REJOIN = ErrorCode.FENCED_INSTANCE_ID, ErrorCode.REBALANCE_IN_PROGRESS
INCONSISTENT = ErrorCode.INCONSISTENT_GROUP_PROTOCOL


def bench_with(**settings: str) -> GroupBench:
    given = {name.replace("_", "."): value for name, value in settings.items()}
    bench = GroupBench({"group.consumer.assignment.interval.ms": "0", **given})
    bench.set_topics(t=4, u=4)
    return bench


def view(bench: GroupBench) -> TopicsView:
    topics = TopicsView()
    topics.update(bench.image, topics_changed=True)
    return topics


def assigned(bench: GroupBench, answer: Any) -> list[int]:
    """Partitions of "t" in a SyncGroup answer."""
    response = now(answer)
    assert response.error_code == NONE
    return sorted(read_assignment(response.assignment, view(bench)).get(topic_id("t"), ()))


def join(bench: GroupBench, **options: Any) -> tuple[str, int]:
    """A classic client joins and syncs: (member id, generation)."""
    given = {"protocols": PROTOCOLS, **options}
    answer = now(bench.join(version=3, **given))
    assert answer.error_code == NONE
    instance_id = options.get("instance_id")
    synced = now(bench.sync(answer.member_id, answer.generation_id, instance_id=instance_id))
    assert synced.error_code == NONE
    return answer.member_id, answer.generation_id


def is_classic(bench: GroupBench) -> bool:
    return isinstance(bench.shard.groups[GROUP], ClassicGroup)


class TestJoin:
    @pytest.mark.parametrize(
        ("policy", "expected"),
        [
            ("disabled", INCONSISTENT),
            ("upgrade", NONE),
            ("downgrade", NONE),
            ("bidirectional", NONE),
        ],
    )
    def test_the_policy(self, policy: str, expected: ErrorCode) -> None:
        bench = bench_with(group_consumer_migration_policy=policy)
        bench.consumer("a", topics=["t"])
        assert now(bench.join(version=3, protocols=PROTOCOLS)).error_code == expected

    @pytest.mark.parametrize("policy", ["disabled", "upgrade", "downgrade", "bidirectional"])
    def test_an_empty_group_is_nobody_s(self, policy: str) -> None:
        bench = bench_with(group_consumer_migration_policy=policy)
        now(bench.commit({0: 1}))  # a simple group
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        bench.consumer("a", -1)
        member_id, _ = bench.join_new(protocols=PROTOCOLS)
        bench.settle()
        assert is_classic(bench)
        bench.leave((member_id, None))
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        assert not is_classic(bench)
        assert bench.committed() == {("topic", 0): 1}

    def test_the_group_may_be_full(self) -> None:
        bench = bench_with(group_consumer_max_size="1")
        bench.consumer("a", topics=["t"])
        full = ErrorCode.GROUP_MAX_SIZE_REACHED
        assert now(bench.join(version=3, protocols=PROTOCOLS)).error_code == full
        assert now(bench.join("x", version=3, protocols=PROTOCOLS)).error_code == full

    def test_a_static_member_is_known_by_both_ids(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        for metadata in (PROTOCOLS["range"], b"\0"):  # who it is comes first
            strange = bench.join("x", instance_id="i", protocols={"range": metadata})
            assert now(strange).error_code == UNKNOWN
        member_id, _ = join(bench, instance_id="i")
        other = bench.join("x", instance_id="i", protocols=PROTOCOLS)
        assert now(other).error_code == FENCED
        again = now(bench.join(member_id, instance_id="i", protocols=PROTOCOLS))
        assert (again.error_code, again.member_id) == (NONE, member_id)

    def test_a_restarted_one_keeps_its_place(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        first, _ = join(bench, instance_id="i")
        epoch = bench.consumer_group().group_epoch
        second, _ = join(bench, instance_id="i")
        assert first != second
        assert set(bench.consumer_group().members) == {"a", second}
        assert bench.consumer_group().group_epoch == epoch
        assert bench.heartbeat(first, epoch, instance_id="i") is FENCED

    def test_a_restarted_one_with_other_topics_begins_an_epoch(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        join(bench, instance_id="i")
        epoch = bench.consumer_group().group_epoch
        join(bench, instance_id="i", protocols={"range": subscription("t", "u")})
        assert bench.consumer_group().group_epoch == epoch + 1

    def test_a_join_that_cannot_be_written_changes_nothing(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        before = bench.consumer_group()
        epoch = before.group_epoch
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        answer = now(bench.join(version=3, protocols=PROTOCOLS))
        assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert (list(before.members), before.group_epoch) == (["a"], epoch)

    def test_who_comes_with_an_expression_s_topics_in_its_place(self) -> None:
        """A static member that subscribed by an expression comes back as a classic one."""
        for topics, has_changed in ((("t",), True), ((), False)):
            bench = bench_with()
            bench.consumer("a", topics=[], regex="t", instance_id="i")
            bench.consumer("b", topics=["u"])
            bench.settle()
            epoch = bench.consumer_group().group_epoch
            assert "t" in bench.consumer_group().resolved
            join(bench, instance_id="i", protocols={"range": subscription(*topics)})
            group = bench.consumer_group()
            assert group.resolved == {}
            assert group.group_epoch == epoch + 1, has_changed

    def test_the_assignor_it_asked_for_before_still_counts(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i", assignor="range")
        bench.consumer("b", topics=["t"])
        member_id, _ = join(bench, instance_id="i")
        assert bench.consumer_group().members[member_id].server_assignor == "range"


class TestRebalance:
    def eager_and_cooperative(self, owned: bool) -> None:
        bench = bench_with()
        member_id, answer = bench.join_new(protocols=PROTOCOLS)
        bench.settle()
        generation = now(answer).generation_id
        plan = write_assignment({topic_id("t"): {0, 1, 2, 3}}, PROTOCOLS["range"], view(bench))
        now(bench.sync(member_id, generation, {member_id: plan}))
        bench.consumer("a", topics=["t"])
        assert bench.heartbeat(member_id, generation) is REJOIN
        holds = [0, 1, 2, 3] if owned else []
        again = now(bench.join(member_id, protocols={"range": owning(*holds)}))
        kept = assigned(bench, bench.sync(member_id, again.generation_id))
        assert len(kept) == 2
        if owned:
            # It is told what to keep at its old generation, gives up, and joins again.
            assert again.generation_id == generation
            assert bench.assigned(bench.consumer("a", 2)) is None
            assert bench.heartbeat(member_id, generation) is REJOIN
            again = now(bench.join(member_id, protocols={"range": owning(*kept)}))
        assert again.generation_id == 2
        assert assigned(bench, bench.sync(member_id, 2)) == kept
        taken = bench.assigned(bench.consumer("a", 2))
        assert taken == {"t": sorted({0, 1, 2, 3} - set(kept))}

    def test_of_an_eager_client(self) -> None:
        self.eager_and_cooperative(owned=False)

    def test_of_a_cooperative_client(self) -> None:
        self.eager_and_cooperative(owned=True)

    def test_a_new_assignment_that_is_not_due_is_not_told(self) -> None:
        bench = bench_with(group_consumer_assignment_interval_ms="1000")
        bench.clock.advance(100)
        bench.consumer("a", topics=["t"])
        bench.advance(1)
        member_id, _ = join(bench)
        bench.consumer("a", 2, owned={"t": [0, 1]})
        again = now(bench.join(member_id, protocols=PROTOCOLS))
        generation = again.generation_id
        assert assigned(bench, bench.sync(member_id, generation)) == [2, 3]
        bench.set_topics(t=6, u=4)
        bench.consumer("a", 3)
        group = bench.consumer_group()
        assert group.group_epoch > group.assignment_epoch
        assert bench.heartbeat(member_id, generation) is NONE
        assert now(bench.sync(member_id, generation)).error_code == NONE
        bench.advance(1)
        # Also not when it is due: a heartbeat of "a" computes it.
        assert bench.heartbeat(member_id, generation) is NONE
        bench.consumer("a", 3)
        assert bench.heartbeat(member_id, generation) is REJOIN
        assert now(bench.sync(member_id, generation)).error_code == REJOIN

    def test_where_nobody_else_would_compute_it_a_classic_member_does(self) -> None:
        bench = bench_with(group_consumer_migration_policy="upgrade")
        bench.consumer("a", topics=["t"])
        member_id, generation = join(bench)
        bench.consumer("a", -1)
        assert bench.heartbeat(member_id, generation) is REJOIN
        again = now(bench.join(member_id, protocols=PROTOCOLS))
        assert assigned(bench, bench.sync(member_id, again.generation_id)) == [0, 1, 2, 3]


class TestSyncAndHeartbeat:
    def mixed(self) -> tuple[GroupBench, str, int]:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        member_id, generation = join(bench, instance_id="i")
        return bench, member_id, generation

    @pytest.mark.parametrize("version", range(4))
    def test_assignments_come_in_the_version_of_the_subscription(self, version: int) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        metadata = version.to_bytes(2, "big") + subscription("t")[2:]
        metadata += b"\0\0\0\0" * (version >= 1)
        metadata += b"\xff\xff\xff\xff" * (version >= 2)
        metadata += b"\xff\xff" * (version >= 3)
        answer = now(bench.join(version=3, protocols={"range": metadata}))
        synced = now(bench.sync(answer.member_id, answer.generation_id))
        assert synced.assignment[:2] == version.to_bytes(2, "big")

    def test_who_is_refused(self) -> None:
        bench, member_id, generation = self.mixed()
        for sync_or_beat in (self.sync, self.beat):
            assert sync_or_beat(bench, "x", generation, None) is UNKNOWN
            assert sync_or_beat(bench, "x", generation, "i") is FENCED
            assert sync_or_beat(bench, member_id, generation, "j") is UNKNOWN
            assert sync_or_beat(bench, member_id, generation + 1, "i") is ILLEGAL
            assert sync_or_beat(bench, "a", 2, None) is UNKNOWN
            assert sync_or_beat(bench, member_id, generation, "i") is NONE

    @staticmethod
    def sync(bench: GroupBench, member_id: str, generation: int, instance: str | None) -> ErrorCode:
        answer = bench.sync(member_id, generation, instance_id=instance)
        return ErrorCode(now(answer).error_code)

    @staticmethod
    def beat(bench: GroupBench, member_id: str, generation: int, instance: str | None) -> ErrorCode:
        return bench.heartbeat(member_id, generation, instance_id=instance)

    def test_protocols_must_be_what_was_answered(self) -> None:
        bench, member_id, generation = self.mixed()
        for options, expected in (
            ({"protocol_type": "connect"}, INCONSISTENT),
            ({"protocol_name": "roundrobin"}, INCONSISTENT),
            ({"protocol_type": "consumer", "protocol_name": "range"}, NONE),
            ({}, NONE),
        ):
            answer = now(bench.sync(member_id, generation, instance_id="i", **options))
            assert answer.error_code == expected

    def test_heartbeats_keep_the_session(self) -> None:
        bench, member_id, generation = self.mixed()
        bench.consumer("a", 2, owned={"t": [0, 1]})
        for _ in range(5):
            bench.advance(9)
            bench.heartbeat(member_id, generation, instance_id="i")
            bench.consumer("a", 3)
        assert member_id in bench.consumer_group().members

    def test_both_kinds_of_members_are_described(self) -> None:
        bench, member_id, _ = self.mixed()
        (group,) = now(bench.coordinator.requests.consumer_group_describe([GROUP]))
        kinds = {member.member_id: member.member_type for member in group.members}
        assert kinds == {"a": 1, member_id: 0}
        assert {member.instance_id for member in group.members} == {None, "i"}

    def test_who_joins_and_does_not_sync_is_removed(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        answer = now(bench.join(version=3, protocols=PROTOCOLS, rebalance_ms=5_000))
        bench.advance(4.9)
        assert answer.member_id in bench.consumer_group().members
        bench.advance(0.2)
        assert answer.member_id not in bench.consumer_group().members


class TestLeave:
    def test_members_of_either_protocol_are_removed_by_their_ids(self) -> None:
        bench = bench_with()
        for name in "abc":
            bench.consumer(name, topics=[], regex="t" if name == "a" else "u")
            bench.advance(11)
        bench.consumer("d", topics=["t"], instance_id="i")
        assert set(bench.consumer_group().resolved) == {"t", "u"}
        response = bench.leave(("a", None), ("b", None), ("b", None), ("d", "i"), ("x", "i"))
        codes = [member.error_code for member in response.members]
        assert codes == [NONE, NONE, NONE, NONE, FENCED]
        assert list(bench.consumer_group().members) == ["c"]
        assert set(bench.consumer_group().resolved) == {"u"}

    def test_nobody_who_is_there(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        count = len(bench.written())
        response = bench.leave(("x", None), ("", "i"), ("", None))
        assert [member.error_code for member in response.members] == [UNKNOWN] * 3
        assert len(bench.written()) == count

    def test_the_last_of_kip_848_removed_by_an_administrator_makes_the_group_classic(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        member_id, _ = join(bench)
        bench.leave(("", "i"))
        assert is_classic(bench)
        assert list(bench.group().members) == [member_id]


class TestDowngrade:
    def test_not_while_there_are_more_members_than_a_classic_group_may_have(self) -> None:
        bench = bench_with(group_max_size="1")
        bench.consumer("a", topics=["t"])
        first, _ = join(bench)
        second, _ = join(bench)
        bench.consumer("a", -1)
        assert set(bench.consumer_group().members) == {first, second}
        # But as soon as one leaves who is a classic member, too.
        bench.leave((second, None))
        assert is_classic(bench)
        assert list(bench.group().members) == [first]

    def test_not_for_a_restarted_member_of_too_large_a_group(self) -> None:
        bench = bench_with(group_max_size="1")
        bench.consumer("a", topics=["t"], instance_id="i")
        join(bench)
        join(bench, instance_id="i")
        assert len(bench.consumer_group().members) == 2

    def test_who_does_not_give_up_in_time_takes_the_group_with_it(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        member_id, generation = join(bench)
        bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        bench.advance(4.9)
        bench.heartbeat(member_id, generation)
        assert not is_classic(bench)
        bench.advance(0.2)
        assert is_classic(bench)

    def test_the_target_of_a_restarted_member_is_its_assignment(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        epoch = bench.consumer_group().group_epoch
        answer = now(bench.join(instance_id="i", protocols=PROTOCOLS))
        assert answer.generation_id == bench.group().generation_id == epoch
        assert bench.group().state is ClassicGroupState.STABLE
        synced = bench.sync(answer.member_id, epoch, instance_id="i")
        assert assigned(bench, synced) == [0, 1, 2, 3]
        assert is_classic(bench.load())

    @pytest.mark.parametrize("stale", ["topics", "subscription"])
    def test_a_stale_target_is_assigned_anew(self, stale: str) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        protocols = PROTOCOLS
        if stale == "topics":
            bench.set_topics(t=6, u=4)
        else:
            protocols = {"range": subscription("u")}
        answer = now(bench.join(instance_id="i", protocols=protocols))
        assert answer.error_code == NONE
        assert answer.generation_id == 0
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
        again = bench.join(answer.member_id, instance_id="i", protocols=protocols)
        assert now(again).leader == answer.member_id

    def test_a_missing_target_is_an_empty_assignment(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer_group().target.clear()
        answer = now(bench.join(instance_id="i", protocols=PROTOCOLS))
        assert bench.group().state is ClassicGroupState.STABLE
        synced = bench.sync(answer.member_id, answer.generation_id, instance_id="i")
        assert assigned(bench, synced) == []

    def test_under_the_same_member_id(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        answer = now(bench.join("a", instance_id="i", protocols=PROTOCOLS))
        assert (answer.error_code, answer.member_id, answer.generation_id) == (NONE, "a", 2)
        assert assigned(bench, bench.sync("a", 2, instance_id="i")) == [0, 1, 2, 3]
        assert list(bench.load().group().members) == ["a"]

    def test_when_what_the_others_told_cannot_be_read_the_member_goes_alone(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        good, bad = subscription("t"), b"\xff\xff"
        first, _ = join(bench, protocols={"range": good, "other": bad}, session_ms=60_000)
        join(bench, protocols={"other": good, "range": good}, session_ms=60_000)
        join(bench, protocols={"other": good, "range": good}, session_ms=60_000)
        assert bench.consumer("a", -1).error_code == ErrorCode.GROUP_ID_NOT_FOUND
        assert "a" in bench.consumer_group().members
        bench.advance(46)
        assert "a" not in bench.consumer_group().members
        assert first in bench.consumer_group().members


class TestUpgrade:
    def stable(self, bench: GroupBench, user_data: bytes | None = None, **options: Any) -> str:
        given = {"protocols": PROTOCOLS, **options}
        if "instance_id" in options:
            answer = bench.join(**given)
            bench.settle()
            member_id = now(answer).member_id
        else:
            member_id, answer = bench.join_new(**given)
            bench.settle()
        plan = write_assignment({topic_id("t"): {0, 1}}, PROTOCOLS["range"], view(bench))
        if user_data is not None:
            plan = plan[:-4] + len(user_data).to_bytes(4, "big") + user_data
        instance_id = options.get("instance_id")
        synced = bench.sync(
            member_id, now(answer).generation_id, {member_id: plan}, instance_id=instance_id
        )
        assert now(synced).error_code == NONE
        return member_id

    def test_not_when_the_assignor_left_something_of_its_own(self) -> None:
        bench = bench_with()
        self.stable(bench, b"more")
        answer = bench.consumer("a", topics=["t"])
        assert answer.error_code == ErrorCode.GROUP_ID_NOT_FOUND
        assert answer.error_message is not None
        assert "because an unsupported custom assignor is in use" in answer.error_message
        assert is_classic(bench)

    def test_nothing_of_its_own_may_be_said_so(self) -> None:
        bench = bench_with()
        self.stable(bench, b"")
        assert bench.consumer("a", topics=["t"]).error_code == NONE

    def test_a_static_member_that_speaks_the_other_protocol_now(self) -> None:
        bench = bench_with()
        old = self.stable(bench, instance_id="i")
        answer = bench.consumer("a", topics=["t"], instance_id="i")
        assert (answer.error_code, answer.member_epoch) == (NONE, 1)
        assert bench.assigned(answer) == {"t": [0, 1]}
        assert list(bench.consumer_group().members) == ["a"]
        assert bench.heartbeat(old, 1, instance_id="i") is FENCED
        assert bench.load().consumer_group().members == bench.consumer_group().members

    def test_a_static_classic_member_of_a_mixed_group_that_speaks_the_other_one(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        old, generation = join(bench, instance_id="i")
        answer = bench.consumer("b", topics=["t"], instance_id="i")
        assert (answer.error_code, answer.member_epoch) == (NONE, generation)
        members = bench.consumer_group().members
        assert set(members) == {"a", "b"}
        assert members["b"].classic is None
        assert bench.heartbeat(old, generation, instance_id="i") is FENCED

    def test_who_waits_for_its_leader_is_sent_back(self) -> None:
        bench = bench_with()
        leader, first = bench.join_new(protocols=PROTOCOLS)
        follower, second = bench.join_new(protocols=PROTOCOLS)
        bench.settle()
        assert now(first).leader == leader
        waiting = bench.sync(follower, now(second).generation_id)
        assert waits(waiting)
        assert bench.consumer("a", topics=["t"]).error_code == NONE
        assert now(waiting).error_code == REJOIN
        for member_id in (leader, follower):
            assert now(bench.join(member_id, protocols=PROTOCOLS)).error_code == NONE

    def test_a_member_without_an_assignment(self) -> None:
        bench = bench_with()
        member_id, answer = bench.join_new(protocols=PROTOCOLS)
        bench.settle()
        now(bench.sync(member_id, now(answer).generation_id))
        joined = bench.consumer("a", topics=["t"])
        assert bench.assigned(joined) == {"t": [2, 3]} or bench.assigned(joined) == {"t": [0, 1]}

    def test_the_hash_is_that_of_its_topics(self) -> None:
        """So that who comes with an expression does not begin an epoch before it is resolved."""
        bench = bench_with()
        self.stable(bench)
        answer = bench.consumer("a", topics=None, regex="u.*")
        assert answer.member_epoch == bench.consumer_group().group_epoch == 1
        assert bench.consumer_group().metadata_hash == view(bench).metadata_hash(["t"])

    @pytest.mark.parametrize(
        ("count", "expected"),
        [(1, ErrorCode.GROUP_MAX_SIZE_REACHED), (2, ErrorCode.GROUP_ID_NOT_FOUND)],
    )
    def test_too_many_members(self, count: int, expected: ErrorCode) -> None:
        bench = bench_with(group_consumer_max_size="1")
        self.stable(bench)
        if count == 2:
            bench.join_new(protocols=PROTOCOLS)
        answer = bench.consumer("a", topics=["t"])
        assert answer.error_code == expected
        assert is_classic(bench)


def owning(*partitions: int) -> bytes:
    """A subscription to "t" of version 1 by somebody who owns these partitions of it."""
    head = b"\0\1" + subscription("t")[2:]
    if not partitions:
        return head + bytes(4)
    numbers = b"".join(partition.to_bytes(4, "big") for partition in partitions)
    return head + b"\0\0\0\1\0\1t" + len(partitions).to_bytes(4, "big") + numbers
