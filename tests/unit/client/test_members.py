"""Members of groups of both protocols, and what they do about each error."""

from __future__ import annotations

from typing import Any

import pytest

from kbroker.client.classic_member import ClassicMember
from kbroker.client.consumer_member import ConsumerMember
from kbroker.client.consumer_protocol import read_assignment, write_assignment, write_subscription
from kbroker.common.entropy import SeededEntropy
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_response import (
    Assignment,
    ConsumerGroupHeartbeatResponse,
    TopicPartitions,
)
from kbroker.protocol.messages.find_coordinator_response import (
    Coordinator,
    FindCoordinatorResponse,
)
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.join_group_response import (
    JoinGroupResponse,
    JoinGroupResponseMember,
)
from kbroker.protocol.messages.leave_group_response import LeaveGroupResponse
from kbroker.protocol.messages.sync_group_response import SyncGroupResponse
from tests.unit.client.scripted import NODE, ScriptedBroker, metadata, topic_id

pytestmark = pytest.mark.anyio
FOUND = FindCoordinatorResponse(coordinators=[Coordinator("g", NODE, "scripted", 1)])


def scripted(**answers: Any) -> ScriptedBroker:
    script = {ApiKey[name.upper()]: given for name, given in answers.items()}
    return ScriptedBroker({ApiKey.FIND_COORDINATOR: [FOUND], **script}, topics={"t": 3})


def joined(generation: int, *, leader: str = "other", member: str = "me") -> JoinGroupResponse:
    members = [
        JoinGroupResponseMember(each, metadata=write_subscription(["t"]))
        for each in ("me", "other")
    ]
    return JoinGroupResponse(
        generation_id=generation,
        protocol_type="consumer",
        protocol_name="range",
        leader=leader,
        member_id=member,
        members=members if leader == member else [],
    )


def synced(*partitions: int) -> SyncGroupResponse:
    return SyncGroupResponse(assignment=write_assignment({"t": partitions}))


async def test_a_classic_member_joins_with_the_id_it_is_given():
    required = JoinGroupResponse(error_code=ErrorCode.MEMBER_ID_REQUIRED, member_id="me")
    async with scripted(join_group=[required, joined(1)], sync_group=[synced(2)]) as broker:
        async with broker.client() as client:
            member = ClassicMember(client, "g", ["t"])
            assert await member.join() == {"t": [2]}
        assert [each.member_id for each in broker.requests(ApiKey.JOIN_GROUP)] == ["", "me"]
        assert member.identity == ("me", 1, None)


async def test_a_classic_leader_assigns():
    async with scripted(join_group=[joined(1, leader="me")], sync_group=[synced(0, 1)]) as broker:
        async with broker.client() as client:
            await ClassicMember(client, "g", ["t"]).join()
        (request,) = broker.requests(ApiKey.SYNC_GROUP)
        assigned = {
            each.member_id: read_assignment(each.assignment) for each in request.assignments
        }
        assert assigned == {"me": {"t": [0, 1]}, "other": {"t": [2]}}


async def test_a_classic_leader_assigns_anew_when_a_topic_shows_up():
    async with scripted(
        metadata=[metadata({}), metadata({}), metadata({"t": 3})],
        join_group=[joined(1, leader="me")],
        sync_group=[synced(), synced(0, 1)],
        heartbeat=[HeartbeatResponse()],
    ) as broker:
        async with broker.client() as client:
            member = ClassicMember(client, "g", ["t"], heartbeat_interval_s=0)
            assert await member.join() == {"t": []}
            while await member.heartbeat():
                assert len(broker.requests(ApiKey.METADATA)) < 3
            assert await member.join() == {"t": [0, 1]}
            asked = len(broker.requests(ApiKey.METADATA))
            assert await member.heartbeat()
        assert len(broker.requests(ApiKey.METADATA)) == asked, "it knows all: it looks later"


async def test_others_than_the_leader_of_a_classic_group_do_not_look():
    async with scripted(
        metadata=[metadata({})],
        join_group=[joined(1)],
        sync_group=[synced(0)],
        heartbeat=[HeartbeatResponse()],
    ) as broker:
        async with broker.client() as client:
            member = ClassicMember(client, "g", ["t"], heartbeat_interval_s=0)
            await member.join()
            asked = len(broker.requests(ApiKey.METADATA))
            assert await member.heartbeat()
        assert len(broker.requests(ApiKey.METADATA)) == asked


async def test_a_classic_leader_whose_group_stays_as_it_was_assigns_nothing():
    stays = joined(1, leader="me")
    stays.skip_assignment = True
    async with scripted(join_group=[stays], sync_group=[synced(0)]) as broker:
        async with broker.client() as client:
            await ClassicMember(client, "g", ["t"], instance_id="i").join()
        (request,) = broker.requests(ApiKey.SYNC_GROUP)
        assert (request.assignments, request.group_instance_id) == ([], "i")


async def test_a_classic_member_joins_again_until_a_rebalance_ends():
    async with scripted(
        join_group=[
            JoinGroupResponse(error_code=ErrorCode.NOT_COORDINATOR),
            joined(1),
            joined(2),
            JoinGroupResponse(error_code=ErrorCode.UNKNOWN_MEMBER_ID),
            joined(4, member="me again"),
        ],
        sync_group=[
            SyncGroupResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS),
            SyncGroupResponse(error_code=ErrorCode.ILLEGAL_GENERATION),
            synced(1),
        ],
    ) as broker:
        async with broker.client() as client:
            member = ClassicMember(client, "g", ["t"])
            assert await member.join() == {"t": [1]}
        asked = [each.member_id for each in broker.requests(ApiKey.JOIN_GROUP)]
        assert asked == ["", "", "me", "me", ""]
        assert member.identity == ("me again", 4, None)
        assert len(broker.requests(ApiKey.FIND_COORDINATOR)) == 2


