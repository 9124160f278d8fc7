"""The broker's settings: the tables against Kafka's, precedence, derived values, listeners."""

import json
from pathlib import Path

import pytest

from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.config.broker_settings import BrokerSettings
from kbroker.config.config_def import ConfigError
from kbroker.config.group_config import ClientMetricsConfig, GroupConfig
from kbroker.config.listeners import parse_address
from kbroker.config.server_properties import environment_properties, parse_properties
from kbroker.config.topic_config import LogConfig

SCHEMAS = Path(__file__).parents[3] / "schemas" / "configs.json"
JVM_ONLY = {"ssl.keymanager.algorithm", "ssl.trustmanager.algorithm"}
DISTRIBUTION = """\
# as shipped
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,\\
    SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL
num.network.threads=3
log.dirs=/tmp/kraft-combined-logs
num.partitions=1
offsets.topic.replication.factor=1
log.retention.hours=168
log.segment.bytes=1073741824
"""


@pytest.mark.parametrize(
    ("scope", "table"),
    [
        ("broker", BrokerSettings),
        ("topic", LogConfig),
        ("group", GroupConfig),
        ("client_metrics", ClientMetricsConfig),
    ],
)
def test_tables_hold_what_kafka_defines(scope, table):
    rows = {row["name"]: row for row in json.loads(SCHEMAS.read_text())[scope]}
    ours = {name: row for name, row in table.settings().items() if "kbroker" not in name}
    assert ours.keys() == rows.keys()
    for name, row in ours.items():
        assert row.type.name == rows[name]["type"], name
        assert row.internal == rows[name].get("internal", False), name
        default = rows[name]["default"]
        if default in ("(required)", "Double.MAX_VALUE") or name in JVM_ONLY:
            continue
        text = None if default is None else str(default)
        if isinstance(default, bool):
            text = text.lower()
        assert row.to_text(row.default) == text, name


def test_every_default_passes_its_own_check():
    for table in (BrokerSettings, LogConfig, GroupConfig, ClientMetricsConfig):
        for row in table.settings().values():
            if row.default is not None:
                assert row.parse(row.to_text(row.default)) == row.default, row.name


def test_precedence_and_profiles():
    dev = BrokerConfig.from_properties({})
    assert dev.group_initial_rebalance_delay_ms == 0
    assert dev.offsets_topic_replication_factor == 1
    kafka = BrokerConfig.from_properties({}, profile="kafka")
    assert kafka.group_initial_rebalance_delay_ms == 3000
    assert kafka.offsets_topic_replication_factor == 3
    own = BrokerConfig.from_properties({"group.initial.rebalance.delay.ms": "7"})
    assert own.group_initial_rebalance_delay_ms == 7
    with pytest.raises(ConfigError, match="unknown profile"):
        BrokerConfig.from_properties({}, profile="prod")


def test_the_distributions_file_starts_unchanged():
    config = BrokerConfig.from_properties(parse_properties(DISTRIBUTION))
    (listener,) = config.listener_specs()
    assert (listener.name, listener.host, listener.port) == ("PLAINTEXT", "", 9092)
    assert (listener.advertised_host, listener.advertised_port) == ("localhost", 9092)
    assert config.data_directories() == ("/tmp/kraft-combined-logs",)
    assert config.problems() == []
    assert config.unknown == ()


def test_the_old_name_of_the_node_id():
    assert BrokerConfig.from_properties({"broker.id": "7"}).node_id == 7
    assert BrokerConfig.from_properties({"broker.id": "7", "node.id": "8"}).node_id == 8
    assert BrokerConfig.from_properties({}).broker_id == 1


def test_log_defaults_take_the_first_synonym_that_has_a_value():
    config = BrokerConfig.from_properties({"log.retention.hours": "2", "log.roll.ms": "9"})
    defaults = config.log_defaults()
    assert defaults.retention_ms == 7_200_000
    assert defaults.segment_ms == 9
    minutes = BrokerConfig.from_properties({"log.retention.minutes": "3"})
    assert minutes.log_defaults().retention_ms == 180_000
    forever = BrokerConfig.from_properties({"log.retention.hours": "-1"})
    assert forever.log_defaults().retention_ms == -1


def test_dynamic_settings_win_over_static_ones():
    config = BrokerConfig.from_properties({"message.max.bytes": "1000"})
    changed = config.with_dynamic({"message.max.bytes": "3000"}, {"message.max.bytes": "2000"})
    assert changed.message_max_bytes == 3000
    assert [place.value for place in changed.synonyms("message.max.bytes")] == [
        "3000",
        "2000",
        "1000",
        "1048588",
    ]
    assert config.with_dynamic({}, {"message.max.bytes": "2000"}).message_max_bytes == 2000


def test_settings_that_promise_protection_are_refused():
    acl = BrokerConfig.from_properties({"authorizer.class.name": "x.StandardAuthorizer"})
    assert "no authorizer" in acl.problems()[0]
    tls = BrokerConfig.from_properties({"listeners": "SSL://:9093"})
    assert "SSL is not supported yet" in tls.problems()[0]


