"""kafka-python: the admin client."""

from __future__ import annotations

from contextlib import closing

import pytest
from kafka.admin import ConfigResourceType
from kafka.errors import (
    InvalidConfigurationError,
    InvalidPartitionsError,
    InvalidTopicError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from tests.compat.kafka_python import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import eventually


def test_a_created_topic_is_listed_with_its_partitions(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)

    eventually(lambda: clients.partition_counts(bootstrap).get(topic) == 3, what="listed")
    with closing(clients.admin(bootstrap)) as admin:
        assert topic in admin.list_topics()
    with closing(clients.consumer(bootstrap)) as consumer:
        assert topic in consumer.topics()
        assert consumer.partitions_for_topic(topic) == {0, 1, 2}


def test_what_create_topics_refuses(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)

    with pytest.raises(TopicAlreadyExistsError):
        clients.create_topic(bootstrap, topic)
    with pytest.raises(InvalidTopicError):
        clients.create_topic(bootstrap, "no spaces allowed")
    with pytest.raises(InvalidConfigurationError):
        clients.create_topic(bootstrap, f"{topic}-x", configs={"retention.ms": "soon"})
    with pytest.raises(InvalidPartitionsError):
        clients.create_topic(bootstrap, f"{topic}-y", partitions=0)


def test_a_deleted_topic_is_gone_and_can_be_created_again(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, [Sample(None, b"old", now_ms())])

    with closing(clients.admin(bootstrap)) as admin:
        admin.delete_topics([topic])
        eventually(lambda: topic not in admin.list_topics(), what="the topic is gone")
        with pytest.raises(UnknownTopicOrPartitionError):
            admin.delete_topics([topic])
    clients.create_topic(bootstrap, topic)
    clients.produce(bootstrap, topic, [Sample(None, b"new", now_ms())])

    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"new")


def test_partitions_can_be_added_but_not_taken_away(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)

    clients.create_partitions(bootstrap, topic, 4)
    eventually(lambda: clients.partition_counts(bootstrap)[topic] == 4, what="four partitions")
    with pytest.raises(InvalidPartitionsError):
        clients.create_partitions(bootstrap, topic, 3)
    clients.produce(bootstrap, topic, [Sample(None, b"v", now_ms())], 3)

    (record,) = clients.read_topic(bootstrap, topic, 1, partitions=4)
    assert record.partition == 3


def test_topic_configs_are_described(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, configs={"retention.ms": "3600000"})

    found = clients.describe_configs(bootstrap, ConfigResourceType.TOPIC, topic)

    assert found["retention.ms"] == "3600000"
    assert found["segment.bytes"] == "1073741824"
    assert found["cleanup.policy"] == "delete"


def test_broker_configs_are_described(bootstrap: str) -> None:
    _, _, nodes = clients.describe_cluster(bootstrap)
    broker_id = next(iter(nodes))

    found = clients.describe_configs(bootstrap, ConfigResourceType.BROKER, str(broker_id))

    assert found["node.id"] == str(broker_id)
    assert found["message.max.bytes"] == "1048588"
    assert len(found) > 200


def test_the_cluster_describes_itself(bootstrap: str) -> None:
    cluster_id, controller_id, nodes = clients.describe_cluster(bootstrap)

    assert cluster_id
    assert controller_id in nodes
    assert bootstrap in nodes.values()
