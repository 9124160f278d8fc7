"""What a schema type is in Python: annotation, default, ``struct`` letter, smallest size."""

from collections.abc import Mapping
from dataclasses import dataclass

from codegen.names import class_name, snake_case
from codegen.schema import FIXED_SIZES, ZERO_UUID, Field, Struct

LETTERS: Mapping[str, str] = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "uint16": "H",
    "int32": "i",
    "uint32": "I",
    "int64": "q",
    "float64": "d",
    "uuid": "16s",
}
# Names of packers: struct letters, except where they cannot stand in a name.
NAME_LETTERS: Mapping[str, str] = {**LETTERS, "bool": "t", "uuid": "u"}

_ANNOTATIONS: Mapping[str, str] = {
    "bool": "bool",
    "float64": "float",
    "uuid": "bytes",
    "string": "str",
    "bytes": "bytes",
    "records": "Records",
}


@dataclass(frozen=True)
class Default:
    """How the default of a field is written down."""

    parameter: str  # in the signature of __init__
    assignment: str  # what __init__ assigns; the parameter's name where they are the same
    local: str  # in a reader, where the field is absent


def element_annotation(field: Field) -> str:
    if field.struct is not None:
        return class_name(field.struct.name)
    return _ANNOTATIONS.get(field.type, "int")


def annotation(field: Field) -> str:
    inner = element_annotation(field)
    if field.is_array:
        inner = f"list[{inner}]"
    return f"{inner} | None" if can_be_null(field) and inner != "Records" else inner


def can_be_null(field: Field) -> bool:
    return not field.nullable.empty


def is_mutable(field: Field) -> bool:
    return field.is_array or field.is_struct


def literal(field: Field) -> str:
    """The default of a scalar as Python source."""
    if field.null_by_default:
        return "None"
    value = field.default()
    if value == ZERO_UUID and field.type == "uuid":
        return "ZERO_UUID"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, bytes):
        return 'b""' if not value else repr(value)
    return repr(value)


def fresh(field: Field) -> str:
    """An expression for a new default of a list or struct."""
    return "[]" if field.is_array else f"{class_name(field.type)}()"


def parameter_annotation(field: Field) -> str:
    """In ``__init__``: a list or struct may be left out, and then is made afresh."""
    inner = annotation(field)
    if not is_mutable(field):
        return inner
    if not inner.endswith("| None"):
        return f"{inner} | None"
    return inner if field.null_by_default else f"{inner} | Unset"


def default(field: Field, parameter: str) -> Default:
    if field.null_by_default:
        return Default("None", parameter, "None")
    if not is_mutable(field):
        return Default(literal(field), parameter, literal(field))
    value = fresh(field)
    if can_be_null(field):
        assignment = f"{value} if isinstance({parameter}, Unset) else {parameter}"
        return Default("UNSET", assignment, value)
    return Default("None", f"{value} if {parameter} is None else {parameter}", value)


def differs_from_default(field: Field, value: str) -> str:
    """A test that ``value`` is not the field's default."""
    if field.null_by_default:
        return f"{value} is not None"
    if field.is_array:
        return f"{value} != []" if can_be_null(field) else value
    if field.struct is not None:
        test = f"not {default_test(field.struct)}({value})"
        return f"{value} is None or {test}" if can_be_null(field) else test
    if field.type == "bool":
        return f"not {value}" if field.default() else value
    if field.type == "records":
        return f"len({value}) != 0"
    return f"{value} != {literal(field)}"


def default_test(struct: Struct) -> str:
    """The generated function that tells whether a struct holds nothing but defaults."""
    return f"is_default_{snake_case(struct.name)}"


def smallest_size(field: Field, version: int, flexible: bool) -> int:
    """Bytes of the smallest possible element of an array field."""
    if field.struct is not None:
        return smallest_struct(field.struct, version, flexible)
    return FIXED_SIZES.get(field.type) or _smallest_variable(field.type, flexible)


def _smallest_variable(type_name: str, flexible: bool) -> int:
    if flexible:
        return 1
    return 2 if type_name == "string" else 4


def smallest_struct(struct: Struct, version: int, flexible: bool) -> int:
    """Bytes of the smallest possible value of a struct."""
    size = 1 if flexible else 0  # the number of tagged fields
    for field in struct.fields:
        if version not in field.inline:
            continue
        compact = flexible if field.flexible is None else version in field.flexible
        if field.is_array:
            size += 1 if compact else 4
        elif field.struct is not None:
            nullable = version in field.nullable
            size += 1 if nullable else smallest_struct(field.struct, version, flexible)
        else:
            size += FIXED_SIZES.get(field.type) or _smallest_variable(field.type, compact)
    return size
