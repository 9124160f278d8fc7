"""Reflective Kafka codec: reads the message schemas (JSON) and encodes/decodes plain dicts.

Missing keys take the schema default; keys the schema does not know raise; keys absent in the asked
version are skipped. Only headers, primitive types and tagged fields are here; record batches are in
records.py.
"""

import base64
import functools
import json
import struct
from pathlib import Path

SCHEMAS = Path(__file__).parents[2] / "schemas"
ZERO = bytes(16)


class DecodeError(Exception):
    pass


class Range:
    def __init__(self, s):
        s = (s or "none").strip()
        if s == "none":
            self.lo, self.hi = 1, 0
        elif s.endswith("+"):
            self.lo, self.hi = int(s[:-1]), 32767
        elif "-" in s:
            a, b = s.split("-")
            self.lo, self.hi = int(a), int(b)
        else:
            self.lo = self.hi = int(s)

    def __contains__(self, v):
        return self.lo <= v <= self.hi

    def __iter__(self):
        return iter(range(self.lo, self.hi + 1))

    def __bool__(self):
        return self.hi >= self.lo


class Field:
    def __init__(self, j, structs):
        self.name = j["name"]
        t = j["type"]
        self.array = t.startswith("[]")
        self.type = t[2:] if self.array else t
        self.tagged = Range(j.get("taggedVersions"))
        self.versions = Range(j.get("versions") or j.get("taggedVersions"))
        self.tag = j.get("tag")
        self.nullable = Range(j.get("nullableVersions"))
        self.flex = Range(j["flexibleVersions"]) if "flexibleVersions" in j else None
        self.entity = j.get("entityType")
        self.mapkey = j.get("mapKey", False)
        self.fields = [Field(f, structs) for f in j["fields"]] if "fields" in j else None
        if self.fields is not None:
            structs[self.type] = self.fields
        self.structs = structs
        self.raw_default = j.get("default")

    def sub(self):
        if self.fields is None and self.type in self.structs:
            return self.structs[self.type]
        return self.fields

    def default(self, v):
        d = self.raw_default
        if d == "null":
            return None
        if self.array:
            return []
        t = self.type
        if t == "string":
            return d if d is not None else ""
        if t in ("bytes", "records"):
            return None if (t == "records" and v in self.nullable) else b""
        if t == "uuid":
            return ZERO
        if t == "bool":
            return d in (True, "true")
        if t == "float64":
            return float(d or 0)
        if t in INTS:
            if d is None or d == "":
                return 0
            return d if isinstance(d, int) else int(d, 0)
        return {}


INTS = {"int8": ">b", "int16": ">h", "uint16": ">H", "int32": ">i", "uint32": ">I", "int64": ">q"}
FIXED = dict(INTS, float64=">d")


class Message:
    def __init__(self, j):
        self.name = j["name"]
        self.kind = j["type"]
        self.key = j.get("apiKey")
        self.valid = Range(j.get("validVersions"))
        self.flex = Range(j.get("flexibleVersions"))
        self.unstable = bool(j.get("latestVersionUnstable"))
        self.listeners = j.get("listeners", [])
        structs = {}
        for s in j.get("commonStructs", []):
            structs[s["name"]] = [Field(f, structs) for f in s["fields"]]
        self.fields = [Field(f, structs) for f in j.get("fields", [])]


def uvarint(n):
    out = bytearray()
    while n > 127:
        out.append(n & 127 | 128)
        n >>= 7
    out.append(n)
    return bytes(out)


def encode(msg, v, d):
    out = bytearray()
    _enc_struct(out, msg.fields, v, d or {}, v in msg.flex, msg.flex)
    return bytes(out)


