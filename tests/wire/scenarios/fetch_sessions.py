"""Fetch sessions (KIP-227): life, order, mistakes, topic ids that come and go."""

import time

from tests.wire import codec
from tests.wire.kit import scenario
from tests.wire.records import batch


def ask(name, topic_id, v, *partitions):
    """One topic of a request, by name or by id as the version has it."""
    if v >= 13:
        return {"TopicId": topic_id, "Partitions": list(partitions)}
    return {"Topic": name, "Partitions": list(partitions)}


def part(index, offset, **fields):
    return {"Partition": index, "FetchOffset": offset, "PartitionMaxBytes": 1 << 20, **fields}


def fetch(
    x, v, topics, session=0, epoch=-1, *, forget=(), wait=10, label=None, conn=None, **fields
):
    body = {
        "MaxWaitMs": wait,
        "MinBytes": 1,
        "MaxBytes": 1 << 20,
        "SessionId": session,
        "SessionEpoch": epoch,
        "Topics": topics,
        "ForgottenTopicsData": list(forget),
        **fields,
    }
    return x.call("Fetch", v, body, label=label, ordered=True, conn=conn)


@scenario("session", [7, 11, 12, 13, 17])
def life(x, v):
    """Open, incremental, data, error, forget, close; wrong epochs and ids."""
    t = x.topic("t", 3)
    tid = x.tid(t)

    def T(*ps):
        return ask(t, tid, v, *ps)

    def F(*ps):
        return {"Topic": t, "TopicId": tid, "Partitions": list(ps)}

    r = fetch(x, v, [T(part(0, 0), part(1, 0), part(2, 0))], 0, 0, label="open")
    s = r["SessionId"]
    fetch(x, v, [], s, 1, label="nothing")
    x.produce(t, batch(ts=1000), part=1)
    fetch(x, v, [], s, 2, label="data")
    fetch(x, v, [], s, 3, label="again")
    fetch(x, v, [T(part(1, 1))], s, 4, label="moved")
    fetch(x, v, [T(part(0, 77))], s, 5, label="out of range")
    fetch(x, v, [], s, 6, label="still out of range")
    fetch(x, v, [T(part(0, 0))], s, 7, label="well again")
    fetch(x, v, [T(part(9, 0))], s, 8, label="unknown partition added")
    fetch(x, v, [], s, 9, forget=[F(9)], label="forgotten")
    fetch(x, v, [], s, 9, label="epoch again")
    fetch(x, v, [], s, 10, label="goes on")
    fetch(x, v, [], s, 99, label="wrong epoch")
    fetch(x, v, [], s, -5, label="negative epoch")
    fetch(x, v, [], s + 1, 1, label="unknown id")
    fetch(x, v, [], 0, 5, label="id 0 epoch 5")
    fetch(x, v, [], s, 11, forget=[F(0, 1, 2)], label="forget all")
    fetch(x, v, [], s, 12, label="gone")


@scenario("session", [12, 13])
def order(x, v):
    """Round robin: what carried data is served last."""
    t = x.topic("t", 4)
    tid = x.tid(t)

    def T(*ps):
        return ask(t, tid, v, *ps)

    for p in range(4):
        x.produce(t, batch([b"x" * 50], ts=1000), part=p)
    r = fetch(x, v, [T(part(3, 0), part(1, 0), part(0, 0), part(2, 0))], 0, 0)
    s = r["SessionId"]
    fetch(x, v, [], s, 1, MaxBytes=130, label="small")
    fetch(x, v, [], s, 2, MaxBytes=130, label="small")
    fetch(x, v, [], s, 3, MaxBytes=130, label="small")
    fetch(x, v, [T(part(3, 1))], s, 4, label="large")
    fetch(x, v, [T(part(1, 1), part(0, 1), part(2, 1))], s, 5, label="none")
    fetch(x, v, [], s, 6, label="none")
    fetch(x, v, [], s, -1, label="close empty")
    fetch(x, v, [T(part(3, 0))], s, -1, label="close again")


@scenario("session")
def mixed_ids(x):
    """Names and ids do not mix in a session."""
    t = x.topic()
    tid = x.tid(t)
    a = fetch(x, 12, [{"Topic": t, "Partitions": [part(0, 0)]}], 0, 0)["SessionId"]
    fetch(x, 13, [], a, 1)
    fetch(x, 12, [], a, 1)
    b = fetch(x, 13, [{"TopicId": tid, "Partitions": [part(0, 0)]}], 0, 0)["SessionId"]
    fetch(x, 12, [], b, 1)
    fetch(x, 13, [], b, 1)


@scenario("session")
def ids_deleted(x):
    """A topic is deleted and made again under an id session."""
    t = x.topic()
    tid = x.tid(t)
    s = fetch(
        x,
        13,
        [
            {"TopicId": tid, "Partitions": [part(0, 0)]},
            {"TopicId": b"\x55" * 16, "Partitions": [part(0, 0)]},
        ],
        0,
        0,
    )["SessionId"]
    fetch(x, 13, [], s, 1)
    x.call(
        "DeleteTopics",
        6,
        {"Topics": [{"Name": t, "TopicId": codec.ZERO}], "TimeoutMs": 3000},
        rec=False,
    )
    time.sleep(0.5)
    fetch(x, 13, [], s, 2, label="deleted")
    x.topic()
    fetch(x, 13, [], s, 3, label="made again")


