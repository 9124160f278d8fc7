"""CreateTopics, DeleteTopics, CreatePartitions: what is made, what is refused, in which order."""

from tests.wire.kit import scenario

ZERO = bytes(16)
UNKNOWN = b"\x11" * 16


def topic(name, partitions=1, factor=1, assignments=(), configs=()):
    """A topic of CreateTopics; ``~`` in the name stands for what makes it fresh."""
    return {
        "Name": name,
        "NumPartitions": partitions,
        "ReplicationFactor": factor,
        "Assignments": [
            {"PartitionIndex": index, "BrokerIds": nodes} for index, nodes in assignments
        ],
        "Configs": [{"Name": key, "Value": value} for key, value in configs],
    }


def assigned(*assignments, partitions=-1, factor=-1):
    return [topic("~", partitions, factor, assignments)]


def configured(*configs):
    return [topic("~", configs=configs)]


@scenario("createtopics", range(2, 8))
def good(x, v):
    """Counts, defaults, settings, assignments, dry runs."""
    for made in (
        topic(x.name("a"), 3),
        topic(
            x.name("b"),
            -1,
            -1,
            configs=[("retention.ms", "5"), ("cleanup.policy", "compact, delete")],
        ),
        topic(x.name("c"), -1, -1, [(1, [1]), (0, [1])]),
    ):
        x.call("CreateTopics", v, {"timeoutMs": 4000, "Topics": [made]})
    x.call(
        "CreateTopics",
        v,
        {"timeoutMs": 4000, "validateOnly": True, "Topics": [topic(x.name("d"), 2)]},
    )


REFUSED = {
    "invalid": [topic("a b")],
    "empty": [topic("")],
    "dot": [topic(".")],
    "long": [topic("x" * 250)],
    "metadata topic": [topic("__cluster_metadata")],
    "metadata topic twice": [topic("__cluster_metadata"), topic("__cluster_metadata")],
    "partitions 0": [topic("~", 0)],
    "partitions -2": [topic("~", -2)],
    "factor 0": [topic("~", 1, 0)],
    "factor -2": [topic("~", 1, -2)],
    "factor 2": [topic("~", 1, 2)],
    "both 0": [topic("~", 0, 0)],
    "null setting": configured(("retention.ms", None)),
    "null settings": configured(("retention.ms", None), ("x", None), ("segment.ms", "x")),
    "bad setting": configured(("retention.ms", "x")),
    "unknown setting": configured(("nope", "x")),
    "setting twice": configured(("retention.ms", "1"), ("retention.ms", "2")),
    "setting twice, first bad": configured(("retention.ms", "x"), ("retention.ms", "2")),
    "policy unknown": configured(("cleanup.policy", "x")),
    "policy empty": configured(("cleanup.policy", "")),
    "policy twice": configured(("cleanup.policy", "delete,delete")),
    "compaction lags": configured(("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")),
    "tiered": configured(("remote.storage.enable", "true")),
    "small segments": configured(("segment.bytes", "14")),
    "internal setting": configured(("internal.segment.bytes", "1000")),
    "min isr 0": configured(("min.insync.replicas", "0")),
    "min isr 5": configured(("min.insync.replicas", "5")),
    "factor and assignment": assigned((0, [1]), factor=1),
    "partitions and assignment": assigned((0, [1]), partitions=1),
    "partition twice": assigned((0, [1]), (0, [1])),
    "partition missing": assigned((0, [1]), (2, [1])),
    "partition -1": assigned((-1, [1])),
    "no replicas": assigned((0, [])),
    "one unknown broker": assigned((0, [1, 7])),
    "only unknown brokers": assigned((0, [99])),
    "broker twice": assigned((0, [1, 1])),
    "uneven": assigned((0, [1]), (1, [])),
    "twice": [topic("~"), topic("~", 2)],
    "thrice and another": [topic("~"), topic("o~"), topic("~", 2), topic("~")],
    "too many partitions": [topic("~", 10001)],
    "too many in all": [topic("~", 5000), topic("o~", 5001)],
    "too many beside bad": [topic("~", 10001), topic("a b", 0)],
    "collide with each other": [topic("p.q~"), topic("p_q~")],
    "bad and good": [topic("a b"), topic("~"), topic("z~", 0)],
}


@scenario("createtopics", REFUSED)
def refused(x, k):
    """Each topic on its own, or the whole request; the same when it is a dry run."""
    for number, (v, dry) in enumerate(((4, False), (7, False), (7, True))):
        topics = [{**t, "Name": t["Name"].replace("~", f"{number}-{x.tok}")} for t in REFUSED[k]]
        body = {"timeoutMs": 4000, "validateOnly": dry, "Topics": topics}
        x.call("CreateTopics", v, body, label="dry" if dry else None)


