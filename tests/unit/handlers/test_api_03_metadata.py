"""Metadata: every version against what Kafka 4.3.1 was seen to answer."""

import pytest

from kbroker.metadata.image import BrokerImage, MetadataImage
from kbroker.metadata.topic_control import NewTopic
from kbroker.metadata.topic_metadata import describe_partitions
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.messages.metadata_response import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponsePartition,
    MetadataResponseTopic,
)
from kbroker.protocol.wire import ZERO_UUID
from tests.unit.handlers.asking import Asker, asking
from tests.unit.metadata.clusters import LISTENER

pytestmark = pytest.mark.anyio
KEY = 3
LATEST = 13
ANY_VERSION = range(LATEST + 1)
NOT_ASKED = -(1 << 31)


def named(*names: str | None, version: int = LATEST, may_create: bool = False) -> MetadataRequest:
    """A request for topics by name; versions below 4 always allow creation."""
    return MetadataRequest(
        [MetadataRequestTopic(name=name) for name in names],
        allow_auto_topic_creation=may_create if version >= 4 else True,
    )


def by_id(topic_id: bytes, name: str | None = None) -> MetadataRequestTopic:
    return MetadataRequestTopic(topic_id, name)


async def create(client: Asker, name: str, partitions: int = 1) -> bytes:
    topic = NewTopic(name=name, num_partitions=partitions)
    (result,) = await client.node.controller.create_topics([topic])
    assert result.error is None
    return result.topic_id


def expected_topic(name: str, topic_id: bytes, count: int, version: int) -> MetadataResponseTopic:
    return MetadataResponseTopic(
        0,
        name,
        topic_id if version >= 10 else ZERO_UUID,
        False,
        [
            MetadataResponsePartition(0, index, 1, 0 if version >= 7 else -1, [1], [1], [])
            for index in range(count)
        ],
    )


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_a_topic_and_its_cluster(version: int) -> None:
    async with asking() as client:
        topic_id = await create(client, "t", 3)
        response: MetadataResponse = await client.ask(KEY, version, named("t", version=version))
        assert response == MetadataResponse(
            brokers=[MetadataResponseBroker(1, "10.1.2.3", 4567)],
            cluster_id=client.node.image.cluster_id if version >= 2 else None,
            controller_id=1 if version >= 1 else -1,
            topics=[expected_topic("t", topic_id, 3, version)],
        )


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_empty_and_null_lists(version: int) -> None:
    async with asking() as client:
        await create(client, "a")
        await create(client, "b")
        empty = await client.ask(KEY, version, MetadataRequest([]))
        assert len(empty.topics) == (2 if version == 0 else 0)
        assert len(empty.brokers) == 1
        if version:
            everything = await client.ask(KEY, version, MetadataRequest(None))
            assert sorted(topic.name for topic in everything.topics) == ["a", "b"]


@pytest.mark.parametrize("version", ANY_VERSION)
async def test_names_that_are_unknown_or_invalid(version: int) -> None:
    bad = ["a b", "", ".", "..", "x" * 250, "a/b", "café", "__consumer_offsets\0"]
    async with asking({"auto.create.topics.enable": "false"}) as client:
        response = await client.ask(KEY, version, named("nope", *bad, version=version))
        told = {topic.name: topic for topic in response.topics}
        assert told.pop("nope").error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert told.keys() == set(bad)
        for topic in told.values():
            assert topic.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
            assert (topic.topic_id, topic.partitions) == (ZERO_UUID, [])
        assert not client.node.controller.is_being_created("nope")


async def test_a_topic_asked_for_twice_is_told_once() -> None:
    async with asking() as client:
        await create(client, "t")
        response = await client.ask(KEY, 12, named("t", "nope", "t", "nope"))
        assert [topic.name for topic in response.topics] == ["t", "nope"]


@pytest.mark.parametrize("version", [0, 1, 3, 4, 9, 12, 13])
async def test_a_missing_topic_is_created_meanwhile(version: int) -> None:
    async with asking() as client:
        request = named("new", version=version, may_create=True)
        for _ in range(2):
            first = await client.ask(KEY, version, request)
            assert first.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        await client.node.settle()
        later = await client.ask(KEY, version, request)
        assert later.topics[0].error_code == 0
        assert len(later.topics[0].partitions) == 1


@pytest.mark.parametrize(
    ("settings", "request_allows"),
    [({}, False), ({"auto.create.topics.enable": "false"}, True)],
)
async def test_nothing_is_created_when_either_side_forbids(
    settings: dict[str, str], request_allows: bool
) -> None:
    async with asking(settings) as client:
        await client.ask(KEY, 12, named("new", may_create=request_allows))
        await client.node.settle()
        assert client.node.image.topics.get("new") is None


async def test_invalid_names_are_not_created_and_collisions_stay_unknown() -> None:
    async with asking() as client:
        await create(client, "a.b")
        response = await client.ask(KEY, 12, named("a b", "a_b", may_create=True))
        assert [topic.error_code for topic in response.topics] == [17, 3]
        assert not client.node.controller.is_being_created("a b")
        await client.node.settle()
        response = await client.ask(KEY, 12, named("a_b"))
        assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


async def test_an_internal_topic_is_created_as_one() -> None:
    async with asking() as client:
        first = await client.ask(KEY, 12, named("__consumer_offsets", may_create=True))
        assert (first.topics[0].error_code, first.topics[0].is_internal) == (3, True)
        await client.node.settle()
        later = await client.ask(KEY, 12, named("__consumer_offsets"))
        assert (len(later.topics[0].partitions), later.topics[0].is_internal) == (50, True)


