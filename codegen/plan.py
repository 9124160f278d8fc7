"""What a generated module holds, decided here so that the templates decide nothing."""

from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field

from codegen.lines import Lines
from codegen.names import attribute, class_name, snake_case
from codegen.python_types import LETTERS, NAME_LETTERS
from codegen.schema import FIXED_SIZES, Field, Message, Struct
from codegen.versions import Versions, condition, segments

# Names that the generated functions use themselves; a field of that name gets another local.
_TAKEN = frozenset(
    {"buffer", "position", "version", "message", "parts", "pieces", "count", "tag", "size", "item"}
    | {"tag_count", "fields", "field_parts", "unknown_tagged_fields", "messages", "left", "new"}
)


@dataclass(frozen=True)
class Run:
    """Neighbouring fixed-size fields: read and written by one ``struct`` call per segment."""

    fields: tuple[Field, ...]


Item = Run | Field


@dataclass(frozen=True)
class FunctionPlan:
    signature: str
    body: list[str]


@dataclass
class ModuleNames:
    """What the module must import from ``wire``, and the packers it must define.

    ``native``: the module is to be compiled.
    """

    native: bool = False
    wire: set[str] = field(default_factory=set)
    librt: set[str] = field(default_factory=set)  # mypyc's run-time library
    unpackers: set[str] = field(default_factory=set)
    packers: set[str] = field(default_factory=set)

    def use(self, name: str) -> str:
        self.wire.add(name)
        return name

    def unpacker(self, fields: Sequence[Field], *, with_byte: bool = False) -> str:
        """``with_byte``: and one unsigned byte after the fields."""
        letters = struct_format(fields) + "B" * with_byte
        self.unpackers.add(letters)
        return f"_unpack_{format_name(letters)}"

    def packer(self, fields: Sequence[Field]) -> str:
        self.packers.add(struct_format(fields))
        return f"_pack_{format_name(struct_format(fields))}"


def struct_format(fields: Sequence[Field]) -> str:
    """Types of a run, as a ``struct`` format without the byte order."""
    return "".join(LETTERS[item.type] for item in fields)


def format_name(letters: str) -> str:
    """A struct format as part of a name: ``i16sq`` -> ``iuq``."""
    return letters.replace("16s", NAME_LETTERS["uuid"]).replace("?", NAME_LETTERS["bool"])


def run_size(fields: Sequence[Field]) -> int:
    return sum(FIXED_SIZES[item.type] for item in fields)


def local(item: Field) -> str:
    """The local variable in which a list is gathered."""
    name = attribute(item.name)
    return name + "_" if name in _TAKEN else name


def target(item: Field) -> str:
    """The attribute that a reader fills."""
    return f"message.{attribute(item.name)}"


def element_name(struct: Struct, item: Field) -> str:
    """The variable that holds one element of an array field."""
    name = snake_case(item.type) if item.struct is not None else ""
    if not 0 < len(name) <= 30:  # longer ones make every line that names them too long
        name = f"{local(item)}_item"
    taken = {local(other) for other in struct.fields}
    return f"{name}_item" if name in taken or name in _TAKEN else name


def live_fields(struct: Struct) -> tuple[Field, ...]:
    """The fields that some version of the struct holds."""
    return tuple(item for item in struct.fields if not (item.versions & struct.versions).empty)


def tagged_fields(struct: Struct) -> tuple[Field, ...]:
    return tuple(item for item in live_fields(struct) if not (item.tagged & struct.versions).empty)


def items(struct: Struct) -> list[Item]:
    """The untagged fields in wire order, fixed-size neighbours gathered into runs."""
    found: list[Item] = []
    run: list[Field] = []
    for item in live_fields(struct):
        if (item.inline & struct.versions).empty:
            continue
        if item.is_fixed:
            run.append(item)
            continue
        if run:
            found.append(Run(tuple(run)))
            run = []
        found.append(item)
    if run:
        found.append(Run(tuple(run)))
    return found


def holds(struct: Struct, types: Container[str]) -> bool:
    """Whether a field of one of ``types`` can occur anywhere inside."""
    return any(
        item.type in types or (item.struct is not None and holds(item.struct, types))
        for item in struct.fields
    )


def is_used(message: Message, struct: Struct, *, in_array: bool) -> bool:
    """Whether some field of ``message`` is an array of ``struct``, or such a struct itself."""
    return any(
        item.struct is not None and item.struct.name == struct.name and item.is_array == in_array
        for parent in message.structs
        for item in live_fields(parent)
    )


def run_segments(run: Run, possible: Versions) -> list[tuple[Versions, tuple[Field, ...]]]:
    """Which fields of a run are there in which versions; newest first."""

    def present(version: int) -> tuple[Field, ...]:
        return tuple(item for item in run.fields if version in item.inline)

    return segments(possible, present)


def branches(lines: Lines, possible: Versions, parts: Sequence[Versions]) -> Iterator[int]:
    """``if`` / ``elif`` / ``else`` over consecutive ``parts`` of ``possible``, newest first.

    Yields the index of each part inside its branch. One part needs no test at all. A test only
    names the lower end of its part: newer versions have been taken by the branches before.
    """
    if len(parts) == 1:
        yield 0
        return
    left = possible
    for index, part in enumerate(parts):
        test = condition(part, left)
        head = "else:" if test is None else f"{'elif' if index else 'if'} {test}:"
        with lines.block(head):
            yield index
        left = left - part


def compactness(message: Message, item: Field) -> Callable[[int], bool]:
    """Whether a field has compact lengths, by version."""
    flexible = message.flexible if item.flexible is None else item.flexible
    return lambda version: version in flexible


def codec(direction: str, message: Message, item: Field, version: int, kind: str) -> str:
    """The name of a wire function, e.g. ``read_compact_nullable_string``."""
    compact = "compact_" if compactness(message, item)(version) else ""
    nullable = "nullable_" if version in item.nullable else ""
    return f"{direction}_{compact}{nullable}{kind}"


def function_suffix(struct: Struct) -> str:
    return snake_case(struct.name)


def where(message: Message) -> dict[str, str]:
    """Struct name -> path of the fields that hold it, e.g. ``topics[].partitions[]``."""
    paths: dict[str, list[str]] = {message.root.name: [""]}
    for struct in message.structs:
        for item in live_fields(struct):
            if item.struct is None:
                continue
            suffix = "[]" if item.is_array else ""
            found = paths.setdefault(item.struct.name, [])
            for path in paths.get(struct.name, [""]):
                step = f"{path}.{attribute(item.name)}{suffix}".removeprefix(".")
                if step not in found:
                    found.append(step)
    return {name: ", ".join(found) for name, found in paths.items()}


def struct_class(struct: Struct) -> str:
    return class_name(struct.name)
