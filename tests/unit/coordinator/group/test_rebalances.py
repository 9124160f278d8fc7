"""The course of rebalances of classic groups: who is waited for, how long, and who is let go."""

import pytest

from kbroker.coordinator.deferred import Answer
from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.internal_records.group_metadata_key import GroupMetadataKey
from kbroker.protocol.messages.join_group_response import JoinGroupResponse
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, subscription, waits

SLOW = {"group.initial.rebalance.delay.ms": "1000"}


def joined(bench: GroupBench, count: int, **options: int) -> list[str]:
    """The members of generation 1, the leader first, none of which has synced."""
    answers = [bench.join(version=3, **options) for _ in range(count)]  # type: ignore[arg-type]
    bench.advance(3)
    return [now(answer).member_id for answer in answers]


def error_of(answer: Answer[JoinGroupResponse]) -> ErrorCode:
    return ErrorCode(now(answer).error_code)


def test_each_rebalance_is_a_generation() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    for generation_id in range(2, 6):
        assert now(bench.join(member_id)).generation_id == generation_id
        assert bench.heartbeat(member_id, generation_id) is NONE
        assert bench.heartbeat(member_id, generation_id - 1) is ErrorCode.ILLEGAL_GENERATION
        now(bench.sync(member_id, generation_id, {member_id: b""}))


def test_a_pending_member_is_waited_for() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    pending = now(bench.join()).member_id
    again = bench.join(member_id)
    assert waits(again)
    newcomer = bench.join(pending)
    assert {now(again).generation_id, now(newcomer).generation_id} == {2}
    assert len(now(again).members) == 2


def test_a_pending_member_that_does_not_come_back_ends_the_wait() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group(session_ms=60_000)
    bench.join(session_ms=6_000)
    again = bench.join(member_id, session_ms=60_000)
    bench.advance(5.9)
    assert waits(again)
    bench.advance(0.2)
    assert [member.member_id for member in now(again).members] == [member_id]


def test_a_pending_member_that_leaves_ends_the_wait() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    pending = now(bench.join()).member_id
    again = bench.join(member_id)
    assert bench.leave((pending, None)).members[0].error_code == NONE
    assert now(again).generation_id == 2


def test_who_comes_back_too_late_must_begin_anew() -> None:
    bench = GroupBench()
    (late,) = bench.stable_group(rebalance_ms=5_000, session_ms=60_000)
    newcomer, answer = bench.join_new(rebalance_ms=5_000)
    bench.advance(5.1)
    assert now(answer).leader == newcomer
    assert bench.group().state is ClassicGroupState.COMPLETING_REBALANCE
    assert error_of(bench.join(late)) is ErrorCode.UNKNOWN_MEMBER_ID
    assert now(bench.sync(late, 1)).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_the_longest_rebalance_timeout_counts() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group(rebalance_ms=20_000, session_ms=60_000)
    _, answer = bench.join_new(rebalance_ms=5_000)
    bench.advance(19.9)
    assert waits(answer)
    bench.advance(0.2)
    assert error_of(answer) is NONE
    assert member_id not in bench.group().members


def test_a_heartbeat_before_the_assignments_are_there_keeps_the_session() -> None:
    bench = GroupBench(SLOW)
    leader, follower = joined(bench, 2, session_ms=6_000)
    for _ in range(4):
        bench.advance(4)
        assert bench.heartbeat(leader, 1) is NONE
        assert bench.heartbeat(follower, 1) is NONE
    assert bench.group().state is ClassicGroupState.COMPLETING_REBALANCE


def test_who_is_silent_between_join_and_sync_is_removed_and_the_others_rebalance() -> None:
    bench = GroupBench(SLOW)
    leader, silent = joined(bench, 2, session_ms=6_000)
    bench.advance(4)
    bench.heartbeat(leader, 1)
    bench.advance(2)
    assert set(bench.group().members) == {leader}
    assert bench.heartbeat(leader, 1) is ErrorCode.REBALANCE_IN_PROGRESS
    assert bench.heartbeat(silent, 1) is ErrorCode.UNKNOWN_MEMBER_ID


def test_nobody_is_removed_when_all_have_synced() -> None:
    bench = GroupBench(SLOW)
    members = joined(bench, 3, rebalance_ms=5_000, session_ms=60_000)
    for member_id in reversed(members):
        bench.sync(member_id, 1, dict.fromkeys(members, b"") if member_id == members[0] else None)
    bench.advance(30)
    assert bench.group().state is ClassicGroupState.STABLE
    assert set(bench.group().members) == set(members)


def test_nobody_syncs_at_all() -> None:
    bench = GroupBench(SLOW)
    members = joined(bench, 2, rebalance_ms=5_000, session_ms=60_000)
    bench.advance(5.1)
    assert bench.group().members == {}
    assert bench.group().state is ClassicGroupState.EMPTY
    assert error_of(bench.join(members[0])) is ErrorCode.UNKNOWN_MEMBER_ID


def test_a_static_member_that_joined_and_never_synced_does_not_hold_up_the_group() -> None:
    bench = GroupBench(SLOW)
    options = {"rebalance_ms": 5_000, "session_ms": 60_000}
    dynamic = bench.join(version=3, **options)  # type: ignore[arg-type]
    static = bench.join(instance_id="static", **options)  # type: ignore[arg-type]
    bench.advance(3)
    leader = now(dynamic).member_id
    now(bench.sync(leader, 1, {leader: b"all"}))
    assert now(static).error_code == NONE
    bench.advance(5.1)
    assert bench.group().static_members == {}
    again = bench.join(leader, **options)  # type: ignore[arg-type]
    assert now(again).generation_id == 2


