"""Static members of classic groups (KIP-345, KIP-814)."""

import pytest

from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.group.bench import NONE, GroupBench, now, subscription, waits


def stable(bench: GroupBench, *instances: str, **options: object) -> dict[str, str]:
    """Static members by instance id, stable in generation 1; the first leads."""
    answers = {name: bench.join(instance_id=name, **options) for name in instances}  # type: ignore[arg-type]
    for _ in range(100):
        if not waits(answers[instances[0]]):
            break
        bench.advance(0.1)
    members = {name: now(answer).member_id for name, answer in answers.items()}
    leader = members[instances[0]]
    for name in reversed(instances):
        mine = members[name]
        plan = {m: m.encode() for m in members.values()} if mine == leader else None
        answer = bench.sync(mine, 1, plan, instance_id=name)
    assert now(answer).error_code == NONE
    assert bench.group().state is ClassicGroupState.STABLE
    return members


def slow_start() -> GroupBench:
    return GroupBench({"group.initial.rebalance.delay.ms": "1000"})


def test_joins_at_once_under_its_instance_id() -> None:
    bench = GroupBench()
    answer = bench.join(instance_id="one")
    assert waits(answer)
    bench.settle()
    assert now(answer).member_id.startswith("one-")
    assert now(answer).members[0].group_instance_id == "one"


def test_any_text_is_an_instance_id() -> None:
    for name in ("", " ", "..", "x" * 250, "ü/"):
        assert stable(GroupBench(), name)


@pytest.mark.parametrize("version", [5, 8, 9])
def test_a_restarted_follower_keeps_its_assignment_without_a_rebalance(version: int) -> None:
    bench = slow_start()
    members = stable(bench, "leader", "follower")
    answer = now(bench.join(instance_id="follower", version=version))
    assert answer.error_code == NONE
    assert answer.generation_id == 1
    assert answer.leader == members["leader"]
    assert answer.members == []
    assert not answer.skip_assignment
    assert answer.member_id != members["follower"]
    assert bench.group().state is ClassicGroupState.STABLE
    mine = bench.sync(answer.member_id, 1, instance_id="follower")
    assert now(mine).assignment == members["follower"].encode()


def test_a_restarted_leader_is_told_to_skip_the_assignment() -> None:
    bench = slow_start()
    members = stable(bench, "leader", "follower")
    answer = now(bench.join(instance_id="leader", version=9))
    assert answer.skip_assignment
    assert answer.leader == answer.member_id != members["leader"]
    assert {m.group_instance_id for m in answer.members} == {"leader", "follower"}


def test_an_old_leader_is_told_of_its_former_self() -> None:
    bench = slow_start()
    members = stable(bench, "leader", "follower")
    answer = now(bench.join(instance_id="leader", version=8))
    assert answer.leader == members["leader"] != answer.member_id
    assert answer.members == []
    assert not answer.skip_assignment


def test_the_new_member_id_is_written() -> None:
    bench = slow_start()
    stable(bench, "leader", "follower")
    answer = now(bench.join(instance_id="follower"))
    _, value = bench.written()[-1]
    assert answer.member_id in {member.member_id for member in value.members}
    assert value.generation == 1
    loaded = bench.load()
    assert loaded.group().static_members["follower"] == answer.member_id


def test_a_write_that_fails_leaves_the_old_member() -> None:
    bench = slow_start()
    members = stable(bench, "leader", "follower")
    bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
    answer = now(bench.join(instance_id="follower"))
    assert answer.error_code == ErrorCode.COORDINATOR_NOT_AVAILABLE
    assert answer.member_id == ""
    assert bench.group().static_members["follower"] == members["follower"]
    assert bench.heartbeat(members["follower"], 1, instance_id="follower") is NONE


def test_each_restart_gives_another_member_id() -> None:
    bench = GroupBench()
    first = stable(bench, "one")["one"]
    second = now(bench.join(instance_id="one")).member_id
    third = now(bench.join(instance_id="one")).member_id
    assert len({first, second, third}) == 3


def test_who_was_replaced_is_fenced_everywhere() -> None:
    bench = slow_start()
    old = stable(bench, "leader", "follower")["follower"]
    now(bench.join(instance_id="follower"))
    fenced = ErrorCode.FENCED_INSTANCE_ID
    assert bench.heartbeat(old, 1, instance_id="follower") is fenced
    assert now(bench.sync(old, 1, instance_id="follower")).error_code == fenced
    assert now(bench.join(old, instance_id="follower")).error_code == fenced
    error = bench.commit_error(member_id=old, generation_id=1, instance_id="follower")
    assert error is fenced
    assert bench.leave((old, "follower")).members[0].error_code == fenced
    # Without its instance id it is nobody.
    assert bench.heartbeat(old, 1) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_duplicate_that_waits_in_join_is_fenced() -> None:
    bench = slow_start()
    first = bench.join(instance_id="one")
    second = bench.join(instance_id="one")
    assert now(first).error_code == ErrorCode.FENCED_INSTANCE_ID
    bench.advance(3)
    assert now(second).error_code == NONE


