"""Members of KIP-848 that come again: after a lost answer, a fence, or a restart."""

from collections.abc import Mapping

import pytest

from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.coordinator.group.consumer_member import MemberState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
    TopicPartitions,
)
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    ConsumerGroupHeartbeatResponse,
)
from tests.unit.coordinator.group.bench import GROUP, NONE, GroupBench, now, topic_id

FENCED, UNRELEASED = ErrorCode.FENCED_MEMBER_EPOCH, ErrorCode.UNRELEASED_INSTANCE_ID
UNKNOWN, FENCED_INSTANCE = ErrorCode.UNKNOWN_MEMBER_ID, ErrorCode.FENCED_INSTANCE_ID


def bench_with(**topics: int) -> GroupBench:
    bench = GroupBench({"group.consumer.assignment.interval.ms": "0"})
    bench.set_topics(**(topics or {"t": 4}))
    return bench


def full(
    bench: GroupBench, member_id: str, epoch: int, owned: Mapping[str, list[int]]
) -> ConsumerGroupHeartbeatResponse:
    """A heartbeat that tells everything, as after an error."""
    request = ConsumerGroupHeartbeatRequest(
        group_id=GROUP,
        member_id=member_id,
        member_epoch=epoch,
        rebalance_timeout_ms=5_000,
        subscribed_topic_names=["t"],
        topic_partitions=[TopicPartitions(topic_id(name), owned[name]) for name in owned],
    )
    client = ClientInfo("client", "/127.0.0.1", 1)
    return now(bench.coordinator.requests.consumer_group_heartbeat(client, request))


def revoking() -> GroupBench:
    """Member "a" at epoch 2 is to give up two partitions, "b" at epoch 3 waits for them."""
    bench = bench_with()
    bench.consumer("a", topics=["t"])
    bench.consumer("b", topics=["t"])
    bench.consumer("a", 2, owned={"t": [0, 1, 2, 3]})
    members = bench.consumer_group().members
    assert members["a"].state is MemberState.UNREVOKED_PARTITIONS
    assert members["b"].state is MemberState.UNRELEASED_PARTITIONS
    return bench


def test_what_is_to_be_given_up_is_described_as_owned() -> None:
    bench = revoking()
    (group,) = now(bench.coordinator.requests.consumer_group_describe([GROUP]))
    members = {member.member_id: member for member in group.members}
    (held,) = members["a"].assignment.topic_partitions
    (meant,) = members["a"].target_assignment.topic_partitions
    assert (held.partitions, meant.partitions) == ([0, 1, 2, 3], [0, 1])
    assert members["b"].assignment.topic_partitions == []
    assert group.group_state == "Reconciling"


