"""Metadata, DescribeCluster, DescribeTopicPartitions, FindCoordinator."""

import time

from tests.wire.kit import scenario


@scenario("metadata", range(0, 14))
def one_topic(x, v):
    """A known topic of three partitions."""
    t = x.topic("t", 3)
    x.call("Metadata", v, {"Topics": [{"Name": t}], "AllowAutoTopicCreation": False})


@scenario("metadata", range(0, 14))
def none_and_all(x, v):
    """Empty list, null list (v1+)."""
    x.topic()
    x.call("Metadata", v, {"Topics": []}, mine=True, label="empty list")
    if v >= 1:
        x.call("Metadata", v, {"Topics": None}, mine=True, label="null list")


@scenario("metadata", [1, 4, 9, 12, 13])
def bad_topics(x, v):
    """Unknown, invalid, empty, dot, too long names without auto-creation; the same topic twice."""
    t = x.topic()
    for n in (
        "nope-" + x.tok,
        "a b",
        "",
        ".",
        "..",
        "x" * 250,
        "a/b",
        "__consumer_offsets\0",
        "caf\u00e9",
    ):
        x.call(
            "Metadata", v, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False}, label=n[:20]
        )
    x.call(
        "Metadata",
        v,
        {"Topics": [{"Name": t}, {"Name": t}], "AllowAutoTopicCreation": False},
        label="twice",
    )