@pytest.mark.parametrize("kind", ["consumer", "share", "streams"])
@pytest.mark.parametrize(
    ("settings", "less", "more"),
    [
        ({"heartbeat.interval.ms": "1"}, "min.heartbeat.interval.ms", "heartbeat.interval.ms"),
        ({"heartbeat.interval.ms": "16000"}, "heartbeat.interval.ms", "max.heartbeat.interval.ms"),
        ({"session.timeout.ms": "44999"}, "min.session.timeout.ms", "session.timeout.ms"),
        ({"session.timeout.ms": "60001"}, "session.timeout.ms", "max.session.timeout.ms"),
        (
            {"assignment.interval.ms": "20000"},
            "assignment.interval.ms",
            "max.assignment.interval.ms",
        ),
        ({"min.session.timeout.ms": "70000"}, "min.session.timeout.ms", "max.session.timeout.ms"),
        (
            {"min.session.timeout.ms": "1000", "session.timeout.ms": "5000"},
            "heartbeat.interval.ms",
            "session.timeout.ms",
        ),
    ],
)
def test_settings_of_groups_that_contradict_each_other_are_refused(
    kind: str, settings: dict[str, str], less: str, more: str
):
    prefix = f"group.{kind}."
    config = BrokerConfig.from_properties({prefix + name: text for name, text in settings.items()})
    (first, *_) = config.problems()
    assert first.startswith(f"{prefix}{less} must ")
    assert first.endswith(f" than {prefix}{more}")


def test_bad_values_are_named():
    with pytest.raises(ConfigError, match=r"num\.partitions: Value must be at least 1"):
        BrokerConfig.from_properties({"num.partitions": "0"})
    with pytest.raises(ConfigError, match="Not a number of type INT"):
        BrokerConfig.from_properties({"num.partitions": "many"})


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("ssl.cipher.suites", "a,,b", "values must not be empty."),
        ("log.cleanup.policy", "compact,", "values must not be empty."),
        ("log.dir", "", "must not be empty. Valid values include: any non-empty value"),
        ("process.roles", "", "must not be empty. Valid values include: [broker, controller]"),
    ],
)
def test_lists_that_are_wrong_as_a_whole(name, text, problem):
    with pytest.raises(ConfigError) as raised:
        BrokerConfig.settings()[name].parse(text)
    assert str(raised.value) == f"Configuration '{name}' {problem}"


def test_nearest_name():
    config = BrokerConfig.from_properties({"num.partition": "3"})
    assert config.unknown == ("num.partition",)
    assert config.nearest("num.partition") == "num.partitions"


@pytest.mark.parametrize(
    ("listeners", "problem"),
    [
        ("PLAINTEXT://:1,PLAINTEXT://:2", "occurs twice"),
        ("INTERNAL://:1", "No security protocol"),
        ("PLAINTEXT:9092", "expected NAME://HOST:PORT"),
        ("CONTROLLER://:9093", "names no broker listener"),
        ("PLAINTEXT://:99999", "expected NAME://HOST:PORT"),
    ],
)
def test_unusable_listeners(listeners, problem):
    with pytest.raises(ConfigError, match=problem):
        BrokerConfig.from_properties({"listeners": listeners}).listener_specs()


def test_several_listeners_with_ipv6():
    config = BrokerConfig.from_properties(
        {
            "listeners": "A://[::1]:9092,B://0.0.0.0:9093",
            "listener.security.protocol.map": "A:PLAINTEXT,B:PLAINTEXT",
            "advertised.listeners": "B://example.org:19093",
        }
    )
    a, b = config.listener_specs()
    assert (a.host, a.port, a.advertised_host) == ("::1", 9092, None)
    assert (b.host, b.advertised_host, b.advertised_port) == ("0.0.0.0", "example.org", 19093)


def test_addresses():
    assert parse_address("[::1]:9092") == ("::1", 9092)
    assert parse_address("host:1") == ("host", 1)
    for bad in ("host", ":1", "host:0", "host:x", "host:65536"):
        with pytest.raises(ConfigError):
            parse_address(bad)


def test_properties_files():
    text = (
        "a=1\n b : 2\nc 3\n# no\n! no\n\nd=x\\\n   y\ne=\\u0041\\t\nf\ng=\\=\n a\\ b = c = d\na=9"
    )
    assert parse_properties(text) == {
        "a": "9",
        "b": "2",
        "c": "3",
        "d": "xy",
        "e": "A\t",
        "f": "",
        "g": "=",
        "a b": "c = d",
    }


def test_environment():
    environment = {
        "KAFKA_NUM_PARTITIONS": "3",
        "KAFKA_HEAP_OPTS": "-Xmx1g",
        "KAFKA_BOOTSTRAP_SERVERS": "x:1",
        "HOME": "/",
    }
    assert environment_properties(environment) == {"num.partitions": "3"}


def test_holder_tells_its_subscribers():
    old = BrokerConfig.from_properties({})
    new = old.with_dynamic({"message.max.bytes": "5"}, {})
    holder, told = ConfigHolder(old), []
    holder.subscribe(lambda before, after: told.append((before, after)))
    holder.replace(new)
    assert holder.current is new
    assert told == [(old, new)]


def test_rates_are_only_taken_dynamically():
    name = "replica.alter.log.dirs.io.max.bytes.per.second"
    config = BrokerConfig.from_properties({name: "5"})
    assert config.replica_alter_log_dirs_io_max_bytes_per_second == 2**63 - 1
    config = config.with_dynamic({}, {name: "7"})
    assert config.replica_alter_log_dirs_io_max_bytes_per_second == 7
    config = config.with_dynamic({name: "0"}, {name: "7"})
    assert config.replica_alter_log_dirs_io_max_bytes_per_second == 0
    for wrong in ("-1", "fast"):
        with pytest.raises(ConfigError, match=name):
            config.with_dynamic({name: wrong}, {})
