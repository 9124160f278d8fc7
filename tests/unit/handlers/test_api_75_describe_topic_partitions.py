"""DescribeTopicPartitions: pages and cursors as Kafka 4.3.1 was seen to make them."""

import pytest

from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.describe_topic_partitions_request import (
    Cursor,
    DescribeTopicPartitionsRequest,
    TopicRequest,
)
from kbroker.protocol.messages.describe_topic_partitions_response import (
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY = 75
ALL = 2000
Page = tuple[list[tuple[str, list[int]]], tuple[str, int] | None]


async def fill(client: Asker) -> None:
    await client.node.controller.create_topics(
        [NewTopic(name="b", num_partitions=2), NewTopic(name="a", num_partitions=3)]
    )


async def ask(
    client: Asker, names: list[str], limit: int = ALL, cursor: tuple[str, int] | None = None
) -> DescribeTopicPartitionsResponse:
    request = DescribeTopicPartitionsRequest(
        [TopicRequest(name) for name in names], limit, Cursor(*cursor) if cursor else None
    )
    response: DescribeTopicPartitionsResponse = await client.ask(KEY, 0, request)
    return response


def page(response: DescribeTopicPartitionsResponse) -> Page:
    """Partition indexes by topic, and the cursor."""
    topics = [(t.name or "", [p.partition_index for p in t.partitions]) for t in response.topics]
    cursor = response.next_cursor
    return topics, (cursor.topic_name, cursor.partition_index) if cursor is not None else None


async def test_every_field() -> None:
    async with asking() as client:
        await fill(client)
        response = await ask(client, ["b"])
        topic = client.node.image.topics.get("b")
        assert topic is not None
        assert response == DescribeTopicPartitionsResponse(
            topics=[
                DescribeTopicPartitionsResponseTopic(
                    0,
                    "b",
                    topic.topic_id,
                    False,
                    [
                        DescribeTopicPartitionsResponsePartition(
                            0, index, 1, 0, [1], [1], [], [], []
                        )
                        for index in range(2)
                    ],
                    3576,
                )
            ]
        )


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (ALL, ([("a", [0, 1, 2]), ("b", [0, 1])], None)),
        (0, ([("a", [0])], ("a", 1))),
        (-1, ([("a", [0])], ("a", 1))),
        (1, ([("a", [0])], ("a", 1))),
        (2, ([("a", [0, 1])], ("a", 2))),
        (3, ([("a", [0, 1, 2])], ("b", 0))),
        (4, ([("a", [0, 1, 2]), ("b", [0])], ("b", 1))),
        (5, ([("a", [0, 1, 2]), ("b", [0, 1])], None)),
    ],
)
@pytest.mark.parametrize("names", [["b", "a", "b"], []])
async def test_limits(names: list[str], limit: int, expected: Page) -> None:
    async with asking() as client:
        await fill(client)
        assert page(await ask(client, names, limit)) == expected


@pytest.mark.parametrize(
    ("cursor", "expected"),
    [
        (("a", 1), ([("a", [1, 2])], ("b", 0))),
        (("a", 3), ([("a", []), ("b", [0, 1])], None)),
        (("b", 0), ([("b", [0, 1])], None)),
        (("b", 9), ([("b", [])], None)),
    ],
)
async def test_cursors(cursor: tuple[str, int], expected: Page) -> None:
    async with asking() as client:
        await fill(client)
        assert page(await ask(client, ["b", "a"], 2, cursor)) == expected


async def test_pages_add_up_to_everything() -> None:
    async with asking() as client:
        await fill(client)
        for limit in range(1, 7):
            seen: list[tuple[str, int]] = []
            cursor: tuple[str, int] | None = None
            for _ in range(10):
                topics, cursor = page(await ask(client, [], limit, cursor))
                seen += [(name, index) for name, indexes in topics for index in indexes]
                if cursor is None:
                    break
            assert seen == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


async def test_the_brokers_own_limit() -> None:
    async with asking({"max.request.partition.size.limit": "2"}) as client:
        await fill(client)
        assert page(await ask(client, [], ALL)) == ([("a", [0, 1])], ("a", 2))


async def test_topics_that_are_not_there_count_for_nothing() -> None:
    async with asking() as client:
        await fill(client)
        response = await ask(client, ["a", "nope", "a b"], 3)
        assert [topic.name for topic in response.topics] == ["a"]
        assert page(response)[1] == ("a b", 0)
        response = await ask(client, ["nope", "a b"])
        assert [(t.name, t.error_code) for t in response.topics] == [
            ("a b", ErrorCode.INVALID_TOPIC_EXCEPTION),
            ("nope", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
        ]
        assert [t.topic_authorized_operations for t in response.topics] == [3576, 3576]


@pytest.mark.parametrize("cursor", [("a", -1), ("other", 0)])
async def test_cursors_that_lead_nowhere(cursor: tuple[str, int]) -> None:
    async with asking() as client:
        await fill(client)
        response = await ask(client, ["a"], ALL, cursor)
        assert response == DescribeTopicPartitionsResponse(
            topics=[DescribeTopicPartitionsResponseTopic(ErrorCode.INVALID_REQUEST, "a")]
        )


async def test_an_empty_name_fails_the_whole_request() -> None:
    async with asking() as client:
        await fill(client)
        response = await ask(client, ["a", ""])
        assert [(t.name, t.error_code) for t in response.topics] == [("a", -1), ("", -1)]


async def test_a_cursor_between_topics_when_all_are_asked() -> None:
    async with asking() as client:
        await fill(client)
        assert page(await ask(client, [], ALL, ("aa", 1))) == ([("b", [0, 1])], None)