@scenario("metadata", [0, 1, 3, 4, 9, 12])
def auto_create(x, v):
    """An unknown topic with auto-creation: first answer, then the created topic."""
    n = x.name("auto")
    x.call("Metadata", v, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": True}, label="first")
    x.wait_topic(n)
    x.call("Metadata", v, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": True}, label="later")


@scenario("metadata")
def auto_create_invalid(x):
    """Auto-creation of invalid names and of internal topics."""
    for n in ("a b", "", ".", "x" * 250):
        x.call(
            "Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": True}, label=n[:20]
        )


@scenario("metadata")
def collision(x):
    """Auto-creation of a name that collides ('.' vs '_')."""
    x.topic("a.b")
    n = x.name("a_b")
    x.call("Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": True})
    time.sleep(0.3)
    x.call("Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False})


@scenario("metadata", [10, 11, 12, 13])
def by_id(x, v):
    """Topic ids in requests: known, unknown, zero with null name, id and name both."""
    t = x.topic()
    i = x.tid(t)
    for what, e in (
        ("id", {"TopicId": i, "Name": None}),
        ("unknown", {"TopicId": b"\x11" * 16, "Name": None}),
        ("zero and null", {"Name": None}),
        ("both", {"TopicId": i, "Name": t}),
        ("other name", {"TopicId": i, "Name": "nope"}),
    ):
        x.call("Metadata", v, {"Topics": [e], "AllowAutoTopicCreation": False}, label=what)


@scenario("metadata")
def mixed(x):
    """Known, unknown and invalid topics in one request; internal topic flag."""
    t = x.topic()
    x.call(
        "Metadata",
        12,
        {
            "Topics": [{"Name": t}, {"Name": "nope-" + x.tok}, {"Name": "a b"}],
            "AllowAutoTopicCreation": False,
        },
    )
    x.call(
        "Metadata",
        12,
        {"Topics": [{"Name": "__consumer_offsets"}], "AllowAutoTopicCreation": False},
        mask=("Partitions",),
    )
    x.call(
        "Metadata",
        12,
        {"Topics": [{"Name": "__transaction_state"}], "AllowAutoTopicCreation": False},
        mask=("Partitions",),
    )


@scenario("metadata", [8, 9, 10, 11, 12])
def authorized_operations(x, v):
    """Topic and cluster authorized operations without an authorizer."""
    t = x.topic()
    x.call(
        "Metadata",
        v,
        {
            "Topics": [{"Name": t}],
            "IncludeTopicAuthorizedOperations": True,
            "IncludeClusterAuthorizedOperations": True,
        },
    )


@scenario("metadata")
def after_delete(x):
    """Metadata of a deleted topic by name and id."""
    t = x.topic()
    i = x.tid(t)
    x.call("DeleteTopics", 6, {"Topics": [{"Name": t}], "TimeoutMs": 4000})
    x.until(
        lambda: x.call(
            "Metadata", 12, {"Topics": [{"Name": t}], "AllowAutoTopicCreation": False}, rec=False
        )["Topics"][0]["ErrorCode"]
    )
    x.call("Metadata", 12, {"Topics": [{"Name": t}], "AllowAutoTopicCreation": False})
    x.call(
        "Metadata", 12, {"Topics": [{"Name": None, "TopicId": i}], "AllowAutoTopicCreation": False}
    )


@scenario("cluster", [0, 1, 2])
def describe(x, v):
    """DescribeCluster with and without authorized operations, endpoint types."""
    x.call("DescribeCluster", v, {})
    x.call("DescribeCluster", v, {"IncludeClusterAuthorizedOperations": True})
    if v >= 1:
        for e in (2, 0, 9):
            x.call("DescribeCluster", v, {"EndpointType": e}, label=f"endpoint type {e}")
    if v >= 2:
        x.call("DescribeCluster", v, {"IncludeFencedBrokers": True})


@scenario("topicpartitions")
def pages(x):
    """DescribeTopicPartitions: limits, cursors, order."""
    a, b = x.topic("a", 3), x.topic("b", 2)
    T = [{"Name": b}, {"Name": a}]
    for lim in (2000, 0, -1, 1, 2, 3, 4, 5):
        x.call(
            "DescribeTopicPartitions",
            0,
            {"Topics": T, "ResponsePartitionLimit": lim},
            label=f"limit {lim}",
            ordered=True,
        )
    for cur in (
        {"TopicName": a, "PartitionIndex": 1},
        {"TopicName": a, "PartitionIndex": 3},
        {"TopicName": b, "PartitionIndex": 0},
        {"TopicName": b, "PartitionIndex": 9},
    ):
        x.call(
            "DescribeTopicPartitions",
            0,
            {"Topics": T, "ResponsePartitionLimit": 2, "Cursor": cur},
            label="cursor {}".format(cur["PartitionIndex"]),
            ordered=True,
        )


@scenario("topicpartitions")
def errors(x):
    """Unknown and invalid topics, bad cursors."""
    a = x.topic("a", 2)
    x.call("DescribeTopicPartitions", 0, {"Topics": [{"Name": "nope-" + x.tok}]})
    x.call("DescribeTopicPartitions", 0, {"Topics": [{"Name": "a b"}]})
    x.call("DescribeTopicPartitions", 0, {"Topics": [{"Name": ""}]})
    x.call("DescribeTopicPartitions", 0, {"Topics": [{"Name": a}, {"Name": a}]}, label="twice")
    x.call("DescribeTopicPartitions", 0, {"Topics": [{"Name": a}, {"Name": "nope-" + x.tok}]})
    x.call(
        "DescribeTopicPartitions",
        0,
        {"Topics": [{"Name": a}], "Cursor": {"TopicName": a, "PartitionIndex": -1}},
        label="cursor -1",
    )
    x.call(
        "DescribeTopicPartitions",
        0,
        {"Topics": [{"Name": a}], "Cursor": {"TopicName": "other", "PartitionIndex": 0}},
        label="cursor not in list",
    )
    x.call(
        "DescribeTopicPartitions",
        0,
        {"Topics": [], "Cursor": {"TopicName": a, "PartitionIndex": 1}},
        label="all from cursor",
        mine=True,
        mask=("NextCursor",),
    )


@scenario("coordinator", range(0, 7))
def find(x, v):
    """FindCoordinator: group, transaction, share, unknown types; good, empty and null keys."""
    for kt in (0,) if v == 0 else (0, 1, 2, 3, -1):
        for key in ("g-" + x.tok, ""):
            if v < 4:
                x.call(
                    "FindCoordinator",
                    v,
                    {"Key": key, "KeyType": kt},
                    label=f"type {kt} {bool(key)!r}",
                )
            else:
                x.call(
                    "FindCoordinator",
                    v,
                    {"CoordinatorKeys": [key, key + "b"], "KeyType": kt},
                    label=f"type {kt} {bool(key)!r}",
                )


@scenario("coordinator")
def share_keys(x):
    """Share coordinator keys: well formed and not."""
    for k in (
        "g:AAAAAAAAAAAAAAAAAAAAAQ:0",
        "g",
        "g:x:0",
        "g:AAAAAAAAAAAAAAAAAAAAAQ:-1",
        "a:b:AAAAAAAAAAAAAAAAAAAAAQ:0",
        ":AAAAAAAAAAAAAAAAAAAAAQ:0",
    ):
        x.call("FindCoordinator", 6, {"CoordinatorKeys": [k], "KeyType": 2}, label=k[:10])
