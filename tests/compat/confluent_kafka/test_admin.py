"""confluent-kafka: the admin client."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import PATIENCE_S, eventually


def _code(refused: pytest.ExceptionInfo[KafkaException]) -> int:
    code = refused.value.args[0].code()
    assert isinstance(code, int)
    return code


def test_a_created_topic_is_listed_with_its_partitions(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=3)

    found = clients.admin(bootstrap).list_topics(timeout=PATIENCE_S)

    assert sorted(found.topics[topic].partitions) == [0, 1, 2]
    leaders = {partition.leader for partition in found.topics[topic].partitions.values()}
    assert leaders <= set(found.brokers)


def test_what_create_topics_refuses(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)

    with pytest.raises(KafkaException) as twice:
        clients.create_topic(bootstrap, topic)
    with pytest.raises(KafkaException) as bad_name:
        clients.create_topic(bootstrap, "no spaces allowed")
    with pytest.raises(KafkaException) as bad_config:
        clients.create_topic(bootstrap, f"{topic}-x", configs={"retention.ms": "soon"})
    with pytest.raises(KafkaException) as no_partitions:
        clients.create_topic(bootstrap, f"{topic}-y", partitions=0)

    assert _code(twice) == KafkaError.TOPIC_ALREADY_EXISTS
    assert _code(bad_name) == KafkaError.TOPIC_EXCEPTION
    assert _code(bad_config) == KafkaError.INVALID_CONFIG
    assert _code(no_partitions) == KafkaError.INVALID_PARTITIONS


def test_more_replicas_than_brokers_are_refused(bootstrap: str, topic: str) -> None:
    new = NewTopic(topic, num_partitions=1, replication_factor=3)
    admin = clients.admin(bootstrap)

    with pytest.raises(KafkaException) as refused:
        admin.create_topics([new])[topic].result(timeout=PATIENCE_S)

    assert _code(refused) == KafkaError.INVALID_REPLICATION_FACTOR


def test_a_validated_topic_is_not_created(bootstrap: str, topic: str) -> None:
    admin = clients.admin(bootstrap)
    answer = admin.create_topics([NewTopic(topic, 1, 1)], validate_only=True)

    answer[topic].result(timeout=PATIENCE_S)

    assert topic not in admin.list_topics(timeout=PATIENCE_S).topics


def test_a_deleted_topic_is_gone_and_can_be_created_again(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"old", now_ms())])
    admin = clients.admin(bootstrap)

    admin.delete_topics([topic])[topic].result(timeout=PATIENCE_S)
    eventually(
        lambda: topic not in admin.list_topics(timeout=PATIENCE_S).topics, what="topic is gone"
    )
    with pytest.raises(KafkaException) as twice:
        admin.delete_topics([topic])[topic].result(timeout=PATIENCE_S)
    clients.create_topic(bootstrap, topic)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"new", now_ms())])

    assert _code(twice) == KafkaError.UNKNOWN_TOPIC_OR_PART
    (record,) = clients.read_topic(bootstrap, topic, 1)
    assert (record.offset, record.sample.value) == (0, b"new")


def test_partitions_can_be_added_but_not_taken_away(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)
    admin = clients.admin(bootstrap)

    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(timeout=PATIENCE_S)
    eventually(
        lambda: len(admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions) == 4,
        what="four partitions",
    )
    with pytest.raises(KafkaException) as fewer:
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(timeout=PATIENCE_S)
    clients.send(clients.producer(bootstrap), topic, [Sample(None, b"v", now_ms())], 3)

    assert _code(fewer) == KafkaError.INVALID_PARTITIONS
    (record,) = clients.read_topic(bootstrap, topic, 1, partitions=4)
    assert record.partition == 3


def test_topic_configs_show_values_and_where_they_come_from(bootstrap: str, topic: str) -> None:
    set_here = {"retention.ms": "3600000", "cleanup.policy": "compact"}
    clients.create_topic(bootstrap, topic, configs=set_here)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = clients.admin(bootstrap)

    found = admin.describe_configs([resource])[resource].result(timeout=PATIENCE_S)

    assert found["retention.ms"].value == "3600000"
    assert found["cleanup.policy"].value == "compact"
    assert found["segment.bytes"].value == "1073741824"
    assert found["max.message.bytes"].value == "1048588"
    of_the_topic = ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    assert {name for name, entry in found.items() if entry.source == of_the_topic} == set(set_here)


def test_broker_configs_are_described(bootstrap: str) -> None:
    admin = clients.admin(bootstrap)
    broker_id = next(iter(admin.list_topics(timeout=PATIENCE_S).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(broker_id))

    found = admin.describe_configs([resource])[resource].result(timeout=PATIENCE_S)

    assert found["message.max.bytes"].value == "1048588"
    assert found["node.id"].value == str(broker_id)
    assert found["node.id"].is_read_only
    assert len(found) > 200


def test_configs_of_an_unknown_topic_are_an_error(bootstrap: str, topic: str) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = clients.admin(bootstrap)

    with pytest.raises(KafkaException) as refused:
        admin.describe_configs([resource])[resource].result(timeout=PATIENCE_S)

    assert _code(refused) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_the_cluster_describes_itself(bootstrap: str) -> None:
    admin = clients.admin(bootstrap)

    found = admin.describe_cluster().result(timeout=PATIENCE_S)
    metadata = admin.list_topics(timeout=PATIENCE_S)

    assert found.cluster_id == metadata.cluster_id
    assert [node.id for node in found.nodes] == sorted(metadata.brokers)
    assert found.controller is not None and found.controller.id in metadata.brokers
    assert f"{found.nodes[0].host}:{found.nodes[0].port}" == bootstrap
