"""DescribeConfigs against what Apache Kafka 4.3.1 answered (kafka_describe_configs.json)."""

import json
from pathlib import Path

import pytest

from kbroker.config import describe
from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigSource, ConfigType
from kbroker.config.describe import describe_broker, describe_cluster_default

RECORDED = json.loads((Path(__file__).parent / "kafka_describe_configs.json").read_text())
STATIC = {
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "process.roles": "broker,controller",
    "num.partitions": "1",
    "group.initial.rebalance.delay.ms": "0",
    "listeners": "*",
    "advertised.listeners": "*",
    "log.dirs": "*",
    "controller.quorum.voters": "*",
}
FACTORS = (
    "offsets.topic.replication.factor",
    "transaction.state.log.replication.factor",
    "transaction.state.log.min.isr",
    "share.coordinator.state.topic.replication.factor",
    "share.coordinator.state.topic.min.isr",
)


@pytest.fixture
def broker() -> BrokerConfig:
    """Set as the recorded broker was; a KRaft cluster sets min.insync.replicas for all brokers."""
    static = {**STATIC, **dict.fromkeys(FACTORS, "1")}
    return BrokerConfig(static, dynamic_default={"min.insync.replicas": "1"})


def rows(entries):
    return {
        e.name: [
            e.name,
            e.value,
            e.read_only,
            int(e.source),
            e.is_sensitive,
            int(e.config_type),
            [[s.name, s.value, int(s.source)] for s in e.synonyms],
        ]
        for e in entries
    }


def recorded(kind):
    return {row[0]: row for row in RECORDED[kind]}


def test_topic(broker):
    overrides = {"retention.ms": "5000", "cleanup.policy": "compact"}
    assert rows(describe.describe_topic(overrides, broker)) == recorded("topic")


def test_broker(broker):
    assert rows(describe.describe_broker(broker)) == recorded("broker")


def test_group(broker):
    assert rows(describe.describe_group({}, broker)) == recorded("group")


def test_client_metrics():
    assert rows(describe.describe_client_metrics({})) == recorded("cm")


def test_client_metrics_that_are_set():
    found = rows(describe.describe_client_metrics({"metrics": " a ,b,a", "interval.ms": "100"}))
    assert (found["metrics"][1], found["metrics"][3]) == ("a,b", 7)  # KIP-1161: no repeats
    (synonym,) = found["interval.ms"][6]
    assert synonym == ["interval.ms", "100", 7]
    assert found["match"][6] == []


def test_repeats_are_kept_only_where_kafka_keeps_them(broker):
    overrides = {
        "cleanup.policy": "delete,delete",
        "leader.replication.throttled.replicas": "0:1,0:1",
    }
    found = rows(describe.describe_topic(overrides, broker))
    assert found["cleanup.policy"][1] == "delete"
    assert found["leader.replication.throttled.replicas"][1] == "0:1,0:1"


def test_cluster_default(broker):
    (entry,) = describe.describe_cluster_default(broker)
    assert (entry.name, entry.value, entry.source) == ("min.insync.replicas", "1", 3)


def test_unknown_settings_are_listed_without_their_value():
    broker = BrokerConfig.from_properties({"my.plugin.secret": "s3cret"})
    entry = rows(describe.describe_broker(broker))["my.plugin.secret"]
    assert entry[1] is None
    assert entry[4] is True


def test_passwords_are_never_shown():
    broker = BrokerConfig.from_properties({"ssl.keystore.password": "s3cret"})
    entry = rows(describe.describe_broker(broker))["ssl.keystore.password"]
    assert "s3cret" not in json.dumps(entry)


def test_a_synonym_in_another_unit_acts_but_is_named_only_after_the_first():
    """Seen on a running Kafka: DescribeConfigs calls it a default, CreateTopics does not."""
    broker = BrokerConfig.from_properties({"log.retention.hours": "2"})
    entry = rows(describe.describe_topic({}, broker))["retention.ms"]
    assert entry[1] == "7200000"
    assert entry[3] == 5
    assert described(broker, "retention.ms") == [("7200000", 4)]
    broker = BrokerConfig.from_properties({"log.retention.ms": "5", "log.retention.hours": "2"})
    (entry,) = (e for e in describe.describe_topic({}, broker) if e.name == "retention.ms")
    assert [tuple(place) for place in entry.synonyms] == [
        ("log.retention.ms", "5", 4),
        ("log.retention.hours", "2", 4),
        ("log.retention.hours", "168", 5),
    ]


