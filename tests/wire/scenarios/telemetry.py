"""GetTelemetrySubscriptions and PushTelemetry (KIP-714) without a receiver."""

import hashlib

from tests.wire import codec
from tests.wire.kit import scenario
from tests.wire.scenarios.settings import METRICS, SET, resource

MASKED = ("SubscriptionId", "ClientInstanceId")


def instance(x, text=""):
    """An id that no other scenario and no other run has."""
    return hashlib.sha256((x.tok + text).encode()).digest()[:16]


def subscribe(x, name, *settings):
    """A client-metrics resource, in force when this returns."""
    asked = resource(METRICS, x.name(name), *((key, SET, value) for key, value in settings))
    x.call("IncrementalAlterConfigs", 1, {"Resources": [asked]}, rec=False)
    x.settle()


def unsubscribe(x, *names):
    remove(x, [x.name(name) for name in names])


def remove(x, names):
    if names:
        asked = [{"ResourceType": METRICS, "ResourceName": n, "Configs": []} for n in names]
        x.call("AlterConfigs", 2, {"Resources": asked}, rec=False)
        x.settle()


def alone(x):
    """Subscriptions that other scenarios left behind would match here too."""
    listed = x.call("ListConfigResources", 1, {"ResourceTypes": [METRICS]}, rec=False)
    remove(x, [each["ResourceName"] for each in listed["ConfigResources"]])


def get(x, who, label=None, **how):
    return x.call(
        "GetTelemetrySubscriptions", 0, {"ClientInstanceId": who}, label=label, mask=MASKED, **how
    )


def push(x, who, subscription, data=b"", label=None, codec_id=0, terminating=False):
    body = {
        "ClientInstanceId": who,
        "SubscriptionId": subscription,
        "Terminating": terminating,
        "CompressionType": codec_id,
        "Metrics": data,
    }
    return x.call("PushTelemetry", 0, body, label=label)


@scenario("telemetry", ["none", "zero id", "twice", "id is kept"])
def subscriptions(x, k):
    """What a client is told without a subscription of its own."""
    alone(x)
    who = codec.ZERO if k == "zero id" else instance(x)
    first = get(x, who)
    x.note("id is the asked one", first["ClientInstanceId"] == who)
    if k == "twice":
        get(x, who, "at once again")
    if k == "id is kept":
        push(x, who, first["SubscriptionId"], label="push")
        again = get(x, who, "and again")
        x.note("same subscription", again["SubscriptionId"] in (0, first["SubscriptionId"]))


SUBSCRIBED = {
    "some": [("metrics", "org.apache.kafka.producer."), ("interval.ms", "1000")],
    "two": [("metrics", "b.,a.,org.apache.kafka.consumer."), ("interval.ms", "2000")],
    "all": [("metrics", "*"), ("interval.ms", "100")],
    "all and some": [("metrics", "a.,*"), ("interval.ms", "100")],
    "nothing": [("interval.ms", "100")],
    "empty": [("metrics", ""), ("interval.ms", "100")],
}


@scenario("telemetry", SUBSCRIBED)
def subscribed(x, k):
    """What a client is told that a subscription matches by its client id."""
    alone(x)
    client = "c-" + x.tok
    subscribe(x, "s", *SUBSCRIBED[k], ("match", f"client_id={client}"))
    answer = get(x, instance(x), client=client, rec=False)
    x.note("interval", answer["PushIntervalMs"])
    x.note("metrics", sorted(answer["RequestedMetrics"]))
    get(x, instance(x, "other"), "another client", client="other-" + x.tok)
    unsubscribe(x, "s")


MATCHES = {
    "whole": "client_id=c-~",
    "prefix": "client_id=c-.*",
    "part": "client_id=-~",
    "software": "client_software_name=unknown",
    "address": "client_source_address=127.0.0.1",
    "two": "client_id=c-~,client_source_address=127.0.0.1",
    "one of two": "client_id=c-~,client_source_address=10.0.0.1",
    "port": "client_source_port=\\d+",
    "case": "client_id=C-~",
}


@scenario("telemetry", MATCHES)
def matched(x, k):
    """Which patterns match a client; a pattern stands for the whole text."""
    alone(x)
    client = "c-" + x.tok
    match = MATCHES[k].replace("~", x.tok)
    subscribe(x, "s", ("metrics", "a-" + x.tok), ("interval.ms", "100"), ("match", match))
    answer = get(x, instance(x), client=client, rec=False)
    x.note("is subscribed", "a-" + x.tok in answer["RequestedMetrics"])
    unsubscribe(x, "s")


@scenario("telemetry", ["both"])
def two_subscriptions(x, k):
    """Metrics of all that match, the shortest interval; a change is told with another id."""
    alone(x)
    client = "c-" + x.tok
    match = ("match", f"client_id={client}")
    subscribe(x, "s", ("metrics", "a.,b."), ("interval.ms", "3000"), match)
    subscribe(x, "t", ("metrics", "b.,c."), ("interval.ms", "2000"), match)
    first = get(x, instance(x), client=client, rec=False)
    x.note("metrics", sorted(first["RequestedMetrics"]))
    x.note("interval", first["PushIntervalMs"])
    subscribe(x, "t", ("metrics", "d."))
    second = push(x, instance(x), first["SubscriptionId"], b"x", "pushed for the old one")
    x.note("code", second["ErrorCode"])
    third = get(x, instance(x), client=client, rec=False)
    x.note("changed", first["SubscriptionId"] != third["SubscriptionId"])
    x.note("metrics then", sorted(third["RequestedMetrics"]))
    x.note("code then", third["ErrorCode"])
    unsubscribe(x, "s", "t")


PUSHES = {
    "nothing": {},
    "rubbish": {"data": b"rubbish"},
    "zstd rubbish": {"data": b"rubbish", "codec_id": 4},
    "codec 5": {"codec_id": 5},
    "codec -1": {"codec_id": -1},
    "terminating": {"terminating": True},
    "too large": {"data": b"x" * 1048577},
    "largest": {"data": b"x" * 1048576},
    "large and codec 5": {"data": b"x" * 1048577, "codec_id": 5},
}


@scenario("telemetry", PUSHES)
def pushed(x, k):
    """One push for the right subscription, and one behind it."""
    alone(x)
    who = instance(x)
    subscription = get(x, who, rec=False)["SubscriptionId"]
    push(x, who, subscription, label="first", **PUSHES[k])
    push(x, who, subscription, label="second", **PUSHES[k])
    get(x, who, "get behind")


ODD_PUSHES = {
    "unknown instance": lambda who, s: (who, s + 1, {}),
    "wrong subscription": lambda who, s: (who, s ^ 1, {}),
    "wrong subscription and codec": lambda who, s: (who, s ^ 1, {"codec_id": 9}),
    "zero instance": lambda who, s: (codec.ZERO, s, {}),
    "one instance": lambda who, s: (bytes(15) + b"\1", s, {}),
    "terminating, wrong": lambda who, s: (who, s ^ 1, {"terminating": True}),
}


@scenario("telemetry", ODD_PUSHES)
def refused(x, k):
    """Pushes that are refused, and what may follow them."""
    alone(x)
    who = instance(x)
    subscription = 7 if k == "unknown instance" else get(x, who, rec=False)["SubscriptionId"]
    name, number, how = ODD_PUSHES[k](who, subscription)
    push(x, name, number, label="push", **how)
    get(x, who, "get behind")
    push(x, who, subscription, label="push behind")
