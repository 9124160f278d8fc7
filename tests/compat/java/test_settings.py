"""kafka-configs and kafka-client-metrics on loggers, groups and client metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.compat.waiting import eventually
from tests.peers import kafka_tools

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.peers.kafka_tools import KafkaTools

CLIENT_METRICS = "org.apache.kafka.tools.ClientMetricsCommand"


def alter(tools: KafkaTools, bootstrap: str, kind: str, name: str, settings: str) -> None:
    where = ("--bootstrap-server", bootstrap, "--entity-type", kind, "--entity-name", name)
    tools.run(kafka_tools.CONFIGS, *where, "--alter", "--add-config", settings)


def described(tools: KafkaTools, bootstrap: str, kind: str, name: str) -> str:
    where = ("--bootstrap-server", bootstrap, "--entity-type", kind, "--entity-name", name)
    return tools.run(kafka_tools.CONFIGS, *where, "--describe")


def test_levels_of_loggers(tools: KafkaTools, bootstrap: str) -> None:
    alter(tools, bootstrap, "broker-loggers", "1", "root=ERROR")
    try:
        assert "root=ERROR" in described(tools, bootstrap, "broker-loggers", "1")
    finally:
        alter(tools, bootstrap, "broker-loggers", "1", "root=INFO")


def test_settings_of_a_group(
    tools: KafkaTools, bootstrap: str, fresh_name: Callable[[str], str]
) -> None:
    group = fresh_name("group")
    alter(tools, bootstrap, "groups", group, "consumer.session.timeout.ms=50000")
    expected = "consumer.session.timeout.ms=50000"
    eventually(
        lambda: expected in described(tools, bootstrap, "groups", group), what="the group's setting"
    )


def test_client_metrics(
    tools: KafkaTools, bootstrap: str, fresh_name: Callable[[str], str]
) -> None:
    name = fresh_name("metrics")
    where = ("--bootstrap-server", bootstrap)
    settings = ("--metrics", "org.apache.kafka.producer.", "--interval", "5000")
    # A client id that no other test has: the subscription is to match nobody.
    tools.run(
        CLIENT_METRICS, *where, "--alter", "--name", name, *settings, "--match", f"client_id={name}"
    )
    eventually(
        lambda: name in tools.run(CLIENT_METRICS, *where, "--list").split(), what="in the list"
    )
    shown = tools.run(CLIENT_METRICS, *where, "--describe", "--name", name)
    for line in ("interval.ms=5000", f"match=client_id={name}", "org.apache.kafka.producer."):
        assert line in shown
    tools.run(CLIENT_METRICS, *where, "--delete", "--name", name)
