"""IncrementalAlterConfigs, AlterConfigs, ListConfigResources: operations, checks, sources."""

from tests.wire.kit import scenario

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
HARMLESS = (TOPIC, METRICS, GROUP)


def resource(kind, name, *settings):
    """A resource; the name ``~`` is a fresh topic's, and ``~`` in other names makes them fresh."""
    return {
        "ResourceType": kind,
        "ResourceName": name,
        "Configs": [
            {"Name": key, "ConfigOperation": operation, "Value": value}
            for key, operation, value in settings
        ],
    }


def topic(*settings):
    return [resource(TOPIC, "~", *settings)]


def broker(key, operation, value, name="1"):
    return [resource(BROKER, name, (key, operation, value))]


def group(*settings):
    return [resource(GROUP, "g~", *settings)]


def metrics(*settings):
    return [resource(METRICS, "m~", *settings)]


CHANGES = {
    "set": topic(("retention.ms", SET, "5")),
    "append": topic(("cleanup.policy", APPEND, "compact")),
    "append present": topic(("cleanup.policy", APPEND, "delete")),
    "append bad": topic(("cleanup.policy", APPEND, "x")),
    "append empty": topic(("cleanup.policy", APPEND, "")),
    "append scalar": topic(("retention.ms", APPEND, "1")),
    "append unknown": topic(("nope", APPEND, "1")),
    "subtract": topic(("cleanup.policy", SUBTRACT, "delete")),
    "subtract absent": topic(("cleanup.policy", SUBTRACT, "compact")),
    "delete": topic(("retention.ms", DELETE, None)),
    "delete unknown": topic(("nope", DELETE, None)),
    "set unknown": topic(("nope", SET, "1")),
    "set bad": topic(("retention.ms", SET, "x")),
    "set null": topic(("retention.ms", SET, None)),
    "nulls": topic(("retention.ms", SET, None), ("a", APPEND, None), ("b", DELETE, None)),
    "key twice": topic(("retention.ms", SET, "1"), ("retention.ms", DELETE, None)),
    "operation 9": topic(("retention.ms", 9, "1")),
    "operation -1": topic(("retention.ms", -1, "1")),
    "operation 9 beside others": [
        *topic(("retention.ms", 9, "1")),
        resource(TOPIC, "nope", ("retention.ms", SET, "1")),
        resource(3, "x"),
    ],
    "operation 9 of a broker": [
        *broker("message.max.bytes", 9, "1"),
        *topic(("retention.ms", SET, "1")),
    ],
    "nothing": topic(),
    "unknown topic": [resource(TOPIC, "nope", ("retention.ms", SET, "1"))],
    "unknown topic, bad value": [resource(TOPIC, "nope", ("retention.ms", SET, "x"))],
    "unknown topic, nothing": [resource(TOPIC, "nope")],
    "invalid topic": [resource(TOPIC, "a b", ("retention.ms", SET, "1"))],
    "empty topic": [resource(TOPIC, "", ("retention.ms", SET, "1"))],
    **{f"type {kind}": [resource(kind, "x")] for kind in (0, 1, 3, 64, -1)},
    "broker x": [resource(BROKER, "x")],
    "broker 2": [resource(BROKER, "2")],
    "broker -1": [resource(BROKER, "-1")],
    "broker 1": [resource(BROKER, "1")],
    "broker +1": broker("message.max.bytes", SET, "1000012", "+1"),
    "broker 01": broker("message.max.bytes", SET, "1000012", "01"),
    "broker read-only": broker("log.dirs", SET, "/x"),
    "broker read-only deleted": broker("log.dirs", DELETE, None),
    "broker bad": broker("message.max.bytes", SET, "x"),
    "broker negative": broker("message.max.bytes", SET, "-1"),
    "broker security": broker("ssl.keystore.location", SET, "/x"),
    "broker threads 100": broker("num.io.threads", SET, "100"),
    "broker threads 3": broker("num.io.threads", SET, "3"),
    "broker threads 0": broker("num.io.threads", SET, "0"),
    "broker append unknown": broker("nope", APPEND, "1"),
    "broker append scalar": broker("message.max.bytes", APPEND, "1"),
    "broker min isr": broker("min.insync.replicas", SET, "1"),
    "default listeners": broker("listeners", SET, "PLAINTEXT://:1", ""),
    "default network threads": broker("num.network.threads", SET, "100", ""),
    "default fetchers": broker("num.replica.fetchers", SET, "100", ""),
    "default background": broker("background.threads", SET, "100", ""),
    "default cleaners": broker("log.cleaner.threads", SET, "100", ""),
    "default sasl": broker("sasl.jaas.config", SET, "x", ""),
    "default prefixed": broker("listener.name.plaintext.ssl.keystore.type", SET, "x", ""),
    "default min isr deleted": broker("min.insync.replicas", DELETE, None, ""),
    "default policy": broker("log.cleanup.policy", APPEND, "x", ""),
    "logger of another": [resource(LOGGER, "2")],
    "logger x": [resource(LOGGER, "x")],
    "logger empty": [resource(LOGGER, "")],
    "logger append": [resource(LOGGER, "1", ("root", APPEND, "INFO"))],
    "logger root deleted": [resource(LOGGER, "1", ("root", DELETE, None))],
    "logger unknown": [resource(LOGGER, "1", ("no.such.logger", SET, "INFO"))],
    "logger level": [resource(LOGGER, "1", ("root", SET, "LOUD"))],
    "logger operation": [resource(LOGGER, "1", ("root", 9, "INFO"))],
    "logger null": [resource(LOGGER, "1", ("root", SET, None))],
    "metrics": metrics(("interval.ms", SET, "100")),
    "metrics too often": metrics(("interval.ms", SET, "99")),
    "metrics bad": metrics(("interval.ms", SET, "x")),
    "metrics unknown": metrics(("nope", SET, "1")),
    "metrics empty": [resource(METRICS, "", ("interval.ms", SET, "100"))],
    "metrics bad expression": metrics(("match", SET, "client_id=(")),
    "metrics unknown matcher": metrics(("match", SET, "who=.*")),
    "metrics no matcher": metrics(("match", SET, "x")),
    "metrics append": metrics(("metrics", APPEND, "a")),
    "metrics append scalar": metrics(("interval.ms", APPEND, "100")),
    "group": group(("consumer.session.timeout.ms", SET, "50000")),
    "group too low": group(("consumer.session.timeout.ms", SET, "1")),
    "group too high": group(("consumer.heartbeat.interval.ms", SET, "999999")),
    "group unknown": group(("nope", SET, "1")),
    "group bad": group(("consumer.session.timeout.ms", SET, "x")),
    "group empty": [resource(GROUP, "", ("consumer.session.timeout.ms", SET, "50000"))],
    "group lock": group(("share.record.lock.duration.ms", SET, "1")),
    "group reset": group(("share.auto.offset.reset", SET, "x")),
    "group isolation": group(("share.isolation.level", SET, "x")),
    "group standby": group(("streams.num.standby.replicas", SET, "99")),
    "group deliveries": group(("share.delivery.count.limit", SET, "99")),
    "group assignment": group(("consumer.assignment.interval.ms", SET, "9999999")),
    "group locks": group(("share.partition.max.record.locks", SET, "1")),
    "group session and heartbeat": group(
        ("share.session.timeout.ms", SET, "45000"), ("share.heartbeat.interval.ms", SET, "15000")
    ),
    "mixed": [
        resource(3, "x"),
        *topic(("retention.ms", SET, "5")),
        resource(TOPIC, "nope", ("retention.ms", SET, "5")),
        *group(("nope", SET, "1")),
    ],
}
TWICE = {
    "resource twice": [
        *topic(("retention.ms", SET, "1")),
        *topic(("segment.ms", SET, "1")),
    ],
    "resource twice and another": [
        *topic(),
        *topic(),
        resource(TOPIC, "nope", ("retention.ms", SET, "1")),
    ],
}
"""Kafka's AlterConfigs never answers these."""


