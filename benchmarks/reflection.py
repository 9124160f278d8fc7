"""The codec that a generated one is compared with: fields described by data, read one by one.

Made once per message and version from the schema's JSON, as such codecs are; every field is an
object that knows how to read and write itself on a stream. Tagged fields are skipped unread and
never written.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from tests.unit import reference_codec

if TYPE_CHECKING:
    from io import BytesIO


class Number:
    """A number of fixed size."""

    def __init__(self, form: str) -> None:
        self._struct = struct.Struct(form)

    def read(self, stream: BytesIO) -> Any:
        return self._struct.unpack(stream.read(self._struct.size))[0]

    def write(self, stream: BytesIO, value: Any) -> None:
        stream.write(self._struct.pack(value))


class Varint:
    """An unsigned varint."""

    def read(self, stream: BytesIO) -> int:
        value = shift = 0
        while True:
            byte = stream.read(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def write(self, stream: BytesIO, value: int) -> None:
        while value >= 0x80:
            stream.write(bytes((value & 0x7F | 0x80,)))
            value >>= 7
        stream.write(bytes((value,)))


class Text:
    """A string or bytes behind its length; compact: the length plus one, as a varint."""

    def __init__(self, length: Any, *, is_compact: bool, is_text: bool) -> None:
        self._length = length
        self._is_compact = is_compact
        self._is_text = is_text

    def read(self, stream: BytesIO) -> Any:
        size = self._length.read(stream) - self._is_compact
        if size < 0:
            return None
        raw = stream.read(size)
        return raw.decode() if self._is_text else raw

    def write(self, stream: BytesIO, value: Any) -> None:
        raw = value.encode() if value is not None and self._is_text else value
        self._length.write(stream, (-1 if raw is None else len(raw)) + self._is_compact)
        stream.write(raw or b"")


class Array:
    """Elements behind their number."""

    def __init__(self, element: Any, length: Any, *, is_compact: bool) -> None:
        self._element = element
        self._length = length
        self._is_compact = is_compact

    def read(self, stream: BytesIO) -> Any:
        count = self._length.read(stream) - self._is_compact
        return None if count < 0 else [self._element.read(stream) for _ in range(count)]

    def write(self, stream: BytesIO, value: Any) -> None:
        self._length.write(stream, (-1 if value is None else len(value)) + self._is_compact)
        for item in value or ():
            self._element.write(stream, item)


class Fields:
    """A struct as a dict."""

    def __init__(self, fields: list[tuple[str, Any]], *, has_tags: bool) -> None:
        self._fields = fields
        self._has_tags = has_tags

    def read(self, stream: BytesIO) -> dict[str, Any]:
        values = {name: field.read(stream) for name, field in self._fields}
        if self._has_tags:
            for _ in range(Varint().read(stream)):
                Varint().read(stream)
                stream.read(Varint().read(stream))
        return values

    def write(self, stream: BytesIO, value: dict[str, Any]) -> None:
        for name, field in self._fields:
            field.write(stream, value[name])
        if self._has_tags:
            stream.write(b"\0")


def codec(message: str, version: int) -> Fields:
    """The codec of a message by its name, such as ``FetchRequest``."""
    schema = reference_codec.load(message)
    return _fields(schema, schema["fields"], version)


def _fields(schema: dict[str, Any], fields: list[dict[str, Any]], version: int) -> Fields:
    is_flexible = reference_codec.is_flexible(schema, version)
    return Fields(
        [
            (field["name"], _value(schema, field, field["type"], version))
            for field in fields
            if reference_codec.is_present(field, version)
            and not reference_codec.is_tagged(field, version)
        ],
        has_tags=is_flexible,
    )


def _value(schema: dict[str, Any], field: dict[str, Any], kind: str, version: int) -> Any:
    is_compact = reference_codec.is_flexible(schema, version)
    if kind.startswith("[]"):
        element = _value(schema, field, kind[2:], version)
        return Array(element, Varint() if is_compact else Number(">i"), is_compact=is_compact)
    if kind in reference_codec.NUMBERS:
        return Number(reference_codec.NUMBERS[kind])
    if kind == "uuid":
        return Number("16s")
    if kind in ("string", "bytes", "records"):
        length = Varint() if is_compact else Number(">h" if kind == "string" else ">i")
        return Text(length, is_compact=is_compact, is_text=kind == "string")
    inner = reference_codec.struct_fields(schema, field)
    assert inner is not None, kind
    return _fields(schema, inner, version)
