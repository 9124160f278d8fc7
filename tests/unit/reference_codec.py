"""A slow, reflective codec straight from the JSON schemas: the oracle for the generated one.

It shares nothing with the generator. A message is a dict by the schema's field names; ``_tags``
holds unknown tagged fields as a list of (tag, bytes). Nothing here is fast or hardened.
"""

import base64
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).resolve().parents[2] / "schemas"
NUMBERS = {
    "bool": ">?",
    "int8": ">b",
    "int16": ">h",
    "uint16": ">H",
    "int32": ">i",
    "uint32": ">I",
    "int64": ">q",
    "float64": ">d",
}


def in_range(text: str | None, version: int) -> bool:
    """Whether a range such as ``"3+"``, ``"0-4"``, ``"7"`` or ``"none"`` holds ``version``."""
    if text is None or text == "none":
        return False
    if text.endswith("+"):
        return version >= int(text[:-1])
    first, _, last = text.partition("-")
    return int(first) <= version <= int(last or first)


def load(name: str) -> dict[str, Any]:
    """The schema of a message by its name."""
    (path,) = SCHEMAS.rglob(f"{name}.json")
    schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return schema


def load_all() -> Iterator[dict[str, Any]]:
    """Every schema that has a version."""
    for folder in ("api", "internal_records"):
        for path in sorted((SCHEMAS / folder).rglob("*.json")):
            schema = json.loads(path.read_text(encoding="utf-8"))
            if schema["validVersions"] != "none":
                yield schema


def versions(schema: dict[str, Any]) -> range:
    """All versions of a message."""
    first, _, last = schema["validVersions"].partition("-")
    return range(int(first), int(last or first) + 1)


def is_flexible(schema: dict[str, Any], version: int) -> bool:
    return in_range(schema["flexibleVersions"], version)


def is_tagged(field: dict[str, Any], version: int) -> bool:
    return in_range(field.get("taggedVersions"), version)


def is_present(field: dict[str, Any], version: int) -> bool:
    """In the struct itself or among its tags."""
    return in_range(field.get("versions", field.get("taggedVersions")), version)


def is_nullable(field: dict[str, Any], version: int) -> bool:
    return in_range(field.get("nullableVersions"), version)


