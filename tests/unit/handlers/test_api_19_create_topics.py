"""CreateTopics on the wire; the rules themselves are tested with the controller."""

import pytest

from kbroker.config.describe import describe_topic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.create_topics_request import (
    CreatableReplicaAssignment,
    CreatableTopic,
    CreatableTopicConfig,
    CreateTopicsRequest,
)
from kbroker.protocol.messages.create_topics_response import (
    CreatableTopicResult,
    CreateTopicsResponse,
)
from tests.unit.handlers.asking import asking

pytestmark = pytest.mark.anyio
KEY = 19
ANY_VERSION = range(2, 8)


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_created_topics_with_their_settings(version: int) -> None:
    request = CreateTopicsRequest(
        [
            CreatableTopic("a", 2, 1),
            CreatableTopic(
                "b",
                -1,
                -1,
                [CreatableReplicaAssignment(0, [1])],
                [CreatableTopicConfig("retention.ms", "77")],
            ),
        ]
    )
    async with asking({"log.segment.bytes": "2097152"}) as client:
        response: CreateTopicsResponse = await client.ask(KEY, version, request)
        a, b = response.topics
        assert (a.name, a.error_code, a.error_message) == ("a", 0, None)
        topic = client.node.image.topics.get("a")
        assert topic is not None
        assert a.topic_id == (topic.topic_id if version >= 7 else bytes(16))
        if version < 5:
            assert (a.num_partitions, a.replication_factor, a.configs) == (-1, -1, [])
            return
        assert (a.num_partitions, a.replication_factor) == (2, 1)
        assert (b.num_partitions, b.replication_factor) == (1, 1)
        assert a.configs is not None
        assert b.configs is not None
        names = [config.name for config in a.configs]
        assert names == sorted(names)
        expected = {e.name for e in describe_topic({}, client.node.config.current)}
        assert set(names) == expected
        told = {config.name: (config.value, config.config_source) for config in b.configs}
        assert told["retention.ms"] == ("77", 1)
        assert told["segment.bytes"] == ("2097152", 4)
        assert told["cleanup.policy"] == ("delete", 5)


async def test_errors_stand_beside_successes() -> None:
    request = CreateTopicsRequest(
        [CreatableTopic(name, 1, 1) for name in ("a", "twice", "twice", "a b")]
    )
    async with asking() as client:
        response = await client.ask(KEY, 7, request)
        assert [(topic.name, topic.error_code) for topic in response.topics] == [
            ("a", 0),
            ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
            ("twice", ErrorCode.INVALID_REQUEST),
        ]
        failed = response.topics[1]
        assert (failed.num_partitions, failed.replication_factor, failed.configs) == (-1, -1, [])
        assert failed.error_message.startswith("Topic name is invalid: ")


async def test_validate_only() -> None:
    request = CreateTopicsRequest([CreatableTopic("a", 2, 1)], validate_only=True)
    async with asking() as client:
        response = await client.ask(KEY, 7, request)
        assert (response.topics[0].error_code, response.topics[0].num_partitions) == (0, 2)
        assert client.node.image.topics.get("a") is None


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_nothing_asked_nothing_answered(version: int) -> None:
    async with asking() as client:
        request = CreateTopicsRequest(timeout_ms=0)
        assert await client.ask(KEY, version, request) == CreateTopicsResponse()


async def test_a_request_refused_whole() -> None:
    async with asking() as client:
        topics = [CreatableTopic("a", 1, 1), CreatableTopic("b", 10_000, 1)]
        response = await client.ask(KEY, 7, CreateTopicsRequest(topics))
        text = "Excessively large number of partitions per request."
        assert response.topics == [
            CreatableTopicResult(name, bytes(16), ErrorCode.POLICY_VIOLATION, text)
            for name in ("a", "b")
        ]
        response = await client.ask(KEY, 7, CreateTopicsRequest(topics[:1], timeout_ms=0))
        assert response.topics[0].error_code == ErrorCode.REQUEST_TIMED_OUT
        assert len(client.node.image.topics) == 0
