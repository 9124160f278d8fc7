"""Record batches with every header field settable, good and bad; old sets; and a parser."""

import gzip
import struct
import zlib

import crc32c as _crc

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def varint(n):
    n = (n << 1) ^ (n >> 63)
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_varint(b, i):
    r = s = 0
    while True:
        c = b[i]
        i += 1
        r |= (c & 127) << s
        s += 7
        if c < 128:
            return (r >> 1) ^ -(r & 1), i
        if s > 70:
            raise ValueError("varint")


def compress(codec, b, style=None):
    c = codec if isinstance(codec, int) else CODECS[codec]
    if c == 1:
        return gzip.compress(b, mtime=0)
    if c == 2:
        import snappy

        if style == "raw":
            return snappy.compress(b)
        out = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
        for i in range(0, len(b), 32768):
            x = snappy.compress(b[i : i + 32768])
            out += struct.pack(">i", len(x)) + x
        return out
    if c == 3:
        import lz4.frame

        return lz4.frame.compress(
            b, block_linked=style == "linked", content_checksum=False, store_size=False
        )
    if c == 4:
        import zstandard

        return zstandard.ZstdCompressor().compress(b)
    return b


def decompress(c, b):
    if c == 1:
        return gzip.decompress(b)
    if c == 2:
        import snappy

        if b[:8] != b"\x82SNAPPY\x00":
            return snappy.decompress(b)
        out, i = b"", 16
        while i < len(b):
            n = struct.unpack(">i", b[i : i + 4])[0]
            out += snappy.decompress(b[i + 4 : i + 4 + n])
            i += 4 + n
        return out
    if c == 3:
        import lz4.frame

        return lz4.frame.decompress(b)
    if c == 4:
        import zstandard

        return zstandard.ZstdDecompressor().decompressobj().decompress(b)
    return b


def record(value, key=None, ts_delta=0, off_delta=0, headers=(), attrs=0, length=None):
    b = struct.pack(">b", attrs) + varint(ts_delta) + varint(off_delta)
    for x in (key, value):
        b += varint(-1) if x is None else varint(len(x)) + x
    b += varint(len(headers))
    for k, v in headers:
        b += varint(len(k)) + k
        b += varint(-1) if v is None else varint(len(v)) + v
    return varint(len(b) if length is None else length) + b


def batch(
    values=(b"v",),
    keys=None,
    ts=None,
    codec="none",
    style=None,
    pid=-1,
    epoch=-1,
    seq=-1,
    txn=False,
    control=False,
    base_offset=0,
    length=None,
    leader_epoch=-1,
    magic=2,
    crc=None,
    attrs=None,
    last_delta=None,
    base_ts=None,
    max_ts=None,
    count=None,
    append_time=False,
    records=None,
    headers=(),
    deltas=None,
    raw=None,
    or_attrs=0,
):
    """values: bytes or None each. ts: one timestamp or a list (ms). Any field can be forced."""
    import time

    n = len(values)
    if ts is None:
        ts = int(time.time() * 1000)
    tss = list(ts) if isinstance(ts, (list, tuple)) else [ts] * n
    b0 = base_ts if base_ts is not None else (tss[0] if tss else 0)
    recs = records
    if recs is None:
        recs = b"".join(
            record(
                v,
                None if keys is None else keys[i],
                tss[i] - b0,
                i if deltas is None else deltas[i],
                headers,
            )
            for i, v in enumerate(values)
        )
    c = codec if isinstance(codec, int) else CODECS[codec]
    body = raw if raw is not None else compress(c, recs, style)
    a = (
        attrs
        if attrs is not None
        else (c | (8 if append_time else 0) | (16 if txn else 0) | (32 if control else 0))
        | or_attrs
    )
    tail = (
        struct.pack(
            ">hiqqqhii",
            a,
            (n - 1) if last_delta is None else last_delta,
            b0,
            max_ts if max_ts is not None else (max(tss) if tss else b0),
            pid,
            epoch,
            seq,
            n if count is None else count,
        )
        + body
    )
    k = _crc.crc32c(tail) if crc is None else crc
    ln = (4 + 1 + 4 + len(tail)) if length is None else length
    return struct.pack(">qiibI", base_offset, ln, leader_epoch, magic, k) + tail


def old_set(values=(b"v",), magic=1, ts=None, keys=None, bad_crc=False):
    out = b""
    for i, v in enumerate(values):
        b = struct.pack(">bb", magic, 0)
        if magic == 1:
            b += struct.pack(">q", ts or 1000)
        for x in (keys[i] if keys else None, v):
            b += struct.pack(">i", -1) if x is None else struct.pack(">i", len(x)) + x
        b = struct.pack(">I", (zlib.crc32(b) ^ (1 if bad_crc else 0)) & 0xFFFFFFFF) + b
        out += struct.pack(">qi", i, len(b)) + b
    return out


def parse(data):
    """-> list of batch dicts; a cut last batch gives {'partial': True}"""
    out, i = [], 0
    while i < len(data):
        if len(data) - i < 17:
            out.append({"partial": True})
            break
        base, ln, le, magic = struct.unpack(">qiib", data[i : i + 17])
        if i + 12 + ln > len(data):
            out.append({"partial": True, "base": base, "magic": magic})
            break
        end = i + 12 + ln
        if magic < 2:
            out.append({"base": base, "magic": magic, "len": ln})
            i = end
            continue
        crc, a, last, bts, mts, pid, ep, seq, n = struct.unpack(">IhiqqqhiI", data[i + 17 : i + 61])
        d = {
            "base": base,
            "len": ln,
            "leader_epoch": le,
            "magic": magic,
            "crc": "ok" if _crc.crc32c(data[i + 21 : end]) == crc else "BAD",
            "codec": a & 7,
            "append_time": bool(a & 8),
            "txn": bool(a & 16),
            "control": bool(a & 32),
            "horizon": bool(a & 64),
            "last_delta": last,
            "base_ts": bts,
            "max_ts": mts,
            "pid": pid,
            "epoch": ep,
            "seq": seq,
            "count": n,
        }
        try:
            b, j, rs = decompress(a & 7, data[i + 61 : end]), 0, []
            for _ in range(n):
                size, j = read_varint(b, j)
                stop = j + size
                j += 1
                td, j = read_varint(b, j)
                od, j = read_varint(b, j)
                kv = []
                for _ in range(2):
                    m, j = read_varint(b, j)
                    kv.append(None if m < 0 else b[j : j + m])
                    j += max(m, 0)
                hn, j = read_varint(b, j)
                hs = []
                for _ in range(hn):
                    m, j = read_varint(b, j)
                    k = b[j : j + m]
                    j += m
                    m, j = read_varint(b, j)
                    x = None if m < 0 else b[j : j + m]
                    j += max(m, 0)
                    hs.append((k, x))
                rs.append(
                    {"off": base + od, "ts": bts + td, "key": kv[0], "value": kv[1], "headers": hs}
                )
                j = stop
            d["records"] = rs
        except Exception as e:
            d["records"] = "unreadable: " + type(e).__name__
        out.append(d)
        i = end
    return out
