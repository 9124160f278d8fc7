"""Short ways to make kafka-python's clients; where 2.x and 3.x differ, both are served.

Only the admin client changed its calls; producers and consumers are used alike.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from tests.compat.samples import Received, Sample
from tests.compat.waiting import PATIENCE_S, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

IS_VERSION_2 = kafka.__version__.startswith("2.")
PATIENCE_MS = int(PATIENCE_S * 1000)


def producer(bootstrap: str, **settings: Any) -> Any:
    defaults = {"acks": "all", "max_block_ms": PATIENCE_MS}
    return KafkaProducer(bootstrap_servers=bootstrap, **{**defaults, **settings})


def consumer(bootstrap: str, group: str | None = None, **settings: Any) -> Any:
    """A consumer that starts at the beginning and commits only when told."""
    defaults = {
        "group_id": group,
        "auto_offset_reset": "earliest",
        "enable_auto_commit": False,
        "metadata_max_age_ms": 500,
    }
    return KafkaConsumer(bootstrap_servers=bootstrap, **{**defaults, **settings})


def subscribe(client: Any, topic: str) -> None:
    """Subscribes once the client knows the topic, and lets it look again before it joins.

    kafka-python 3.0 joins with what it knows then: a member that learns of its topic during its
    first join can stay without partitions for good, with Apache Kafka as well. And a leader that
    has not refreshed its metadata since it subscribed joins a second time when it does.
    """
    eventually(lambda: client.partitions_for_topic(topic), what=f"{topic} is known")
    client.subscribe([topic])
    client.topics()  # asks the broker


def admin(bootstrap: str) -> Any:
    return KafkaAdminClient(bootstrap_servers=bootstrap)


def send(client: Any, topic: str, samples: Iterable[Sample], partition: int | None = None) -> None:
    """Produces and waits for every answer; raises the first error."""
    futures = [
        client.send(
            topic,
            key=sample.key,
            value=sample.value,
            partition=partition,
            timestamp_ms=sample.timestamp_ms,
            headers=list(sample.headers),
        )
        for sample in samples
    ]
    client.flush(PATIENCE_S)
    for future in futures:
        future.get(timeout=PATIENCE_S)


def produce(
    bootstrap: str,
    topic: str,
    samples: Iterable[Sample],
    partition: int | None = None,
    **settings: Any,
) -> None:
    """``send`` with a producer of its own."""
    with closing(producer(bootstrap, **settings)) as client:
        send(client, topic, samples, partition)


def receive(client: Any, count: int) -> list[Received]:
    """Polls until ``count`` records came."""
    records: list[Received] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(records) < count:
        for batch in client.poll(timeout_ms=200, max_records=count - len(records)).values():
            records += [as_received(record) for record in batch]
        assert time.monotonic() < deadline, f"{len(records)} of {count} records came"
    return records


def read_topic(
    bootstrap: str, topic: str, count: int, partitions: int = 1, **settings: Any
) -> list[Received]:
    """The first ``count`` records of a topic, without a group."""
    with closing(consumer(bootstrap, **settings)) as client:
        client.assign([TopicPartition(topic, number) for number in range(partitions)])
        return receive(client, count)


def as_received(record: Any) -> Received:
    sample = Sample(record.key, record.value, record.timestamp, tuple(record.headers))
    return Received(record.partition, record.offset, sample)


def create_topic(
    bootstrap: str, topic: str, partitions: int = 1, configs: dict[str, str] | None = None
) -> None:
    """Creates a topic; raises a subclass of kafka.errors.KafkaError when it is refused."""
    with closing(admin(bootstrap)) as client:
        if IS_VERSION_2:
            from kafka.admin import NewTopic

            client.create_topics(
                [NewTopic(topic, partitions, replication_factor=1, topic_configs=configs or {})]
            )
        else:
            options = {
                "num_partitions": partitions,
                "replication_factor": 1,
                "configs": configs or {},
            }
            client.create_topics({topic: options})


def create_partitions(bootstrap: str, topic: str, total: int) -> None:
    """Raises the partition count to ``total``."""
    with closing(admin(bootstrap)) as client:
        if IS_VERSION_2:
            from kafka.admin import NewPartitions

            client.create_partitions({topic: NewPartitions(total)})
        else:
            client.create_partitions({topic: total})


def describe_configs(bootstrap: str, kind: ConfigResourceType, name: str) -> dict[str, str | None]:
    """All settings of one resource, name to value."""
    resource = ConfigResource(kind, name)
    with closing(admin(bootstrap)) as client:
        if IS_VERSION_2:
            (response,) = client.describe_configs([resource])
            ((error_code, message, _, _, entries),) = response.resources
            assert error_code == 0, message
            return {entry[0]: entry[1] for entry in entries}
        found = client.describe_configs([resource], config_filter="all")
        entries = found[kind.name.lower()][name]
        return {key: entry["value"] for key, entry in entries.items()}


def partition_counts(bootstrap: str) -> dict[str, int]:
    """All topics of the broker with their partition counts."""
    with closing(admin(bootstrap)) as client:
        described = client.describe_topics()
    name_field = "topic" if IS_VERSION_2 else "name"
    return {found[name_field]: len(found["partitions"]) for found in described}


def describe_cluster(bootstrap: str) -> tuple[str, int, dict[int, str]]:
    """(cluster id, controller's node id, node id to ``host:port``)."""
    with closing(admin(bootstrap)) as client:
        found = client.describe_cluster()
    id_field = "node_id" if IS_VERSION_2 else "broker_id"
    nodes = {node[id_field]: f"{node['host']}:{node['port']}" for node in found["brokers"]}
    return found["cluster_id"], found["controller_id"], nodes
