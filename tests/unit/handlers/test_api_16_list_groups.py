"""ListGroups, DescribeGroups and DeleteGroups over the wire, at every version."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.delete_groups_request import DeleteGroupsRequest
from kbroker.protocol.messages.describe_groups_request import DescribeGroupsRequest
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from tests.unit.handlers.group_asking import GroupAsker, group_asking

pytestmark = pytest.mark.anyio


async def with_a_simple_group(client: GroupAsker) -> None:
    await client.ready()
    await client.create("t")
    topic = OffsetCommitRequestTopic(name="t", partitions=[OffsetCommitRequestPartition(0, 1)])
    answer = await client.ask(8, 9, OffsetCommitRequest(group_id="simple", topics=[topic]))
    assert answer.topics[0].partitions[0].error_code == 0


@pytest.mark.parametrize("version", range(6))
async def test_list(version: int) -> None:
    async with group_asking() as client:
        await with_a_simple_group(client)
        answer = await client.ask(16, version, ListGroupsRequest())
        (group,) = answer.groups
        assert (group.group_id, group.protocol_type) == ("simple", "")
        assert group.group_state == ("Empty" if version >= 4 else "")
        assert group.group_type == ("classic" if version >= 5 else "")


async def test_list_with_filters() -> None:
    async with group_asking() as client:
        await with_a_simple_group(client)
        none = await client.ask(16, 5, ListGroupsRequest(states_filter=["Stable"]))
        assert none.groups == []
        some = await client.ask(16, 5, ListGroupsRequest(types_filter=["CLASSIC"]))
        assert len(some.groups) == 1


@pytest.mark.parametrize("version", range(7))
async def test_describe(version: int) -> None:
    async with group_asking() as client:
        await with_a_simple_group(client)
        request = DescribeGroupsRequest(groups=["simple", "no"])
        simple, no = (await client.ask(15, version, request)).groups
        assert (simple.group_state, simple.error_code) == ("Empty", 0)
        assert no.group_state == "Dead"
        if version >= 6:
            assert no.error_code == ErrorCode.GROUP_ID_NOT_FOUND
            assert no.error_message == "Group no not found."
        else:
            assert no.error_code == 0
        assert no.authorized_operations == simple.authorized_operations == -(1 << 31)


@pytest.mark.parametrize("version", range(3))
async def test_delete(version: int) -> None:
    async with group_asking() as client:
        await with_a_simple_group(client)
        answer = await client.ask(42, version, DeleteGroupsRequest(["simple", "no"]))
        assert {(r.group_id, r.error_code) for r in answer.results} == {
            ("simple", 0),
            ("no", ErrorCode.GROUP_ID_NOT_FOUND),
        }
        assert (await client.ask(16, 0, ListGroupsRequest())).groups == []


async def test_a_group_named_twice_is_deleted_once() -> None:
    async with group_asking() as client:
        await with_a_simple_group(client)
        answer = await client.ask(42, 2, DeleteGroupsRequest(["simple", "no", "simple", "no"]))
        assert [(r.group_id, r.error_code) for r in answer.results] == [
            ("simple", 0),
            ("no", ErrorCode.GROUP_ID_NOT_FOUND),
        ]
