"""Produce: versions, acks, validation, codecs, timestamps, idempotence."""

import time

from tests.wire import codec
from tests.wire.kit import scenario
from tests.wire.records import batch, old_set


def pbody(topic, data, acks=-1, part=0, txn=None, tid=None):
    return {
        "TransactionalId": txn,
        "Acks": acks,
        "TimeoutMs": 3000,
        "TopicData": [
            {
                "Name": topic,
                "TopicId": tid or codec.ZERO,
                "PartitionData": [{"Index": part, "Records": data}],
            }
        ],
    }


@scenario("produce", range(3, 14))
def basic(x, v):
    """Two batches one after the other, then read back."""
    t = x.topic()
    x.produce(t, batch([b"a", b"b"], keys=[b"k", None], ts=1000), v=v, rec=True)
    x.produce(
        t, batch([b"c", None], ts=[2000, 1500], headers=[(b"h", b"1"), (b"n", None)]), v=v, rec=True
    )
    x.fetch(t)


@scenario("produce", range(3, 14))
def unknown_topic(x, v):
    """Unknown topic, unknown partition, unknown id, bad name."""
    t = x.topic()
    b = batch(ts=1000)
    x.produce("nope-" + x.tok, b, v=v, rec=True, label="topic", tid=b"\x22" * 16)
    x.produce(t, b, v=v, part=7, rec=True, label="partition")
    x.produce(t, b, v=v, part=-1, rec=True, label="partition -1")
    x.produce("a b", b, v=v, rec=True, label="bad name", tid=codec.ZERO)


@scenario("produce", [-1, 0, 1, 2, 7, -2])
def acks(x, a):
    """acks values; acks=0 answers nothing."""
    t = x.topic()
    for v in (3, 9, 12):
        c = x.conn()
        if a == 0:
            c.send("Produce", v, pbody(t, batch(ts=1000), 0))
            c.pending.clear()
            x.quiet(c, f"acks=0 v{v}")
            x.alive(c)
        else:
            x.call("Produce", v, pbody(t, batch(ts=1000), a), conn=c)
    x.offsets(t)


@scenario("produce", ["unknown topic", "crc", "magic1", "null records", "invalid acks topic mix"])
def acks0_errors(x, k):
    """acks=0 with an error: is the connection closed?"""
    t = x.topic()
    d = {"crc": batch(ts=1000, crc=1), "magic1": old_set(), "null records": None}.get(
        k, batch(ts=1000)
    )
    for v in (3, 9):
        c = x.conn()
        c.send("Produce", v, pbody("nope-" + x.tok if k == "unknown topic" else t, d, 0))
        c.pending.clear()
        x.quiet(c, k)


@scenario("produce", ["ok", "over", "way over"])
def oversize(x, k):
    """max.message.bytes: just under, just over."""
    t = x.topic(max_message_bytes=1000)
    n = {"ok": 1000, "over": 1001, "way over": 5000}[k]
    b = batch([b"x" * (n - 70)], ts=1000)
    b = batch([b"x" * (n - 70 + (n - len(b)))], ts=1000)
    x.note("size", len(b))
    for v in (3, 9, 12):
        x.produce(t, b, v=v, rec=True)
    x.produce(
        t,
        batch([b"z" * 10000], ts=1000, codec="gzip"),
        rec=True,
        label="compressed small, big inside",
    )


@scenario("produce")
def oversize_default(x):
    """Just over 1048588 bytes on a default topic; record list over segment.bytes."""
    t = x.topic()
    for extra in (0, 1):
        n = 1048588 + extra
        b = batch([b"x" * (n - 72)], ts=1000)
        b = batch([b"x" * (n - 72 + n - len(b))], ts=1000)
        x.note("size", len(b))
        x.produce(t, b, rec=True)
    s = x.topic("seg", segment_bytes=1048576, max_message_bytes=3000000)
    x.produce(s, batch([b"x" * 1500000], ts=1000), rec=True, label="over segment.bytes")


@scenario("produce", [3, 7, 8, 11, 12])
def compacted_null_key(x, v):
    """A compacted topic: null keys, mixed keys, tombstones."""
    t = x.topic(cleanup_policy="compact")
    x.produce(t, batch([b"v"], ts=1000), v=v, rec=True, label="null key")
    x.produce(
        t, batch([b"v", b"w", b"x"], keys=[b"k", None, None], ts=1000), v=v, rec=True, label="mixed"
    )
    x.produce(t, batch([b"v"], keys=[b""], ts=1000), v=v, rec=True, label="empty key")
    x.produce(t, batch([None], keys=[b"k"], ts=1000), v=v, rec=True, label="tombstone")
    x.produce(
        t,
        batch([b"v", b"w"], keys=[b"k", None], ts=1000, codec="gzip"),
        v=v,
        rec=True,
        label="mixed gzip",
    )
    x.offsets(t)