def fresh(x, resources, name):
    return [
        {
            **r,
            "ResourceName": r["ResourceName"].replace(
                "~", name if r["ResourceName"] == "~" else x.tok
            ),
        }
        for r in resources
    ]


def describe(x, resources, *more_keys):
    """What was made of it, as DescribeConfigs tells."""
    for r in resources:
        if r["ResourceType"] in HARMLESS and r["ResourceName"]:
            keys = [c["Name"] for c in r["Configs"]] + list(more_keys)
            asked = {
                "ResourceType": r["ResourceType"],
                "ResourceName": r["ResourceName"],
                "ConfigurationKeys": keys or ["x"],
            }
            x.call("DescribeConfigs", 4, {"Resources": [asked]}, mask=("Documentation",))


@scenario("incrementalalterconfigs", CHANGES | TWICE)
def change(x, k):
    """One change: dry, then for good in both versions where it can do no harm."""
    resources = fresh(x, (CHANGES | TWICE)[k], x.topic())
    body = {"ValidateOnly": True, "Resources": resources}
    x.call("IncrementalAlterConfigs", 1, body, label="dry")
    if all(r["ResourceType"] in HARMLESS for r in resources):
        for v in (0, 1):
            x.call("IncrementalAlterConfigs", v, {"Resources": resources})
    x.settle()
    describe(x, resources)