@scenario("createtopics")
def existing(x):
    """Names that exist or collide, before anything else that is wrong."""
    n = x.topic("e.x")
    for dry in (False, True):
        for made in (
            topic(n),
            topic(n.replace(".", "_")),
            topic(n, 0, 0, configs=[("x", None)]),
            topic("__consumer_offsets"),
        ):
            x.call("CreateTopics", 7, {"timeoutMs": 4000, "validateOnly": dry, "Topics": [made]})


@scenario("topicadmin", [0, -1])
def no_time(x, t):
    """Timeouts that are over before they begin."""
    n = x.topic("del")
    for topics in (
        [topic(x.name("a"))],
        [],
        [topic("dup"), topic("dup")],
        [topic("__cluster_metadata")],
    ):
        x.call("CreateTopics", 7, {"timeoutMs": t, "Topics": topics})
    for topics in ([{"Name": n}], [], [{"Name": None}], [{"Name": None, "TopicId": UNKNOWN}]):
        x.call("DeleteTopics", 6, {"TimeoutMs": t, "Topics": topics})
    for names in ([n], [], ["d", "d"]):
        topics = [{"Name": name, "Count": 2, "Assignments": None} for name in names]
        x.call("CreatePartitions", 3, {"TimeoutMs": t, "Topics": topics})


@scenario("deletetopics", range(1, 7))
def by_name(x, v):
    """Present, absent, invalid names, names twice."""
    a, b = x.topic("a"), x.topic("b")
    for names in (
        [a, "nope-" + x.tok],
        [b, b],
        ["a b", "", ".", "x" * 250],
        [a],
        ["__cluster_metadata"],
    ):
        body = {"TimeoutMs": 4000}
        if v < 6:
            body["TopicNames"] = names
        else:
            body["Topics"] = [{"Name": name} for name in names]
        x.call("DeleteTopics", v, body)


@scenario("deletetopics")
def by_id(x):
    """Ids: unknown, zero, with a name, twice, beside the name of the same topic."""
    a, b, c = x.topic("a"), x.topic("b"), x.topic("c")
    ids = {name: x.tid(name) for name in (a, b, c)}
    for topics in (
        [(None, UNKNOWN)],
        [(None, ZERO)],
        [(a, ids[a])],
        [("", ids[a])],
        [(None, ids[a]), (None, ids[a])],
        [(None, ids[a]), (a, ZERO)],
        [(None, ids[b]), (c, ZERO), (None, ZERO), (None, ZERO), ("nope", ZERO)],
    ):
        body = [{"Name": name, "TopicId": topic_id} for name, topic_id in topics]
        x.call("DeleteTopics", 6, {"TimeoutMs": 4000, "Topics": body})


MORE = {
    "same": (1, None),
    "fewer": (0, None),
    "negative": (-1, None),
    "more": (3, None),
    "assigned": (3, [[1], [1]]),
    "assigned too few": (3, [[1]]),
    "assigned too many": (2, [[1], [1]]),
    "assigned none": (3, []),
    "no replicas": (2, [[]]),
    "unknown broker": (2, [[7]]),
    "broker twice": (2, [[1, 1]]),
    "one unknown broker": (2, [[1, 7]]),
}


@scenario("createpartitions", MORE)
def more(x, k):
    """Counts and assignments, dry and for good."""
    n = x.topic("p")
    count, nodes = MORE[k]
    assignments = None if nodes is None else [{"BrokerIds": each} for each in nodes]
    one = {"Name": n, "Count": count, "Assignments": assignments}
    for v, dry in ((0, True), (3, True), (3, False), (3, False)):
        body = {"TimeoutMs": 4000, "ValidateOnly": dry, "Topics": [one]}
        x.call("CreatePartitions", v, body, label="dry" if dry else None)
    x.call("Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False})


@scenario("createpartitions")
def names(x):
    """Absent and invalid names, names twice."""
    n = x.topic("p")
    for asked in (["nope"], ["a b"], [""], [n, n], [n, "nope", n, "x", "x"]):
        topics = [{"Name": name, "Count": 5, "Assignments": None} for name in asked]
        x.call("CreatePartitions", 3, {"TimeoutMs": 4000, "Topics": topics})
    x.call("Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False})


@scenario("topicadmin")
def made_again(x):
    """A topic deleted and made again has another id and begins at epoch 0."""
    t = x.topic("r", 2)
    i = x.tid(t)
    x.call("DeleteTopics", 6, {"TimeoutMs": 4000, "Topics": [{"Name": t}]})
    x.topic("r", 1)
    x.call("Metadata", 12, {"Topics": [{"Name": t}], "AllowAutoTopicCreation": False})
    x.note("another id", x.tid(t) != i)
    by_old_id = [{"Name": None, "TopicId": i}]
    x.call("Metadata", 12, {"Topics": by_old_id, "AllowAutoTopicCreation": False})
    one = {"Name": t, "Count": 3, "Assignments": None}
    x.call("CreatePartitions", 3, {"TimeoutMs": 4000, "Topics": [one]})
    x.wait_topic(t, 3)
    x.call("Metadata", 12, {"Topics": [{"Name": t}], "AllowAutoTopicCreation": False})