def test_a_new_member_has_a_session_once_it_has_joined() -> None:
    bench = GroupBench()
    member_id, answer = bench.join_new(session_ms=6_000)
    bench.settle()
    assert now(answer).error_code == NONE
    bench.advance(6.1)
    assert bench.group().members == {}
    assert now(bench.sync(member_id, 1)).error_code == ErrorCode.UNKNOWN_MEMBER_ID


def test_a_changed_member_while_the_leader_assigns_begins_another_rebalance() -> None:
    bench = GroupBench(SLOW)
    leader, follower = joined(bench, 2)
    waiting = bench.sync(follower, 1)
    changed = bench.join(leader, protocols={"range": subscription("other")})
    assert now(waiting).error_code == ErrorCode.REBALANCE_IN_PROGRESS
    assert waits(changed)
    assert now(bench.join(follower)).generation_id == 2


def test_the_answer_of_a_repeated_join_shows_the_leader_all_members() -> None:
    bench = GroupBench(SLOW)
    leader, follower = joined(bench, 2)
    assert {m.member_id for m in now(bench.join(leader)).members} == {leader, follower}
    assert now(bench.join(follower)).members == []
    assert now(bench.join(follower)).leader == leader


def test_another_leads_when_the_leader_leaves() -> None:
    bench = GroupBench(SLOW)
    leader, follower = joined(bench, 2)
    bench.leave((leader, None))
    assert now(bench.join(follower)).leader == follower


def test_an_emptied_group_begins_with_the_next_generation() -> None:
    bench = GroupBench()
    (member_id,) = bench.stable_group()
    bench.leave((member_id, None))
    assert bench.group().generation_id == 2
    _, answer = bench.join_new()
    bench.settle()
    assert now(answer).generation_id == 3


def test_a_new_group_is_written_empty_before_anybody_is_in() -> None:
    bench = GroupBench()
    bench.join()
    ((key, value),) = bench.written()
    assert isinstance(key, GroupMetadataKey)
    assert key.group == GROUP
    assert (value.protocol_type, value.generation, value.protocol) == ("", 0, None)
    assert (value.leader, value.members) == (None, [])


def test_nothing_else_is_written_until_the_assignments_are() -> None:
    bench = GroupBench()
    member_id, _ = bench.join_new()
    bench.settle()
    assert len(bench.written()) == 1
    bench.sync(member_id, 1, {member_id: b"a"})
    (_, value) = bench.written()[-1]
    assert len(bench.written()) == 2
    assert (value.generation, value.protocol, value.leader) == (1, "range", member_id)
    assert [(m.member_id, m.assignment) for m in value.members] == [(member_id, b"a")]
    bench.leave((member_id, None))
    (_, value) = bench.written()[-1]
    assert (value.generation, value.protocol, value.members) == (2, None, [])
    assert value.protocol_type == "consumer"


@pytest.mark.parametrize("state", ["joining", "assigning", "stable"])
def test_a_group_that_moves_away_answers_nobody_any_more(state: str) -> None:
    bench = GroupBench(SLOW)
    members = joined(bench, 2)
    waiting: Answer[JoinGroupResponse] | None = None
    if state == "stable":
        for member_id in reversed(members):
            bench.sync(member_id, 1, {} if member_id == members[0] else None)
    elif state == "joining":
        bench.join_new()
        waiting = bench.join(members[0])
    group = bench.group()
    bench.coordinator.on_resigned(0)
    assert group.state is ClassicGroupState.DEAD
    if waiting is not None:
        assert error_of(waiting) is ErrorCode.NOT_COORDINATOR
    assert bench.timer.next_deadline() is None


class TestLeavingTogether:
    def test_the_others_rebalance_once(self) -> None:
        bench = GroupBench(SLOW)
        a, b, c = bench.stable_group(3)
        response = bench.leave((b, None), (c, None))
        assert [m.error_code for m in response.members] == [NONE, NONE]
        assert now(bench.join(a)).generation_id == 2

    def test_a_fenced_and_an_unknown_one_do_not_stop_the_rest(self) -> None:
        bench = GroupBench(SLOW)
        answers = {name: bench.join(instance_id=name) for name in ("a", "b")}
        bench.advance(3)
        ids = {name: now(answer).member_id for name, answer in answers.items()}
        response = bench.leave(("x", "a"), (ids["b"], "b"), (ids["b"], "b"), (ids["a"], "c"))
        assert [m.error_code for m in response.members] == [
            ErrorCode.FENCED_INSTANCE_ID,
            NONE,
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.UNKNOWN_MEMBER_ID,
        ]
        assert set(bench.group().members) == {ids["a"]}

    def test_a_member_and_a_pending_one(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        pending = now(bench.join()).member_id
        response = bench.leave((member_id, None), (pending, None), ("nobody", None))
        assert [m.error_code for m in response.members] == [
            NONE,
            NONE,
            ErrorCode.UNKNOWN_MEMBER_ID,
        ]
        assert bench.group().state is ClassicGroupState.EMPTY
        assert bench.group().pending_join_members == set()

    def test_nobody_valid_means_no_rebalance(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        assert bench.leave(("x", None), ("", None)).error_code == NONE
        assert bench.leave().members == []
        assert bench.group().state is ClassicGroupState.STABLE
        assert bench.heartbeat(member_id, 1) is NONE
