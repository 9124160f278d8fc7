"""The typed model of Kafka's message schemas (the JSON under ``schemas/``).

The language is described in Kafka's ``clients/src/main/resources/common/message/README.md``; where
that is silent, the rules of its generator (FieldSpec, MessageSpec, StructRegistry) hold.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from codegen.versions import HIGHEST, NONE, Versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ZERO_UUID = bytes(16)

INTEGERS: Mapping[str, tuple[int, int]] = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "uint16": (0, 2**16 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "uint32": (0, 2**32 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
FIXED_SIZES: Mapping[str, int] = {
    "bool": 1,
    "int8": 1,
    "int16": 2,
    "uint16": 2,
    "int32": 4,
    "uint32": 4,
    "int64": 8,
    "float64": 8,
    "uuid": 16,
}
VARIABLE = frozenset({"string", "bytes", "records"})
MESSAGE_TYPES = frozenset(
    {"request", "response", "header", "data", "metadata", "coordinator-key", "coordinator-value"}
)

Default = bool | int | float | str | bytes | None


class SchemaError(ValueError):
    """A schema that breaks a rule of the language."""


@dataclass(frozen=True)
class Field:
    """One field: its type (element type when ``is_array``) and in which versions it is what."""

    name: str
    type: str
    is_array: bool
    versions: Versions
    nullable: Versions
    tagged: Versions
    tag: int | None
    ignorable: bool
    flexible: Versions | None
    raw_default: str
    struct: Struct | None

    @property
    def is_struct(self) -> bool:
        return self.struct is not None

    @property
    def is_fixed(self) -> bool:
        """A scalar whose size on the wire is the same for every value."""
        return not self.is_array and self.type in FIXED_SIZES

    @property
    def inline(self) -> Versions:
        """The versions in which the field stands in the struct itself, not among its tags."""
        return self.versions - self.tagged

    @property
    def null_by_default(self) -> bool:
        if self.raw_default == "null":
            return True
        return self.type == "records" and not self.is_array and not self.nullable.empty

    def default(self) -> Default:
        """The default of a scalar that is not null by default."""
        text = self.raw_default
        if self.type in INTEGERS:
            value = int(text, 16 if text.startswith("0x") else 10) if text else 0
            lowest, highest = INTEGERS[self.type]
            if not lowest <= value <= highest:
                raise SchemaError(f"{self.name}: default {text} does not fit {self.type}")
            return value
        if self.type == "bool":
            if text.lower() not in ("", "true", "false"):
                raise SchemaError(f"{self.name}: default {text} is not a bool")
            return text.lower() == "true"
        if self.type == "float64":
            return float(text) if text else 0.0
        if self.type == "uuid":
            value_bytes = base64.urlsafe_b64decode(text + "==") if text else ZERO_UUID
            if len(value_bytes) != 16:
                raise SchemaError(f"{self.name}: default {text} is not a uuid")
            return value_bytes
        if self.type == "string":
            return text
        if text:
            raise SchemaError(f"{self.name}: a default for {self.type} can only be null")
        return b""


@dataclass
class Struct:
    """A struct of a message. ``versions``: all in which it can occur, the hull of its uses."""

    name: str
    declared: Versions
    fields: tuple[Field, ...] = ()
    versions: Versions = NONE


@dataclass
class Message:
    """One schema file."""

    name: str
    type: str
    api_key: int | None
    valid: Versions
    flexible: Versions
    listeners: tuple[str, ...]
    latest_version_unstable: bool
    module: str
    root: Struct
    structs: list[Struct] = field(default_factory=list)

    @property
    def removed(self) -> bool:
        """``validVersions: none``: the API is gone, its key stays reserved."""
        return self.valid.empty

    @property
    def flexible_from(self) -> int:
        """The first flexible version; 32767 when there is none."""
        within = self.flexible & self.valid
        return HIGHEST if within.empty else within.lowest


class _Parser:
    """One message: common structs are shared by name, inner structs are defined where used."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.common: dict[str, Mapping[str, Any]] = {
            common["name"]: common for common in source.get("commonStructs", ())
        }
        self.structs: dict[str, Struct] = {}

    def struct(self, name: str, declared: Versions, fields: list[Mapping[str, Any]]) -> Struct:
        if name in self.structs:
            raise SchemaError(f"struct {name} is defined twice")
        struct = self.structs[name] = Struct(name, declared)
        struct.fields = tuple(self.field(source) for source in fields)
        tags = [item.tag for item in struct.fields if item.tag is not None]
        if sorted(tags) != list(range(len(tags))):
            raise SchemaError(f"struct {name}: tags {tags} are not 0, 1, 2 ...")
        if len({item.name for item in struct.fields}) != len(struct.fields):
            raise SchemaError(f"struct {name}: a field name occurs twice")
        return struct

    def field(self, source: Mapping[str, Any]) -> Field:
        name: str = source["name"]
        is_array = source["type"].startswith("[]")
        type_name: str = source["type"].removeprefix("[]")
        tagged = Versions.parse(source.get("taggedVersions"), NONE)
        versions = Versions.parse(source.get("versions"), None if tagged.empty else tagged)
        raw_default = source.get("default")
        struct = None
        if type_name not in FIXED_SIZES and type_name not in VARIABLE:
            struct = self._field_struct(type_name, versions, source)
        item = Field(
            name=name,
            type=type_name,
            is_array=is_array,
            versions=versions,
            nullable=Versions.parse(source.get("nullableVersions"), NONE),
            tagged=tagged,
            tag=int(source["tag"]) if "tag" in source else None,
            ignorable=str(source.get("ignorable", False)).lower() == "true",
            flexible=(
                Versions.parse(source["flexibleVersions"]) if "flexibleVersions" in source else None
            ),
            raw_default="" if raw_default is None else str(raw_default),
            struct=struct,
        )
        _check(item, source)
        return item

    def _field_struct(
        self, type_name: str, versions: Versions, source: Mapping[str, Any]
    ) -> Struct:
        if "fields" in source:
            if type_name in self.common:
                raise SchemaError(f"{source['name']}: {type_name} is a common struct")
            return self.struct(type_name, versions, source["fields"])
        if type_name in self.structs:
            return self.structs[type_name]
        if type_name not in self.common:
            raise SchemaError(f"{source['name']}: unknown type {type_name}")
        common = self.common[type_name]
        return self.struct(type_name, Versions.parse(common["versions"]), common["fields"])


