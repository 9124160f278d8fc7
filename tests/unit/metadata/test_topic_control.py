"""Creating, deleting and extending topics: Kafka's checks, codes and texts."""

from collections.abc import Sequence

import pytest

from kbroker.metadata.topic_control import (
    MAX_ADDED_PARTITIONS,
    MAX_PARTITIONS_PER_REQUEST,
    CreatedTopic,
    NewPartitions,
    NewTopic,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.metadata.clusters import Node, running_node

pytestmark = pytest.mark.anyio


async def create_one(node: Node, topic: NewTopic) -> CreatedTopic:
    (result,) = await node.controller.create_topics([topic])
    return result


def code_and_text(error: KafkaError | None) -> tuple[ErrorCode, str | None]:
    assert error is not None
    return error.error_code, error.message


async def test_a_topic_is_there_with_all_that_belongs_to_it_when_the_verb_returns() -> None:
    async with running_node() as node:
        result = await create_one(
            node,
            NewTopic(
                name="t",
                num_partitions=3,
                replication_factor=1,
                configs=[("retention.ms", "5"), ("min.insync.replicas", "2")],
            ),
        )
        assert (result.error, result.num_partitions, result.replication_factor) == (None, 3, 1)
        topic = node.image.topics.get("t")
        assert topic is not None
        assert topic is node.image.topics.get_by_id(result.topic_id)
        assert len(topic.partitions) == 3
        for partition in topic.partitions:
            assert (partition.leader, partition.leader_epoch) == (1, 0)
            assert (partition.replicas, partition.isr) == ((1,), (1,))
            assert partition.min_isr == 2
        assert node.image.topic_overrides("t") == {"retention.ms": "5", "min.insync.replicas": "2"}


async def test_minus_one_takes_the_brokers_defaults() -> None:
    async with running_node(settings={"num.partitions": "4"}) as node:
        result = await create_one(node, NewTopic(name="t"))
        assert (result.num_partitions, result.replication_factor) == (4, 1)


INVALID: list[tuple[NewTopic, ErrorCode, str]] = [
    (
        NewTopic(name="a b"),
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic name is invalid: 'a b' contains one or more characters other than "
        "ASCII alphanumerics, '.', '_' and '-'",
    ),
    (
        NewTopic(name="there_already"),
        ErrorCode.TOPIC_ALREADY_EXISTS,
        "Topic 'there_already' already exists.",
    ),
    (
        NewTopic(name="there.already"),
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic 'there.already' collides with existing topic: there_already",
    ),
    (
        NewTopic(name="t", num_partitions=0),
        ErrorCode.INVALID_PARTITIONS,
        "Number of partitions was set to an invalid non-positive value.",
    ),
    (
        NewTopic(name="t", num_partitions=-2),
        ErrorCode.INVALID_PARTITIONS,
        "Number of partitions was set to an invalid non-positive value.",
    ),
    (
        NewTopic(name="t", num_partitions=0, replication_factor=0),
        ErrorCode.INVALID_REPLICATION_FACTOR,
        "Replication factor must be larger than 0, or -1 to use the default value.",
    ),
    (
        NewTopic(name="t", replication_factor=2),
        ErrorCode.INVALID_REPLICATION_FACTOR,
        "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot "
        "be reached because only 1 broker(s) are registered or some brokers have all their log "
        "directories cordoned.",
    ),
    (
        NewTopic(name="t", configs=[("a", None), ("retention.ms", "x"), ("b", None)]),
        ErrorCode.INVALID_CONFIG,
        "Null value not supported for topic configs: a,b",
    ),
    (
        NewTopic(name="t", replication_factor=0, configs=[("no.such", "1")]),
        ErrorCode.INVALID_CONFIG,
        "Unknown topic config name: no.such",
    ),
    (
        NewTopic(name="t", replication_factor=1, assignments=[(0, [1])]),
        ErrorCode.INVALID_REQUEST,
        "A manual partition assignment was specified, but replication factor was not set to -1.",
    ),
    (
        NewTopic(name="t", num_partitions=1, assignments=[(0, [1])]),
        ErrorCode.INVALID_REQUEST,
        "A manual partition assignment was specified, but numPartitions was not set to -1.",
    ),
    (
        NewTopic(name="t", assignments=[(0, [1]), (0, [1])]),
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "Found multiple manual partition assignments for partition 0",
    ),
    (
        NewTopic(name="t", assignments=[(0, [1]), (2, [1])]),
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "partitions should be a consecutive 0-based integer sequence",
    ),
    (
        NewTopic(name="t", assignments=[(0, [])]),
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes an empty replica list.",
    ),
    (
        NewTopic(name="t", assignments=[(0, [1, 7])]),
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes broker 7, but no such broker is registered.",
    ),
    (
        NewTopic(name="t", assignments=[(0, [1, 1])]),
        ErrorCode.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes the broker 1 more than once.",
    ),
]


@pytest.mark.parametrize(("topic", "code", "text"), INVALID, ids=lambda value: str(value)[:60])
async def test_what_cannot_be_created(topic: NewTopic, code: ErrorCode, text: str) -> None:
    async with running_node() as node:
        await create_one(node, NewTopic(name="there_already"))
        revision = node.image.revision
        assert code_and_text((await create_one(node, topic)).error) == (code, text)
        assert node.image.revision == revision


async def test_a_manual_assignment() -> None:
    async with running_node() as node:
        result = await create_one(node, NewTopic(name="t", assignments=[(1, [1]), (0, [1])]))
        assert (result.num_partitions, result.replication_factor) == (2, 1)


async def test_one_bad_topic_does_not_hurt_the_others() -> None:
    async with running_node() as node:
        results = await node.controller.create_topics(
            [NewTopic(name="a"), NewTopic(name="b", num_partitions=0), NewTopic(name="c")]
        )
        assert [result.name for result in results] == ["a", "b", "c"]
        assert [result.error is None for result in results] == [True, False, True]
        assert set(node.image.topics.by_name) == {"a", "c"}


async def test_names_given_twice_and_the_metadata_topic_come_last() -> None:
    async with running_node() as node:
        results = await node.controller.create_topics(
            [NewTopic(name=name) for name in ("a", "a", "__cluster_metadata", "b", "a")]
        )
        assert [(result.name, result.error is None) for result in results] == [
            ("b", True),
            ("a", False),
            ("__cluster_metadata", False),
        ]
        assert code_and_text(results[1].error) == (
            ErrorCode.INVALID_REQUEST,
            "Duplicate topic name.",
        )
        assert code_and_text(results[2].error) == (
            ErrorCode.INVALID_REQUEST,
            "Creation of internal topic __cluster_metadata is prohibited.",
        )


async def test_validate_only_changes_nothing() -> None:
    async with running_node() as node:
        revision = node.image.revision
        good, bad = await node.controller.create_topics(
            [NewTopic(name="t", num_partitions=2), NewTopic(name="x", num_partitions=0)],
            validate_only=True,
        )
        assert (good.error, good.num_partitions) == (None, 2)
        assert bad.error is not None
        assert node.image.revision == revision


async def test_too_many_partitions_fail_the_whole_request() -> None:
    async with running_node() as node:
        for topics in (
            [NewTopic(name="a", num_partitions=MAX_PARTITIONS_PER_REQUEST + 1)],
            [NewTopic(name="a", num_partitions=MAX_PARTITIONS_PER_REQUEST), NewTopic(name="b")],
        ):
            with pytest.raises(KafkaError) as raised:
                await node.controller.create_topics(topics)
            assert raised.value.error_code == ErrorCode.POLICY_VIOLATION


async def test_a_collision_ends_with_the_topic_that_causes_it() -> None:
    async with running_node() as node:
        await create_one(node, NewTopic(name="a.b"))
        assert (await create_one(node, NewTopic(name="a_b"))).error is not None
        topic = node.image.topics.get("a.b")
        assert topic is not None
        await node.controller.delete_topics([topic])
        assert (await create_one(node, NewTopic(name="a_b"))).error is None


async def test_deletion_takes_everything_with_it() -> None:
    async with running_node() as node:
        await create_one(
            node, NewTopic(name="t", num_partitions=2, configs=[("retention.ms", "1")])
        )
        await create_one(node, NewTopic(name="t2"))
        topic = node.image.topics.get("t")
        assert topic is not None
        assert await node.controller.delete_topics([topic]) == {topic.topic_id}
        assert set(node.image.topics.by_name) == {"t2"}
        assert node.image.topic_overrides("t") == {}
        _, entries = await node.store.list(b"")
        keys = [entry.key async for entry in entries]
        assert not [key for key in keys if topic.topic_id.hex().encode() in key]
        assert not [key for key in keys if key.endswith(b"/t")]
        assert await node.controller.delete_topics([topic]) == set()


async def more(
    node: Node, count: int, assignments: Sequence[Sequence[int]] | None = None, name: str = "t"
) -> KafkaError | None:
    request = NewPartitions(name=name, num_partitions=count, assignments=assignments)
    ((told, error),) = await node.controller.create_partitions([request])
    assert told == name
    return error


async def test_more_partitions() -> None:
    async with running_node() as node:
        await create_one(node, NewTopic(name="t", configs=[("min.insync.replicas", "2")]))
        before = node.image.topics.get("t")
        assert before is not None
        assert await more(node, 3) is None
        after = node.image.topics.get("t")
        assert after is not None
        assert len(after.partitions) == 3
        assert after.partitions[0] is before.partitions[0]
        assert [partition.min_isr for partition in after.partitions] == [2, 2, 2]
        assert after.topic_id == before.topic_id
        assert await more(node, 4, [[1]]) is None
        final = node.image.topics.get("t")
        assert final is not None
        assert (len(final.partitions), final.generation) == (4, 2)


@pytest.mark.parametrize(
    ("count", "assignments", "code", "text"),
    [
        (2, None, ErrorCode.INVALID_PARTITIONS, "Topic already has 2 partition(s)."),
        (
            1,
            None,
            ErrorCode.INVALID_PARTITIONS,
            "The topic t currently has 2 partition(s); 1 would not be an increase.",
        ),
        (
            4,
            [[1]],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
        ),
        (
            3,
            [[]],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            3,
            [[5]],
            ErrorCode.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes broker 5, but no such broker is registered.",
        ),
        (
            MAX_ADDED_PARTITIONS + 3,
            None,
            ErrorCode.POLICY_VIOLATION,
            "Excessively large number of partitions per request.",
        ),
    ],
)
async def test_partitions_that_cannot_be_added(
    count: int, assignments: list[list[int]] | None, code: ErrorCode, text: str | None
) -> None:
    async with running_node() as node:
        await create_one(node, NewTopic(name="t", num_partitions=2))
        assert code_and_text(await more(node, count, assignments)) == (code, text)
        topic = node.image.topics.get("t")
        assert topic is not None
        assert len(topic.partitions) == 2


async def test_partitions_for_several_topics() -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="a"), NewTopic(name="b")])
        requests = [
            NewPartitions(name=name, num_partitions=2)
            for name in ("nope", "a", "twice", "twice", "b")
        ]
        results = await node.controller.create_partitions(requests)
        assert [(name, error and error.error_code) for name, error in results] == [
            ("twice", ErrorCode.INVALID_REQUEST),
            ("nope", ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
            ("a", None),
            ("b", None),
        ]
        assert [len(topic.partitions) for topic in node.image.topics.by_name.values()] == [2, 2]
        revision = node.image.revision
        dry = await node.controller.create_partitions(
            [NewPartitions(name="a", num_partitions=9)], validate_only=True
        )
        assert dry == [("a", None)]
        assert node.image.revision == revision


async def test_a_timeout_that_is_over_does_nothing() -> None:
    async with running_node() as node:
        await create_one(node, NewTopic(name="t"))
        topic = node.image.topics.get("t")
        assert topic is not None
        for attempt in (
            node.controller.create_topics([NewTopic(name="x")], timeout_ms=0),
            node.controller.delete_topics([topic], timeout_ms=-1),
            node.controller.create_partitions(
                [NewPartitions(name="t", num_partitions=5)], timeout_ms=0
            ),
        ):
            with pytest.raises(KafkaError) as raised:
                await attempt
            assert raised.value.error_code == ErrorCode.REQUEST_TIMED_OUT
        assert set(node.image.topics.by_name) == {"t"}
        assert await node.controller.create_topics([], timeout_ms=0) == []
