"""ConsumerGroupHeartbeat and ConsumerGroupDescribe over the wire, at every version."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.consumer_group_describe_request import ConsumerGroupDescribeRequest
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
)
from tests.unit.handlers.group_asking import GroupAsker, group_asking

pytestmark = pytest.mark.anyio


def joining(member_id: str = "me") -> ConsumerGroupHeartbeatRequest:
    return ConsumerGroupHeartbeatRequest(
        group_id="g",
        member_id=member_id,
        rebalance_timeout_ms=5_000,
        subscribed_topic_names=["t"],
        topic_partitions=[],
    )


async def with_a_member(client: GroupAsker) -> bytes:
    """Member "me" of group "g" at epoch 2, which has topic "t"; the topic's id."""
    await client.ready()
    topic_id = await client.create("t", 2)
    answer = await client.ask(68, 1, joining())
    assert (answer.error_code, answer.member_epoch) == (0, 2)
    return topic_id


@pytest.mark.parametrize("version", [0, 1])
async def test_join_live_and_leave(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        topic_id = await client.create("t", 2)
        joined = await client.ask(68, version, joining("" if version == 0 else "me"))
        assert joined.error_code == 0
        (topic,) = joined.assignment.topic_partitions
        assert (topic.topic_id, topic.partitions) == (topic_id, [0, 1])
        beat = ConsumerGroupHeartbeatRequest(
            group_id="g", member_id=joined.member_id, member_epoch=joined.member_epoch
        )
        lives = await client.ask(68, version, beat)
        assert (lives.error_code, lives.assignment) == (0, None)
        beat.member_epoch = -1
        left = await client.ask(68, version, beat)
        assert (left.error_code, left.member_epoch) == (0, -1)


@pytest.mark.parametrize(
    ("version", "text"), [(0, "GroupId can't be empty."), (1, "MemberId can't be empty.")]
)
async def test_an_empty_request(version: int, text: str) -> None:
    async with group_asking() as client:
        await client.ready()
        answer = await client.ask(68, version, ConsumerGroupHeartbeatRequest())
        assert (answer.error_code, answer.error_message) == (ErrorCode.INVALID_REQUEST, text)
        assert (answer.member_id, answer.heartbeat_interval_ms) == (None, 0)


async def test_an_invalid_expression() -> None:
    async with group_asking() as client:
        await client.ready()
        request = joining()
        request.subscribed_topic_regex = "("
        answer = await client.ask(68, 1, request)
        assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION


async def test_without_a_coordinator() -> None:
    async with group_asking() as client:
        answer = await client.ask(68, 1, joining())
        assert answer.error_code == ErrorCode.NOT_COORDINATOR


@pytest.mark.parametrize("version", [0, 1])
async def test_describe(version: int) -> None:
    async with group_asking() as client:
        await with_a_member(client)
        request = ConsumerGroupDescribeRequest(
            group_ids=["g", "no"], include_authorized_operations=True
        )
        group, no = (await client.ask(69, version, request)).groups
        assert (group.group_state, group.group_epoch, group.assignor_name) == (
            "Stable",
            2,
            "uniform",
        )
        assert group.authorized_operations == 3400
        (member,) = group.members
        assert member.client_host == "/"  # this test's connection comes from nowhere
        assert member.member_type == (1 if version >= 1 else -1)
        (topic,) = member.assignment.topic_partitions
        assert (topic.topic_name, topic.partitions) == ("t", [0, 1])
        assert (no.error_code, no.authorized_operations) == (
            ErrorCode.GROUP_ID_NOT_FOUND,
            -(1 << 31),
        )


async def test_offsets_of_its_members() -> None:
    async with group_asking() as client:
        topic_id = await with_a_member(client)
        topic = OffsetCommitRequestTopic(
            topic_id=topic_id, partitions=[OffsetCommitRequestPartition(0, 7)]
        )
        commit = OffsetCommitRequest(
            group_id="g", generation_id_or_member_epoch=2, member_id="me", topics=[topic]
        )
        answer = await client.ask(8, 10, commit)
        assert answer.topics[0].partitions[0].error_code == 0
        stale = ErrorCode.STALE_MEMBER_EPOCH
        for epoch, member_id, error in (
            (2, "me", 0),
            (1, "me", stale),
            (-1, None, 0),
            (2, "you", ErrorCode.UNKNOWN_MEMBER_ID),
        ):
            group = OffsetFetchRequestGroup(
                group_id="g", member_id=member_id, member_epoch=epoch, topics=None
            )
            fetched = (await client.ask(9, 10, OffsetFetchRequest(groups=[group]))).groups[0]
            assert fetched.error_code == error
            assert [t.topic_id for t in fetched.topics] == ([] if error else [topic_id])
