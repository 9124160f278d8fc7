"""``kbroker topics`` against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

import time

from tests.compat.cli.command import refuse, succeed, succeed_json

LIVENESS_S = 30


def test_a_topic_from_creation_to_deletion(bootstrap: str, topic: str):
    created = succeed("topics", "create", topic, "--partitions", "2", bootstrap=bootstrap)
    assert created == f"created {topic}\n"
    listed = {each["name"]: each for each in succeed_json("topics", "list", bootstrap=bootstrap)}
    assert listed[topic]["partitions"] == 2
    assert not listed[topic]["internal"]
    header, *rows = succeed("topics", "describe", topic, bootstrap=bootstrap).splitlines()
    assert header.split() == ["TOPIC", "PARTITION", "LEADER", "REPLICAS", "ISR", "FIRST", "END"]
    assert [row.split()[:2] for row in rows] == [[topic, "0"], [topic, "1"]]
    assert [row.split()[-2:] for row in rows] == [["0", "0"], ["0", "0"]]

    succeed("topics", "alter", topic, "--partitions", "3", bootstrap=bootstrap)
    deadline = time.monotonic() + LIVENESS_S
    while len(succeed_json("topics", "describe", topic, bootstrap=bootstrap)[0]["partitions"]) < 3:
        assert time.monotonic() < deadline

    changed = succeed(
        *("topics", "alter", topic, "--config", "retention.ms=77", "--reset", "segment.bytes"),
        bootstrap=bootstrap,
    )
    assert changed == f"{topic}: changed retention.ms, segment.bytes\n"

    assert succeed_json("topics", "delete", topic, bootstrap=bootstrap) == {"deleted": [topic]}
    deleted = succeed_json("topics", "delete", topic, "--if-exists", bootstrap=bootstrap)
    assert deleted == {"deleted": []}


def test_refusals_say_what_to_do(bootstrap: str, topic: str):
    succeed("topics", "create", topic, bootstrap=bootstrap)
    assert "--if-not-exists" in refuse("topics", "create", topic, bootstrap=bootstrap)
    again = succeed("topics", "create", topic, "--if-not-exists", bootstrap=bootstrap)
    assert again == f"exists already: {topic}\n"
    refuse("topics", "alter", topic, bootstrap=bootstrap, status=2)
    refuse("topics", "alter", topic, "--config", "no.such=1", bootstrap=bootstrap)
    refuse("topics", "alter", topic, "--partitions", "1", bootstrap=bootstrap)
    missing = f"{topic}-missing"
    assert "kbroker topics list" in refuse("topics", "describe", missing, bootstrap=bootstrap)
    assert "INVALID_CONFIG" in refuse(
        *("topics", "create", missing, "--config", "no.such=1"), bootstrap=bootstrap
    )
    refuse("topics", "create", missing, "--config", "x", bootstrap=bootstrap, status=2)


def test_nobody_there():
    line = refuse("topics", "list", "--bootstrap", "127.0.0.1:1")
    assert "127.0.0.1:1" in line
    assert "kbroker serve" in line
    assert "HOST:PORT" in refuse("topics", "list", "--bootstrap", "nonsense", status=2)
