"""Values of messages for tests: by Hypothesis, by a seed, and as generated objects."""

import random
from importlib import import_module
from typing import Any

from hypothesis import strategies as st

from codegen.names import attribute, class_name, snake_case
from tests.unit import reference_codec as reference

_INTEGERS = {
    "int8": st.integers(-(2**7), 2**7 - 1),
    "int16": st.integers(-(2**15), 2**15 - 1),
    "uint16": st.integers(0, 2**16 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
}
_SCALARS = {
    **_INTEGERS,
    "bool": st.booleans(),
    "float64": st.floats(allow_nan=False),
    "string": st.text(max_size=6),
    "bytes": st.binary(max_size=6),
    "records": st.binary(max_size=20),
    "uuid": st.binary(min_size=16, max_size=16),
}
_UNKNOWN_TAGS = st.lists(
    st.tuples(st.integers(100, 20000), st.binary(max_size=5)),
    min_size=1,
    max_size=2,
    unique_by=lambda field: field[0],
).map(sorted)


def module_of(schema: dict[str, Any]) -> Any:
    """The generated module of a message."""
    folder = "messages" if schema["type"] in ("request", "response", "header") else None
    return import_module(
        f"kbroker.protocol.{folder or 'internal_records'}.{snake_case(schema['name'])}"
    )


def read(
    schema: dict[str, Any], version: int, data: bytes | memoryview, module: Any = None
) -> tuple[Any, int]:
    """What the generated reader makes of ``data``."""
    name = f"read_{snake_case(schema['name'])}"
    found: tuple[Any, int] = getattr(module or module_of(schema), name)(data, 0, version)
    return found


def write(schema: dict[str, Any], version: int, message: Any, module: Any = None) -> bytes:
    """What the generated writer makes of ``message``."""
    parts: list[Any] = []
    name = f"write_{snake_case(schema['name'])}"
    getattr(module or module_of(schema), name)(parts, message, version)
    return b"".join(parts)


def messages(schema: dict[str, Any], version: int) -> st.SearchStrategy[dict[str, Any]]:
    """Any message of this version, as the reference codec wants it."""
    return _structs(schema, schema["fields"], version)


def _structs(
    schema: dict[str, Any], fields: list[dict[str, Any]], version: int
) -> st.SearchStrategy[dict[str, Any]]:
    members = {
        field["name"]: _values(schema, field, version)
        for field in fields
        if reference.is_present(field, version)
    }
    if not reference.is_flexible(schema, version):
        return st.fixed_dictionaries(members)
    return st.fixed_dictionaries(members, optional={"_tags": _UNKNOWN_TAGS})


def _values(schema: dict[str, Any], field: dict[str, Any], version: int) -> st.SearchStrategy[Any]:
    element = field["type"].removeprefix("[]")
    fields = reference.struct_fields(schema, field)
    one = _SCALARS[element] if fields is None else _structs(schema, fields, version)
    value = st.lists(one, max_size=2) if field["type"].startswith("[]") else one
    return st.none() | value if reference.is_nullable(field, version) else value


def random_message(schema: dict[str, Any], version: int, chance: random.Random) -> dict[str, Any]:
    """A well-filled message: no nulls, no empty lists, a few unknown tags."""
    return _random_struct(schema, schema["fields"], version, chance)


def _random_struct(
    schema: dict[str, Any], fields: list[dict[str, Any]], version: int, chance: random.Random
) -> dict[str, Any]:
    message = {
        field["name"]: _random_value(schema, field, version, chance)
        for field in fields
        if reference.is_present(field, version)
    }
    if reference.is_flexible(schema, version) and chance.random() < 0.3:
        message["_tags"] = [(chance.randint(100, 300), chance.randbytes(3))]
    return message


def _random_value(
    schema: dict[str, Any], field: dict[str, Any], version: int, chance: random.Random
) -> Any:
    kind = field["type"]
    if kind.startswith("[]"):
        element = {**field, "type": kind[2:], "nullableVersions": "none"}
        count = chance.randint(1, 3)
        return [_random_value(schema, element, version, chance) for _ in range(count)]
    fields = reference.struct_fields(schema, field)
    if fields is not None:
        return _random_struct(schema, fields, version, chance)
    if kind == "bool":
        return chance.random() < 0.5
    if kind == "float64":
        return chance.uniform(-1e9, 1e9)
    if kind == "uuid":
        return chance.randbytes(16)
    if kind == "string":
        return "".join(chance.choices("abcäß日", k=chance.randint(1, 9)))
    if kind in ("bytes", "records"):
        return chance.randbytes(chance.randint(1, 30))
    bits = int(kind.removeprefix("u").removeprefix("int"))
    unsigned = chance.randint(0, 2**bits - 1)
    return unsigned if kind.startswith("u") else unsigned - 2 ** (bits - 1)


def to_object(schema: dict[str, Any], message: dict[str, Any], module: Any = None) -> Any:
    """The same message as an object of the generated class."""
    used = module or module_of(schema)
    return _to_object(used, schema, schema["name"], schema["fields"], message)


def _to_object(
    module: Any,
    schema: dict[str, Any],
    name: str,
    fields: list[dict[str, Any]],
    message: dict[str, Any],
) -> Any:
    arguments: dict[str, Any] = {}
    for field in fields:
        if field["name"] not in message:
            continue
        value = message[field["name"]]
        inner = reference.struct_fields(schema, field)
        element = field["type"].removeprefix("[]")
        if inner is not None and isinstance(value, list):
            value = [_to_object(module, schema, element, inner, item) for item in value]
        elif inner is not None and value is not None:
            value = _to_object(module, schema, element, inner, value)
        arguments[attribute(field["name"])] = value
    if "_tags" in message:
        arguments["unknown_tagged_fields"] = tuple(message["_tags"])
    return getattr(module, class_name(name))(**arguments)