class TestJoiningAgain:
    """A fenced client, or one whose answer was lost, begins at epoch 0 under its own id."""

    def test_who_is_stable_gets_what_it_has(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        count = len(bench.written())
        again = bench.consumer("a", topics=["t"])
        assert (again.error_code, again.member_epoch) == (NONE, 2)
        assert bench.assigned(again) == {"t": [0, 1, 2, 3]}
        assert len(bench.written()) == count

    def test_who_was_to_give_up_has_given_up(self) -> None:
        bench = revoking()
        again = bench.consumer("a", topics=["t"])
        assert (again.error_code, again.member_epoch) == (NONE, 3)
        assert bench.assigned(again) == {"t": [0, 1]}
        assert bench.assigned(bench.consumer("b", 3)) == {"t": [2, 3]}

    def test_who_waits_for_others_waits_on(self) -> None:
        bench = revoking()
        again = bench.consumer("b", topics=["t"])
        assert (again.error_code, again.member_epoch) == (NONE, 3)
        assert bench.assigned(again) == {}
        assert bench.consumer_group().members["b"].state is MemberState.UNRELEASED_PARTITIONS


class TestLostAnswers:
    """The same full heartbeat once more."""

    def test_stable(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        for _ in range(2):
            answer = full(bench, "a", 2, {"t": [0, 1, 2, 3]})
            assert (answer.error_code, answer.member_epoch) == (NONE, 2)
            assert bench.assigned(answer) == {"t": [0, 1, 2, 3]}

    def test_while_it_gives_up(self) -> None:
        bench = revoking()
        for _ in range(2):
            answer = full(bench, "a", 2, {"t": [0, 1, 2, 3]})
            assert (answer.error_code, answer.member_epoch) == (NONE, 2)
            assert bench.assigned(answer) == {"t": [0, 1]}

    def test_while_it_waits(self) -> None:
        bench = revoking()
        for _ in range(2):
            answer = full(bench, "b", 3, {})
            assert (answer.error_code, answer.member_epoch) == (NONE, 3)
            assert bench.assigned(answer) == {}

    def test_when_it_has_given_up(self) -> None:
        bench = revoking()
        for _ in range(2):
            answer = full(bench, "a", 2, {"t": [0, 1]})
            assert (answer.error_code, answer.member_epoch) == (NONE, 3)
            assert bench.assigned(answer) == {"t": [0, 1]}
        assert full(bench, "a", 2, {"t": [0, 1, 2]}).error_code == FENCED


class TestStatic:
    def test_who_has_not_left_cannot_join_again_not_even_itself(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        for member_id in ("a", "b"):
            answer = bench.consumer(member_id, topics=["t"], instance_id="i")
            assert answer.error_code == UNRELEASED
            assert answer.error_message == (
                f"Static member {member_id} with instance id i cannot join the group because the "
                "instance id is owned by a member."
            )

    def test_the_same_id_may_come_back(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("a", -2, instance_id="i")
        back = bench.consumer("a", topics=["t"], instance_id="i")
        assert (back.error_code, back.member_epoch) == (NONE, 2)
        assert bench.assigned(back) == {"t": [0, 1, 2, 3]}
        assert bench.load().consumer_group().members == bench.consumer_group().members
        bench.advance(44)
        assert set(bench.consumer_group().members) == {"a"}
        bench.advance(2)
        assert bench.consumer_group().members == {}

    def test_a_dynamic_member_may_take_its_place(self) -> None:
        for topics in (["t"], ["t", "u"]):  # as it was assigned, and assigned anew
            bench = bench_with(t=4, u=2)
            bench.consumer("a", topics=["t"], instance_id="i")
            bench.consumer("b", topics=["t"])
            bench.consumer("a", 2, instance_id="i", owned={"t": [0, 1, 2, 3]})
            bench.consumer("a", 2, instance_id="i", owned={"t": [0, 1]})
            assert bench.assigned(bench.consumer("b", 3)) == {"t": [2, 3]}
            bench.consumer("a", -2, instance_id="i")
            answer = bench.consumer("b", topics=topics, instance_id="i")
            group = bench.consumer_group()
            assert list(group.members) == ["b"]
            if topics == ["t"]:
                assert bench.assigned(answer) == {"t": [0, 1]}
                assert group.target["b"] == {topic_id("t"): {0, 1}}
            else:
                # What it had itself is free when the coordinator has forgotten that.
                assert bench.assigned(answer) == {"t": [0, 1], "u": [0, 1]}
                later = bench.consumer("b", answer.member_epoch, instance_id="i")
                assert bench.assigned(later) == {"t": [0, 1, 2, 3], "u": [0, 1]}
                assert {topic: len(found) for topic, found in group.target["b"].items()} == {
                    topic_id("t"): 4,
                    topic_id("u"): 2,
                }

    def test_epochs_are_its_own_business(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        full_epoch = bench.consumer("a", 2, instance_id="i")
        assert full_epoch.error_code == NONE
        assert bench.consumer("a", 3, instance_id="i").error_code == FENCED
        assert bench.consumer("a", 1, instance_id="i").error_code == FENCED

    def test_its_coming_and_going_is_an_epoch_but_not_its_absence(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"])
        bench.consumer("b", topics=["t"], instance_id="i")
        assert bench.consumer_group().group_epoch == 3
        bench.consumer("b", -2, instance_id="i")
        assert bench.consumer_group().group_epoch == 3
        bench.consumer("c", topics=["t"], instance_id="i")
        assert bench.consumer_group().group_epoch == 3
        bench.consumer("c", -1, instance_id="i")
        assert bench.consumer_group().group_epoch == 4

    def test_other_topics_are_an_epoch(self) -> None:
        bench = bench_with(t=2, u=2)
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("a", -2, instance_id="i")
        back = bench.consumer("b", topics=["t", "u"], instance_id="i")
        assert back.member_epoch == bench.consumer_group().group_epoch == 3
        assert bench.assigned(back) == {"t": [0, 1], "u": [0, 1]}

    def test_what_waits_for_it_is_older_than_any_epoch(self) -> None:
        """Commits at an epoch before its absence count when it is back."""
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("a", -2, instance_id="i")
        assert set(bench.consumer_group().members["a"].assigned[topic_id("t")].values()) == {0}
        bench.consumer("b", topics=["t"], instance_id="i")
        options = {"topic": "t", "topic_id": topic_id("t"), "member_id": "b"}
        assert bench.commit_error(generation_id=1, **options) is NONE

    def test_what_it_was_to_give_up_is_free(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("b", topics=["t"])
        bench.consumer("a", 2, instance_id="i", owned={"t": [0, 1, 2, 3]})
        assert bench.assigned(bench.consumer("b", 3)) is None
        bench.consumer("a", -2, instance_id="i")
        assert bench.assigned(bench.consumer("b", 3)) == {"t": [2, 3]}

    @pytest.mark.parametrize("epoch", [-1, -2])
    def test_only_itself_can_leave(self, epoch: int) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        assert bench.consumer("b", epoch, instance_id="i").error_code == FENCED_INSTANCE
        assert bench.consumer("a", epoch, instance_id="j").error_code == UNKNOWN

    def test_an_absence_that_cannot_be_written_leaves_it_watched(self) -> None:
        bench = bench_with()
        bench.consumer("a", topics=["t"], instance_id="i")
        bench.consumer("b", topics=["t"])
        bench.consumer("a", 2, instance_id="i", owned={"t": [0, 1, 2, 3]})
        bench.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        assert bench.consumer("a", -2, instance_id="i").error_code != NONE
        bench.log.failure = None
        bench.advance(5.1)
        assert list(bench.consumer_group().members) == ["b"]


def test_a_leaving_member_of_no_group() -> None:
    answer = bench_with().consumer("a", -1)
    assert answer.error_code == ErrorCode.GROUP_ID_NOT_FOUND
    assert answer.error_message == "Group group not found."