async def test_a_classic_member_that_is_fenced_says_so():
    fenced = JoinGroupResponse(error_code=ErrorCode.FENCED_INSTANCE_ID)
    async with scripted(join_group=[fenced]) as broker, broker.client() as client:
        with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID: group g"):
            await ClassicMember(client, "g", ["t"], instance_id="i").join()


async def test_heartbeats_of_a_classic_member_and_its_end():
    beats = [
        HeartbeatResponse(error_code=error)
        for error in (
            ErrorCode.NONE,
            ErrorCode.COORDINATOR_LOAD_IN_PROGRESS,
            ErrorCode.NONE,
            ErrorCode.REBALANCE_IN_PROGRESS,
            ErrorCode.UNKNOWN_MEMBER_ID,
            ErrorCode.FENCED_INSTANCE_ID,
        )
    ]
    async with scripted(
        join_group=[joined(1)],
        sync_group=[synced(1)],
        heartbeat=beats,
        leave_group=[LeaveGroupResponse()],
    ) as broker:
        async with broker.client() as client:
            member = ClassicMember(client, "g", ["t"])
            await member.join()
            assert [await member.heartbeat() for _ in range(4)] == [True, True, False, False]
            assert member.member_id == ""
            with pytest.raises(KafkaError, match="FENCED_INSTANCE_ID"):
                await member.heartbeat()
            await member.leave()  # it is no member: there is nothing to leave
            await member.join()
            await member.leave()
        (request,) = broker.requests(ApiKey.LEAVE_GROUP)
        assert [each.member_id for each in request.members] == ["me"]


def beat(
    epoch: int, partitions: list[int] | None = None, *, error: ErrorCode = ErrorCode.NONE
) -> ConsumerGroupHeartbeatResponse:
    assignment = None
    if partitions is not None:
        assignment = Assignment([TopicPartitions(topic_id("t"), partitions)])
    return ConsumerGroupHeartbeatResponse(
        error_code=error,
        member_epoch=epoch,
        heartbeat_interval_ms=3000,
        assignment=assignment,
    )


def consumer_member(client: Any, **settings: Any) -> ConsumerMember:
    return ConsumerMember(client, "g", ["t"], entropy=SeededEntropy(1), **settings)


def owned(request: Any) -> list[int] | None:
    if request.topic_partitions is None:
        return None
    return [index for each in request.topic_partitions for index in each.partitions]


async def test_a_consumer_member_takes_over_and_hands_over():
    script = [
        beat(1, [0, 1, 2]),
        beat(1),
        beat(1),
        beat(1, [0]),
        beat(2),
        beat(-1),
    ]
    async with scripted(consumer_group_heartbeat=script) as broker:
        async with broker.client() as client:
            member = consumer_member(client)
            assert await member.join() == {"t": [0, 1, 2]}
            assert member.heartbeat_interval_s == 3
            assert await member.heartbeat()
            assert not await member.heartbeat()
            assert await member.join() == {"t": [0]}
            assert member.identity.generation_id == 2
            await member.leave()
        sent = broker.requests(ApiKey.CONSUMER_GROUP_HEARTBEAT)
    assert [each.member_epoch for each in sent] == [0, 1, 1, 1, 1, -1]
    assert [owned(each) for each in sent] == [[], [0, 1, 2], None, None, [0], None]
    assert {each.member_id for each in sent} == {member.member_id}
    assert sent[0].subscribed_topic_names == ["t"]
    assert sent[2].subscribed_topic_names is None


async def test_a_consumer_member_that_is_fenced_begins_anew():
    script = [
        beat(5, [0]),
        beat(5),
        beat(0, error=ErrorCode.FENCED_MEMBER_EPOCH),
        beat(7, [1]),
        beat(7),
    ]
    async with scripted(consumer_group_heartbeat=script) as broker:
        async with broker.client() as client:
            member = consumer_member(client)
            await member.join()
            assert not await member.heartbeat()
            assert await member.join() == {"t": [1]}
        sent = broker.requests(ApiKey.CONSUMER_GROUP_HEARTBEAT)
    assert [each.member_epoch for each in sent] == [0, 5, 5, 0, 7]
    assert [owned(each) for each in sent] == [[], [0], None, [], [1]]


async def test_a_consumer_member_without_partitions_looks_more_often():
    script = [beat(1, [])]
    async with scripted(consumer_group_heartbeat=script) as broker, broker.client() as client:
        member = consumer_member(client)
        assert await member.join() == {}
        assert member.heartbeat_interval_s == 1


async def test_a_static_consumer_member_leaves_for_now():
    async with scripted(consumer_group_heartbeat=[beat(1, [0])]) as broker:
        async with broker.client() as client:
            member = consumer_member(client, instance_id="i")
            await member.join()
            await member.leave()
        last = broker.requests(ApiKey.CONSUMER_GROUP_HEARTBEAT)[-1]
    assert (last.member_epoch, last.instance_id) == (-2, "i")


async def test_a_consumer_member_that_is_refused_says_why():
    refused = beat(0, error=ErrorCode.UNRELEASED_INSTANCE_ID)
    refused.error_message = "somebody else has it"
    async with scripted(consumer_group_heartbeat=[refused]) as broker, broker.client() as client:
        with pytest.raises(KafkaError, match="somebody else has it"):
            await consumer_member(client).join()
