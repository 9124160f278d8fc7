"""Kafka's own consumer in groups of both protocols, and kafka-consumer-groups."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("confluent_kafka", reason="the group's member is one of another maker")

from confluent_kafka import TopicPartition

from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms
from tests.peers import kafka_tools

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker
    from tests.peers.kafka_tools import KafkaTools

pytestmark = pytest.mark.timeout(180)
CONSUMERS = Path(__file__).with_name("GroupConsumers.java")
ONE_AFTER_THE_OTHER = Path(__file__).with_name("OneAfterTheOther.java")
COUNT = 10


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_javas_consumers_share_commit_and_hand_over(
    tools: KafkaTools, bootstrap: str, topic: str, group: str, protocol: str
) -> None:
    clients.create_topic(bootstrap, topic, partitions=6)
    said = tools.run(str(CONSUMERS), bootstrap, topic, group, protocol)
    assert "no record is read twice" in said


def _groups(tools: KafkaTools, bootstrap: str, *commands: tuple[str, ...]) -> list[list[list[str]]]:
    """What kafka-consumer-groups prints at each command: the words of its lines."""
    at = ("--bootstrap-server", bootstrap)
    script = "".join("\t".join((*at, *command)) + "\n" for command in commands)
    output = tools.run(str(ONE_AFTER_THE_OTHER), kafka_tools.GROUPS, text=script)
    *parts, rest = output.split("\f\n")
    assert not rest and len(parts) == len(commands), output
    return [[line.split() for line in part.splitlines() if line.strip()] for part in parts]


def _produce(bootstrap: str, topic: str) -> None:
    clients.create_topic(bootstrap, topic, partitions=2)
    producer = clients.producer(bootstrap)
    for partition in range(2):
        clients.send(producer, topic, [Sample(None, b"v", now_ms())] * COUNT, partition)


def test_the_tool_lists_and_describes_a_group_with_a_member(
    tools: KafkaTools, bootstrap: str, topic: str, group: str
) -> None:
    _produce(bootstrap, topic)
    of_group = ("--describe", "--group", group)
    with closing(clients.consumer(bootstrap, group, client_id="reader-7")) as consumer:
        consumer.subscribe([topic])
        clients.receive(consumer, 2 * COUNT)
        consumer.commit(offsets=[TopicPartition(topic, 1, 7)], asynchronous=False)

        listed, described, members, state, reset, deleted = _groups(
            tools,
            bootstrap,
            ("--list", "--state"),
            of_group,
            (*of_group, "--members"),
            (*of_group, "--state"),
            (
                *("--reset-offsets", "--group", group, "--topic", topic),
                *("--to-earliest", "--execute"),
            ),
            ("--delete", "--group", group),
        )
        (found,) = consumer.committed([TopicPartition(topic, 1)], timeout=45)
    assert [group, "Stable"] in listed
    (row,) = [words for words in described if words[1:3] == [topic, "1"]]
    # group, topic, partition, [leader epoch,] current offset, log end offset, lag, ...
    assert [word for word in row[3:-3] if word != "-"][-3:] == ["7", "10", "3"]
    assert row[-2:] == ["/127.0.0.1", "reader-7"]
    (member,) = [words for words in members if group in words]
    assert member[2:5] == ["/127.0.0.1", "reader-7", "2"]
    (of_state,) = [words for words in state if group in words]
    assert {"Stable", "range"} <= set(of_state)
    assert "inactive," in (word for words in reset for word in words)
    assert "not empty" in " ".join(word for words in deleted for word in words)
    assert found.offset == 7


def test_the_tool_describes_a_group_of_the_consumer_protocol(
    tools: KafkaTools, bootstrap: str, topic: str, group: str
) -> None:
    _produce(bootstrap, topic)
    of_group = ("--describe", "--group", group)
    settings = {"group_protocol": "consumer", "client_id": "reader-8"}
    with closing(clients.consumer(bootstrap, group, **settings)) as consumer:
        consumer.subscribe([topic])
        clients.receive(consumer, 2 * COUNT)
        consumer.commit(asynchronous=False)
        listed, described, members, state = _groups(
            tools,
            bootstrap,
            ("--list", "--type", "consumer"),
            of_group,
            (*of_group, "--members", "--verbose"),
            (*of_group, "--state"),
        )
    assert [group, "Consumer"] in listed
    rows = [[word for word in words if word != "-"] for words in described if topic in words]
    assert sorted(words[2] for words in rows) == ["0", "1"]
    assert all("/127.0.0.1" in words and "reader-8" in words for words in rows)
    (member,) = [words for words in members if group in words]
    assert "reader-8" in member and f"{topic}:0,1" in member
    (of_state,) = [words for words in state if group in words]
    assert {"Stable", "uniform"} <= set(of_state)


def test_the_tool_resets_and_deletes(
    tools: KafkaTools, bootstrap: str, topic: str, group: str
) -> None:
    _produce(bootstrap, topic)
    with closing(clients.consumer(bootstrap, group)) as consumer:
        clients.commit(consumer, [TopicPartition(topic, n, 4) for n in range(2)])
    reset = ("--reset-offsets", "--group", group, "--topic", topic, "--shift-by", "3")
    describe = ("--describe", "--group", group)
    planned, before, executed, after, deleted, rest, group_deleted, nothing = _groups(
        tools,
        bootstrap,
        (*reset, "--dry-run"),
        describe,
        (*reset, "--execute"),
        describe,
        ("--delete-offsets", "--group", group, "--topic", f"{topic}:0"),
        describe,
        ("--delete", "--group", group),
        describe,
    )

    def offsets(lines: list[list[str]]) -> list[tuple[str, ...]]:
        """(partition, current offset, log end offset, lag)"""
        rows = [[word for word in words if word != "-"] for words in lines if topic in words]
        return sorted((words[2], *words[-3:]) for words in rows)

    expected = [[group, topic, str(n), "7"] for n in range(2)]
    assert sorted(words for words in planned if words[0] == group) == expected
    assert offsets(before) == [("0", "4", "10", "6"), ("1", "4", "10", "6")]
    assert sorted(words for words in executed if words[0] == group) == expected
    assert offsets(after) == [("0", "7", "10", "3"), ("1", "7", "10", "3")]
    assert [topic, "0", "Successful"] in deleted
    assert offsets(rest) == [("1", "7", "10", "3")]
    assert "successful." in (word for words in group_deleted for word in words)
    assert not offsets(nothing)


def test_kafkas_dump_tool_decodes_the_records_of_both_protocols(
    tools: KafkaTools, owned_broker: OwnedBroker
) -> None:
    """A foreign lag monitor reads __consumer_offsets with these decoders."""
    bootstrap = owned_broker.bootstrap
    _produce(bootstrap, "read")
    for protocol in ("classic", "consumer"):
        with closing(clients.consumer(bootstrap, protocol, group_protocol=protocol)) as consumer:
            consumer.subscribe(["read"])
            clients.receive(consumer, 2 * COUNT)
            consumer.commit(asynchronous=False)
    owned_broker.stop()
    segments = owned_broker.data_dir.glob("**/__consumer_offsets-*/*.log")
    files = ",".join(str(file) for file in segments if file.stat().st_size)
    dumped = tools.run(kafka_tools.DUMP_LOG, "--files", files, "--offsets-decoder")
    assert "isvalid: false" not in dumped
    for protocol in ("classic", "consumer"):
        for partition in range(2):
            key = f'"group":"{protocol}","topic":"read","partition":{partition}'
            (line,) = [line for line in dumped.splitlines() if key in line]
            assert re.search(rf'"offset":{COUNT}\b', line), line
    # GroupMetadata of the classic protocol; group, member, target and current assignment of KIP-848
    kinds = {int(found) for found in re.findall(r'key: {"type":"?(\d+)', dumped)}
    assert kinds >= {1, 2, 3, 5, 6, 7, 8}, dumped
