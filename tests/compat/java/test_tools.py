"""The scripts of Kafka's bin folder, as people run them."""

from __future__ import annotations

import re

import pytest

from tests.peers import kafka_tools
from tests.peers.kafka_tools import KafkaTools, ToolFailed

pytestmark = pytest.mark.timeout(180)


def _create(tools: KafkaTools, bootstrap: str, topic: str, *more: str) -> None:
    at = ("--bootstrap-server", bootstrap)
    tools.run(kafka_tools.TOPICS, *at, "--create", "--topic", topic, *more)


def _offsets(tools: KafkaTools, bootstrap: str, topic: str, time: str) -> dict[int, int]:
    """Partition to offset, as kafka-get-offsets prints it."""
    at = ("--bootstrap-server", bootstrap)
    output = tools.run(kafka_tools.OFFSETS, *at, "--topic", topic, "--time", time)
    rows = (line.split(":") for line in output.split())
    return {int(partition): int(offset) for _, partition, offset in rows}


def test_topics_are_created_described_changed_and_deleted(
    tools: KafkaTools, bootstrap: str, topic: str
) -> None:
    at = ("--bootstrap-server", bootstrap)
    _create(tools, bootstrap, topic, "--partitions", "3", "--config", "retention.ms=7200000")

    described = tools.run(kafka_tools.TOPICS, *at, "--describe", "--topic", topic)
    assert re.search(rf"Topic: {topic}\s+TopicId: \S{{22}}\s+PartitionCount: 3", described)
    assert "retention.ms=7200000" in described
    assert (
        len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", described)) == 3
    )

    tools.run(kafka_tools.TOPICS, *at, "--alter", "--topic", topic, "--partitions", "5")
    described = tools.run(kafka_tools.TOPICS, *at, "--describe", "--topic", topic)
    assert "PartitionCount: 5" in described

    with pytest.raises(ToolFailed, match="already exists"):
        _create(tools, bootstrap, topic)
    tools.run(kafka_tools.TOPICS, *at, "--delete", "--topic", topic)
    assert topic not in tools.run(kafka_tools.TOPICS, *at, "--list").split()


def test_configs_are_described(tools: KafkaTools, bootstrap: str, topic: str) -> None:
    _create(tools, bootstrap, topic, "--config", "cleanup.policy=compact")
    at = ("--bootstrap-server", bootstrap)
    entity = ("--entity-type", "topics", "--entity-name", topic)

    output = tools.run(kafka_tools.CONFIGS, *at, "--describe", "--all", *entity)

    assert "cleanup.policy=compact sensitive=false" in output
    assert "segment.bytes=1073741824 sensitive=false" in output
    assert "DYNAMIC_TOPIC_CONFIG:cleanup.policy=compact" in output


def test_the_console_clients_pass_lines_on(
    tools: KafkaTools, bootstrap: str, topic: str, group: str
) -> None:
    _create(tools, bootstrap, topic)
    at = ("--bootstrap-server", bootstrap)
    keyed = ("--reader-property", "parse.key=true", "--reader-property", "key.separator=:")
    lines = [f"key-{number}:value {number} größe" for number in range(50)]

    tools.run(
        kafka_tools.CONSOLE_PRODUCER, *at, "--topic", topic, *keyed, text="\n".join(lines) + "\n"
    )
    output = tools.run(
        kafka_tools.CONSOLE_CONSUMER,
        *(*at, "--topic", topic, "--group", group, "--from-beginning"),
        *("--max-messages", "50", "--timeout-ms", "60000"),
        *("--formatter-property", "print.key=true", "--formatter-property", "key.separator=:"),
    )

    assert output.splitlines() == lines
    assert _offsets(tools, bootstrap, topic, "-1") == {0: 50}
    described = tools.run(kafka_tools.GROUPS, *at, "--describe", "--group", group)
    # group, topic, partition, current offset, log end offset, lag
    assert re.search(rf"{group}\s+{topic}\s+0\s+50\s+50\s+0\s", described)


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_the_performance_tools_move_every_record(
    tools: KafkaTools, bootstrap: str, topic: str, codec: str
) -> None:
    """An idempotent producer with acks=all, and a consumer in a group, over three partitions."""
    _create(tools, bootstrap, topic, "--partitions", "3")
    count = "20000"
    produced = tools.run(
        kafka_tools.PRODUCER_PERFORMANCE,
        *("--topic", topic, "--num-records", count, "--record-size", "300"),
        *("--throughput", "-1", "--bootstrap-server", bootstrap),
        *("--command-property", "acks=all", "--command-property", f"compression.type={codec}"),
    )
    consumed = tools.run(
        kafka_tools.CONSUMER_PERFORMANCE,
        *("--bootstrap-server", bootstrap, "--topic", topic, "--num-records", count),
        *("--timeout", "60000"),
    )

    assert f"{count} records sent" in produced
    header, row = (line.split(", ") for line in consumed.strip().splitlines()[-2:])
    assert int(float(row[header.index("data.consumed.in.nMsg")])) >= int(count)
    assert sum(_offsets(tools, bootstrap, topic, "-1").values()) == int(count)
    assert set(_offsets(tools, bootstrap, topic, "-2").values()) == {0}
