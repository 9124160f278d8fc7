"""ApiVersions and framing: what the socket does with bad bytes."""

import struct

from tests.wire import codec
from tests.wire.kit import scenario


def frame(p):
    return struct.pack(">i", len(p)) + p


def AV(v=0, corr=5, **k):
    return codec.request(
        "ApiVersions",
        v,
        {"ClientSoftwareName": "diff", "ClientSoftwareVersion": "1"} if v >= 3 else {},
        corr,
        **k,
    )


@scenario("apiversions", range(0, 5))
def advertised(x, v):
    """The whole ApiVersions answer: keys, ranges, features."""
    x.call("ApiVersions", v, {"ClientSoftwareName": "diff", "ClientSoftwareVersion": "1.0"})


@scenario("apiversions", [5, 6, 99, 32767, -1, -32768])
def unsupported(x, v):
    """ApiVersions at an unsupported version: v0 answer with error 35 and one key."""
    p = codec.header(18, v, 77, "diff", 2 if v >= 3 else 1) + b"\5diff\0021\0"
    c = x.conn()
    x.raw(frame(p), f"ApiVersions v{v}", conn=c, api="ApiVersions", v=0)
    x.alive(c, "usable after")


@scenario("apiversions", ["", "a b", "-a", "a-", "ok-1.2", "a/b", "\u00e9", "A" * 300])
def software_name(x, n):
    """Client software names, good and bad."""
    x.call("ApiVersions", 3, {"ClientSoftwareName": n, "ClientSoftwareVersion": "1"})
    x.call("ApiVersions", 3, {"ClientSoftwareName": "ok", "ClientSoftwareVersion": n})


@scenario("apiversions")
def repeated(x):
    """ApiVersions many times on one connection, mixing versions."""
    c = x.conn()
    for v in (0, 3, 1, 4, 2):
        x.call("ApiVersions", v, {"ClientSoftwareName": "d", "ClientSoftwareVersion": "1"}, conn=c)


@scenario("apiversions")
def truncated_v3(x):
    """ApiVersions v3 whose body is cut."""
    p = codec.header(18, 3, 9, "diff", 2)
    x.raw(frame(p), "no body", api="ApiVersions", v=3)
    x.raw(frame(p + b"\5di"), "cut name", api="ApiVersions", v=3)