def _enc_struct(out, fields, v, d, flex, flexr):
    known = {f.name for f in fields}
    for k in d:
        if k not in known and k != "_tags":
            raise KeyError(f"no field {k} (have {sorted(known)})")
    tags = {}
    for f in fields:
        if v not in f.versions:
            continue
        val = d[f.name] if f.name in d else f.default(v)
        if f.tagged and v in f.tagged:
            if f.name in d and (val != f.default(v) or (isinstance(val, dict) and val)):
                b = bytearray()
                if f.sub() is not None and not f.array and v in f.nullable:
                    if val is None:
                        b += b"\0"
                    else:
                        b += b"\1"
                        _enc_struct(b, f.sub(), v, val, flex, flexr)
                else:
                    _enc(b, f, v, val, flex, flexr)
                tags[f.tag] = bytes(b)
            continue
        _enc(out, f, v, val, flex, flexr)
    tags.update(d.get("_tags") or {})
    if flex:
        out += uvarint(len(tags))
        for t in sorted(tags):
            out += uvarint(t) + uvarint(len(tags[t])) + tags[t]


def _enc(out, f, v, val, flex, flexr):
    if f.flex is not None:
        flex = v in f.flex
    if f.array:
        if val is None:
            out += b"\0" if flex else b"\xff\xff\xff\xff"
            return
        out += uvarint(len(val) + 1) if flex else struct.pack(">i", len(val))
        for x in val:
            _enc1(out, f, v, x, flex, flexr)
    else:
        if f.sub() is not None and v in f.nullable:
            if val is None:
                out += b"\xff"
                return
            out += b"\1"
        _enc1(out, f, v, val, flex, flexr)


def _enc1(out, f, v, val, flex, flexr):
    t = f.type
    if t in FIXED:
        out += struct.pack(FIXED[t], val)
    elif t == "bool":
        out.append(1 if val else 0)
    elif t == "string":
        if val is None:
            out += b"\0" if flex else b"\xff\xff"
            return
        b = val if isinstance(val, bytes) else val.encode()
        out += (uvarint(len(b) + 1) if flex else struct.pack(">h", len(b))) + b
    elif t in ("bytes", "records"):
        if val is None:
            out += b"\0" if flex else b"\xff\xff\xff\xff"
            return
        out += (uvarint(len(val) + 1) if flex else struct.pack(">i", len(val))) + val
    elif t == "uuid":
        out += to_uuid(val)
    else:
        _enc_struct(out, f.sub(), v, val, flex, flexr)


def to_uuid(x):
    if x is None:
        return ZERO
    if isinstance(x, bytes):
        return x
    return base64.urlsafe_b64decode(x + "=" * (-len(x) % 4))


class Buf:
    def __init__(self, b):
        self.b, self.i = b, 0

    def take(self, n):
        if n < 0 or self.i + n > len(self.b):
            raise DecodeError(f"wanted {n} bytes at {self.i} of {len(self.b)}")
        r = self.b[self.i : self.i + n]
        self.i += n
        return r

    def fixed(self, fmt):
        return struct.unpack(fmt, self.take(struct.calcsize(fmt)))[0]

    def uvarint(self):
        r = s = 0
        while True:
            c = self.take(1)[0]
            r |= (c & 127) << s
            if c < 128:
                return r
            s += 7
            if s > 35:
                raise DecodeError("long varint")

    def left(self):
        return len(self.b) - self.i


def decode(msg, v, data):
    """-> (dict, bytes left over)"""
    b = data if isinstance(data, Buf) else Buf(data)
    return _dec_struct(b, msg.fields, v, v in msg.flex), b.left()


def _dec_struct(b, fields, v, flex):
    d = {}
    for f in fields:
        if v not in f.versions:
            continue
        if f.tagged and v in f.tagged:
            d[f.name] = f.default(v) if not (f.sub() is not None and not f.array) else None
            continue
        d[f.name] = _dec(b, f, v, flex)
    if flex:
        bytag = {f.tag: f for f in fields if f.tagged and v in f.tagged}
        n, last = b.uvarint(), -1
        for _ in range(n):
            t, size = b.uvarint(), b.uvarint()
            if t <= last:
                raise DecodeError("tags not ascending")
            last = t
            raw = b.take(size)
            f = bytag.get(t)
            if f is None:
                d.setdefault("_tags", {})[str(t)] = raw.hex()
                continue
            sb = Buf(raw)
            if f.sub() is not None and not f.array and v in f.nullable:
                d[f.name] = _dec_struct(sb, f.sub(), v, flex) if sb.uvarint() else None
            else:
                d[f.name] = _dec(sb, f, v, flex)
            if sb.left():
                raise DecodeError(f"tag {t} has {sb.left()} bytes left")
    return d