@scenario("produce", [3, 9])
def log_append_time(x, v):
    """message.timestamp.type=LogAppendTime."""
    t = x.topic(message_timestamp_type="LogAppendTime")
    x.produce(t, batch([b"a", b"b"], ts=[5000, 4000]), v=v, rec=True)
    time.sleep(0.02)  # or both get the same millisecond
    x.produce(t, batch([b"a", b"b"], ts=[5000, 4000], codec="gzip"), v=v, rec=True)
    x.produce(
        t, batch([b"a"], ts=5000, append_time=True), v=v, rec=True, label="bit set by the client"
    )
    x.fetch(t)
    x.offsets(t, -3)
    x.offsets(t, 5000)


H = 3600000
TS = {"now": 0, "+30min": H // 2, "+2h": 2 * H, "+2d": 48 * H, "-1y": -365 * 24 * H}


@scenario("produce", TS)
def future(x, k):
    """Timestamps around now with default limits."""
    t = x.topic()
    for v in (3, 9, 12):
        x.produce(t, batch([b"a", b"b"], ts=int(time.time() * 1000) + TS[k]), v=v, rec=True)


@scenario("produce")
def timestamp_limits(x):
    """message.timestamp.before.max.ms and after.max.ms; one bad record of three; -1 is exempt."""
    t = x.topic(message_timestamp_before_max_ms=H, message_timestamp_after_max_ms=H)
    n = int(time.time() * 1000)
    for v in (3, 8, 12):
        x.produce(t, batch([b"a", b"b", b"c"], ts=[n, n - 2 * H, n + 2 * H]), v=v, rec=True)
        x.produce(t, batch([b"a"], ts=n), v=v, rec=True)
        x.produce(t, batch([b"a"], ts=-1), v=v, rec=True, label="-1")
        x.produce(t, batch([b"a"], ts=0), v=v, rec=True, label="0")


@scenario("produce")
def timestamps_in_batch(x):
    """Max timestamp and base timestamp kept; unordered timestamps."""
    t = x.topic()
    x.produce(t, batch([b"a", b"b", b"c"], ts=[3000, 1000, 2000]), rec=True)
    x.produce(t, batch([b"a", b"b"], ts=[3000, 1000], max_ts=1), rec=True, label="wrong max")
    x.produce(t, batch([b"a"], ts=-1), rec=True)
    x.fetch(t)


@scenario("produce", [3, 9, 12])
def many_partitions(x, v):
    """Several topics and partitions in one request, some bad; a partition twice."""
    a, b = x.topic("a", 3), x.topic("b")
    D = batch(ts=1000)

    def T(n, *ps):
        return {"Name": n, "PartitionData": [{"Index": p, "Records": d} for p, d in ps]}

    x.call(
        "Produce",
        v,
        {
            "Acks": -1,
            "TimeoutMs": 3000,
            "TopicData": [
                T(a, (0, D), (2, D), (9, D)),
                T(b, (0, batch(ts=1000, crc=3))),
                T("nope-" + x.tok, (0, D)),
            ],
        },
    )
    x.call(
        "Produce",
        v,
        {"Acks": -1, "TimeoutMs": 3000, "TopicData": [T(a, (0, D), (0, D))]},
        label="partition twice",
    )
    x.call(
        "Produce",
        v,
        {"Acks": -1, "TimeoutMs": 3000, "TopicData": [T(a, (0, D)), T(a, (1, D))]},
        label="topic twice",
    )
    x.call(
        "Produce", v, {"Acks": -1, "TimeoutMs": 3000, "TopicData": [T(a)]}, label="no partitions"
    )
    x.offsets(a)


@scenario("produce")
def internal_topic(x):
    """Writing to __consumer_offsets, as an ordinary client and as __admin_client."""
    for t in ("__consumer_offsets", "__transaction_state", "__share_group_state"):
        x.produce(t, batch(ts=1000), rec=True)


@scenario("produce")
def min_isr(x):
    """min.insync.replicas above the replication factor."""
    t = x.topic(min_insync_replicas=2)
    for a in (-1, 1):
        x.produce(t, batch(ts=1000), acks=a, rec=True, label=f"acks {a}")
    x.fetch(t)


@scenario("produce", [0, 1, 3000, -1])
def timeout(x, ms):
    """timeoutMs values."""
    t = x.topic()
    x.produce(t, batch(ts=1000), timeout_ms=ms, rec=True)
