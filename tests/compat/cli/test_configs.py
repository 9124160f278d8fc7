"""``kbroker configs`` against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

from tests.compat.cli.command import refuse, succeed, succeed_json
from tests.compat.waiting import eventually


def values(bootstrap: str, *resource: str) -> dict[str, str]:
    found = succeed_json("configs", "describe", *resource, "--all", bootstrap=bootstrap)
    return {each["name"]: each["value"] for each in found}


def change(bootstrap: str, *words: str) -> None:
    succeed("configs", "alter", *words, bootstrap=bootstrap)


def becomes(bootstrap: str, resource: tuple[str, ...], name: str, value: str) -> None:
    """A broker learns of a change a moment after the controller has taken it."""
    eventually(
        lambda: values(bootstrap, *resource).get(name) == value, what=f"{name} becomes {value}"
    )


def test_settings_of_a_topic(bootstrap: str, topic: str):
    succeed("topics", "create", topic, "--config", "segment.bytes=1048576", bootstrap=bootstrap)
    of_topic = ("--topic", topic)
    changed = succeed(
        *("configs", "alter", *of_topic, "--set", "retention.ms=77", "--reset", "segment.bytes"),
        bootstrap=bootstrap,
    )
    assert changed == "changed retention.ms, segment.bytes\n"
    becomes(bootstrap, of_topic, "retention.ms", "77")
    becomes(bootstrap, of_topic, "segment.bytes", "1073741824")
    shown = succeed("configs", "describe", *of_topic, bootstrap=bootstrap).splitlines()
    assert ["retention.ms", "77"] in [line.split() for line in shown]
    assert values(bootstrap, *of_topic)["cleanup.policy"] == "delete"


def test_settings_of_a_group(bootstrap: str, group: str):
    of_group = ("--group", group)
    change(bootstrap, *of_group, "--set", "consumer.session.timeout.ms=50000")
    becomes(bootstrap, of_group, "consumer.session.timeout.ms", "50000")
    listed = succeed_json("configs", "list", bootstrap=bootstrap)
    assert {"type": "group", "name": group} in listed
    change(bootstrap, *of_group, "--reset", "consumer.session.timeout.ms")
    becomes(bootstrap, of_group, "consumer.session.timeout.ms", "45000")


def test_settings_of_a_broker_and_of_all(bootstrap: str):
    listed = succeed("configs", "list", bootstrap=bootstrap).splitlines()
    node = next(line.split()[1] for line in listed if line.split()[0] == "broker")
    of_broker, of_all = ("--broker", node), ("--broker", "")
    name = "log.cleaner.backoff.ms"
    change(bootstrap, *of_all, "--set", f"{name}=15001")
    becomes(bootstrap, of_broker, name, "15001")
    change(bootstrap, *of_broker, "--set", f"{name}=15002")
    becomes(bootstrap, of_broker, name, "15002")
    change(bootstrap, *of_broker, "--reset", name)
    becomes(bootstrap, of_broker, name, "15001")
    change(bootstrap, *of_all, "--reset", name)
    becomes(bootstrap, of_broker, name, "15000")


def test_log_levels_of_a_broker(bootstrap: str):
    listed = succeed_json("configs", "list", bootstrap=bootstrap)
    node = next(each["name"] for each in listed if each["type"] == "broker")
    of_logger = ("--broker-logger", node)
    levels = values(bootstrap, *of_logger)
    name = next(each for each in levels if each != "root")
    change(bootstrap, *of_logger, "--set", f"{name}=ERROR")
    becomes(bootstrap, of_logger, name, "ERROR")
    change(bootstrap, *of_logger, "--reset", name)
    change(bootstrap, *of_logger, "--set", f"{name}={levels[name]}")
    becomes(bootstrap, of_logger, name, levels[name])


def test_refusals(bootstrap: str, topic: str):
    succeed("topics", "create", topic, bootstrap=bootstrap)
    refuse("configs", "alter", "--topic", topic, bootstrap=bootstrap, status=2)
    refuse("configs", "alter", "--topic", topic, "--set", "no.such=1", bootstrap=bootstrap)
    both = ("--set", "retention.ms=1", "--reset", "retention.ms")
    refuse("configs", "alter", "--topic", topic, *both, bootstrap=bootstrap, status=2)
    line = refuse("configs", "describe", "--broker", "4242", bootstrap=bootstrap)
    assert "there is no broker 4242" in line


def test_a_subscription_to_metrics_of_clients(bootstrap: str, fresh_name):
    name = fresh_name("subscription")
    of_metrics = ("--client-metrics", name)
    change(bootstrap, *of_metrics, "--set", "interval.ms=5000", "--set", "metrics=org.apache.")
    becomes(bootstrap, of_metrics, "interval.ms", "5000")
    listed = succeed_json("configs", "list", bootstrap=bootstrap)
    assert {"type": "client-metrics", "name": name} in listed
    assert "INVALID" in refuse(
        *("configs", "alter", *of_metrics, "--set", "interval.ms=1"), bootstrap=bootstrap
    )
    change(bootstrap, *of_metrics, "--reset", "interval.ms", "--reset", "metrics")
