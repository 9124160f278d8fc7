"""OffsetDelete over the wire."""

import pytest

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_delete_request import (
    OffsetDeleteRequest,
    OffsetDeleteRequestPartition,
    OffsetDeleteRequestTopic,
)
from tests.unit.handlers.group_asking import group_asking

pytestmark = pytest.mark.anyio
NO_TOPIC = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


def topic(name: str, *indexes: int) -> OffsetDeleteRequestTopic:
    return OffsetDeleteRequestTopic(name, [OffsetDeleteRequestPartition(i) for i in indexes])


async def test_known_and_unknown_partitions() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("t", 2)
        committed = OffsetCommitRequestTopic(
            name="t", partitions=[OffsetCommitRequestPartition(0, 1)]
        )
        await client.ask(8, 9, OffsetCommitRequest(group_id="g", topics=[committed]))
        request = OffsetDeleteRequest("g", [topic("t", 0, 1, 2), topic("no", 0)])
        answer = await client.ask(47, 0, request)
        assert answer.error_code == 0
        assert {
            t.name: {p.partition_index: p.error_code for p in t.partitions} for t in answer.topics
        } == {"t": {0: 0, 1: 0, 2: NO_TOPIC}, "no": {0: NO_TOPIC}}


async def test_an_error_of_the_group_stands_alone() -> None:
    async with group_asking() as client:
        await client.ready()
        for group, error in (("", ErrorCode.INVALID_GROUP_ID), ("g", ErrorCode.GROUP_ID_NOT_FOUND)):
            answer = await client.ask(47, 0, OffsetDeleteRequest(group, [topic("no", 0)]))
            assert (answer.error_code, answer.topics) == (error, [])
