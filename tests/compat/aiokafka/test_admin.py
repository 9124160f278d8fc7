"""aiokafka: the admin client."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.admin import NewPartitions
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTopicError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from tests.compat.aiokafka import clients
from tests.compat.samples import Sample, now_ms

pytestmark = pytest.mark.anyio


async def _partition_count(bootstrap: str, topic: str) -> int:
    async with clients.admin(bootstrap) as admin:
        (found,) = await admin.describe_topics([topic])
    return len(found["partitions"])


async def _described(bootstrap: str, resource: ConfigResource) -> dict[str, Any]:
    async with clients.admin(bootstrap) as admin:
        (response,) = await admin.describe_configs([resource])
    ((error_code, message, _, _, entries),) = response.resources
    assert error_code == 0, message
    return {entry[0]: entry[1] for entry in entries}


async def test_a_created_topic_is_listed_with_its_partitions(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=3)

    async with clients.admin(bootstrap) as admin:
        assert topic in await admin.list_topics()
    assert await _partition_count(bootstrap, topic) == 3


async def test_what_create_topics_refuses(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)

    with pytest.raises(TopicAlreadyExistsError):
        await clients.create_topic(bootstrap, topic)
    with pytest.raises(InvalidTopicError):
        await clients.create_topic(bootstrap, "no spaces allowed")
    with pytest.raises(InvalidConfigurationError):
        await clients.create_topic(bootstrap, f"{topic}-x", configs={"retention.ms": "soon"})
    with pytest.raises(InvalidPartitionsError):
        await clients.create_topic(bootstrap, f"{topic}-y", partitions=0)


async def test_a_deleted_topic_is_gone_and_can_be_created_again(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, [Sample(None, b"old", now_ms())])

    async with clients.admin(bootstrap) as admin:
        clients.raise_first_error((await admin.delete_topics([topic])).topic_error_codes)

        async def is_gone() -> bool:
            return topic not in await admin.list_topics()

        await clients.eventually(is_gone, what="the topic is gone")
        with pytest.raises(UnknownTopicOrPartitionError):
            clients.raise_first_error((await admin.delete_topics([topic])).topic_error_codes)
    await clients.create_topic(bootstrap, topic)
    await clients.produce(bootstrap, topic, [Sample(None, b"new", now_ms())])

    (record,) = await clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"new")


async def test_partitions_can_be_added_but_not_taken_away(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, partitions=2)

    async with clients.admin(bootstrap) as admin:
        await admin.create_partitions({topic: NewPartitions(4)})
        with pytest.raises(InvalidPartitionsError):
            await admin.create_partitions({topic: NewPartitions(3)})

    async def has_four() -> bool:
        return await _partition_count(bootstrap, topic) == 4

    await clients.eventually(has_four, what="four partitions")
    await clients.produce(bootstrap, topic, [Sample(None, b"v", now_ms())], 3)
    (record,) = await clients.read_topic(bootstrap, topic, 1, partitions=4)
    assert record.partition == 3


async def test_topic_configs_are_described(bootstrap: str, topic: str) -> None:
    await clients.create_topic(bootstrap, topic, configs={"retention.ms": "3600000"})

    found = await _described(bootstrap, ConfigResource(ConfigResourceType.TOPIC, topic))

    assert found["retention.ms"] == "3600000"
    assert found["segment.bytes"] == "1073741824"
    assert found["cleanup.policy"] == "delete"


async def test_broker_configs_are_described(bootstrap: str) -> None:
    async with clients.admin(bootstrap) as admin:
        cluster = await admin.describe_cluster()
    node_id = str(cluster["brokers"][0]["node_id"])

    found = await _described(bootstrap, ConfigResource(ConfigResourceType.BROKER, node_id))

    assert found["node.id"] == node_id
    assert found["message.max.bytes"] == "1048588"
    assert len(found) > 200


async def test_the_cluster_describes_itself(bootstrap: str) -> None:
    async with clients.admin(bootstrap) as admin:
        found = await admin.describe_cluster()

    assert found["cluster_id"]
    assert found["controller_id"] in {broker["node_id"] for broker in found["brokers"]}
    assert bootstrap in {f"{broker['host']}:{broker['port']}" for broker in found["brokers"]}
