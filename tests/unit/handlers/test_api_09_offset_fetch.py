"""OffsetFetch over the wire."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
)
from tests.unit.handlers.group_asking import GroupAsker, group_asking

pytestmark = pytest.mark.anyio
KEY = 9


async def with_offsets(client: GroupAsker) -> bytes:
    """Topic "t" with offset 5 committed for partition 0 by group "g"."""
    await client.ready()
    topic_id = await client.create("t", 2)
    partition = OffsetCommitRequestPartition(0, 5, 3, "note")
    request = OffsetCommitRequest(
        group_id="g", topics=[OffsetCommitRequestTopic(name="t", partitions=[partition])]
    )
    answer = await client.ask(8, 9, request)
    assert answer.topics[0].partitions[0].error_code == 0
    return topic_id


@pytest.mark.parametrize("version", range(1, 8))
async def test_one_group(version: int) -> None:
    async with group_asking() as client:
        await with_offsets(client)
        request = OffsetFetchRequest(group_id="g", topics=[OffsetFetchRequestTopic("t", [0, 1, 9])])
        answer = await client.ask(KEY, version, request)
        epoch = 3 if version >= 5 else -1
        (topic,) = answer.topics
        assert [
            (p.partition_index, p.committed_offset, p.committed_leader_epoch, p.metadata)
            for p in topic.partitions
        ] == [(0, 5, epoch, "note"), (1, -1, -1, ""), (9, -1, -1, "")]
        assert {p.error_code for p in topic.partitions} == {0}
        assert answer.error_code == 0


@pytest.mark.parametrize("version", range(2, 8))
async def test_null_is_all(version: int) -> None:
    async with group_asking() as client:
        await with_offsets(client)
        answer = await client.ask(KEY, version, OffsetFetchRequest(group_id="g", topics=None))
        assert [(t.name, len(t.partitions)) for t in answer.topics] == [("t", 1)]
        nobody = await client.ask(KEY, version, OffsetFetchRequest(group_id="no", topics=None))
        assert (nobody.topics, nobody.error_code) == ([], 0)


async def test_without_a_coordinator() -> None:
    async with group_asking() as client:
        error = ErrorCode.NOT_COORDINATOR
        request = OffsetFetchRequest(group_id="g", topics=[OffsetFetchRequestTopic("t", [0])])
        answer = await client.ask(KEY, 1, request)
        assert answer.topics[0].partitions[0].error_code == error
        answer = await client.ask(KEY, 2, request)
        assert (answer.error_code, answer.topics) == (error, [])
        groups = OffsetFetchRequest(groups=[OffsetFetchRequestGroup(group_id="g", topics=None)])
        answer = await client.ask(KEY, 8, groups)
        assert [(g.group_id, g.error_code) for g in answer.groups] == [("g", error)]


@pytest.mark.parametrize("version", [8, 9])
async def test_several_groups(version: int) -> None:
    async with group_asking() as client:
        await with_offsets(client)
        some = OffsetFetchRequestTopics(name="t", partition_indexes=[0, 1])
        request = OffsetFetchRequest(
            groups=[
                OffsetFetchRequestGroup(group_id="g", topics=[some]),
                OffsetFetchRequestGroup(group_id="g", topics=None),
                OffsetFetchRequestGroup(group_id="no", topics=[some]),
            ]
        )
        if version >= 9:
            request.groups[0].member_id = "anybody"
            request.groups[0].member_epoch = 4
        answer = await client.ask(KEY, version, request)
        assert [
            (
                group.group_id,
                group.error_code,
                *(p.committed_offset for t in group.topics for p in t.partitions),
            )
            for group in answer.groups
        ] == [("g", 0, 5, -1), ("g", 0, 5), ("no", 0, -1, -1)]


async def test_by_topic_id() -> None:
    async with group_asking() as client:
        topic_id = await with_offsets(client)
        other = bytes(15) + b"o"
        request = OffsetFetchRequest(
            groups=[
                OffsetFetchRequestGroup(
                    group_id="g",
                    topics=[
                        OffsetFetchRequestTopics(topic_id=other, partition_indexes=[4]),
                        OffsetFetchRequestTopics(topic_id=topic_id, partition_indexes=[0]),
                    ],
                ),
                OffsetFetchRequestGroup(group_id="g", topics=None),
            ]
        )
        answer = await client.ask(KEY, 10, request)
        some, everything = answer.groups
        assert {
            t.topic_id: [
                (p.partition_index, p.committed_offset, p.error_code) for p in t.partitions
            ]
            for t in some.topics
        } == {topic_id: [(0, 5, 0)], other: [(4, -1, ErrorCode.UNKNOWN_TOPIC_ID)]}
        assert [t.topic_id for t in everything.topics] == [topic_id]
