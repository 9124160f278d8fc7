"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup over the wire, at every version."""

from typing import Any

import anyio
import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.describe_groups_request import DescribeGroupsRequest
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.join_group_request import (
    JoinGroupRequest,
    JoinGroupRequestProtocol,
)
from kbroker.protocol.messages.leave_group_request import LeaveGroupRequest, MemberIdentity
from kbroker.protocol.messages.sync_group_request import (
    SyncGroupRequest,
    SyncGroupRequestAssignment,
)
from tests.unit.handlers.group_asking import GroupAsker, group_asking

pytestmark = pytest.mark.anyio


def join(member_id: str = "", version: int = 9) -> JoinGroupRequest:
    return JoinGroupRequest(
        group_id="g",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=10_000 if version else -1,
        member_id=member_id,
        protocol_type="consumer",
        protocols=[JoinGroupRequestProtocol("range", b"\0\0\0\0\0\1\0\1t\0\0\0\0")],
    )


async def joined(client: GroupAsker, version: int) -> Any:
    """A member that has joined alone."""
    member_id = ""
    if version >= 4:
        told = await client.ask(11, version, join(version=version))
        assert told.error_code == ErrorCode.MEMBER_ID_REQUIRED
        member_id = told.member_id
    answers = []

    async def wait() -> None:
        answers.append(await client.ask(11, version, join(member_id, version)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        client.timer.run_due()
    (answer,) = answers
    assert answer.error_code == 0
    return answer


@pytest.mark.parametrize("version", range(10))
async def test_a_life_in_a_group(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        member = await joined(client, version)
        assert member.leader == member.member_id
        assert member.protocol_type == ("consumer" if version >= 7 else None)
        member_id, generation_id = member.member_id, member.generation_id
        sync_version = min(version, 5)
        sync = SyncGroupRequest(
            group_id="g",
            generation_id=generation_id,
            member_id=member_id,
            assignments=[SyncGroupRequestAssignment(member_id, b"all")],
        )
        if sync_version == 5:
            sync.protocol_type, sync.protocol_name = "consumer", "range"
        synced = await client.ask(14, sync_version, sync)
        assert (synced.error_code, synced.assignment) == (0, b"all")
        beat = HeartbeatRequest("g", generation_id, member_id)
        assert (await client.ask(12, min(version, 4), beat)).error_code == 0
        leave_version = min(version, 5)
        leave = LeaveGroupRequest(group_id="g")
        if leave_version < 3:
            leave.member_id = member_id
        else:
            leave.members = [MemberIdentity(member_id)]
        left = await client.ask(13, leave_version, leave)
        assert left.error_code == 0
        assert [m.error_code for m in left.members] == ([0] if leave_version >= 3 else [])


@pytest.mark.parametrize("version", range(10))
async def test_errors_have_a_protocol_name_of_nothing(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        answer = await client.ask(11, version, join("nobody", version))
        assert answer.error_code == ErrorCode.UNKNOWN_MEMBER_ID
        assert answer.protocol_name == (None if version >= 7 else "")
        assert (answer.leader, answer.generation_id, answer.members) == ("", -1, [])


@pytest.mark.parametrize("version", range(6))
async def test_leaving_what_is_not_there(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        request = LeaveGroupRequest(group_id="g")
        if version < 3:
            request.member_id = "x"
        else:
            request.members = [MemberIdentity("x")]
        answer = await client.ask(13, version, request)
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        if version < 3:
            assert answer.error_code == unknown
        else:
            assert (answer.error_code, answer.members[0].error_code) == (0, unknown)


@pytest.mark.parametrize(("version", "error"), [(4, 24), (5, 23)])
async def test_sync_looks_at_the_protocol_first(version: int, error: int) -> None:
    async with group_asking() as client:
        assert (await client.ask(14, version, SyncGroupRequest())).error_code == error


async def test_the_client_is_described_as_kafka_does() -> None:
    async with group_asking() as client:
        client.asker.connection.client_host = "192.0.2.7"
        await client.ready()
        await joined(client, 9)
        request = DescribeGroupsRequest(groups=["g"], include_authorized_operations=True)
        answer = await client.ask(15, 6, request)
        (group,) = answer.groups
        assert (group.members[0].client_id, group.members[0].client_host) == ("me", "/192.0.2.7")
        assert group.authorized_operations == 3400


async def test_who_goes_while_it_waits_harms_nobody() -> None:
    async with group_asking() as client:
        await client.ready()
        told = await client.ask(11, 9, join())
        with anyio.move_on_after(0.001):
            await client.ask(11, 9, join(told.member_id))
        client.timer.run_due()
        request = DescribeGroupsRequest(groups=["g"])
        (group,) = (await client.ask(15, 6, request)).groups
        assert group.group_state == "CompletingRebalance"