def described(broker, name, **overrides):
    """(value, source) of a new topic's setting."""
    entries = describe.describe_new_topic(overrides, broker)
    return [(entry.value, entry.source) for entry in entries if entry.name == name]


def test_a_new_topics_settings_are_told_as_they_were_written():
    broker = BrokerConfig.from_properties({"log.cleanup.policy": "compact, delete"})
    assert described(broker, "cleanup.policy") == [("compact, delete", 4)]
    assert described(broker, "preallocate", preallocate="TRUE") == [("TRUE", 1)]
    dynamic = broker.with_dynamic({"log.preallocate": "true"}, {"min.insync.replicas": "2"})
    assert described(dynamic, "preallocate") == [("true", 2)]
    assert described(dynamic, "min.insync.replicas") == [("2", 3)]
    assert described(dynamic, "segment.ms") == [("604800000", 5)]
    names = [entry.name for entry in describe.describe_new_topic({}, broker)]
    assert names == sorted(names)


def test_unknown_settings_of_brokers_are_read_only():
    broker = BrokerConfig.from_properties({}).with_dynamic({"what": "1"}, {"ever": "2"})
    told = {entry.name: entry for entry in describe.describe_broker(broker)}
    assert told["what"].read_only
    (ever,) = describe.describe_cluster_default(broker)
    assert (ever.name, ever.value, ever.read_only, ever.is_sensitive) == ("ever", None, True, True)


def test_internal_settings_appear_once_they_are_set(broker):
    assert "kbroker.fetch.sendfile" not in rows(describe.describe_broker(broker))
    broker = BrokerConfig.from_properties({"kbroker.fetch.sendfile": "false"})
    assert rows(describe.describe_broker(broker))["kbroker.fetch.sendfile"][1] == "false"


def test_rates_of_replication_are_shown():
    broker = BrokerConfig.from_properties({"log.dirs": "/data"}).with_dynamic(
        {"follower.replication.throttled.rate": "5"}, {"follower.replication.throttled.rate": "6"}
    )
    (own,) = [one for one in describe_broker(broker) if one.name.startswith("follower.repl")]
    assert (own.value, own.read_only, own.is_sensitive) == ("5", False, False)
    assert own.config_type == ConfigType.LONG
    assert [place.value for place in own.synonyms] == ["5", "6"]
    (default,) = describe_cluster_default(broker)
    assert (default.value, default.read_only, default.config_type) == ("6", False, ConfigType.LONG)


def test_settings_of_one_listener_are_shown_as_what_they_stand_for():
    broker = BrokerConfig.from_properties({"log.dirs": "/data"}).with_dynamic(
        {
            "listener.name.in.max.connections": "5",
            "listener.name.in.ssl.keystore.password": "secret",
            "listener.name.in.plain.sasl.jaas.config": "secret",
            "listener.name.in.nonsense": "secret",
        },
        {"listener.name.in.max.connections": "6"},
    )
    shown = {one.name: one for one in describe_broker(broker) if one.name.startswith("listener.n")}
    assert "secret" not in repr(shown)
    limit = shown["listener.name.in.max.connections"]
    assert (limit.value, limit.config_type, limit.read_only) == ("5", ConfigType.INT, True)
    assert [(place.name, place.value) for place in limit.synonyms] == [
        ("listener.name.in.max.connections", "5"),
        ("listener.name.in.max.connections", "6"),
        ("max.connections", "2147483647"),
    ]
    for name in ("ssl.keystore.password", "plain.sasl.jaas.config"):
        assert shown[f"listener.name.in.{name}"].config_type == ConfigType.PASSWORD
    assert shown["listener.name.in.nonsense"].config_type == 0


def test_what_is_set_for_all_brokers_is_shown_as_it_was_written():
    broker = BrokerConfig.from_properties({"log.dirs": "/data"}).with_dynamic(
        {}, {"message.max.bytes": " +5 ", "nonsense": "x"}
    )
    known, unknown = describe_cluster_default(broker)
    assert (known.value, known.synonyms[0].value) == (" +5 ", " +5 ")
    assert (unknown.value, unknown.is_sensitive) == (None, True)


def test_places_of_an_unknown_setting():
    broker = BrokerConfig.from_properties({"log.dirs": "/data"}).with_dynamic(
        {"nonsense": "1"}, {"nonsense": "2"}
    )
    (found,) = [one for one in describe_broker(broker) if one.name == "nonsense"]
    assert [place.source for place in found.synonyms] == [
        ConfigSource.DYNAMIC_BROKER_CONFIG,
        ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG,
    ]
    assert found.synonyms[0].value is None
