"""Fetch: versions, limits, errors, isolation, epochs, ids, sessions."""

import time

from tests.wire import codec
from tests.wire.kit import scenario
from tests.wire.records import batch


def fill(x, n=5, size=100, **kw):
    t = x.topic(**kw)
    for i in range(n):
        x.produce(t, batch([bytes([97 + i % 26]) * size], ts=1000 + i))
    return t


@scenario("fetch", range(4, 19))
def basic(x, v):
    """From 0, the middle, the end."""
    t = fill(x, 3)
    for o in (0, 1, 3):
        x.fetch(t, o, v, wait=10)


@scenario("fetch", range(4, 19))
def out_of_range(x, v):
    """Beyond the end, negative, below the log start."""
    t = fill(x, 3)
    for o in (4, 99, -1, -2, 9223372036854775807):
        x.fetch(t, o, v, wait=10, label=str(o))
    x.call(
        "DeleteRecords",
        2,
        {
            "Topics": [{"Name": t, "Partitions": [{"PartitionIndex": 0, "Offset": 2}]}],
            "TimeoutMs": 3000,
        },
        rec=False,
    )
    x.fetch(t, 1, v, wait=10, label="below start")
    x.fetch(t, 2, v, wait=10, label="at start")


@scenario("fetch", [4, 7, 11, 12])
def unknown_by_name(x, v):
    """Unknown topic, partition, bad and empty name."""
    t = fill(x, 1)
    x.fetch("nope-" + x.tok, 0, v, wait=10)
    x.fetch(t, 0, v, part=5, wait=10)
    x.fetch(t, 0, v, part=-1, wait=10)
    x.fetch("a b", 0, v, wait=10)
    x.fetch("", 0, v, wait=10)


@scenario("fetch", [13, 15, 18])
def unknown_by_id(x, v):
    """Unknown id, zero id, unknown partition of a known id."""
    t = fill(x, 1)
    x.fetch("", 0, v, tid=b"\x33" * 16, wait=10)
    x.fetch("", 0, v, tid=codec.ZERO, wait=10)
    x.fetch(t, 0, v, part=5, wait=10)


@scenario("fetch", [1, 80, 168, 169, 200, 337, 338, 400, 1 << 20])
def partition_max_bytes(x, n):
    """Partition limit around batch borders (168 bytes each): whole first batch, partial tail."""
    t = fill(x, 4, 90)
    for v in (4, 12):
        x.fetch(t, 0, v, pmax=n)
        x.fetch(t, 1, v, pmax=n)


@scenario("fetch", [0, 1, 168, 300, 400, 700, -1])
def max_bytes(x, n):
    """Request limit over two partitions: order and what is dropped."""
    t = x.topic("t", 2)
    for p in (0, 1):
        for _i in range(2):
            x.produce(t, batch([b"x" * 90], ts=1000), part=p)
    P = [{"Partition": p, "FetchOffset": 0, "PartitionMaxBytes": 1 << 20} for p in (1, 0)]
    for v in (4, 12):
        x.call(
            "Fetch",
            v,
            {
                "MaxWaitMs": 10,
                "MinBytes": 1,
                "MaxBytes": n,
                "Topics": [{"Topic": t, "Partitions": P}],
            },
            ordered=True,
        )


@scenario("fetch", [0, -1, -2147483648])
def odd_partition_max(x, n):
    """Zero and negative partition limits."""
    t = fill(x, 2)
    x.fetch(t, 0, 12, pmax=n, wait=10)


@scenario("fetch")
def compressed_middle(x):
    """Fetch inside a batch returns the whole batch."""
    t = x.topic()
    for c in ("none", "gzip", "zstd"):
        x.produce(t, batch([b"a", b"b", b"c"], ts=1000, codec=c))
    for o in (0, 1, 2, 4, 8):
        x.fetch(t, o, 12)


@scenario("fetch", [4, 9, 10])
def zstd_old_version(x, v):
    """zstd data below Fetch v10."""
    t = x.topic()
    x.produce(t, batch([b"a"], ts=1000, codec="zstd"))
    x.fetch(t, 0, v)