@scenario("session")
def replaced(x):
    """A full fetch replaces the session; connections do not matter."""
    t = x.topic()
    T = [{"Topic": t, "Partitions": [part(0, 0)]}]
    a = fetch(x, 12, T, 0, 0)["SessionId"]
    b = fetch(x, 12, T, a, 0)["SessionId"]
    fetch(x, 12, [], a, 1)
    c = x.conn()
    fetch(x, 12, [], b, 1, conn=c)
    c.close()
    fetch(x, 12, [], b, 2)
    fetch(x, 12, [], b, 3, IsolationLevel=2, label="bad isolation")
    fetch(x, 12, [], b, 4)
    fetch(x, 12, [], b, 5)


@scenario("session", [7, 12, 13])
def unknowns(x, v):
    """Unknown topics and partitions; a topic made later."""
    t = x.name("late")
    k = x.topic("k")
    ik = x.tid(k)

    def N(n, i, *ps):
        return ask(n, i, v, *ps)

    s = fetch(x, v, [N(t, b"\x66" * 16, part(0, 0)), N(k, ik, part(0, 0), part(5, 0))], 0, 0)[
        "SessionId"
    ]
    fetch(x, v, [], s, 1)
    x.topic("late")
    fetch(x, v, [], s, 2)
    fetch(x, v, [], s, 3)
    fetch(x, v, [N(k, ik, part(0, 3, CurrentLeaderEpoch=7))] if v >= 9 else [], s, 4)
    fetch(x, v, [], s, 5)
    fetch(x, v, [N(k, ik, part(0, 0, PartitionMaxBytes=-5))], s, 6)


@scenario("session")
def only_unknown(x):
    """Sessions that hold nothing known, or nothing."""
    for v in (12, 13):
        s = fetch(
            x,
            v,
            [{"Topic": "no-" + x.tok, "TopicId": b"\x77" * 16, "Partitions": [part(0, 0)]}],
            0,
            0,
            wait=500,
        )["SessionId"]
        fetch(x, v, [], s, 1, wait=500)
        fetch(x, v, [], s, -1)
    fetch(x, 12, [], 0, 0, label="empty full")
    fetch(x, 12, [], 0, -1, label="empty sessionless")


@scenario("session", [4, 7, 12, 13])
def committed(x, v):
    """READ_COMMITTED at the end and beyond, in and out of sessions."""
    t = x.topic()
    x.produce(t, batch([b"a"], ts=1))
    for o in (0, 1, 2):
        for i in (0, 1):
            x.fetch(t, o, v, iso=i, wait=10, label=f"{o} {i}")
    if v >= 7:
        tid = x.tid(t)
        T = (
            {"Topic": t, "Partitions": [part(0, 0)]}
            if v < 13
            else {"TopicId": tid, "Partitions": [part(0, 0)]}
        )
        s = fetch(x, v, [T], 0, 0, IsolationLevel=1)["SessionId"]
        fetch(x, v, [], s, 1, IsolationLevel=1)
        fetch(x, v, [], s, 2)


@scenario("session")
def create_partitions(x):
    """A partition that is added to the topic later."""
    t = x.topic("t", 1)
    s = fetch(x, 12, [{"Topic": t, "Partitions": [part(0, 0), part(1, 0)]}], 0, 0)["SessionId"]
    x.call(
        "CreatePartitions",
        3,
        {
            "Topics": [{"Name": t, "Count": 2, "Assignments": None}],
            "TimeoutMs": 3000,
            "ValidateOnly": False,
        },
        rec=False,
    )
    x.wait_topic(t, 2)
    fetch(x, 12, [], s, 1)
    fetch(x, 12, [], s, 2)
    x.produce(t, batch(ts=1), part=1)
    fetch(x, 12, [], s, 3)
    x.offsets(t, -1, part=1)


@scenario("fetch", [12, 13])
def twice(x, v):
    """Topics given twice, interleaved, with unknown ones in between."""
    a, b = x.topic("a", 2), x.topic("b")
    ia, ib = x.tid(a), x.tid(b)
    x.produce(a, batch(ts=1))
    x.produce(b, batch(ts=1))

    def N(n, i, *ps):
        return ask(n, i, v, *ps)

    fetch(
        x,
        v,
        [N(a, ia, part(0, 0)), N(b, ib, part(0, 0)), N(a, ia, part(1, 0))],
        label="interleaved",
    )
    fetch(
        x,
        v,
        [
            N(a, ia, part(0, 0), part(9, 0), part(1, 0)),
            N("no-" + x.tok, b"\x44" * 16, part(0, 0)),
            N(b, ib, part(0, 0)),
        ],
        label="unknown",
    )
    fetch(
        x,
        v,
        [N(a, ia, part(0, 0)), N(b, ib, part(0, 0)), N(a, ia, part(0, 1))],
        label="partition again",
    )


@scenario("fetch", [9, 11, 12, 16, 18])
def replica_epochs(x, v):
    """Replica ids with leader epochs; v15+ replica states."""
    t = x.topic()
    x.produce(t, batch(ts=1))
    for r in (99, x.node):
        for e in (-1, 0, 1):
            b = x.fetch_body(t, 0, v, wait=10, CurrentLeaderEpoch=e)
            b["ReplicaId"] = r
            if v >= 15:
                b["ReplicaState"] = {"ReplicaId": r, "ReplicaEpoch": 5}
            x.call("Fetch", v, b, label=f"{e}", ordered=True)
    b = x.fetch_body("no-" + x.tok, 0, v, wait=10, tid=b"\x31" * 16)
    b["ReplicaId"] = 99
    if v >= 15:
        b["ReplicaState"] = {"ReplicaId": 99, "ReplicaEpoch": 5}
    x.call("Fetch", v, b, label="unknown topic as replica", ordered=True)