@scenario("alterconfigs", CHANGES)
def replace(x, k):
    """The same settings as the only ones."""
    resources = [
        {**r, "Configs": [{"Name": c["Name"], "Value": c["Value"]} for c in r["Configs"]]}
        for r in fresh(x, CHANGES[k], x.topic("t", 1, segment_ms="777"))
    ]
    body = {"ValidateOnly": True, "Resources": resources}
    x.call("AlterConfigs", 2, body, label="dry")
    if all(r["ResourceType"] in HARMLESS for r in resources):
        for v in (0, 2):
            x.call("AlterConfigs", v, {"Resources": resources})
    x.settle()
    describe(x, resources, "segment.ms")


BROKERS = {
    "own": ("1", "message.max.bytes", "1000012"),
    "default": ("", "log.retention.ms", "123456"),
    "default min isr": ("", "min.insync.replicas", "1"),
    "default unknown": ("", "unknown.key", "v"),
    "own unknown": ("1", "unknown.key", "v"),
}


@scenario("incrementalalterconfigs", BROKERS)
def brokers(x, k):
    """A broker's or all brokers' setting and what topics inherit of it, then taken back."""
    name, key, value = BROKERS[k]

    def look(kind, resource_name, *keys):
        asked = {
            "ResourceType": kind,
            "ResourceName": resource_name,
            "ConfigurationKeys": list(keys),
        }
        body = {"IncludeSynonyms": True, "Resources": [asked]}
        x.call("DescribeConfigs", 4, body, mask=("Documentation",))

    x.call("IncrementalAlterConfigs", 1, {"Resources": broker(key, SET, value, name)})
    x.settle()
    look(BROKER, "", key)
    look(BROKER, "1", key)
    made = x.topic()
    look(TOPIC, made, "retention.ms", "max.message.bytes", "min.insync.replicas")
    one = {"Name": x.name("c"), "NumPartitions": 1, "ReplicationFactor": 1}
    x.call("CreateTopics", 7, {"timeoutMs": 4000, "Topics": [one]})
    x.call("IncrementalAlterConfigs", 1, {"Resources": broker(key, DELETE, None, name)})
    x.settle()
    look(BROKER, name, key)


@scenario("listconfigresources", [(), (2,), (4,), (8,), (16,), (32,), (0,), (3,), (2, 2), (2, 99)])
def listed(x, types):
    """Types asked for, none, unknown ones."""
    x.topic()
    resources = [
        resource(METRICS, "m" + x.tok, ("interval.ms", SET, "100")),
        resource(GROUP, "g" + x.tok, ("consumer.session.timeout.ms", SET, "50000")),
    ]
    x.call("IncrementalAlterConfigs", 1, {"Resources": resources}, rec=False)
    x.settle()
    for v in (1,) if types else (0, 1):
        body = {"ResourceTypes": list(types)} if v else {}
        r = x.call("ListConfigResources", v, body, rec=False)
        mine = [
            [c.get("ResourceType"), c["ResourceName"]]
            for c in r["ConfigResources"]
            if x.tok in c["ResourceName"] or c["ResourceName"] == "1"
        ]
        x.note(f"v{v}", {"ErrorCode": r["ErrorCode"], "resources": sorted(mine)})
