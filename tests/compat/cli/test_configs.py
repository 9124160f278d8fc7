"""``kbroker configs`` against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

from tests.compat.cli.command import refuse, succeed, succeed_json


def test_settings_of_a_topic(bootstrap: str, topic: str):
    succeed("topics", "create", topic, "--config", "segment.bytes=1048576", bootstrap=bootstrap)
    of_topic = ("--topic", topic)
    changed = succeed(
        *("configs", "alter", *of_topic, "--set", "retention.ms=77", "--reset", "segment.bytes"),
        bootstrap=bootstrap,
    )
    assert changed == "changed retention.ms, segment.bytes\n"
    shown = succeed("configs", "describe", *of_topic, bootstrap=bootstrap).splitlines()
    assert ["retention.ms", "77"] in [line.split() for line in shown]
    everything = succeed_json("configs", "describe", *of_topic, "--all", bootstrap=bootstrap)
    values = {each["name"]: each["value"] for each in everything}
    assert values["segment.bytes"] == "1073741824"
    assert values["cleanup.policy"] == "delete"


def test_refusals(bootstrap: str, topic: str):
    succeed("topics", "create", topic, bootstrap=bootstrap)
    refuse("configs", "alter", "--topic", topic, bootstrap=bootstrap, status=2)
    refuse("configs", "alter", "--topic", topic, "--set", "no.such=1", bootstrap=bootstrap)
    line = refuse("configs", "describe", "--broker", "4242", bootstrap=bootstrap)
    assert "there is no broker 4242" in line
