"""What DescribeConfigs tells of groups, client metrics, loggers and brokers, before and after."""

from tests.wire.kit import scenario
from tests.wire.scenarios.settings import (
    APPEND,
    BROKER,
    DELETE,
    GROUP,
    LOGGER,
    METRICS,
    SET,
    SUBTRACT,
    resource,
)


def look(x, kind, name, *keys, v=4, label=None):
    """Everything that is told of a resource, or of some of its settings."""
    asked = {
        "ResourceType": kind,
        "ResourceName": name,
        "ConfigurationKeys": list(keys) or None,
    }
    body = {"IncludeSynonyms": True, "Resources": [asked]}
    x.call("DescribeConfigs", v, body, mask=("Documentation",), label=label)


def alter(x, kind, name, *settings, api="IncrementalAlterConfigs"):
    v = 1 if api == "IncrementalAlterConfigs" else 2
    asked = resource(kind, name, *settings)
    if v == 2:
        asked["Configs"] = [{"Name": c["Name"], "Value": c["Value"]} for c in asked["Configs"]]
    x.call(api, v, {"Resources": [asked]})
    x.settle()


@scenario("describeconfigs", ["group", "metrics"])
def own_resources(x, kind):
    """Nothing set, something set by both APIs, everything taken back."""
    kind, key, value, other = {
        "group": (GROUP, "consumer.session.timeout.ms", "50000", "consumer.heartbeat.interval.ms"),
        "metrics": (METRICS, "interval.ms", "12345", "metrics"),
    }[kind]
    name = x.name("r")
    look(x, kind, name, label="unset")
    alter(x, kind, name, (key, SET, value), (other, SET, "6000"))
    look(x, kind, name, label="set")
    alter(x, kind, name, (key, SET, value), api="AlterConfigs")
    look(x, kind, name, label="replaced")
    for v in (1, 2, 3):
        look(x, kind, name, key, v=v)
    alter(x, kind, name, (key, DELETE, None))
    look(x, kind, name, key, label="deleted")


@scenario("describeconfigs", ["metrics lists"])
def metrics_lists(x, k):
    """Lists of client metrics: appended to, subtracted from, with odd entries."""
    name = x.name("m")
    alter(x, METRICS, name, ("metrics", SET, "org.apache.kafka.a,org.apache.kafka.b"))
    alter(x, METRICS, name, ("metrics", APPEND, "org.apache.kafka.c"))
    alter(x, METRICS, name, ("metrics", SUBTRACT, "org.apache.kafka.a"))
    look(x, METRICS, name, label="lists")
    for text in ("", "*", " a , b ", "a,,b", "a,a"):
        alter(x, METRICS, name, ("metrics", SET, text))
        look(x, METRICS, name, "metrics", label=repr(text))


MATCHES = (
    "client_id=a.*",
    "client_id=a.*,client_software_name=apache-kafka-java",
    "client_source_port=9\\d*",
    "client_instance_id=b69cc35a-7a54-4790-aa69-cc2bd4ee4538",
    " client_id = a ",
    "client_id=",
    "client_id",
    "=a",
    "client_id=a=b",
    "client_id=(?i)a",
    "client_id=[",
    "client_id=a{1,2}",
    "CLIENT_ID=a",
    "client_id=a,client_id=b",
    "",
    ",",
)


@scenario("describeconfigs", MATCHES)
def metrics_match(x, text):
    """What is a matching pattern of client metrics."""
    name = x.name("m")
    alter(x, METRICS, name, ("match", SET, text))
    look(x, METRICS, name, "match")


INTERVALS = ("100", "3600000", "3600001", "0", "-1", "2147483648", " 1000 ", "1e3", "")


@scenario("describeconfigs", INTERVALS)
def metrics_interval(x, text):
    """What is an interval of client metrics."""
    name = x.name("m")
    alter(x, METRICS, name, ("interval.ms", SET, text))
    look(x, METRICS, name, "interval.ms")


LEVELS = ("INFO", "WARN", "ERROR", "FATAL", "DEBUG", "TRACE")


@scenario("describeconfigs", LEVELS)
def root_level(x, level):
    """The root logger's level, and back."""
    x.call(
        "IncrementalAlterConfigs", 1, {"Resources": [resource(LOGGER, "1", ("root", SET, level))]}
    )
    look(x, LOGGER, "1", "root")
    back = resource(LOGGER, "1", ("root", SET, "INFO"))
    x.call("IncrementalAlterConfigs", 1, {"Resources": [back]}, rec=False)


LOGGER_CHANGES = {
    "replace": ("AlterConfigs", [("root", SET, "INFO")]),
    "two": ("IncrementalAlterConfigs", [("root", SET, "INFO"), ("nope", SET, "INFO")]),
    "lower case": ("IncrementalAlterConfigs", [("root", SET, "info")]),
    "off": ("IncrementalAlterConfigs", [("root", SET, "OFF")]),
    "delete unknown": ("IncrementalAlterConfigs", [("nope", DELETE, None)]),
    "twice": ("IncrementalAlterConfigs", [("root", SET, "INFO"), ("root", SET, "WARN")]),
}


@scenario("describeconfigs", LOGGER_CHANGES)
def logger_change(x, k):
    """What is refused of loggers."""
    api, settings = LOGGER_CHANGES[k]
    alter(x, LOGGER, "1", *settings, api=api)
    look(x, LOGGER, "1", "root", "nope")


CLUSTER = {
    "message.max.bytes": "1000013",
    "log.cleaner.backoff.ms": "15001",
    "producer.id.expiration.ms": "86400001",
    "max.connections": "100000",
    "log.segment.bytes": "1073741823",
    "log.retention.bytes": "1000000",
    "compression.type": "lz4",
    "log.message.timestamp.type": "LogAppendTime",
    "group.consumer.assignment.interval.ms": "1001",
}


@scenario("describeconfigs", CLUSTER)
def broker_setting(x, key):
    """All brokers' setting, then this broker's over it, then each taken back."""
    alter(x, BROKER, "", (key, SET, CLUSTER[key]))
    look(x, BROKER, "1", key, label="default")
    alter(x, BROKER, "1", (key, SET, CLUSTER[key]))
    look(x, BROKER, "1", key, label="both")
    look(x, BROKER, "", key, label="of all")
    alter(x, BROKER, "", (key, DELETE, None))
    look(x, BROKER, "1", key, label="own")
    alter(x, BROKER, "1", (key, DELETE, None))
    look(x, BROKER, "1", key, label="none")


RESOURCES = {
    "type 0": (0, "x"),
    "type 3": (3, "x"),
    "broker x": (BROKER, "x"),
    "broker 2": (BROKER, "2"),
    "logger empty": (LOGGER, ""),
    "logger 2": (LOGGER, "2"),
    "logger x": (LOGGER, "x"),
    "group empty": (GROUP, ""),
    "metrics empty": (METRICS, ""),
}


@scenario("describeconfigs", RESOURCES)
def refused(x, k):
    """What is not described."""
    for v in (1, 4):
        look(x, *RESOURCES[k], "none", v=v)
