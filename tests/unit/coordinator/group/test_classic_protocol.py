"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup of the classic protocol."""

import pytest

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.group.classic_group import ClassicGroupState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, subscription, waits


def error_of(answer: object) -> ErrorCode:
    return ErrorCode(now(answer).error_code)  # type: ignore[arg-type,attr-defined]


class TestJoin:
    def test_a_first_member_joins_leads_and_is_stable_after_sync(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new(client_id="me")
        assert member_id.startswith("me-")
        assert waits(answer)
        bench.settle()
        joined = now(answer)
        assert joined.error_code == NONE
        assert joined.generation_id == 1
        assert joined.leader == joined.member_id == member_id
        assert (joined.protocol_type, joined.protocol_name) == ("consumer", "range")
        assert [m.member_id for m in joined.members] == [member_id]
        assert joined.members[0].metadata == subscription("topic")
        assert bench.group().state is ClassicGroupState.COMPLETING_REBALANCE
        synced = now(bench.sync(member_id, 1, {member_id: b"everything"}))
        assert (synced.error_code, synced.assignment) == (NONE, b"everything")
        assert (synced.protocol_type, synced.protocol_name) == ("consumer", "range")
        assert bench.group().state is ClassicGroupState.STABLE
        assert bench.heartbeat(member_id, 1) is NONE

    def test_versions_below_4_join_without_being_told_their_id_first(self) -> None:
        bench = GroupBench()
        answer = bench.join(version=3)
        assert waits(answer)
        bench.settle()
        assert now(answer).error_code == NONE

    def test_an_empty_group_id_is_invalid(self) -> None:
        answer = GroupBench().join(group_id="")
        assert error_of(answer) is ErrorCode.INVALID_GROUP_ID

    @pytest.mark.parametrize("session_ms", [5_999, 1_800_001, 0, -1])
    def test_the_session_timeout_has_bounds(self, session_ms: int) -> None:
        answer = now(GroupBench().join("someone", session_ms=session_ms))
        assert answer.error_code == ErrorCode.INVALID_SESSION_TIMEOUT
        assert answer.member_id == "someone"

    def test_an_unknown_member_of_no_group(self) -> None:
        bench = GroupBench()
        answer = now(bench.join("nobody"))
        assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
        assert answer.member_id == "nobody"
        assert bench.shard.groups == {}

    def test_an_unknown_member_of_a_group(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        assert error_of(bench.join("nobody")) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_errors_carry_no_protocol(self) -> None:
        answer = now(GroupBench().join("nobody"))
        assert (answer.protocol_type, answer.protocol_name, answer.leader) == (None, None, "")
        assert answer.generation_id == -1

    def test_protocols_must_be_there(self) -> None:
        bench = GroupBench()
        assert error_of(bench.join(protocol_type="")) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert error_of(bench.join(protocols={})) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    def test_the_protocol_type_must_be_the_group_s(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        answer = bench.join(protocol_type="connect")
        assert error_of(answer) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    def test_one_protocol_must_be_common_to_all(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        answer = bench.join(protocols={"roundrobin": subscription("topic")})
        assert error_of(answer) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL

    def test_the_protocol_with_most_votes_is_selected(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        meta = subscription("topic")
        answers = [
            bench.join(version=0, protocols=dict.fromkeys(names, meta))
            for names in (["a", "b"], ["b", "a"], ["b", "c", "a"])
        ]
        bench.advance(10)
        assert {now(answer).protocol_name for answer in answers} == {"b"}

    def test_only_the_leader_gets_the_members(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        answers = [bench.join(version=0) for _ in range(3)]
        bench.advance(10)
        listed = [now(answer).members for answer in answers]
        assert [len(members) for members in listed] == [3, 0, 0]
        assert len({now(answer).leader for answer in answers}) == 1

    def test_a_pending_member_that_does_not_come_back_is_forgotten(self) -> None:
        bench = GroupBench()
        member_id = now(bench.join()).member_id
        assert bench.group().pending_join_members == {member_id}
        bench.advance(10)
        assert bench.group().pending_join_members == set()
        assert error_of(bench.join(member_id)) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_a_pending_member_cannot_turn_static(self) -> None:
        bench = GroupBench()
        member_id = now(bench.join()).member_id
        answer = bench.join(member_id, instance_id="static")
        assert error_of(answer) is ErrorCode.UNKNOWN_SERVER_ERROR

    def test_a_follower_joining_again_unchanged_gets_the_generation_it_has(self) -> None:
        bench = GroupBench()
        leader, follower = self.two_members(bench)
        generation_id = bench.group().generation_id
        answer = now(bench.join(follower))
        assert (answer.generation_id, answer.leader) == (generation_id, leader)
        assert answer.members == []
        assert bench.group().state is ClassicGroupState.STABLE

    def test_a_follower_with_new_metadata_causes_a_rebalance(self) -> None:
        bench = GroupBench()
        leader, follower = self.two_members(bench)
        answer = bench.join(follower, protocols={"range": subscription("other")})
        assert waits(answer)
        assert bench.heartbeat(leader, 2) is ErrorCode.REBALANCE_IN_PROGRESS
        assert waits(bench.join(leader)) is False
        assert now(answer).generation_id == 3

    def test_the_leader_joining_again_always_causes_a_rebalance(self) -> None:
        bench = GroupBench()
        leader, follower = self.two_members(bench)
        assert waits(bench.join(leader))
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
        assert now(bench.join(follower)).generation_id == 3

    def test_joining_again_in_completing_rebalance_repeats_the_answer(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new()
        bench.settle()
        first = now(answer)
        assert now(bench.join(member_id)) == first

    def test_a_member_from_an_emptied_group_must_start_over(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        bench.leave((member_id, None))
        assert error_of(bench.join(member_id)) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_a_group_of_any_name(self) -> None:
        for name in ("a b", "ü/%\x00", "😀" * 20, "x" * 5000):
            assert GroupBench().stable_group(group_id=name)

    @staticmethod
    def two_members(bench: GroupBench) -> tuple[str, str]:
        """(leader, follower), stable in generation 2."""
        (leader,) = bench.stable_group()
        follower, answer = bench.join_new()
        assert waits(answer)
        again = now(bench.join(leader))
        assert now(answer).leader == leader == again.leader
        assert waits(bench.sync(follower, 2))
        now(bench.sync(leader, 2, {leader: b"l", follower: b"f"}))
        return leader, follower


class TestMaxSize:
    def test_no_more_members_than_allowed(self) -> None:
        bench = GroupBench({"group.max.size": "1"})
        bench.stable_group()
        answer = now(bench.join())
        assert answer.error_code == ErrorCode.GROUP_MAX_SIZE_REACHED
        assert answer.member_id == ""

    def test_the_last_to_join_a_rebalance_are_turned_away(self) -> None:
        bench = GroupBench({"group.max.size": "2", "group.initial.rebalance.delay.ms": "1000"})
        answers = [bench.join(version=0) for _ in range(3)]
        assert error_of(answers[2]) is ErrorCode.GROUP_MAX_SIZE_REACHED
        bench.advance(3)
        assert [error_of(answer) for answer in answers[:2]] == [NONE, NONE]

    def test_a_loaded_group_over_the_limit_rebalances(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        members = bench.stable_group(2)
        other = bench.load(settings={"group.max.size": "1"})
        assert other.group().state is ClassicGroupState.PREPARING_REBALANCE
        kept = other.join(members[1])
        assert waits(kept)
        assert error_of(other.join(members[0])) is ErrorCode.GROUP_MAX_SIZE_REACHED
        other.advance(61)
        assert now(kept).leader == members[1]


class TestInitialDelay:
    def test_the_first_rebalance_waits_its_delay(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        _, answer = bench.join_new()
        bench.advance(2.9)
        assert waits(answer)
        bench.advance(0.2)
        assert now(answer).error_code == NONE

    def test_a_member_that_comes_meanwhile_extends_it(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        _, first = bench.join_new()
        bench.advance(2)
        _, second = bench.join_new()
        bench.advance(3.9)
        assert waits(first)
        assert waits(second)
        bench.advance(0.2)
        assert now(first).generation_id == now(second).generation_id == 1

    def test_it_is_extended_up_to_the_rebalance_timeout(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        answers = []
        for _ in range(4):
            answers.append(bench.join_new(rebalance_ms=7_000)[1])
            bench.advance(2)
        assert not waits(answers[0])
        assert now(answers[0]).generation_id == 1

    def test_a_second_rebalance_does_not_wait(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "3000"})
        (member_id,) = bench.stable_group()
        assert now(bench.join(member_id)).generation_id == 2


class TestSubscriptions:
    @pytest.mark.parametrize(
        "metadata",
        [
            b"\x00\x00\xff\xff\xff\xff\x00\x00\x00\x00",
            b"\x00\x00\x7f\xff\xff\xff\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\x00\x01\x7f\xff\x00\x00\x00\x00",
            b"\x00\x00\x00\x00\x00\x00\x7f\xff\xff\xff",
        ],
        ids=["negative count", "huge count", "null topic", "huge topic", "huge user data"],
    )
    def test_absurd_ones_are_refused_and_hold_up_nobody(self, metadata: bytes) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        bad = bench.join(version=0, protocols={"range": metadata})
        good = bench.join(version=0)
        bench.advance(3)
        assert error_of(bad) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert now(good).error_code == NONE
        assert [m.member_id for m in now(good).members] == [now(good).member_id]

    def test_alone_it_leaves_an_empty_group(self) -> None:
        bench = GroupBench()
        bad = bench.join(version=0, protocols={"range": b"\x00\x00\xff\xff\xff\xff"})
        bench.settle()
        assert error_of(bad) is ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert bench.group().state is ClassicGroupState.EMPTY

    @pytest.mark.parametrize(
        "metadata", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x03\x00\x00\x00\x00"]
    )
    def test_short_ones_are_fine(self, metadata: bytes) -> None:
        bench = GroupBench()
        answer = bench.join(version=0, protocols={"range": metadata})
        bench.settle()
        assert now(answer).error_code == NONE
        assert bench.group().subscribed_topics is None

    def test_absurd_ones_of_another_protocol_type_are_nobody_s_business(self) -> None:
        bench = GroupBench()
        answer = bench.join(
            version=0, protocol_type="connect", protocols={"x": b"\x00\x00\xff\xff\xff\xff"}
        )
        bench.settle()
        assert now(answer).error_code == NONE

    def test_topics_of_all_members_are_known(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        for topic in ("a", "b"):
            bench.join(version=0, protocols={"range": subscription(topic, "common")})
        bench.advance(3)
        assert bench.group().subscribed_topics == {"a", "b", "common"}


class TestSync:
    def test_unknown_group_member_and_generation(self) -> None:
        bench = GroupBench()
        assert error_of(bench.sync("x", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
        (member_id,) = bench.stable_group()
        assert error_of(bench.sync("x", 1)) is ErrorCode.UNKNOWN_MEMBER_ID
        assert error_of(bench.sync(member_id, 7)) is ErrorCode.ILLEGAL_GENERATION
        assert error_of(bench.sync("x", 1, group_id="")) is ErrorCode.INVALID_GROUP_ID

    def test_protocol_type_and_name_must_fit_when_given(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        inconsistent = ErrorCode.INCONSISTENT_GROUP_PROTOCOL
        assert error_of(bench.sync(member_id, 1, protocol_type="x")) is inconsistent
        assert error_of(bench.sync(member_id, 1, protocol_name="x")) is inconsistent
        good = bench.sync(member_id, 1, protocol_type="consumer", protocol_name="range")
        assert error_of(good) is NONE

    def test_while_members_join_it_is_a_rebalance(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        bench.join_new()
        assert error_of(bench.sync(member_id, 1)) is ErrorCode.REBALANCE_IN_PROGRESS

    def test_members_the_leader_forgets_get_an_empty_assignment(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        answers = [bench.join(version=0) for _ in range(2)]
        bench.advance(3)
        leader, follower = (now(answer).member_id for answer in answers)
        waiting = bench.sync(follower, 1)
        now(bench.sync(leader, 1, {leader: b"mine", "stranger": b"x"}))
        assert now(waiting).assignment == b""
        assert now(waiting).error_code == NONE

    def test_a_follower_may_come_after_the_leader(self) -> None:
        bench = GroupBench()
        members = bench.stable_group()
        assert now(bench.sync(members[0], 1)).assignment == b"for " + members[0].encode()

    def test_members_that_do_not_sync_are_removed(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        answers = [bench.join(version=0, rebalance_ms=5_000) for _ in range(2)]
        bench.advance(3)
        leader, follower = (now(answer).member_id for answer in answers)
        assert error_of(bench.sync(leader, 1, {leader: b"", follower: b""})) is NONE
        for _ in range(5):
            bench.advance(1)
            bench.heartbeat(leader, 1)
            bench.heartbeat(follower, 1)
        assert list(bench.group().members) == [leader]
        assert bench.heartbeat(leader, 1) is ErrorCode.REBALANCE_IN_PROGRESS

    def test_a_leader_that_does_not_sync_is_removed_and_followers_rebalance(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        answers = [bench.join(version=0, rebalance_ms=5_000) for _ in range(2)]
        bench.advance(3)
        leader, follower = (now(answer).member_id for answer in answers)
        waiting = bench.sync(follower, 1)
        for _ in range(5):
            bench.advance(1)
            bench.heartbeat(leader, 1)
        assert error_of(waiting) is ErrorCode.REBALANCE_IN_PROGRESS
        assert now(bench.join(follower)).leader == follower

    def test_an_assignment_that_cannot_be_written_begins_a_rebalance(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new()
        bench.settle()
        now(answer)
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        waiting = bench.sync(member_id, 1, {member_id: b"x"})
        assert error_of(waiting) is ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE
        bench.log.failure = None
        assert now(bench.join(member_id)).generation_id == 2

    def test_it_waits_for_the_high_watermark(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new()
        bench.settle()
        now(answer)
        bench.log.replicated = False
        waiting = bench.sync(member_id, 1, {member_id: b"x"})
        assert waits(waiting)
        assert bench.group().state is ClassicGroupState.COMPLETING_REBALANCE
        bench.log.commit("", 0)
        assert now(waiting).assignment == b"x"
        assert bench.group().state is ClassicGroupState.STABLE

    def test_a_join_while_the_assignment_is_written_ends_the_generation(self) -> None:
        bench = GroupBench()
        member_id, answer = bench.join_new()
        bench.settle()
        now(answer)
        bench.log.replicated = False
        waiting = bench.sync(member_id, 1, {member_id: b"x"})
        bench.join_new()
        assert error_of(waiting) is ErrorCode.REBALANCE_IN_PROGRESS
        bench.log.commit("", 0)
        assert bench.group().state is ClassicGroupState.PREPARING_REBALANCE


class TestHeartbeat:
    def test_unknown_group_member_and_generation(self) -> None:
        bench = GroupBench()
        assert bench.heartbeat("x", 1) is ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.heartbeat("x", 1, group_id="") is ErrorCode.INVALID_GROUP_ID
        (member_id,) = bench.stable_group()
        assert bench.heartbeat("x", 1) is ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.heartbeat(member_id, 2) is ErrorCode.ILLEGAL_GENERATION
        assert bench.heartbeat(member_id, 1, instance_id="x") is ErrorCode.UNKNOWN_MEMBER_ID

    def test_a_member_that_is_silent_for_its_session_timeout_is_removed(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(session_ms=6_000)
        bench.advance(5.9)
        assert bench.heartbeat(member_id, 1) is NONE
        bench.advance(5.9)
        assert list(bench.group().members) == [member_id]
        bench.advance(0.2)
        assert bench.group().members == {}
        assert bench.group().state is ClassicGroupState.EMPTY
        assert bench.group().generation_id == 2

    def test_during_a_rebalance_it_extends_the_session(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(session_ms=6_000)
        bench.join_new(rebalance_ms=60_000)
        for _ in range(4):
            bench.advance(5)
            assert bench.heartbeat(member_id, 1) is ErrorCode.REBALANCE_IN_PROGRESS
        assert member_id in bench.group().members

    def test_who_does_not_rejoin_in_time_is_removed(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(rebalance_ms=5_000)
        newcomer, answer = bench.join_new(rebalance_ms=5_000)
        bench.advance(4.9)
        bench.heartbeat(member_id, 1)
        assert waits(answer)
        bench.advance(0.2)
        assert now(answer).leader == newcomer
        assert bench.heartbeat(member_id, 1) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_who_waits_in_join_is_alive(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(rebalance_ms=100_000, session_ms=6_000)
        leader_again = bench.join(member_id, session_ms=6_000, rebalance_ms=100_000)
        assert now(leader_again).generation_id == 2
        now(bench.sync(member_id, 2, {member_id: b""}))
        newcomer = now(bench.join(session_ms=60_000)).member_id  # pending: nobody can proceed
        waiting = bench.join(member_id, session_ms=6_000, rebalance_ms=100_000)
        bench.advance(30)
        assert waits(waiting)
        assert member_id in bench.group().members
        assert waits(bench.join(newcomer)) is False

    def test_a_new_member_that_waits_is_given_up_after_five_minutes(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group(rebalance_ms=1_800_000, session_ms=1_800_000)
        _, answer = bench.join_new(rebalance_ms=1_800_000)
        bench.advance(299)
        assert waits(answer)
        bench.advance(2)
        assert error_of(answer) is ErrorCode.UNKNOWN_MEMBER_ID
        assert list(bench.group().members) == [member_id]

    def test_while_loading_all_is_well(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        other = GroupBench(log=bench.log)  # nobody runs its loader
        assert other.heartbeat("x", 1) is NONE
        assert error_of(other.join("x")) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS
        assert error_of(other.sync("x", 1)) is ErrorCode.COORDINATOR_LOAD_IN_PROGRESS

    def test_elsewhere_it_is_not_the_coordinator(self) -> None:
        bench = GroupBench()
        bench.coordinator.on_resigned(0)
        assert bench.heartbeat("x", 1) is ErrorCode.NOT_COORDINATOR
        assert error_of(bench.join("x")) is ErrorCode.NOT_COORDINATOR
        assert bench.leave(("x", None)).error_code == ErrorCode.NOT_COORDINATOR


class TestLeave:
    def test_the_last_member_leaves_an_empty_group(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        response = bench.leave((member_id, None))
        assert response.error_code == NONE
        assert [m.error_code for m in response.members] == [NONE]
        assert bench.group().state is ClassicGroupState.EMPTY
        assert bench.group().protocol_type == "consumer"

    def test_unknown_group_and_member(self) -> None:
        bench = GroupBench()
        response = bench.leave(("x", None), ("y", "i"))
        assert response.error_code == NONE
        assert [(m.member_id, m.group_instance_id, m.error_code) for m in response.members] == [
            ("x", None, ErrorCode.UNKNOWN_MEMBER_ID),
            ("y", "i", ErrorCode.UNKNOWN_MEMBER_ID),
        ]
        bench.stable_group()
        response = bench.leave(("x", None))
        assert [m.error_code for m in response.members] == [ErrorCode.UNKNOWN_MEMBER_ID]
        assert bench.leave(("x", None), group_id="").error_code == ErrorCode.INVALID_GROUP_ID

    def test_the_others_rebalance(self) -> None:
        bench = GroupBench()
        leader, follower = TestJoin.two_members(bench)
        bench.leave((leader, None))
        assert bench.heartbeat(follower, 2) is ErrorCode.REBALANCE_IN_PROGRESS
        assert now(bench.join(follower)).leader == follower

    def test_a_member_that_waits_in_join_is_told(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        member_id, answer = bench.join_new()
        bench.leave((member_id, None))
        assert error_of(answer) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_a_pending_member_may_leave(self) -> None:
        bench = GroupBench()
        (member_id,) = bench.stable_group()
        pending = now(bench.join()).member_id
        waiting = bench.join(member_id)
        assert waits(waiting)
        response = bench.leave((pending, None))
        assert [m.error_code for m in response.members] == [NONE]
        assert now(waiting).generation_id == 2

    def test_several_at_once(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        members = bench.stable_group(3)
        response = bench.leave((members[0], None), ("x", None), (members[1], None))
        assert [m.error_code for m in response.members] == [
            NONE,
            ErrorCode.UNKNOWN_MEMBER_ID,
            NONE,
        ]
        assert list(bench.group().members) == [members[2]]


class TestWaitingRequests:
    def test_a_second_join_of_a_member_answers_the_first(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        member_id, first = bench.join_new()
        second = bench.join(member_id)
        assert error_of(first) is ErrorCode.REBALANCE_IN_PROGRESS
        assert waits(second)

    def test_all_who_wait_are_sent_away_when_the_partition_moves(self) -> None:
        bench = GroupBench()
        bench.stable_group()
        _, joining = bench.join_new()
        bench.coordinator.on_resigned(0)
        assert error_of(joining) is ErrorCode.NOT_COORDINATOR
        assert bench.timer.pending == 0

    def test_a_waiting_sync_is_sent_away_too(self) -> None:
        bench = GroupBench({"group.initial.rebalance.delay.ms": "1000"})
        answers = [bench.join(version=0) for _ in range(2)]
        bench.advance(3)
        syncing = bench.sync(now(answers[1]).member_id, 1)
        assert isinstance(syncing, Deferred)
        bench.coordinator.on_resigned(0)
        assert error_of(syncing) is ErrorCode.NOT_COORDINATOR

    def test_a_new_group_that_cannot_be_written_is_none(self) -> None:
        bench = GroupBench()
        bench.log.fail(KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
        assert error_of(bench.join(version=0)) is ErrorCode.NOT_COORDINATOR
        assert bench.shard.groups == {}
        bench.log.failure = None
        assert bench.stable_group()
        assert GROUP in bench.shard.groups

    def test_deleted_groups_leave_no_timer(self) -> None:
        bench = GroupBench()
        assert bench.shard.groups == {}
        before = bench.timer.pending
        (member_id,) = bench.stable_group()
        bench.leave((member_id, None))
        now(bench.coordinator.requests.delete_groups([GROUP]))
        assert bench.shard.groups == {}
        assert bench.timer.pending == before