RAW = {
    "negative size": b"\xff\xff\xff\xff",
    "min int size": b"\x80\0\0\0",
    "size zero": b"\0\0\0\0",
    "size over limit": struct.pack(">i", 104857601),
    "size at limit then nothing": struct.pack(">i", 104857600),
    "max int size": b"\x7f\xff\xff\xff",
    "one byte frame": frame(b"\0"),
    "header cut at 4": frame(b"\0\x12\0\0"),
    "header cut at 8": frame(b"\0\x12\0\0\0\0\0\1"),
    "header cut in client id": frame(b"\0\x12\0\0\0\0\0\1\0\7di"),
    "unknown api 93": frame(codec.header(93, 0, 1, "d", 2)),
    "unknown api 999": frame(codec.header(999, 0, 1, "d", 1)),
    "api -1": frame(codec.header(-1, 0, 1, "d", 1)),
    "removed api 4": frame(codec.header(4, 0, 1, "d", 1) + bytes(20)),
    "removed api 7": frame(codec.header(7, 0, 1, "d", 0) + bytes(20)),
    "http get": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "client id length -2": frame(b"\0\x12\0\0\0\0\0\1\xff\xfe"),
    "client id not utf8": frame(b"\0\x12\0\0\0\0\0\1\0\2\xff\xfe"),
    "client id longer than frame": frame(b"\0\x12\0\0\0\0\0\1\x7f\xff"),
    "v3 header without tags": frame(codec.header(18, 3, 1, "d", 1)),
    "v3 header tag count too big": frame(codec.header(18, 3, 1, "d", 1) + b"\xff\xff\xff\xff\x0f"),
    "v3 header tag size too big": frame(codec.header(18, 3, 1, "d", 1) + b"\1\0\xff\x7f"),
    "v3 header tags descending": frame(
        codec.header(18, 3, 1, "d", 1) + b"\2\5\0\4\0" + b"\2d\0021\0"
    ),
    "v3 header tag twice": frame(codec.header(18, 3, 1, "d", 1) + b"\2\5\0\5\0" + b"\2d\0021\0"),
    "metadata huge array": frame(codec.header(3, 1, 1, "d", 1) + b"\x7f\xff\xff\xff"),
    "metadata array -2": frame(codec.header(3, 1, 1, "d", 1) + b"\xff\xff\xff\xfe"),
    "metadata v9 array varint overflow": frame(
        codec.header(3, 9, 1, "d", 2) + b"\xff\xff\xff\xff\xff\xff\x01"
    ),
    "produce v0": frame(codec.header(0, 0, 1, "d", 1) + bytes(10)),
    "produce v2": frame(codec.header(0, 2, 1, "d", 1) + bytes(10)),
    "fetch v3": frame(codec.header(1, 3, 1, "d", 1) + bytes(30)),
    "metadata null string": frame(codec.header(3, 4, 1, "d", 1) + b"\0\0\0\1\xff\xff\0"),
    "metadata v1 topic name bad utf8": frame(
        codec.header(3, 1, 1, "d", 1) + b"\0\0\0\1\0\2\xff\xfe"
    ),
    "find coordinator null key": frame(codec.header(10, 1, 1, "d", 1) + b"\xff\xff\0"),
    "string length -2": frame(codec.header(10, 1, 1, "d", 1) + b"\xff\xfe\0"),
    "bool as 7": frame(codec.header(3, 4, 1, "d", 1) + b"\0\0\0\0\7"),
    "metadata empty body": frame(codec.header(3, 4, 1, "d", 1)),
    "tagged field cut": frame(codec.header(3, 9, 1, "d", 2) + b"\1\0\0\0\1\0\5ab"),
}


@scenario("frames", RAW)
def bytes_(x, k):
    """One frame of bad bytes: closed, silent or answered."""
    x.raw(RAW[k], k)


@scenario("frames", ["size zero", "one byte frame", "negative size", "unknown api 93"])
def pipelined_before_bad(x, k):
    """A good request, then a bad frame in the same write: is the first answered?"""
    x.raw(frame(AV(0, 41)) + RAW[k], "good then " + k, frames=2)


@scenario(
    "frames",
    [
        ("ApiVersions", 0),
        ("ApiVersions", 3),
        ("Metadata", 1),
        ("Metadata", 9),
        ("FindCoordinator", 0),
        ("ListGroups", 0),
        ("DescribeCluster", 0),
        ("InitProducerId", 0),
        ("ListOffsets", 1),
    ],
)
def trailing_bytes(x, c):
    """Extra bytes after a complete body are ignored."""
    n, v = c
    body = {
        "ApiVersions": {"ClientSoftwareName": "d", "ClientSoftwareVersion": "1"},
        "Metadata": {"Topics": []},
        "FindCoordinator": {"Key": "g"},
        "InitProducerId": {"TransactionalId": None, "TransactionTimeoutMs": 1000},
    }.get(n, {})
    p = codec.request(n, v, body, 3)
    co = x.conn()
    co.send_frame(p + b"\xde\xad\xbe\xef")
    co.pending.append((n, v, 3))
    x.recv(co, mine=True)
    x.alive(co)


@scenario("frames")
def truncated_bodies(x):
    """Every prefix of a Metadata v4 and a FindCoordinator v3 body."""
    for n, v, b in (
        ("Metadata", 4, {"Topics": [{"Name": "a"}], "AllowAutoTopicCreation": False}),
        ("FindCoordinator", 3, {"Key": "g"}),
    ):
        p = codec.request(n, v, b, 3)
        for cut in range(10, len(p), 3):
            x.raw(frame(p[:cut]), f"{n} cut to {cut}", timeout=0.5)