@pytest.mark.parametrize("version", [12, 13])
async def test_topics_by_id(version: int) -> None:
    unknown = b"\x11" * 16
    async with asking() as client:
        topic_id = await create(client, "t")
        await create(client, "u")
        expected = expected_topic("t", topic_id, 1, version)
        for item in (by_id(topic_id), by_id(topic_id, "t"), by_id(topic_id, "other")):
            response = await client.ask(KEY, version, MetadataRequest([item]))
            assert response.topics == [expected]
        mixed = MetadataRequest(
            [
                by_id(topic_id),
                by_id(unknown),
                by_id(topic_id),
                MetadataRequestTopic(name="u"),
                MetadataRequestTopic(name=None),
            ]
        )
        response = await client.ask(KEY, version, mixed)  # with an id, names do not count
        assert response.topics == [
            expected,
            MetadataResponseTopic(ErrorCode.UNKNOWN_TOPIC_ID, None, unknown),
        ]


@pytest.mark.parametrize("version", [10, 11])
async def test_ids_before_12_are_refused_whole(version: int) -> None:
    async with asking() as client:
        topic_id = await create(client, "t")
        for item in (by_id(topic_id), by_id(topic_id, "t"), by_id(ZERO_UUID, None)):
            response = await client.ask(KEY, version, MetadataRequest([item]))
            assert response == MetadataResponse(
                topics=[
                    MetadataResponseTopic(ErrorCode.INVALID_REQUEST, item.name or "", item.topic_id)
                ]
            )


@pytest.mark.parametrize("version", [12, 13])
async def test_neither_name_nor_id(version: int) -> None:
    async with asking() as client:
        response = await client.ask(KEY, version, named(None, version=version))
        code = ErrorCode.UNKNOWN_SERVER_ERROR
        assert response == MetadataResponse(
            topics=[MetadataResponseTopic(code, "")], error_code=code if version == 13 else 0
        )


@pytest.mark.parametrize("version", range(8, LATEST + 1))
async def test_authorized_operations(version: int) -> None:
    async with asking() as client:
        topic_id = await create(client, "t")
        request = named("t", "nope", version=version)
        request.include_topic_authorized_operations = True
        request.include_cluster_authorized_operations = version <= 10
        response = await client.ask(KEY, version, request)
        assert [topic.topic_authorized_operations for topic in response.topics] == [3576, 3576]
        expected = 8096 if version <= 10 else NOT_ASKED
        assert response.cluster_authorized_operations == expected
        if version >= 12:
            request.topics = [by_id(topic_id), by_id(b"\x11" * 16)]
            response = await client.ask(KEY, version, request)
            told = [topic.topic_authorized_operations for topic in response.topics]
            assert told == [3576, NOT_ASKED]


async def test_a_deleted_topic() -> None:
    async with asking() as client:
        topic_id = await create(client, "t")
        topic = client.node.image.topics.get("t")
        assert topic is not None
        await client.node.controller.delete_topics([topic])
        response = await client.ask(KEY, 12, named("t"))
        assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        response = await client.ask(KEY, 12, MetadataRequest([by_id(topic_id)]))
        assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID


async def test_a_client_of_another_listener_is_told_of_no_broker() -> None:
    async with asking() as client:
        await create(client, "t")
        client.connection.listener_name = "OTHER"
        for version, code in ((0, 5), (5, 5), (6, 72), (12, 72)):
            response = await client.ask(KEY, version, named("t", version=version))
            assert response.brokers == []
            (partition,) = response.topics[0].partitions
            assert (partition.error_code, partition.leader_id) == (code, -1)
            if version >= 5:
                assert partition.offline_replicas == [1]


def broker(node_id: int, *, fenced: bool = False) -> BrokerImage:
    endpoints = {LISTENER: (f"host{node_id}", 9092)}
    return BrokerImage(node_id=node_id, epoch=1, endpoints=endpoints, fenced=fenced)


async def test_replicas_that_cannot_be_reached() -> None:
    async with asking() as client:
        await create(client, "t")
        topic = client.node.image.topics.get("t")
        assert topic is not None
        (partition,) = topic.partitions
        partition.replicas = partition.isr = (1, 2, 3)  # as if there were two brokers more
        brokers = {1: broker(1), 2: broker(2, fenced=True)}
        topic.view_cache = None
        (old,) = describe_partitions(topic, brokers, LISTENER, 0)
        assert old == MetadataResponsePartition(
            ErrorCode.REPLICA_NOT_AVAILABLE, 0, 1, 0, [1], [1], [2, 3]
        )
        (new,) = describe_partitions(topic, brokers, LISTENER, 12)
        assert new == MetadataResponsePartition(0, 0, 1, 0, [1, 2, 3], [1, 2, 3], [2, 3])
        assert describe_partitions(topic, brokers, LISTENER, 12)[0] is new  # described once
        all_alive = {node: broker(node) for node in (1, 2, 3)}
        assert describe_partitions(topic, all_alive, LISTENER, 12)[0].offline_replicas == []
        without_leader = {2: broker(2), 3: broker(3)}
        (lost,) = describe_partitions(topic, without_leader, LISTENER, 12)
        assert (lost.error_code, lost.leader_id) == (ErrorCode.LEADER_NOT_AVAILABLE, -1)


async def test_other_brokers_are_told_by_their_registered_endpoint() -> None:
    async with asking() as client:
        image = client.node.image
        brokers = {**image.brokers, 7: broker(7), 8: broker(8, fenced=True)}
        client.node.publisher.image = MetadataImage(
            cluster_id="c", revision=image.revision, brokers=brokers, controller_id=8
        )
        response = await client.ask(KEY, 12, MetadataRequest([]))
        assert response.brokers == [
            MetadataResponseBroker(1, "10.1.2.3", 4567),
            MetadataResponseBroker(7, "host7", 9092),
        ]
        assert response.controller_id in (1, 7)  # the controller is fenced: any live one
