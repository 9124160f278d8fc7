"""From a message to everything its module's template prints."""

import textwrap
from dataclasses import dataclass

from codegen.lines import WIDTH, Lines
from codegen.names import attribute, snake_case
from codegen.plan import (
    FunctionPlan,
    ModuleNames,
    format_name,
    live_fields,
    struct_class,
    where,
)
from codegen.python_types import (
    annotation,
    can_be_null,
    default,
    default_test,
    is_mutable,
    parameter_annotation,
)
from codegen.readers import read_functions
from codegen.schema import Message, Struct
from codegen.writers import DefaultTest, Writer, write_signature


@dataclass(frozen=True)
class StructPlan:
    name: str
    docstring: str
    fields: list[str]
    parameters: list[str]
    assignments: list[str]
    functions: list[FunctionPlan]


@dataclass(frozen=True)
class ModulePlan:
    name: str
    docstring: str
    source: str
    native: bool
    imports: list[str]
    constants: list[tuple[str, int]]
    packers: list[str]
    structs: list[StructPlan]


def plan_module(message: Message, source: str, *, native: bool) -> ModulePlan:
    """The module of ``message``; ``source`` names its schema file."""
    names = ModuleNames(native, wire={"Buffer"})
    paths = where(message)
    tested = _default_tested(message)
    structs = [
        _plan_struct(message, struct, paths.get(struct.name, ""), names, tested)
        for struct in message.structs
    ]
    constants = [] if message.api_key is None else [("API_KEY", message.api_key)]
    constants += [
        ("MIN_VERSION", message.valid.lowest),
        ("MAX_VERSION", message.valid.highest),
        ("FLEXIBLE_FROM", message.flexible_from),
    ]
    packers = [
        f'_{verb}_{format_name(letters)} = Struct(">{letters}").{method}'
        for verb, method, formats in (
            ("unpack", "unpack_from", names.unpackers),
            ("pack", "pack", names.packers),
        )
        for letters in sorted(formats)
    ]
    imports = ["from struct import Struct"] if packers else []
    imports += ["from typing import Any, ClassVar, Final", ""]
    if names.librt:
        imports += [f"from librt.strings import {', '.join(sorted(names.librt))}", ""]
    base = "describe, equal_fields" if native else "Message"
    imports += [f"from kbroker.protocol import {base}"]
    imports += ["from kbroker.protocol.wire import ("]
    imports += [f"    {name}," for name in sorted(names.wire, key=_import_order)] + [")"]
    docstring = _module_docstring(message)
    return ModulePlan(
        struct_class(message.root), docstring, source, native, imports, constants, packers, structs
    )


def _import_order(name: str) -> tuple[int, str]:
    """Constants, classes, functions: as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _module_docstring(message: Message) -> str:
    word = "version" if message.valid.lowest == message.valid.highest else "versions"
    versions = f"{word} {message.valid}"
    flexible = message.flexible & message.valid
    form = "never flexible" if flexible.empty else f"flexible from {flexible.lowest}"
    if message.type in ("request", "response"):
        return f"{message.name}: API key {message.api_key}, {versions}, {form}."
    key = "" if message.api_key is None else f" of record type {message.api_key}"
    kind = message.type.replace("coordinator-", "coordinator ")
    return f"{message.name}:\n{kind}{key}, {versions}, {form}."


def _default_tested(message: Message) -> set[str]:
    """The structs whose default test some writer calls."""
    found: set[str] = set()
    for struct in message.structs:
        for item in live_fields(struct):
            if item.struct is None or item.is_array or item.null_by_default:
                continue
            lost = not item.ignorable and not item.versions.covers(struct.versions)
            if not item.tagged.empty or lost:
                found.add(item.struct.name)
    grown = True
    while grown:
        grown = False
        for struct in message.structs:
            if struct.name not in found:
                continue
            for item in live_fields(struct):
                inner = item.struct
                if inner is None or item.is_array or item.null_by_default or inner.name in found:
                    continue
                found.add(inner.name)
                grown = True
    return found


def _plan_struct(
    message: Message, struct: Struct, path: str, names: ModuleNames, tested: set[str]
) -> StructPlan:
    fields = live_fields(struct)
    parameters: list[str] = []
    assignments = Lines(2)
    for item in fields:
        name = attribute(item.name)
        written = default(item, name)
        for constant in ("ZERO_UUID", "UNSET", "Unset", "Records"):
            if constant in f"{written.parameter} {parameter_annotation(item)}".split():
                names.use(constant)
        versions = item.versions & struct.versions
        note = "" if versions == struct.versions else f"  # {item.versions}"
        parameters.append(f"{name}: {parameter_annotation(item)} = {written.parameter},{note}")
        target = f"self.{name}"
        if is_mutable(item) or can_be_null(item):
            target += f": {annotation(item)}"
        assignments.assign(target, *_conditional(written.assignment))
    attributes = [attribute(item.name) for item in fields]
    if not (message.flexible & struct.versions).empty:
        attributes.append("unknown_tagged_fields")
        tagged = names.use("TaggedFields")
        parameters.append(f"unknown_tagged_fields: {tagged} = (),")
        assignments.add("self.unknown_tagged_fields = unknown_tagged_fields")
    functions = [
        *read_functions(message, struct, names),
        FunctionPlan(write_signature(struct), Writer(message, struct, names).body()),
    ]
    if struct.name in tested:
        signature = f"def {default_test(struct)}(message: {struct_class(struct)}) -> bool:"
        functions.append(FunctionPlan(signature, DefaultTest(message, struct, names).body()))
    return StructPlan(
        struct_class(struct),
        _struct_docstring(message, struct, path),
        _fields(attributes),
        parameters,
        assignments.lines,
        functions,
    )


def _fields(attributes: list[str]) -> list[str]:
    """The class attribute that names every field."""
    lines = Lines(1)
    quoted = [f'"{name}"' for name in attributes]
    lines.call("FIELDS: ClassVar[tuple[str, ...]] = (", quoted, ")", comma=True)
    return lines.lines


def _struct_docstring(message: Message, struct: Struct, path: str) -> str:
    """Where the struct stands in its message, and in which versions."""
    if not path:
        return f"{message.name} in versions {struct.versions}."
    text = f"{path} of {message.name} in versions {struct.versions}."
    wrapped = textwrap.fill(text, WIDTH - 10, subsequent_indent="    ", break_long_words=False)
    return wrapped if "\n" not in wrapped else f"{wrapped}\n    "


def _conditional(assignment: str) -> tuple[str, str]:
    """``a if b else c`` as two halves, which may stand on two lines."""
    value, otherwise, last = assignment.partition(" else ")
    return value, f"else {last}" if otherwise else ""


def module_name(message: Message) -> str:
    return snake_case(message.name)
