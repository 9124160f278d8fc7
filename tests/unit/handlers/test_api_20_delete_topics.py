"""DeleteTopics: by name and by id, and everything that is refused."""

import pytest

from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.delete_topics_request import DeleteTopicsRequest, DeleteTopicState
from kbroker.protocol.messages.delete_topics_response import (
    DeletableTopicResult,
    DeleteTopicsResponse,
)
from kbroker.protocol.wire import ZERO_UUID
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY = 20


async def create(client: Asker, *names: str) -> list[bytes]:
    created = await client.node.controller.create_topics([NewTopic(name=name) for name in names])
    return [result.topic_id for result in created]


def request(*names: str, version: int = 6, timeout_ms: int = 1000) -> DeleteTopicsRequest:
    if version >= 6:
        topics = [DeleteTopicState(name) for name in names]
        return DeleteTopicsRequest(topics, timeout_ms=timeout_ms)
    return DeleteTopicsRequest(topic_names=list(names), timeout_ms=timeout_ms)


@pytest.mark.parametrize("version", range(1, 7))
async def test_by_name(version: int) -> None:
    async with asking() as client:
        topic_id, _ = await create(client, "a", "b")
        response = await client.ask(KEY, version, request("a", "nope", version=version))
        told = {topic.name: topic for topic in response.responses}
        assert told["a"] == DeletableTopicResult(
            "a", topic_id if version >= 6 else ZERO_UUID, 0, None
        )
        assert told["nope"].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert set(client.node.image.topics.by_name) == {"b"}


async def test_by_id() -> None:
    async with asking() as client:
        a, b = await create(client, "a", "b")
        unknown = b"\x11" * 16
        response = await client.ask(
            KEY,
            6,
            DeleteTopicsRequest(
                [DeleteTopicState(None, a), DeleteTopicState(None, unknown), DeleteTopicState("b")],
                timeout_ms=1000,
            ),
        )
        assert [(r.name, r.topic_id, r.error_code) for r in response.responses] == [
            (None, unknown, ErrorCode.UNKNOWN_TOPIC_ID),
            ("a", a, 0),
            ("b", b, 0),
        ]
        assert len(client.node.image.topics) == 0


async def test_what_is_refused_is_not_deleted() -> None:
    async with asking() as client:
        a, b, c = await create(client, "a", "b", "c")
        items = [
            DeleteTopicState(None, ZERO_UUID),
            DeleteTopicState("a", a),
            DeleteTopicState("b"),
            DeleteTopicState("b"),
            DeleteTopicState(None, b),
            DeleteTopicState(None, b),
            DeleteTopicState("", ZERO_UUID),
            DeleteTopicState("c"),
            DeleteTopicState(None, c),
        ]
        response = await client.ask(KEY, 6, DeleteTopicsRequest(items, timeout_ms=1000))
        invalid = ErrorCode.INVALID_REQUEST
        assert response.responses == [
            DeletableTopicResult(
                None, ZERO_UUID, invalid, "Neither topic name nor id were specified."
            ),
            DeletableTopicResult(
                "a", a, invalid, "You may not specify both topic name and topic id."
            ),
            DeletableTopicResult("b", ZERO_UUID, invalid, "Duplicate topic name."),
            DeletableTopicResult(None, b, invalid, "Duplicate topic id."),
            DeletableTopicResult(
                "",
                ZERO_UUID,
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
                ErrorCode.UNKNOWN_TOPIC_OR_PARTITION.message,
            ),
            DeletableTopicResult(
                "c",
                c,
                invalid,
                "The provided topic name maps to an ID that was already supplied.",
            ),
        ]
        assert set(client.node.image.topics.by_name) == {"a", "b", "c"}


@pytest.mark.parametrize("version", range(1, 7))
async def test_deletion_switched_off(version: int) -> None:
    async with asking({"delete.topic.enable": "false"}) as client:
        await create(client, "a")
        response = await client.ask(KEY, version, request("a", version=version))
        code = ErrorCode.TOPIC_DELETION_DISABLED if version >= 3 else ErrorCode.INVALID_REQUEST
        assert response.responses == [DeletableTopicResult("a", ZERO_UUID, code, None)]
        assert client.node.image.topics.get("a") is not None


@pytest.mark.parametrize("version", range(1, 7))
async def test_nothing_asked_and_no_time(version: int) -> None:
    async with asking() as client:
        await create(client, "a")
        nothing = request(version=version, timeout_ms=0)
        assert await client.ask(KEY, version, nothing) == DeleteTopicsResponse()
        response = await client.ask(KEY, version, request("a", version=version, timeout_ms=0))
        assert response.responses[0].error_code == ErrorCode.REQUEST_TIMED_OUT
        assert client.node.image.topics.get("a") is not None
