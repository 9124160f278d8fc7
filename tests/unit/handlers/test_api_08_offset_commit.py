"""OffsetCommit over the wire."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from tests.unit.handlers.group_asking import GroupAsker, group_asking

pytestmark = pytest.mark.anyio
KEY = 8
NO_TOPIC = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def topic(name: str, *indexes: int, topic_id: bytes = bytes(16)) -> OffsetCommitRequestTopic:
    partitions = [OffsetCommitRequestPartition(index, 5) for index in indexes]
    return OffsetCommitRequestTopic(name, topic_id, partitions)


async def errors(
    client: GroupAsker, version: int, *topics: OffsetCommitRequestTopic, group: str = "g"
) -> dict[object, dict[int, int]]:
    request = OffsetCommitRequest(group_id=group, topics=list(topics))
    answer = await client.ask(KEY, version, request)
    return {
        t.topic_id if version >= 10 else t.name: {
            p.partition_index: p.error_code for p in t.partitions
        }
        for t in answer.topics
    }


@pytest.mark.parametrize("version", range(2, 10))
async def test_by_name(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("t", 2)
        assert await errors(client, version, topic("t", 0, 1, 2, -1), topic("no", 0)) == {
            "t": {0: 0, 1: 0, 2: NO_TOPIC, -1: NO_TOPIC},
            "no": {0: NO_TOPIC},
        }
        assert await errors(client, version, topic("t", 0)) == {"t": {0: 0}}
        assert await errors(client, version, topic("no", 0)) == {"no": {0: NO_TOPIC}}
        assert await errors(client, version) == {}


async def test_by_id() -> None:
    async with group_asking() as client:
        await client.ready()
        known = await client.create("t")
        other = bytes(15) + b"o"
        assert await errors(
            client, 10, topic("", 0, 7, topic_id=known), topic("", 0, topic_id=other)
        ) == {known: {0: 0, 7: NO_TOPIC}, other: {0: ErrorCode.UNKNOWN_TOPIC_ID}}
        assert await errors(client, 10, topic("", 0)) == {
            bytes(16): {0: ErrorCode.UNKNOWN_TOPIC_ID}
        }


async def test_the_topic_s_id_is_remembered_whatever_the_version() -> None:
    async with group_asking() as client:
        await client.ready()
        topic_id = await client.create("t")
        await errors(client, 2, topic("t", 0))
        (batch,) = [batch for batches in client.log.batches.values() for batch in batches]
        assert topic_id in bytes(batch)


async def test_without_a_coordinator() -> None:
    async with group_asking() as client:
        await client.create("t")
        assert await errors(client, 9, topic("t", 0)) == {"t": {0: ErrorCode.NOT_COORDINATOR}}


async def test_the_retention_time_of_old_versions() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("t")
        request = OffsetCommitRequest(group_id="g", retention_time_ms=5, topics=[topic("t", 0)])
        answer = await client.ask(KEY, 4, request)
        assert answer.topics[0].partitions[0].error_code == 0
