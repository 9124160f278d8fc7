"""The scenario kit: a registry, and the context through which a scenario talks to one broker."""

import json
import os
import struct
import time

from tests.wire import codec, records
from tests.wire.connection import Closed, Conn, Silent
from tests.wire.normalize import Normalizer, show

REG = {}
LIMIT = 10.0
KEYS = {a.key: n for n, a in codec.apis().items()}
LATEST = {n: a.versions[-1] for n, a in codec.apis().items()}


def scenario(group, cases=None):
    def deco(fn):
        if cases is None:
            add(group + "/" + fn.__name__, fn, fn.__doc__)
        else:
            for c in cases:
                k = ",".join(str(q) for q in c) if isinstance(c, tuple) else str(c)
                add(
                    "{}/{}[{}]".format(
                        group, fn.__name__, k if len(k) <= 40 else f"{k[:8]}..{len(k)}"
                    ),
                    (lambda x, c=c: fn(x, c)),
                    fn.__doc__,
                )
        return fn

    return deco


def add(name, fn, doc):
    assert name not in REG, name
    assert doc, name
    REG[name] = (fn, doc)


class OutOfTime(Exception):
    pass


class Ctx:
    settle_s = 0.0
    """How long answers run ahead of their effect: Kafka's do, and recording it sets this."""

    def __init__(self, host, port, nodes):
        self.host, self.port, self.nodes = host, port, nodes
        self.node = nodes[0]
        self.tok = "z" + os.urandom(5).hex()
        self.norm = Normalizer(self.tok, nodes, port)
        self.steps, self.end, self._c, self.conns = [], time.monotonic() + LIMIT, None, []
        self.seq = 0

    # -- plumbing
    def left(self):
        left = self.end - time.monotonic()
        if left <= 0:
            raise OutOfTime()
        return left

    def conn(self, client="diff"):
        c = Conn(self.host, self.port, client)
        self.conns.append(c)
        return c

    @property
    def c(self):
        if self._c is None or self._c.dead:
            self._c = self.conn()
        return self._c

    def close(self):
        for c in self.conns:
            c.close()

    def note(self, label, value):
        self.steps.append({"note": label, "value": self.norm.apply(value, True)})

    def log(self, d):
        self.steps.append(d)

    # -- one request, one response
    def call(
        self,
        name,
        v=None,
        body=None,
        conn=None,
        rec=True,
        label=None,
        timeout=4.0,
        mine=False,
        ordered=False,
        mask=(),
        client=Ellipsis,
        tags=None,
    ):
        v = LATEST[name] if v is None else v
        conn = conn or self.c
        try:
            conn.send(name, v, body, client, tags)
        except Closed:
            if rec:
                self.log(self.head(name, v, label, closed=True))
            return None
        return self.recv(conn, rec, label, timeout, mine, ordered, mask)

    def head(self, name, v, label, **kw):
        d = {"api": name, "v": v}
        if label:
            d["label"] = self.norm.text(str(label))
        d.update(kw)
        return d

    def recv(self, conn, rec=True, label=None, timeout=4.0, mine=False, ordered=False, mask=()):
        name, v, _ = conn.pending[0]
        try:
            name, v, corr, tags, d, left = conn.recv(min(timeout, self.left()))
        except Closed:
            conn.pending.clear()
            if rec:
                self.log(self.head(name, v, label, closed=True))
            return None
        except Silent:
            conn.close()
            if rec:
                self.log(self.head(name, v, label, silent=True))
            return None
        except (codec.DecodeError, UnicodeDecodeError, struct.error) as e:
            if rec:
                self.log(self.head(name, v, label, undecodable=str(e)))
            conn.close()
            return None
        if rec:
            s = self.head(name, v, label)
            if not corr:
                s["corr"] = "WRONG"
            if tags:
                s["tags"] = tags
            if left:
                s["left"] = left
            x = self.mine(d) if mine else d
            s["resp"] = self.norm.apply(x, ordered, mask)
            self.log(s)
        return d

    def mine(self, x):
        if isinstance(x, dict):
            return {k: self.mine(v) for k, v in x.items()}
        if isinstance(x, list):
            out = []
            for v in x:
                if isinstance(v, dict):
                    n = [
                        v[k]
                        for k in (
                            "Name",
                            "GroupId",
                            "TopicName",
                            "Topic",
                            "TransactionalId",
                            "ResourceName",
                        )
                        if isinstance(v.get(k), str)
                    ]
                    if n and not any(self.tok in s for s in n):
                        continue
                out.append(self.mine(v))
            return out
        return x

    def raw(self, data, label, timeout=1.0, frames=1, conn=None, api=None, v=None, half=False):
        """Send bytes as they are; record what comes: decoded if api is given, else in hex."""
        c = conn or self.conn()
        out = []
        try:
            c.send_bytes(data)
            if half:
                c.sock.shutdown(1)
            for _ in range(frames):
                f = c.recv_frame(min(timeout, self.left()))
                if api is None and len(data) >= 8 and struct.unpack(">h", data[4:6])[0] in KEYS:
                    api, v = (
                        KEYS[struct.unpack(">h", data[4:6])[0]],
                        struct.unpack(">h", data[6:8])[0],
                    )
                if api:
                    try:
                        corr, _tags, d, left = codec.response(api, v, f)
                        out.append(
                            {"corr": corr, "resp": self.norm.apply(self.mine(d)), "left": left}
                        )
                    except (codec.DecodeError, struct.error) as e:
                        out.append({"undecodable": str(e)})
                else:
                    out.append(show(f))
        except Closed:
            out.append("closed")
        except Silent:
            out.append("silent")
        self.log({"raw": label, "out": out})
        if conn is None:
            c.close()
        return out

    def alive(self, conn, label="still usable"):
        """Is this connection still answering?"""
        try:
            conn.send("ApiVersions", 0)
            conn.recv(1.5)
            r = True
        except (Closed, Silent):
            r = False
        self.log({"note": label, "value": r})

    def quiet(self, conn, label, wait=0.4):
        """Nothing may come; record silence, close or a frame."""
        try:
            f = conn.recv_frame(wait)
            r = f"frame of {len(f)}"
        except Closed:
            r = "closed"
        except Silent:
            r = "silent"
        self.log({"note": label, "value": r})
        return r

    # -- helpers that are not recorded unless they fail
    def name(self, base="t"):
        return base + "-" + self.tok

    def topic(self, base="t", parts=1, **configs):
        n = self.name(base)
        r = self.call(
            "CreateTopics",
            7,
            {
                "timeoutMs": 4000,
                "Topics": [
                    {
                        "Name": n,
                        "NumPartitions": parts,
                        "ReplicationFactor": 1,
                        "Configs": [
                            {"Name": k.replace("_", "."), "Value": str(x)}
                            for k, x in configs.items()
                        ],
                    }
                ],
            },
            rec=False,
        )
        if r is None:
            self.log({"note": "setup: CreateTopics v7 gave no answer", "value": True})
            return n
        e = r["Topics"][0]["ErrorCode"]
        if e:
            self.log({"note": "setup: CreateTopics v7", "value": e})
        self.wait_topic(n, parts)
        return n

    def wait_topic(self, n, parts=1):
        for _ in range(60):
            r = self.call(
                "Metadata",
                12,
                {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False},
                rec=False,
            )
            if r is None:
                return
            t = r["Topics"][0]
            if (
                t["ErrorCode"] == 0
                and len(t["Partitions"]) >= parts
                and all(p["ErrorCode"] == 0 and p["LeaderId"] >= 0 for p in t["Partitions"])
            ):
                # metadata may be ahead of the replica: ask the partitions too
                r = self.call(
                    "ListOffsets",
                    4,
                    {
                        "ReplicaId": -1,
                        "Topics": [
                            {
                                "Name": n,
                                "Partitions": [
                                    {"PartitionIndex": p["PartitionIndex"], "Timestamp": -1}
                                    for p in t["Partitions"]
                                ],
                            }
                        ],
                    },
                    rec=False,
                )
                if r is None or not any(
                    p["ErrorCode"] in (3, 5, 6) for p in r["Topics"][0]["Partitions"]
                ):
                    return
            self.left()
            time.sleep(0.05)

    def tid(self, n):
        r = self.call(
            "Metadata", 12, {"Topics": [{"Name": n}], "AllowAutoTopicCreation": False}, rec=False
        )
        return r["Topics"][0]["TopicId"]

    def produce(
        self,
        topic,
        data,
        v=9,
        part=0,
        acks=-1,
        txn=None,
        rec=False,
        label=None,
        conn=None,
        tid=None,
        timeout_ms=3000,
        timeout=4.0,
    ):
        """One partition; data is bytes (batches) or a list of values."""
        if isinstance(data, (list, tuple)):
            data = records.batch(data, ts=1000)
        t = {"Name": topic, "PartitionData": [{"Index": part, "Records": data}]}
        if v >= 13:
            t["TopicId"] = tid if tid is not None else self.tid(topic)
        r = self.call(
            "Produce",
            v,
            {"TransactionalId": txn, "Acks": acks, "TimeoutMs": timeout_ms, "TopicData": [t]},
            conn=conn,
            rec=rec,
            label=label,
            timeout=timeout,
        )
        if not rec and r is not None:
            e = r["Responses"][0]["PartitionResponses"][0]["ErrorCode"]
            if e:
                self.log({"note": "setup produce error", "value": e})
        return r

    def fetch_body(
        self,
        topic,
        off=0,
        v=12,
        part=0,
        max_bytes=1 << 20,
        pmax=1 << 20,
        wait=100,
        min_bytes=1,
        iso=0,
        sid=0,
        sep=-1,
        tid=None,
        **p,
    ):
        t = {
            "Topic": topic,
            "TopicId": tid or codec.ZERO,
            "Partitions": [
                dict({"Partition": part, "FetchOffset": off, "PartitionMaxBytes": pmax}, **p)
            ],
        }
        if v >= 13 and tid is None:
            t["TopicId"] = self.tid(topic)
        return {
            "MaxWaitMs": wait,
            "MinBytes": min_bytes,
            "MaxBytes": max_bytes,
            "IsolationLevel": iso,
            "SessionId": sid,
            "SessionEpoch": sep,
            "Topics": [t],
        }

    def fetch(self, topic, off=0, v=12, label=None, conn=None, rec=True, **kw):
        return self.call(
            "Fetch",
            v,
            self.fetch_body(topic, off, v, **kw),
            conn=conn,
            rec=rec,
            label=label,
            ordered=True,
        )

    def offsets(self, topic, ts=-1, v=8, part=0, rec=True, label=None, iso=0):
        return self.call(
            "ListOffsets",
            v,
            {
                "ReplicaId": -1,
                "IsolationLevel": iso,
                "Topics": [
                    {"Name": topic, "Partitions": [{"PartitionIndex": part, "Timestamp": ts}]}
                ],
            },
            rec=rec,
            label=label,
        )

    def until(self, fn, wait=4.0, step=0.05):
        end = time.monotonic() + wait
        while time.monotonic() < end:
            r = fn()
            if r:
                return r
            self.left()
            time.sleep(step)
        return fn()

    def settle(self):
        """Before looking at what was just changed."""
        self.left()
        time.sleep(self.settle_s)


def run_one(name, host, port, nodes):
    fn, _ = REG[name]
    x = Ctx(host, port, nodes)
    t = time.monotonic()
    try:
        fn(x)
    except OutOfTime:
        x.log({"hang": f"over {LIMIT:g} s"})
    except (Closed, ConnectionError):
        x.log({"scenario stopped": "connection closed"})
    except Silent:
        x.log({"scenario stopped": "no answer"})
    except Exception as e:
        x.log({"scenario stopped": f"{type(e).__name__}: {x.norm.text(str(e))[:200]}"})
        if os.environ.get("DIFF_TRACE"):
            import traceback

            traceback.print_exc()
    x.close()
    return json.loads(json.dumps(x.steps)), time.monotonic() - t
