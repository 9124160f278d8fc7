"""ListOffsets and OffsetForLeaderEpoch: specials, timestamps, epochs, errors."""

from tests.wire.kit import scenario
from tests.wire.records import batch


@scenario("listoffsets", range(1, 12))
def timestamps(x, v):
    """All special and many real timestamps, before and after DeleteRecords."""
    t = x.topic()
    for ts in (1000, 3000, 2000, 3000):
        x.produce(t, batch([b"a", b"b"], ts=[ts, ts + 5]))
    special = (-1, -2, -3, -4, -5, -6, -7)
    for ts in (*special, 0, 1000, 1001, 1005, 1006, 2000, 3000, 3005, 3006, 1 << 62):
        x.offsets(t, ts, v, label=str(ts))
    partition = {"PartitionIndex": 0, "Offset": 3}
    body = {"Topics": [{"Name": t, "Partitions": [partition]}], "TimeoutMs": 3000}
    x.call("DeleteRecords", 2, body)
    for ts in (-1, -2, -3, -4, 0, 3000):
        x.offsets(t, ts, v, label=f"after delete {ts}")


@scenario("listoffsets", [1, 2, 4, 5, 7, 9, 11])
def errors(x, v):
    """Unknown, repeated, epochs, isolation levels, replica ids."""
    t = x.topic("t", 2)

    def topic(name, *partitions):
        asked = []
        for index, timestamp, epoch in partitions:
            fields = {"CurrentLeaderEpoch": epoch} if v >= 4 else {}
            asked.append({"PartitionIndex": index, "Timestamp": timestamp, **fields})
        return {"Name": name, "Partitions": asked}

    def ask(*topics, replica=-1, isolation=0, label=None):
        body = {"ReplicaId": replica, "Topics": list(topics), "TimeoutMs": 1000}
        if v >= 2:
            body["IsolationLevel"] = isolation
        x.call("ListOffsets", v, body, label=label)

    latest = (0, -1, -1)
    ask(topic("nope-" + x.tok, latest))
    ask(topic(t, (7, -1, -1), (-1, -1, -1), latest))
    ask(topic("a b", latest), topic("", latest))
    ask(topic(t, latest, (0, -2, -1), (1, -1, -1)), label="twice")
    ask(topic(t, latest), topic(t, latest), label="topic twice")
    ask(topic(t), label="no partitions")
    ask(topic(t), isolation=7, label="no partitions, unknown isolation")
    for epoch in (0, 1, 5, -2, -9):
        ask(topic(t, (0, -1, epoch)), label=f"epoch {epoch}")
    for isolation in (1, 2, -1):
        ask(topic(t, latest, (5, -1, -1)), isolation=isolation, label=f"isolation {isolation}")
    for name, replica in (("-2", -2), ("-3", -3), ("99", 99), ("own", x.node)):
        ask(topic(t, latest), replica=replica, label=f"replica {name}")


@scenario("listoffsets")
def empty_log(x):
    """A log without records."""
    t = x.topic()
    for ts in (-1, -2, -3, -4, -5, -6, 0, 5):
        x.offsets(t, ts, 11, label=str(ts))


@scenario("listoffsets", ["none", "gzip", "lz4", "zstd", "snappy"])
def compressed(x, codec):
    """Timestamps inside compressed batches."""
    t = x.topic()
    x.produce(t, batch([b"a", b"b", b"c"], ts=[10, 30, 20], codec=codec))
    x.produce(t, batch([b"a", b"b", b"c"], ts=[25, 15, 30], codec=codec))
    for ts in (-3, 5, 10, 11, 20, 21, 26, 30, 31):
        x.offsets(t, ts, 8, label=str(ts))


@scenario("leaderepoch", [2, 3, 4])
def epochs(x, v):
    """Epochs known and unknown, current ones right and wrong."""
    t = x.topic("t", 2)

    def topic(name, *partitions):
        return {
            "Topic": name,
            "Partitions": [
                {"Partition": index, "CurrentLeaderEpoch": current, "LeaderEpoch": epoch}
                for index, current, epoch in partitions
            ],
        }

    def ask(*topics, label=None, replica=-1):
        body = {"Topics": list(topics)}
        if v >= 3:
            body["ReplicaId"] = replica
        x.call("OffsetForLeaderEpoch", v, body, label=label)

    ask(topic(t, (0, -1, 0)), label="empty")
    x.produce(t, batch([b"a", b"b"], ts=1))
    for epoch in (0, 1, 5, -1, -2):
        ask(topic(t, (0, -1, epoch)), label=str(epoch))
    for current in (0, 1, -2, -9):
        ask(topic(t, (0, current, 0)), label=f"current {current}")
    unknown = (topic("nope-" + x.tok, (0, -1, 0)), topic("a b", (0, -1, 0)))
    ask(topic(t, (7, -1, 0), (-1, -1, 0), (1, -1, 0)), *unknown)
    ask(topic(t, (0, -1, 0), (0, -1, 1)), label="twice")
    ask(topic(t, (0, -1, 0)), topic(t, (1, -1, 0)), label="topic twice")
    ask(topic(t), label="no partitions")
    for replica in (-2, 99):
        ask(topic(t, (0, -1, 0)), replica=replica, label=f"replica {replica}")
