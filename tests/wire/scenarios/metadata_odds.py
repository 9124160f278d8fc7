"""Metadata and DescribeTopicPartitions with requests that no sane client sends."""

from tests.wire.kit import scenario

ZERO = bytes(16)
UNKNOWN = b"\x11" * 16


@scenario("metadataodds", [9, 10, 12, 13])
def names_and_ids(x, v):
    """Names beside ids, nulls beside names, each twice."""
    t, u = x.topic("a"), x.topic("b")
    i = x.tid(t)

    def ask(*topics):
        body = {
            "Topics": [dict(zip(("Name", "TopicId"), each, strict=False)) for each in topics],
            "AllowAutoTopicCreation": False,
            "IncludeTopicAuthorizedOperations": True,
        }
        x.call("Metadata", v, body)

    if v >= 10:
        ask((None, i), (u, ZERO))
        ask((None, i), (None, ZERO))
        ask((None, i), (None, i), (None, UNKNOWN), (None, UNKNOWN))
        ask((u, ZERO), (None, ZERO))
        ask(("a b", i))
        ask((None, UNKNOWN), ("a b", ZERO))
    missing = "nope" + x.tok
    ask((t,), (t,), (missing,), (missing,), ("a b",), ("a b",))


@scenario("metadataodds", [4, 12])
def internal_names(x, v):
    """Kafka's own names, whether there is such a topic or not."""
    for n in ("__share_group_state", "__cluster_metadata", "__remote_log_metadata"):
        body = {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False}
        x.call("Metadata", v, body, mask=("Partitions", "ErrorCode", "TopicId"))
    for create in (True, False):
        body = {"Topics": [{"Name": "__cluster_metadata"}], "AllowAutoTopicCreation": create}
        x.call("Metadata", v, body)
        x.settle()


@scenario("metadataodds")
def pages(x):
    """DescribeTopicPartitions: limits that fall on absent and invalid names, odd cursors."""
    a, b = x.topic("a", 3), x.topic("b", 2)
    for names in ([a, "", b], ["é", a, "z z"], [a + "x", b], ["__cluster_metadata"]):
        for limit in (1, 3, 10):
            body = {"Topics": [{"Name": n} for n in names], "ResponsePartitionLimit": limit}
            x.call("DescribeTopicPartitions", 0, body, ordered=True, label=f"limit {limit}")
    for names, cursor in (
        ([a, ""], ("", 1)),
        ([a], ("zzz", -1)),
        ([a, "nope" + x.tok], ("nope" + x.tok, 1)),
        ([], (a, -1)),
    ):
        body = {
            "Topics": [{"Name": n} for n in names],
            "Cursor": {"TopicName": cursor[0], "PartitionIndex": cursor[1]},
        }
        x.call("DescribeTopicPartitions", 0, body)


@scenario("metadataodds", [0, 1])
def sasl(x, v):
    """SASL requests on a plaintext listener."""
    for mechanism in ("PLAIN", "", "SCRAM-SHA-256", "NOPE"):
        x.call("SaslHandshake", v, {"Mechanism": mechanism})
    x.call("SaslAuthenticate", v, {"AuthBytes": b"\0a\0b"})
    x.call("SaslAuthenticate", 2, {"AuthBytes": b""})
