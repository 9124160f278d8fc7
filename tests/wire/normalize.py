"""Turns a decoded response into something two brokers can be compared by.

Broker-specific values become placeholders numbered by first appearance; lists that the protocol
leaves unordered are sorted.
"""

import json
import re
import time

from tests.wire import records as rec

ZERO = bytes(16)
NODE = {
    "NodeId",
    "BrokerId",
    "LeaderId",
    "ControllerId",
    "ReplicaNodes",
    "IsrNodes",
    "OfflineReplicas",
    "Replicas",
    "AddingReplicas",
    "RemovingReplicas",
    "EligibleLeaderReplicas",
    "LastKnownElr",
    "ReplicaId",
    "PreferredReadReplica",
}
MEMBER = {"MemberId"}
PID = {"ProducerId", "OngoingTxnProducerId", "pid"}
FIXED = {
    "UsableBytes": "bytes",
    "TotalBytes": "bytes",
    "LogDir": "logdir",
    "ThrottleTimeMs": None,
    "FinalizedFeaturesEpoch": "epoch",
}
MESSAGES = {"ErrorMessage", "BatchIndexErrorMessage", "AcknowledgeErrorMessage", "StatusDetail"}
IDS = MEMBER | PID | {"TopicId", "Leader", "SessionId", "ClusterId"}


def show(b):
    """bytes -> readable, lossless enough to compare"""
    if b is None:
        return None
    if len(b) > 300:
        import zlib

        return f"bytes:{len(b)}:{zlib.crc32(b):08x}"
    return "b:" + b.decode() if all(31 < c < 127 for c in b) else "x:" + b.hex()


class Normalizer:
    def __init__(self, token, nodes, port):
        self.token, self.nodes, self.port = (
            token,
            {n: f"node{i + 1}" for i, n in enumerate(sorted(nodes))},
            port,
        )
        self.maps, self.now = {}, time.time() * 1000

    def ph(self, kind, raw):
        m = self.maps.setdefault(kind, {})
        if raw not in m:
            m[raw] = f"{kind}#{len(m) + 1}"
        return m[raw]

    def text(self, s):
        s = s.replace(self.token, "~")
        for kind in ("member", "uuid"):
            for raw, p in self.maps.get(kind, {}).items():
                if isinstance(raw, str):
                    s = s.replace(raw, p)
        return s

    def message(self, s):
        s = self.text(s)
        s = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", s)
        s = re.sub(
            r"\b[A-Za-z0-9_-]{22}\b",
            lambda m: (
                "ID"
                if re.search(r"[A-Z]", m[0])
                and re.search(r"[a-z]", m[0])
                and re.search(r"\d", m[0])
                else m[0]
            ),
            s,
        )
        return re.sub(r"\d{5,}", "N", s)

    def order(self, x, key=None):
        """first pass: sort lists of structs by their content with the ids masked"""
        if isinstance(x, dict):
            return {k: self.order(v, k) for k, v in x.items()}
        if isinstance(x, list):
            x = [self.order(v, key) for v in x]
            if key in NODE or key == "AcceptedCompressionTypes":  # order means something
                return x
            if all(isinstance(v, dict) for v in x):
                return sorted(x, key=self.skey)
            if all(isinstance(v, str) for v in x) or all(isinstance(v, int) for v in x):
                return sorted(x)
        return x

    def known(self, v):
        """The number of an id already seen, so that equal entries sort the same way."""
        return [
            list(self.maps.get(kind, {})).index(v[k])
            if v.get(k) in self.maps.get(kind, {})
            else 999
            for k, kind in (("MemberId", "member"), ("ProducerId", "pid"), ("TopicId", "uuid"))
            if isinstance(v.get(k), (str, int, bytes))
        ]

    def skey(self, v):
        lead = [
            str(v.get(k))
            for k in ("ErrorCode", "Name", "Topic", "TopicName", "GroupId")
            if not isinstance(v.get(k), (list, dict))
        ]
        num = [
            v[k]
            for k in ("Partition", "PartitionIndex", "PartitionId", "Index", "ApiKey")
            if isinstance(v.get(k), int)
        ]
        return (
            lead[1:],
            [n + (1 << 32) for n in num],
            lead[:1],
            self.known(v),
            json.dumps(
                v,
                default=lambda b: b.hex() if isinstance(b, bytes) else str(b),
                sort_keys=True,
                skipkeys=True,
            )
            if not IDS & v.keys()
            else json.dumps(
                {k: a for k, a in v.items() if k not in IDS},
                default=lambda b: b.hex() if isinstance(b, bytes) else str(b),
                sort_keys=True,
            ),
        )

    def apply(self, x, ordered=False, mask=()):
        if isinstance(
            x, dict
        ):  # the answer's own ids get their numbers before its lists are sorted
            for k in ("MemberId", "Leader", "ProducerId"):
                if k in x:
                    self.walk(x[k], k, set(mask))
        if not ordered:
            x = self.order(x)
        return self.walk(x, None, set(mask))

    def walk(self, x, key, mask):
        if key in mask:
            return "*"
        if isinstance(x, dict):
            return {
                k: self.walk(v, k, mask)
                for k, v in x.items()
                if not (k in FIXED and FIXED[k] is None)
            }
        if isinstance(x, list):
            return [self.walk(v, key, mask) for v in x]
        if x is None or isinstance(x, bool):
            return x
        if key in FIXED:
            return FIXED[key]
        if isinstance(x, bytes):
            if key == "Records":
                return self.batches(x)
            if key is not None and len(x) == 16 and key.endswith("Id"):
                return "uuid-zero" if x == ZERO else self.ph("uuid", x)
            return show(x.replace(self.token.encode(), b"~"))
        if isinstance(x, str):
            if key in MESSAGES:
                return self.message(x)
            if key == "ClusterId":
                return "cluster"
            if key == "Rack":  # configuration, not protocol: a named rack counts as none
                return None if x else ""
            if key == "Host":
                return "host" if x else ""
            if (key in MEMBER and x) or (key == "Leader" and x):
                return self.ph("member", x) if self.token not in x or len(x) > 36 else self.text(x)
            return self.text(x)
        if isinstance(x, int):
            if key in NODE:
                return self.nodes.get(x, x)
            if key == "Port":
                return "port" if x == self.port else x
            if key in PID and x >= 0:
                return self.ph("pid", x)
            if key == "SessionId" and x:
                return self.ph("session", x)
            if abs(x - self.now) < 3 * 86400e3:
                return "NOW"
        return x

    def batches(self, b):
        try:
            out = []
            for d in rec.parse(b):
                d = dict(d)
                if isinstance(d.get("records"), list):
                    d["records"] = [
                        [r["off"], self.walk(r["ts"], None, ()), show(r["key"]), show(r["value"])]
                        + (
                            [[(h[0].decode("latin1"), show(h[1])) for h in r["headers"]]]
                            if r["headers"]
                            else []
                        )
                        for r in d["records"]
                    ]
                    d["records"] = json.loads(json.dumps(d["records"]))
                    if d["control"] and d["records"]:
                        d["records"][0][3] = "*"
                out.append(self.walk(d, None, ()))
            return out
        except Exception as e:
            return f"unparsable records: {e!r}"