def struct_fields(schema: dict[str, Any], field: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The fields of a struct-typed field, inner or common; None for a primitive type."""
    if "fields" in field:
        found: list[dict[str, Any]] = field["fields"]
        return found
    element = field["type"].removeprefix("[]")
    for common in schema.get("commonStructs", ()):
        if common["name"] == element:
            common_fields: list[dict[str, Any]] = common["fields"]
            return common_fields
    return None if not _is_struct(schema, element) else _inner_struct(schema["fields"], element)


def _is_struct(schema: dict[str, Any], element: str) -> bool:
    return element not in NUMBERS and element not in ("string", "bytes", "records", "uuid")


def _inner_struct(fields: list[dict[str, Any]], element: str) -> list[dict[str, Any]] | None:
    for field in fields:
        if "fields" in field:
            if field["type"].removeprefix("[]") == element:
                found: list[dict[str, Any]] = field["fields"]
                return found
            inner = _inner_struct(field["fields"], element)
            if inner is not None:
                return inner
    return None


def default(schema: dict[str, Any], field: dict[str, Any], version: int) -> Any:
    """The default of a field as a message holds it."""
    text = field.get("default")
    if text == "null":
        return None
    kind = field["type"]
    if kind.startswith("[]"):
        return []
    fields = struct_fields(schema, field)
    if fields is not None:
        return default_struct(schema, fields, version)
    if text is None:
        text = ""
    if kind == "string":
        return text
    if kind == "records":
        return None if "nullableVersions" in field else b""
    if kind == "bytes":
        return b""
    if kind == "uuid":
        return base64.urlsafe_b64decode(text + "==") if text else bytes(16)
    if kind == "bool":
        return str(text).lower() == "true"
    if kind == "float64":
        return float(text or 0)
    return int(str(text), 0) if text != "" else 0


def default_struct(
    schema: dict[str, Any], fields: list[dict[str, Any]], version: int
) -> dict[str, Any]:
    """A struct of defaults, of the fields that exist in ``version``."""
    return {
        field["name"]: default(schema, field, version)
        for field in fields
        if is_present(field, version)
    }


# Encoding ---------------------------------------------------------------------------------------


def encode(schema: dict[str, Any], version: int, message: dict[str, Any]) -> bytes:
    """The bytes of a message that holds every field of ``version``."""
    return _encode_struct(schema, schema["fields"], version, message)


def unsigned_varint(number: int) -> bytes:
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    return bytes([group | 128 for group in groups[:-1]] + [groups[-1]])


def _encode_struct(
    schema: dict[str, Any], fields: list[dict[str, Any]], version: int, message: dict[str, Any]
) -> bytes:
    encoded = b""
    tags: list[tuple[int, bytes]] = list(message.get("_tags", []))
    for field in fields:
        if not is_present(field, version):
            continue
        value = message[field["name"]]
        if not is_tagged(field, version):
            encoded += _encode_value(schema, field, version, value, tagged=False)
        elif value != default(schema, field, version):
            tags.append((field["tag"], _encode_value(schema, field, version, value, tagged=True)))
    if is_flexible(schema, version):
        encoded += unsigned_varint(len(tags))
        for tag, content in sorted(tags, key=lambda item: item[0]):
            encoded += unsigned_varint(tag) + unsigned_varint(len(content)) + content
    return encoded


def _uses_compact(schema: dict[str, Any], field: dict[str, Any], version: int) -> bool:
    if "flexibleVersions" in field:
        return in_range(field["flexibleVersions"], version)
    return is_flexible(schema, version)


def _encode_length(number: int | None, wide: str, compact: bool) -> bytes:
    if compact:
        return unsigned_varint(0 if number is None else number + 1)
    return struct.pack(wide, -1 if number is None else number)


def _encode_value(
    schema: dict[str, Any], field: dict[str, Any], version: int, value: Any, *, tagged: bool
) -> bytes:
    kind = field["type"]
    compact = _uses_compact(schema, field, version)
    if kind.startswith("[]"):
        if value is None:
            return _encode_length(None, ">i", compact)
        element = {**field, "type": kind[2:], "nullableVersions": "none"}
        items = [_encode_value(schema, element, version, item, tagged=False) for item in value]
        return _encode_length(len(items), ">i", compact) + b"".join(items)
    if kind in NUMBERS:
        return struct.pack(NUMBERS[kind], value)
    if kind == "uuid":
        return bytes(value)
    if kind == "string":
        raw = None if value is None else value.encode()
        return _encode_length(None if raw is None else len(raw), ">h", compact) + (raw or b"")
    if kind in ("bytes", "records"):
        size = None if value is None else len(value)
        return _encode_length(size, ">i", compact) + bytes(value or b"")
    fields = struct_fields(schema, field)
    assert fields is not None, kind
    prefix = b""
    if is_nullable(field, version):
        if value is None:
            return b"\0" if tagged else b"\xff"
        prefix = b"\1"
    return prefix + _encode_struct(schema, fields, version, value)


# Decoding ---------------------------------------------------------------------------------------


class Cursor:
    """Takes bytes from the front of a message; running out is an error."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self.data = data
        self.position = position

    def take(self, size: int) -> bytes:
        if size < 0 or self.position + size > len(self.data):
            raise ValueError("the message is cut short")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def unsigned_varint(self) -> int:
        number = 0
        for group in range(5):
            (byte,) = self.take(1)
            number |= (byte & 127) << (7 * group)
            if byte < 128:
                return number
        raise ValueError("a varint is too long")


def decode(schema: dict[str, Any], version: int, data: bytes) -> tuple[dict[str, Any], int]:
    """The message that ``data`` starts with, and its size."""
    cursor = Cursor(data)
    return _decode_struct(schema, schema["fields"], version, cursor), cursor.position


def _decode_struct(
    schema: dict[str, Any], fields: list[dict[str, Any]], version: int, cursor: Cursor
) -> dict[str, Any]:
    message = default_struct(schema, fields, version)
    for field in fields:
        if is_present(field, version) and not is_tagged(field, version):
            message[field["name"]] = _decode_value(schema, field, version, cursor, tagged=False)
    unknown = []
    if is_flexible(schema, version):
        known = {field["tag"]: field for field in fields if is_tagged(field, version)}
        for _ in range(cursor.unsigned_varint()):
            tag = cursor.unsigned_varint()
            size = cursor.unsigned_varint()
            if tag in known:
                name = known[tag]["name"]
                message[name] = _decode_value(schema, known[tag], version, cursor, tagged=True)
            else:
                unknown.append((tag, cursor.take(size)))
    if unknown:
        message["_tags"] = unknown
    return message


def _decode_length(cursor: Cursor, wide: str, compact: bool) -> int | None:
    length: int = cursor.unsigned_varint() - 1 if compact else cursor.number(wide)
    return None if length < 0 else length


def _decode_value(
    schema: dict[str, Any], field: dict[str, Any], version: int, cursor: Cursor, *, tagged: bool
) -> Any:
    kind = field["type"]
    compact = _uses_compact(schema, field, version)
    if kind.startswith("[]"):
        count = _decode_length(cursor, ">i", compact)
        if count is None:
            return _null(field, version)
        element = {**field, "type": kind[2:], "nullableVersions": "none"}
        return [_decode_value(schema, element, version, cursor, tagged=False) for _ in range(count)]
    if kind in NUMBERS:
        return cursor.number(NUMBERS[kind])
    if kind == "uuid":
        return cursor.take(16)
    if kind in ("string", "bytes", "records"):
        length = _decode_length(cursor, ">h" if kind == "string" else ">i", compact)
        if length is None:
            return _null(field, version)
        raw = cursor.take(length)
        return raw.decode() if kind == "string" else raw
    fields = struct_fields(schema, field)
    assert fields is not None, kind
    if is_nullable(field, version):
        absent = cursor.unsigned_varint() == 0 if tagged else cursor.number(">b") < 0
        if absent:
            return None
    return _decode_struct(schema, fields, version, cursor)


def _null(field: dict[str, Any], version: int) -> None:
    if not is_nullable(field, version):
        raise ValueError(f"{field['name']} is null")