def test_a_duplicate_that_waits_in_sync_is_fenced() -> None:
    bench = slow_start()
    answers = {name: bench.join(instance_id=name) for name in ("leader", "follower")}
    bench.advance(3)
    old = now(answers["follower"]).member_id
    waiting = bench.sync(old, 1, instance_id="follower")
    again = bench.join(instance_id="follower")
    assert now(waiting).error_code == ErrorCode.FENCED_INSTANCE_ID
    assert waits(again)
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE


def test_a_change_of_protocol_that_matters_rebalances() -> None:
    bench = slow_start()
    meta = subscription("topic")
    stable(bench, "a", "b", protocols={"range": meta, "other": meta})
    answer = bench.join(instance_id="b", protocols={"other": meta})
    assert waits(answer)
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE


def test_new_metadata_of_the_same_protocol_does_not() -> None:
    bench = slow_start()
    stable(bench, "a", "b")
    answer = bench.join(instance_id="b", protocols={"range": subscription("another")})
    assert now(answer).generation_id == 1


def test_known_instance_and_known_member_id_rejoins_as_anybody() -> None:
    bench = slow_start()
    members = stable(bench, "a", "b")
    assert now(bench.join(members["b"], instance_id="b")).generation_id == 1
    assert waits(bench.join(members["a"], instance_id="a"))


def test_unknown_instance_or_mixed_up_ids() -> None:
    bench = slow_start()
    members = stable(bench, "a", "b")
    unknown, fenced = ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID
    assert now(bench.join(members["a"], instance_id="c")).error_code == unknown
    assert now(bench.join(members["a"], instance_id="b")).error_code == fenced
    assert now(bench.sync(members["a"], 1, instance_id="b")).error_code == fenced
    assert now(bench.sync(members["a"], 1, instance_id="c")).error_code == unknown
    assert bench.heartbeat("x", 1, instance_id="a") is fenced


def test_its_session_ends_like_any_other() -> None:
    bench = GroupBench()
    stable(bench, "one", session_ms=6_000)
    bench.advance(6.1)
    assert bench.group().state is ClassicGroupState.EMPTY
    assert bench.group().static_members == {}


def test_who_does_not_rejoin_stays_a_member() -> None:
    bench = slow_start()
    members = stable(bench, "a", "b", rebalance_ms=5_000, session_ms=60_000)
    answer = bench.join(members["a"], instance_id="a", rebalance_ms=5_000, session_ms=60_000)
    bench.advance(5.1)
    assert now(answer).generation_id == 2
    assert {m.group_instance_id for m in now(answer).members} == {"a", "b"}


def test_another_leads_when_the_leader_does_not_rejoin() -> None:
    bench = slow_start()
    members = stable(bench, "a", "b", rebalance_ms=5_000, session_ms=60_000)
    answer = bench.join(
        members["b"],
        instance_id="b",
        rebalance_ms=5_000,
        session_ms=60_000,
        protocols={"range": subscription("new")},
    )
    bench.advance(5.1)
    assert now(answer).leader == members["b"]


def test_when_nobody_rejoins_the_phase_goes_on_until_the_sessions_end() -> None:
    bench = slow_start()
    members = stable(bench, "a", "b", rebalance_ms=5_000, session_ms=12_000)
    bench.leave((members["a"], "a"))
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
    bench.advance(6)
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
    bench.advance(10)
    assert bench.group().state is ClassicGroupState.EMPTY


def test_an_administrator_removes_by_instance_id() -> None:
    bench = slow_start()
    stable(bench, "a", "b")
    response = bench.leave(("", "b"), ("", "nobody"), ("", None))
    assert [(m.member_id, m.group_instance_id, m.error_code) for m in response.members] == [
        ("", "b", NONE),
        ("", "nobody", ErrorCode.UNKNOWN_MEMBER_ID),
        ("", None, ErrorCode.UNKNOWN_MEMBER_ID),
    ]
    assert set(bench.group().static_members) == {"a"}
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE


def test_the_group_may_be_full_of_static_members() -> None:
    bench = GroupBench({"group.max.size": "2", "group.initial.rebalance.delay.ms": "1000"})
    stable(bench, "a", "b")
    full = ErrorCode.GROUP_MAX_SIZE_REACHED
    assert now(bench.join(instance_id="c")).error_code == full


def test_one_who_restarts_before_it_synced_is_missed_under_its_old_id() -> None:
    bench = GroupBench()
    answers = [bench.join(instance_id=name, session_ms=90_000) for name in ("one", "two")]
    bench.settle()
    leader, silent = (now(answer).member_id for answer in answers)
    bench.sync(leader, 1, {leader: b"all"}, instance_id="one")
    assert bench.group().state is ClassicGroupState.STABLE
    again = now(bench.join(instance_id="two", session_ms=90_000)).member_id
    assert again != silent
    assert now(bench.sync(again, 1, instance_id="two")).error_code == NONE
    bench.advance(59)
    assert bench.group().state is ClassicGroupState.STABLE
    bench.advance(2)
    assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
    assert set(bench.group().members) == {leader, again}
    assert bench.heartbeat(leader, 1, instance_id="one") is ErrorCode.REBALANCE_IN_PROGRESS