@scenario("frames")
def split_writes(x):
    """A request sent one byte at a time."""
    import time

    c = x.conn()
    for b in frame(AV(0, 6)):
        c.send_bytes(bytes([b]))
        time.sleep(0.002)
    x.raw(b"", "byte by byte", conn=c, api="ApiVersions", v=0)


@scenario("frames")
def pipelining_order(x):
    """Twelve requests in one write: answers in request order, correlation ids echoed."""
    c = x.conn()
    b, want = b"", []
    for i in range(12):
        n, v, body = [
            ("ApiVersions", 0, {}),
            ("Metadata", 9, {"Topics": []}),
            ("FindCoordinator", 3, {"Key": "a"}),
            ("ListGroups", 4, {}),
        ][i % 4]
        b += frame(codec.request(n, v, body, 1000 - i))
        want.append((n, v, 1000 - i))
    c.send_bytes(b)
    got = []
    for _ in want:
        f = c.recv_frame(2)
        got.append(struct.unpack(">i", f[:4])[0])
    x.note("correlation ids in order", got == [w[2] for w in want])


@scenario("frames")
def slow_then_fast(x):
    """A waiting fetch, then ApiVersions in the same write: the second waits for the first."""
    import time

    t = x.topic()
    c = x.conn()
    t0 = time.time()
    c.send("Fetch", 4, x.fetch_body(t, 0, 4, wait=600, min_bytes=1))
    c.send("ApiVersions", 0)
    x.recv(c, ordered=True)
    x.note("fetch waited", time.time() - t0 > 0.5)
    x.recv(c, mask=("ApiKeys",))


@scenario("frames", [0, -1, 2147483647, -2147483648])
def correlation(x, corr):
    """Extreme correlation ids."""
    x.raw(
        frame(codec.request("FindCoordinator", 3, {"Key": "g"}, corr)),
        "corr",
        api="FindCoordinator",
        v=3,
    )


@scenario("frames", [None, "", "x" * 1000, "\u65e5\u672c"])
def client_id(x, cid):
    """Null, empty, long and non-ASCII client ids."""
    c = x.conn()
    x.call("FindCoordinator", 2, {"Key": "g"}, conn=c, client=cid)
    x.call("FindCoordinator", 3, {"Key": "g"}, conn=c, client=cid)


@scenario("frames")
def header_tags(x):
    """Unknown tags in the flexible request header and in the body are ignored."""
    x.call("FindCoordinator", 3, {"Key": "g"}, tags={0: b"abc", 5: b"", 200: b"z" * 50})
    x.call("FindCoordinator", 3, {"Key": "g", "_tags": {9: b"junk"}})
    x.call("Metadata", 9, {"Topics": [], "_tags": {100: b"junk"}})


@scenario("frames")
def half_close(x):
    """Request, then shutdown of the write side: is the answer still sent?"""
    x.raw(frame(AV(0, 6)), "half close", half=True, api="ApiVersions", v=0)


@scenario("frames")
def open_close(x):
    """Connections closed mid-frame do not hurt the broker."""
    for b in (b"", b"\0", b"\0\0\0\x20", frame(AV())[:-1]):
        c = x.conn()
        c.send_bytes(b)
        c.close()
    x.call("FindCoordinator", 3, {"Key": "g"})


@scenario("frames")
def sasl_without_sasl(x):
    """SaslHandshake and SaslAuthenticate on a plaintext listener."""
    c = x.conn()
    x.call("SaslHandshake", 1, {"Mechanism": "PLAIN"}, conn=c)
    x.call("SaslAuthenticate", 2, {"AuthBytes": b"\0a\0b"}, conn=c)
    x.alive(c)
