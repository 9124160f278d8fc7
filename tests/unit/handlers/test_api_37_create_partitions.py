"""CreatePartitions on the wire; the rules themselves are tested with the controller."""

import pytest

from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.create_partitions_request import (
    CreatePartitionsAssignment,
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from kbroker.protocol.messages.create_partitions_response import (
    CreatePartitionsResponse,
    CreatePartitionsTopicResult,
)
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY = 37
ANY_VERSION = range(4)


async def partition_count(client: Asker, name: str) -> int:
    topic = client.node.image.topics.get(name)
    assert topic is not None
    return len(topic.partitions)


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_more_partitions_beside_errors(version: int) -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="a"), NewTopic(name="b")])
        request = CreatePartitionsRequest(
            [
                CreatePartitionsTopic("a", 3, None),
                CreatePartitionsTopic("b", 2, [CreatePartitionsAssignment([1])]),
                CreatePartitionsTopic("nope", 3, None),
            ],
            timeout_ms=1000,
        )
        response = await client.ask(KEY, version, request)
        assert response.results == [
            CreatePartitionsTopicResult("a", 0, None),
            CreatePartitionsTopicResult("b", 0, None),
            CreatePartitionsTopicResult("nope", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, None),
        ]
        assert (await partition_count(client, "a"), await partition_count(client, "b")) == (3, 2)


async def test_an_empty_assignment_is_not_a_missing_one() -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="a")])
        request = CreatePartitionsRequest([CreatePartitionsTopic("a", 3, [])], timeout_ms=1000)
        response = await client.ask(KEY, 3, request)
        assert response.results[0].error_code == ErrorCode.INVALID_REPLICA_ASSIGNMENT


async def test_validate_only() -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="a")])
        request = CreatePartitionsRequest(
            [CreatePartitionsTopic("a", 3, None)], timeout_ms=1000, validate_only=True
        )
        response = await client.ask(KEY, 3, request)
        assert response.results[0].error_code == 0
        assert await partition_count(client, "a") == 1


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_nothing_asked_and_no_time(version: int) -> None:
    async with asking() as client:
        nothing = await client.ask(KEY, version, CreatePartitionsRequest())
        assert nothing == CreatePartitionsResponse()
        request = CreatePartitionsRequest([CreatePartitionsTopic("a", 3, None)], timeout_ms=0)
        response = await client.ask(KEY, version, request)
        assert response.results == [
            CreatePartitionsTopicResult("a", ErrorCode.REQUEST_TIMED_OUT, None)
        ]