@scenario(
    "fetch",
    [
        "waits",
        "min bytes met",
        "min bytes 0",
        "wakes up",
        "max wait 0",
        "negative wait",
        "error at once",
    ],
)
def waiting(x, k):
    """max_wait and min_bytes."""
    t = fill(x, 1)
    off, wait, mb = {
        "waits": (1, 400, 1),
        "min bytes met": (0, 3000, 1),
        "min bytes 0": (1, 3000, 0),
        "wakes up": (1, 3000, 1),
        "max wait 0": (1, 0, 1),
        "negative wait": (1, -1, 1),
        "error at once": (99, 3000, 1),
    }[k]
    c = x.conn()
    t0 = time.time()
    c.send("Fetch", 12, x.fetch_body(t, off, 12, wait=wait, min_bytes=mb))
    if k == "wakes up":
        time.sleep(0.2)
        x.produce(t, batch([b"new"], ts=1))
    x.recv(c, ordered=True)
    d = time.time() - t0
    x.note("took", "under 0.3" if d < 0.3 else "under 1.5" if d < 1.5 else "long")


@scenario("fetch")
def min_bytes_large(x):
    """min_bytes larger than what is there: waits, then returns what there is."""
    t = fill(x, 2)
    t0 = time.time()
    x.fetch(t, 0, 12, wait=500, min_bytes=100000)
    x.note("waited", time.time() - t0 > 0.4)


@scenario("fetch", [9, 11, 12, 13])
def leader_epoch(x, v):
    """CurrentLeaderEpoch: right, older, newer, -1."""
    t = fill(x, 2)
    for e in (0, 1, 5, -1, -2):
        x.fetch(t, 0, v, CurrentLeaderEpoch=e, wait=10, label=f"epoch {e}")


@scenario("fetch", [12, 13, 17])
def last_fetched_epoch(x, v):
    """LastFetchedEpoch: diverging epochs."""
    t = fill(x, 2)
    for o, e in ((0, 0), (2, 0), (2, 1), (0, 5), (5, 0), (2, -1), (1, -2)):
        x.fetch(t, o, v, LastFetchedEpoch=e, wait=10, label=f"offset {o} epoch {e}")


@scenario("fetch", [4, 11, 12, 14, 15, 18])
def as_replica(x, v):
    """Replica id: unknown broker, debug, future, own."""
    t = fill(x, 2)
    for r in (-2, -3, 99, x.node):
        b = x.fetch_body(t, 0, v, wait=10)
        b["ReplicaId"] = r
        if v >= 15:
            b["ReplicaState"] = {"ReplicaId": r, "ReplicaEpoch": -1}
        x.call("Fetch", v, b, label="replica %s" % (r if r != x.node else "own"))


@scenario("fetch", [0, 1, 2, -1])
def isolation(x, i):
    """Isolation levels on plain data."""
    t = fill(x, 2)
    for v in (4, 12):
        x.fetch(t, 0, v, iso=i)
        x.fetch(t, 9, v, iso=i, wait=10)


@scenario("fetch", [11, 12])
def rack(x, v):
    """RackId set; ClusterId tag right and wrong."""
    t = fill(x, 1)
    for r in ("", "rack1"):
        b = x.fetch_body(t, 0, v)
        b["RackId"] = r
        x.call("Fetch", v, b)
    if v == 12:
        b = x.fetch_body(t, 0, v)
        b["ClusterId"] = "wrong"
        x.call("Fetch", v, b, label="wrong cluster")


@scenario("fetch")
def duplicates(x):
    """The same partition twice, the same topic twice."""
    t = fill(x, 2)

    def P(o):
        return {"Partition": 0, "FetchOffset": o, "PartitionMaxBytes": 1 << 20}

    for v in (4, 12):
        x.call(
            "Fetch",
            v,
            {"MaxWaitMs": 10, "MinBytes": 1, "Topics": [{"Topic": t, "Partitions": [P(0), P(1)]}]},
            label="partition twice",
            ordered=True,
        )
        x.call(
            "Fetch",
            v,
            {
                "MaxWaitMs": 10,
                "MinBytes": 1,
                "Topics": [{"Topic": t, "Partitions": [P(0)]}, {"Topic": t, "Partitions": [P(1)]}],
            },
            label="topic twice",
            ordered=True,
        )


@scenario("fetch")
def mixed_errors(x):
    """Good and bad partitions together answer at once, in request order."""
    t = fill(x, 1, parts=3)

    def P(p, o):
        return {"Partition": p, "FetchOffset": o, "PartitionMaxBytes": 1 << 20}

    x.call(
        "Fetch",
        12,
        {
            "MaxWaitMs": 2000,
            "MinBytes": 1 << 20,
            "Topics": [
                {"Topic": t, "Partitions": [P(2, 0), P(1, 77), P(0, 0), P(9, 0)]},
                {"Topic": "nope-" + x.tok, "Partitions": [P(0, 0)]},
            ],
        },
        ordered=True,
    )


# ---- sessions