def _dec(b, f, v, flex):
    if f.flex is not None:
        flex = v in f.flex
    if f.array:
        n = b.uvarint() - 1 if flex else b.fixed(">i")
        if n < 0:
            if v not in f.nullable:
                raise DecodeError(f"null array {f.name}")
            return None
        if n > b.left():
            raise DecodeError(f"array {f.name} of {n}")
        return [_dec1(b, f, v, flex) for _ in range(n)]
    if f.sub() is not None and v in f.nullable and b.fixed(">b") < 0:
        return None
    return _dec1(b, f, v, flex)


def _dec1(b, f, v, flex):
    t = f.type
    if t in FIXED:
        return b.fixed(FIXED[t])
    if t == "bool":
        return b.take(1) != b"\0"
    if t == "string":
        n = b.uvarint() - 1 if flex else b.fixed(">h")
        if n < 0:
            if v not in f.nullable:
                raise DecodeError(f"null string {f.name}")
            return None
        return b.take(n).decode("utf-8")
    if t in ("bytes", "records"):
        n = b.uvarint() - 1 if flex else b.fixed(">i")
        return None if n < 0 else b.take(n)
    if t == "uuid":
        return b.take(16)
    return _dec_struct(b, f.sub(), v, flex)


class Api:
    def __init__(self, req, resp):
        self.req, self.resp = req, resp
        self.key, self.name = req.key, req.name[: -len("Request")]
        self.valid, self.unstable, self.listeners = req.valid, req.unstable, req.listeners

    def flexible(self, v):
        return v in self.req.flex

    @property
    def versions(self):
        """versions a broker advertises (without the unstable one)"""
        r = list(self.valid)
        return r[:-1] if self.unstable else r


@functools.lru_cache(None)
def _load():
    data, apis = {}, {}
    for path in sorted(SCHEMAS.glob("*/**/*.json")):
        schema = json.loads(path.read_text(encoding="utf-8"))
        data[schema["name"]] = Message(schema)
    for m in data.values():
        if m.kind == "request" and m.valid:
            apis[m.name[:-7]] = Api(m, data[m.name[:-7] + "Response"])
    return data, apis


def apis():
    return _load()[1]


def api(name):
    return _load()[1][name]


def message(name):
    return _load()[0][name]


def data_message(name, v, d):
    """Encode an embedded message (ConsumerProtocolSubscription ...) after its int16 version."""
    return struct.pack(">h", v) + encode(message(name), v, d)


def header(key, version, corr, client, hv, tags=None):
    b = struct.pack(">hhi", key, version, corr)
    if hv >= 1:
        if client is None:
            b += b"\xff\xff"
        else:
            c = client if isinstance(client, bytes) else client.encode()
            b += struct.pack(">h", len(c)) + c
    if hv >= 2:
        tags = tags or {}
        b += uvarint(len(tags)) + b"".join(
            uvarint(t) + uvarint(len(x)) + x for t, x in sorted(tags.items())
        )
    return b


def request(name, v, body=None, corr=1, client="diff", tags=None):
    """Frame payload (without the size prefix)."""
    a = api(name)
    return header(a.key, v, corr, client, 2 if a.flexible(v) else 1, tags) + encode(
        a.req, v, body or {}
    )


def response(name, v, payload):
    """-> (correlation id, header tags, dict, bytes left)"""
    a = api(name)
    b = Buf(payload)
    corr, tags = b.fixed(">i"), {}
    if a.flexible(v) and a.key != 18:
        for _ in range(b.uvarint()):
            t, n = b.uvarint(), b.uvarint()
            tags[str(t)] = b.take(n).hex()
    d, left = decode(a.resp, v, b)
    return corr, tags, d, left
