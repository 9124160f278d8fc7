"""Groups of KIP-848: joining, epochs, reconciliation, static members, expressions, timers."""

from typing import Any

import pytest

from kbroker.coordinator.group.consumer_member import MemberState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.list_groups_response import ListGroupsResponse
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id

INVALID = ErrorCode.INVALID_REQUEST


def bench_with(settings: dict[str, str] | None = None, **topics: int) -> GroupBench:
    bench = GroupBench({"group.consumer.assignment.interval.ms": "0", **(settings or {})})
    bench.set_topics(**(topics or {"t": 4}))
    return bench


def two_members(bench: GroupBench) -> None:
    """Members "a" and "b", both stable, two partitions of "t" each."""
    bench.consumer("a", topics=["t"])
    bench.consumer("b", topics=["t"])
    bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
    bench.consumer("a", 2, owned={"t": [0, 1]})
    bench.consumer("b", 3)
    assert bench.consumer_group().state_name == "Stable"


class TestJoin:
    def test_the_first_member_gets_epoch_2_and_everything(self) -> None:
        bench = bench_with()
        response = bench.consumer("a", topics=["t"])
        assert (response.error_code, response.member_id, response.member_epoch) == (NONE, "a", 2)
        assert response.heartbeat_interval_ms == 5_000
        assert bench.assigned(response) == {"t": [0, 1, 2, 3]}
        assert bench.consumer_group().state_name == "Stable"

    def test_a_quiet_heartbeat_repeats_nothing_and_writes_nothing(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        before = len(bench.log.records(0))
        response = bench.consumer("a", 2)
        assert (response.error_code, response.member_epoch, response.assignment) == (0, 2, None)
        assert len(bench.log.records(0)) == before

    def test_a_full_one_is_told_everything(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        again = bench.consumer("a", 0, topics=["t"])
        assert again.member_epoch == 2
        assert bench.assigned(again) == {"t": [0, 1, 2, 3]}

    def test_version_0_may_leave_the_member_id_to_the_coordinator(self) -> None:
        bench = bench_with()
        response = bench.consumer("", topics=["t"], version=0)
        assert response.error_code == NONE
        assert response.member_id
        assert bench.consumer("", topics=["t"]).error_code == INVALID

    def test_topics_that_do_not_exist_yet(self) -> None:
        bench = bench_with()
        response = bench.consumer("a", topics=["later"])
        assert bench.assigned(response) == {}
        bench.set_topics(t=4, later=2)
        response = bench.consumer("a", response.member_epoch)
        assert bench.assigned(response) == {"later": [0, 1]}

    def test_no_topics_at_all(self) -> None:
        bench = bench_with()
        response = bench.consumer("a", topics=[])
        assert (response.error_code, response.member_epoch) == (NONE, 1)
        assert bench.assigned(response) == {}

    def test_the_group_may_be_full(self) -> None:
        bench = bench_with({"group.consumer.max.size": "1"})
        bench.consumer("a", topics=["t"])
        full = ErrorCode.GROUP_MAX_SIZE_REACHED
        assert bench.consumer("b", topics=["t"]).error_code == full
        assert bench.consumer("a", 2).error_code == NONE

    def test_where_the_protocol_is_off(self) -> None:
        bench = bench_with({"group.coordinator.rebalance.protocols": "classic"})
        error = ErrorCode.UNSUPPORTED_VERSION
        assert bench.consumer("a", topics=["t"]).error_code == error

    def test_assignors(self) -> None:
        bench = bench_with(t=3)
        bench.consumer("a", topics=["t"], assignor="range")
        response = bench.consumer("b", topics=["t"], assignor="nonsense")
        assert response.error_code == ErrorCode.UNSUPPORTED_ASSIGNOR
        assert response.error_message == (
            "ServerAssignor nonsense is not supported. Supported assignors: uniform, range."
        )
        (group,) = now(bench.coordinator.requests.consumer_group_describe([GROUP]))
        assert group.assignor_name == "range"

    def test_a_write_that_fails_changes_nothing(self) -> None:
        bench = bench_with()
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        error = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert bench.consumer("a", topics=["t"]).error_code == error
        assert bench.shard.groups == {}
        bench.log.failure = None
        assert bench.consumer("a", topics=["t"]).error_code == NONE


class TestRequests:
    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"member_id": " "}, "MemberId can't be empty."),
            ({"group_id": "\t"}, "GroupId can't be empty."),
            ({"instance_id": ""}, "InstanceId can't be empty."),
            ({"rebalance_ms": -1}, "RebalanceTimeoutMs must be provided in first request."),
            ({"owned": {"t": [0]}}, "TopicPartitions must be empty when (re-)joining."),
            (
                {"topics": None},
                "Either SubscribedTopicNames or SubscribedTopicRegex must be non-null "
                "when (re-)joining.",
            ),
            ({"epoch": -3}, "MemberEpoch is invalid."),
            ({"epoch": -2}, "InstanceId can't be null."),
        ],
    )
    def test_what_is_invalid(self, options: dict[str, Any], text: str) -> None:
        response = bench_with().consumer(**{"topics": ["t"], **options})
        assert (response.error_code, response.error_message) == (INVALID, text)
        assert response.member_id is None

    def test_unknown_group_and_member(self) -> None:
        bench = bench_with()
        response = bench.consumer("a", 5)
        assert response.error_code == ErrorCode.GROUP_ID_NOT_FOUND
        bench.consumer("a", topics=["t"])
        assert bench.consumer("b", 5).error_code == ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.consumer("b", -1).error_code == ErrorCode.UNKNOWN_MEMBER_ID

    def test_epochs(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        fenced = ErrorCode.FENCED_MEMBER_EPOCH
        assert bench.consumer("a", 3).error_code == fenced
        assert bench.consumer("a", 1).error_code == fenced
        assert bench.consumer("a", 2).error_code == NONE

    def test_the_previous_epoch_passes_while_the_member_owns_nothing_more(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.set_topics(t=5)
        assert bench.consumer("a", 2).member_epoch == 3
        again = bench.consumer("a", 2, owned={"t": [0, 1]})
        assert (again.error_code, again.member_epoch) == (NONE, 3)
        fenced = ErrorCode.FENCED_MEMBER_EPOCH
        assert bench.consumer("a", 2, owned={"t": [9]}).error_code == fenced
        assert bench.consumer("a", 2).error_code == fenced


class TestReconciliation:
    def test_partitions_move_only_when_they_are_given_up(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        joined = bench.consumer("b", topics=["t"])
        assert joined.member_epoch == 3
        assert bench.assigned(joined) == {}
        revoke = bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        assert revoke.member_epoch == 2
        assert bench.assigned(revoke) == {"t": [0, 1]}
        waits = bench.consumer("b", 3)
        assert (waits.member_epoch, waits.assignment) == (3, None)
        still = bench.consumer("a", 2, owned={"t": [0, 1, 2]})
        assert still.member_epoch == 2
        done = bench.consumer("a", 2, owned={"t": [0, 1]})
        assert done.member_epoch == 3
        gets = bench.consumer("b", 3)
        assert bench.assigned(gets) == {"t": [2, 3]}
        assert bench.consumer_group().state_name == "Stable"

    def test_who_does_not_give_up_in_time_is_fenced(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], rebalance_ms=5_000)
        bench.consumer("b", topics=["t"])
        bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        for _ in range(6):
            bench.advance(1)
            bench.consumer("b", 3)
        assert list(bench.consumer_group().members) == ["b"]
        assert bench.consumer("a", 2).error_code == ErrorCode.UNKNOWN_MEMBER_ID
        epoch = bench.consumer_group().members["b"].member_epoch
        bench.consumer("b", epoch)
        assigned = bench.consumer_group().members["b"].assigned
        assert {t: sorted(p) for t, p in assigned.items()} == {topic_id("t"): [0, 1, 2, 3]}

    def test_a_topic_that_grows(self) -> None:
        bench = bench_with()
        two_members(bench)
        bench.set_topics(t=6)
        first = bench.consumer("a", 3)
        second = bench.consumer("b", 3)
        assert first.member_epoch == second.member_epoch == 4
        assert sorted(
            (bench.assigned(first) or {})["t"] + (bench.assigned(second) or {})["t"]
        ) == list(range(6))

    def test_a_topic_that_goes(self) -> None:
        bench = bench_with(t=2, u=2)
        bench.consumer("a", topics=["t", "u"])
        bench.set_topics(t=2)
        response = bench.consumer("a", 2, owned={"t": [0, 1], "u": [0, 1]})
        assert bench.assigned(response) == {"t": [0, 1]}

    def test_other_topics_of_the_cluster_are_nobody_s_business(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.set_topics(t=4, other=3)
        assert bench.consumer("a", 2).member_epoch == 2

    def test_a_changed_subscription_takes_effect_at_once(self) -> None:
        bench = bench_with(t=2, u=2)
        bench.consumer("a", topics=["t"])
        response = bench.consumer("a", 2, topics=["u"], owned={"t": [0, 1]})
        assert response.member_epoch == 2
        assert bench.assigned(response) == {}
        response = bench.consumer("a", 2, owned={})
        assert bench.assigned(response) == {"u": [0, 1]}
        assert response.member_epoch == 3

    def test_within_the_interval_members_wait_for_the_next_assignment(self) -> None:
        bench = bench_with({"group.consumer.assignment.interval.ms": "1000"})
        bench.consumer("a", topics=["t"])
        joined = bench.consumer("b", topics=["t"])
        assert (joined.member_epoch, bench.assigned(joined)) == (2, {})
        assert bench.consumer_group().state_name == "Assigning"
        bench.advance(1.1)
        revoke = bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        assert bench.assigned(revoke) == {"t": [0, 1]}
        bench.consumer("a", 2, owned={"t": [0, 1]})
        gets = bench.consumer("b", 2)
        assert (gets.member_epoch, bench.assigned(gets)) == (3, {"t": [2, 3]})


class TestLeave:
    def test_who_leaves_leaves_its_partitions(self) -> None:
        bench = bench_with()
        two_members(bench)
        response = bench.consumer("b", -1)
        assert (response.error_code, response.member_id, response.member_epoch) == (0, "b", -1)
        gets = bench.consumer("a", 3)
        assert (gets.member_epoch, bench.assigned(gets)) == (4, {"t": [0, 1, 2, 3]})

    def test_the_last_one_leaves_an_empty_group(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        assert bench.consumer_group().state_name == "Empty"
        assert bench.timer.pending == 1  # the expiry of offsets
        assert bench.consumer("a", 0, topics=["t"]).member_epoch == 4

    def test_sessions_end(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.advance(44)
        bench.consumer("a", 2)
        bench.advance(44)
        assert list(bench.consumer_group().members) == ["a"]
        bench.advance(2)
        assert bench.consumer_group().state_name == "Empty"

    def test_a_session_that_ends_while_nothing_can_be_written_ends_later(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        bench.advance(46)
        assert list(bench.consumer_group().members) == ["a"]
        bench.log.failure = None
        bench.advance(1)
        assert bench.consumer_group().members == {}


class TestStatic:
    def test_comes_back_to_what_it_had(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        left = bench.consumer("a", -2, instance_id="i")
        assert (left.error_code, left.member_epoch) == (NONE, -2)
        epoch = bench.consumer_group().group_epoch
        back = bench.consumer("b", topics=["t"], instance_id="i")
        assert (back.error_code, back.member_epoch) == (NONE, epoch)
        assert bench.assigned(back) == {"t": [0, 1, 2, 3]}
        assert list(bench.consumer_group().members) == ["b"]
        assert bench.consumer_group().group_epoch == epoch

    def test_its_place_is_kept_only_for_a_session(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("a", -2, instance_id="i")
        bench.advance(46)
        assert bench.consumer_group().members == {}

    def test_two_with_one_instance_id(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        response = bench.consumer("b", topics=["t"], instance_id="i")
        assert response.error_code == ErrorCode.UNRELEASED_INSTANCE_ID
        fenced = ErrorCode.FENCED_INSTANCE_ID
        assert bench.consumer("b", 2, instance_id="i").error_code == fenced
        assert bench.consumer("b", -1, instance_id="i").error_code == fenced
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        assert bench.consumer("a", 2, instance_id="j").error_code == unknown

    def test_leaving_for_good(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("a", -1, instance_id="i")
        assert bench.consumer_group().static_members == {}


class TestRegex:
    def test_is_resolved_soon_after_the_heartbeat(self) -> None:
        bench = bench_with(foo1=1, foo2=1, bar=1)
        joined = bench.consumer("a", regex="foo.*", topics=None)
        assert (joined.error_code, bench.assigned(joined)) == (NONE, {})
        bench.settle()
        gets = bench.consumer("a", joined.member_epoch)
        assert bench.assigned(gets) == {"foo1": [0], "foo2": [0]}

    def test_new_topics_are_found_after_a_while(self) -> None:
        bench = bench_with(foo1=1)
        bench.consumer("a", regex="foo.*", topics=None)
        bench.settle()
        epoch = bench.consumer("a", 1).member_epoch
        bench.set_topics(foo1=1, foo2=1)
        bench.consumer("a", epoch)
        bench.settle()
        assert bench.consumer("a", epoch).member_epoch == epoch
        bench.advance(11)
        bench.consumer("a", epoch)
        bench.settle()
        gets = bench.consumer("a", epoch)
        assert bench.assigned(gets) == {"foo1": [0], "foo2": [0]}

    def test_a_second_member_with_the_same_one_gets_its_share_at_once(self) -> None:
        bench = bench_with(foo=2)
        bench.consumer("a", regex="foo.*", topics=None)
        bench.settle()
        epoch = bench.consumer("a", 1).member_epoch
        joined = bench.consumer("b", regex="foo.*", topics=None)
        assert joined.member_epoch == epoch + 1

    def test_an_invalid_one(self) -> None:
        bench = bench_with()
        response = bench.consumer("a", regex="(", topics=None)
        assert response.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
        assert response.error_message is not None
        assert response.error_message.startswith("SubscribedTopicRegex `(` is not a valid")
        assert bench.shard.groups == {}

    def test_it_is_forgotten_with_its_last_member(self) -> None:
        bench = bench_with(foo=1)
        bench.consumer("a", regex="foo.*", topics=None)
        bench.settle()
        assert set(bench.consumer_group().resolved) == {"foo.*"}
        bench.consumer("a", -1)
        assert bench.consumer_group().resolved == {}

    def test_names_and_an_expression(self) -> None:
        bench = bench_with(foo=1, t=1)
        bench.consumer("a", regex="foo.*", topics=["t"])
        bench.settle()
        bench.consumer("a", 2)
        assert set(bench.consumer_group().members["a"].assigned) == {topic_id("foo"), topic_id("t")}

    def test_very_many_topics_are_matched_in_turns(self) -> None:
        bench = bench_with(**{f"topic{number}": 1 for number in range(1_200)})
        bench.consumer("a", regex="topic1.*", topics=None)
        assert bench.timer.run_due() == 1
        assert bench.consumer_group().resolved == {}
        bench.settle()
        assert len(bench.consumer_group().resolved["topic1.*"].topics) == 311


class TestOffsets:
    def test_a_member_commits_at_its_epoch(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        known = topic_id("t")

        def commit(**options: Any) -> ErrorCode:
            return bench.commit_error(topic="t", topic_id=known, **options)

        assert commit(member_id="a", generation_id=2) is NONE
        stale = ErrorCode.STALE_MEMBER_EPOCH
        assert commit(member_id="a", generation_id=3) is stale
        assert commit(member_id="a", generation_id=1) is stale
        assert commit(member_id="x", generation_id=2) is ErrorCode.UNKNOWN_MEMBER_ID
        assert commit() is ErrorCode.UNKNOWN_MEMBER_ID
        old = commit(member_id="a", generation_id=2, version=8)
        assert old is ErrorCode.UNSUPPORTED_VERSION
        assert commit(version=8) is ErrorCode.UNKNOWN_MEMBER_ID

    def test_an_older_epoch_passes_for_what_the_member_had_at_it(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.set_topics(t=5)
        bench.consumer("a", 2)
        answer = now(
            bench.commit(
                {0: 1, 4: 1}, topic="t", topic_id=topic_id("t"), member_id="a", generation_id=2
            )
        )
        stale = ErrorCode.STALE_MEMBER_EPOCH
        assert [p.error_code for p in answer.topics[0].partitions] == [stale, stale]
        assert bench.committed() == {}
        kept = bench.commit(
            {0: 1}, topic="t", topic_id=topic_id("t"), member_id="a", generation_id=2
        )
        assert now(kept).topics[0].partitions[0].error_code == NONE

    def test_anybody_commits_to_an_empty_group(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("a", -1)
        assert bench.commit_error() is NONE

    def test_what_is_subscribed_is_not_deleted_and_does_not_expire(self) -> None:
        bench = bench_with({"offsets.retention.minutes": "10"})
        bench.consumer("a", topics=["t"])
        for topic in ("t", "u"):
            bench.commit_error(topic=topic, member_id="a", generation_id=2)
        for _ in range(60):
            bench.advance(40)
            assert bench.consumer("a", 2).error_code == NONE
        assert set(bench.committed()) == {("t", 0)}


class TestDescribe:
    def test_a_group(self) -> None:
        bench = bench_with()
        two_members(bench)
        (group,) = now(bench.coordinator.requests.consumer_group_describe([GROUP]))
        assert (group.group_state, group.group_epoch, group.assignment_epoch) == ("Stable", 3, 3)
        members = {member.member_id: member for member in group.members}
        a = members["a"]
        assert (a.member_epoch, a.subscribed_topic_names, a.member_type) == (3, ["t"], 1)
        assert a.assignment.topic_partitions == a.target_assignment.topic_partitions
        (topic,) = a.assignment.topic_partitions
        assert (topic.topic_name, topic.partitions) == ("t", [0, 1])

    def test_what_is_none(self) -> None:
        bench = bench_with()
        bench.stable_group(group_id="classic")
        groups = now(bench.coordinator.requests.consumer_group_describe(["no", "classic", ""]))
        assert [(g.error_code, g.error_message) for g in groups] == [
            (ErrorCode.GROUP_ID_NOT_FOUND, "Group no not found."),
            (ErrorCode.GROUP_ID_NOT_FOUND, "Group classic is not a consumer group."),
            (ErrorCode.INVALID_GROUP_ID, None),
        ]

    def test_it_is_listed_and_no_classic_group(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        listed = bench.coordinator.requests.list_groups(
            ListGroupsRequest(types_filter=["consumer"])
        )
        assert isinstance(listed, ListGroupsResponse)
        (row,) = listed.groups
        assert (row.protocol_type, row.group_state, row.group_type) == (
            "consumer",
            "Stable",
            "consumer",
        )
        (dead,) = now(bench.coordinator.requests.describe_groups([GROUP], 6))
        assert dead.error_code == ErrorCode.GROUP_ID_NOT_FOUND

    def test_it_is_deleted_when_it_is_empty(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        delete = bench.coordinator.requests.delete_groups
        assert now(delete([GROUP])).results[0].error_code == ErrorCode.NON_EMPTY_GROUP
        bench.consumer("a", -1)
        assert now(delete([GROUP])).results[0].error_code == NONE
        assert bench.shard.groups == {}
        assert bench.load().shard.groups == {}


class TestLoad:
    def test_all_is_as_it_was(self) -> None:
        bench = bench_with()
        two_members(bench)
        bench.consumer("c", topics=["t"])
        bench.consumer("a", 3, owned={"t": [0, 1]})
        other = bench.load(settings={"group.consumer.assignment.interval.ms": "0"})
        mine, theirs = bench.consumer_group(), other.consumer_group()
        assert theirs.members == mine.members
        assert theirs.target == mine.target
        assert (theirs.group_epoch, theirs.assignment_epoch, theirs.metadata_hash) == (
            mine.group_epoch,
            mine.assignment_epoch,
            mine.metadata_hash,
        )
        assert theirs.members["a"].state is mine.members["a"].state
        assert other.consumer("b", 3).error_code == NONE

    def test_timers_run_again(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("b", topics=["t"])
        bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
        assert bench.consumer_group().members["a"].state is MemberState.UNREVOKED_PARTITIONS
        other = bench.load()
        other.advance(5.1)
        assert list(other.consumer_group().members) == ["b"]
        other.advance(45)
        assert other.consumer_group().members == {}

    def test_a_topic_that_changed_meanwhile_is_noticed(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        other = bench.load(settings={"group.consumer.assignment.interval.ms": "0"})
        assert other.consumer("a", 2).member_epoch == 2
        third = bench.load(settings={"group.consumer.assignment.interval.ms": "0"})
        third.set_topics(t=5)
        assert third.consumer("a", 2).member_epoch == 3