def _check(item: Field, source: Mapping[str, Any]) -> None:
    if not item.nullable.empty and item.is_fixed:
        raise SchemaError(f"{item.name}: {item.type} cannot be nullable")
    if item.raw_default == "null" and not item.nullable.covers(item.versions):
        raise SchemaError(f"{item.name}: null by default but not nullable in every version")
    if item.raw_default not in ("", "null") and (item.is_array or item.is_struct):
        raise SchemaError(f"{item.name}: a default for {source['type']} can only be null")
    if (item.tag is None) != item.tagged.empty:
        raise SchemaError(f"{item.name}: tag and taggedVersions go together")
    if item.tag is not None:
        if item.tagged.highest != HIGHEST or not item.versions.covers(item.tagged):
            raise SchemaError(f"{item.name}: taggedVersions must be open and within versions")
        nullable_tags = item.nullable & item.tagged
        if not nullable_tags.empty and nullable_tags != item.tagged:
            raise SchemaError(f"{item.name}: either all tagged versions are nullable or none")
    if item.flexible is not None and (item.is_array or item.type not in ("string", "bytes")):
        raise SchemaError(f"{item.name}: flexibleVersions override on {source['type']}")
    if item.raw_default != "null" and not item.is_array and not item.is_struct:
        item.default()


def _spread(struct: Struct, versions: Versions) -> None:
    """Note that ``struct`` occurs in ``versions``, and what that means for the structs in it."""
    wider = struct.versions.hull(versions)
    if wider == struct.versions:
        return
    if not struct.declared.covers(wider):
        raise SchemaError(f"struct {struct.name} is declared {struct.declared}, used in {wider}")
    struct.versions = wider
    for item in struct.fields:
        if item.struct is not None:
            _spread(item.struct, item.versions & wider)


def parse_message(source: Mapping[str, Any], module: str) -> Message:
    """A message from the JSON of its schema; ``module`` is the Kafka module it came from."""
    name: str = source["name"]
    try:
        if source["type"] not in MESSAGE_TYPES:
            raise SchemaError(f"unknown message type {source['type']}")
        valid = Versions.parse(source["validVersions"])
        parser = _Parser(source)
        root = parser.struct(name, valid, source.get("fields", []))
        message = Message(
            name=name,
            type=source["type"],
            api_key=source.get("apiKey"),
            valid=valid,
            flexible=Versions.parse(source.get("flexibleVersions"), NONE),
            listeners=tuple(source.get("listeners", ())),
            latest_version_unstable=bool(source.get("latestVersionUnstable", False)),
            module=module,
            root=root,
        )
        if not valid.empty:
            if "flexibleVersions" not in source:
                raise SchemaError("flexibleVersions is missing")
            _spread(root, valid)
        message.structs = [item for item in parser.structs.values() if not item.versions.empty]
    except ValueError as error:
        raise SchemaError(f"{name}: {error}") from error
    return message


def load_folder(folder: Path) -> Iterator[Message]:
    """Every schema below ``folder``, in a stable order."""
    for path in sorted(folder.rglob("*.json")):
        yield parse_message(json.loads(path.read_text(encoding="utf-8")), path.parent.name)
