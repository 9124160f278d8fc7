"""The body of a struct's reader: one ``if`` per change between versions, fused fixed-size runs."""

from collections.abc import Sequence

from codegen.lines import WIDTH, Lines
from codegen.plan import (
    ModuleNames,
    Run,
    branches,
    codec,
    compactness,
    element_name,
    function_suffix,
    items,
    local,
    run_segments,
    run_size,
    struct_class,
    tagged_fields,
    target,
)
from codegen.python_types import (
    LETTERS,
    can_be_null,
    default,
    element_annotation,
    smallest_size,
)
from codegen.schema import FIXED_SIZES, Field, Message, Struct
from codegen.versions import Versions, condition, segments


class Reader:
    """Writes ``read_<struct>`` of one struct."""

    def __init__(self, message: Message, struct: Struct, names: ModuleNames) -> None:
        self.message = message
        self.struct = struct
        self.names = names
        self.possible = struct.versions
        self.lines = Lines(1)
        self.declared: list[Field] = []  # lists whose local variable has its annotation

    def body(self) -> list[str]:
        if self.struct is self.message.root:
            self._version_check()
        name = struct_class(self.struct)
        self.lines.add(f"message = {name}.__new__({name})")
        for item in items(self.struct):
            if isinstance(item, Run):
                self._run(item)
            else:
                self._field(item)
        flexible = self.message.flexible & self.possible
        if not flexible.empty:
            self._tagged_section(flexible)
        self.lines.add("return message, position")
        return self.lines.lines

    def _version_check(self) -> None:
        valid = self.message.valid
        test = (
            f"version != {valid.lowest}"
            if valid.lowest == valid.highest
            else f"not {valid.lowest} <= version <= {valid.highest}"
        )
        error, text = self.names.use("DecodeError"), self.names.use("unsupported_version")
        with self.lines.block(f"if {test}:"):
            self.lines.add(f'raise {error}({text}("{self.message.name}", version))')

    def _default(self, item: Field) -> str:
        text = default(item, "").local
        if "ZERO_UUID" in text:
            self.names.use("ZERO_UUID")
        return text

    # Fixed-size runs

    def _run(self, run: Run) -> None:
        parts = run_segments(run, self.possible)
        for index in branches(self.lines, self.possible, [part for part, _ in parts]):
            present = parts[index][1]
            if present:
                self._unpack(present)
            for item in run.fields:
                if item not in present:
                    self.lines.add(f"{target(item)} = {self._default(item)}")

    def _unpack(self, present: Sequence[Field]) -> None:
        unpack = self.names.unpacker(present)
        targets = [target(item) for item in present]
        value = f"{unpack}(buffer, position)"
        flat = f"{', '.join(targets)} = {value}"
        if len(targets) > 1 and len(flat) + 12 <= WIDTH:
            self.lines.add(flat)
        else:
            self.lines.call("(", targets, f") = {value}", comma=True)
        self.lines.add(f"position += {run_size(present)}")

    # Fields of variable size

    def _field(self, item: Field) -> None:
        present = item.inline & self.possible
        test = condition(present, self.possible)
        if test is None:
            self._value(item, present)
            return
        with self.lines.block(f"if {test}:"):
            self._value(item, present)
        with self.lines.block("else:"):
            self.lines.add(f"{target(item)} = {self._default(item)}")

    def _value(self, item: Field, present: Versions) -> None:
        """Read one field where it is there."""
        if item.is_array:
            self._array(item, present)
        elif item.struct is not None:
            self._struct(item, present)
        else:
            self._scalar(item, present)

    def _scalar(self, item: Field, present: Versions) -> None:
        if item.is_fixed:
            self._unpack([item])
            return
        parts = segments(present, lambda version: self._codec(item, version, item.type))
        for index in branches(self.lines, present, [part for part, _ in parts]):
            read = self.names.use(parts[index][1])
            self.lines.add(f"{target(item)}, position = {read}(buffer, position)")

    def _codec(self, item: Field, version: int, kind: str) -> str:
        return codec("read", self.message, item, version, kind)

    def _struct(self, item: Field, present: Versions) -> None:
        assert item.struct is not None
        read = f"read_{function_suffix(item.struct)}"
        parts = segments(present, lambda version: version in item.nullable)
        for index in branches(self.lines, present, [part for part, _ in parts]):
            if not parts[index][1]:
                self.lines.add(f"{target(item)}, position = {read}(buffer, position, version)")
                continue
            with self.lines.block(f"if {self.names.use('read_presence')}(buffer, position):"):
                self.lines.add(f"{target(item)}, position = {read}(buffer, position + 1, version)")
            with self.lines.block("else:"):
                self.lines.add(f"{target(item)} = None")
                self.lines.add("position += 1")

    # Arrays

    def _array(self, item: Field, present: Versions) -> None:
        parts = segments(present, lambda version: self._codec(item, version, "count"))
        for index in branches(self.lines, present, [part for part, _ in parts]):
            part, read = parts[index]
            arguments = ["buffer", "position", str(self._smallest(item, part))]
            if self.message.type == "request" and item.type not in FIXED_SIZES:
                arguments.append(self.names.use("MAX_ELEMENTS"))
            self.lines.call(f"count, position = {self.names.use(read)}(", arguments, ")")
        if can_be_null(item) and not (item.nullable & present).empty:
            with self.lines.block("if count < 0:"):
                self.lines.add(f"{target(item)} = None")
            with self.lines.block("else:"):
                self._elements(item, present)
        else:
            self._elements(item, present)

    def _smallest(self, item: Field, part: Versions) -> int:
        """Bytes of the smallest element in any version of ``part``; at least 1, as in Kafka."""
        flexible = self.message.flexible
        return max(1, min(smallest_size(item, version, version in flexible) for version in part))

    def _elements(self, item: Field, present: Versions) -> None:
        name = target(item)
        if item.type == "uuid":
            read = self.names.use("read_uuid_array")
            self.lines.add(f"{name}, position = {read}(buffer, position, count)")
        elif item.type in FIXED_SIZES:
            read = self.names.use("read_fixed_array")
            arguments = f'"{LETTERS[item.type]}", {FIXED_SIZES[item.type]}'
            self.lines.add(f"{name}, position = {read}(buffer, position, count, {arguments})")
        else:
            element = element_name(self.struct, item)
            annotated = f"{local(item)}: list[{element_annotation(item)}]"
            self.lines.add(f"{local(item) if item in self.declared else annotated} = []")
            self.declared.append(item)
            with self.lines.block("for _ in range(count):"):
                self._element(item, element, present)
                self.lines.add(f"{local(item)}.append({element})")
            self.lines.add(f"{name} = {local(item)}")

    def _element(self, item: Field, element: str, present: Versions) -> None:
        if item.struct is not None:
            read = f"read_{function_suffix(item.struct)}"
            self.lines.add(f"{element}, position = {read}(buffer, position, version)")
            return
        compact = compactness(self.message, item)
        parts = segments(present, compact)
        for index in branches(self.lines, present, [part for part, _ in parts]):
            prefix = "read_compact_" if parts[index][1] else "read_"
            read = self.names.use(prefix + item.type)
            self.lines.add(f"{element}, position = {read}(buffer, position)")

    # Tagged fields

    def _tagged_section(self, flexible: Versions) -> None:
        known = tagged_fields(self.struct)
        for item in known:
            if (item.inline & self.possible).empty:
                self.lines.add(f"{target(item)} = {self._default(item)}")
        test = condition(flexible, self.possible)
        if test is None:
            self._tags(known, flexible)
        else:
            with self.lines.block(f"if {test}:"):
                self._tags(known, flexible)
            with self.lines.block("else:"):
                self.lines.add("message.unknown_tagged_fields = []")

    def _tags(self, known: Sequence[Field], flexible: Versions) -> None:
        """One byte tells that there are none, which is the rule."""
        with self.lines.block("if buffer[position] == 0:"):
            self.lines.add("message.unknown_tagged_fields = []")
            self.lines.add("position += 1")
        with self.lines.block("else:"):
            if not known:
                read = self.names.use("read_tagged_fields")
                self.lines.add(
                    f"message.unknown_tagged_fields, position = {read}(buffer, position)"
                )
                return
            uvarint = self.names.use("read_uvarint")
            keep = self.names.use("keep_tagged_field")
            self.lines.add("fields: list[tuple[int, bytes]] = []")
            self.lines.add(f"tag_count, position = {uvarint}(buffer, position)")
            with self.lines.block("for _ in range(tag_count):"):
                self.lines.add(f"tag, position = {uvarint}(buffer, position)")
                self.lines.add(f"size, position = {uvarint}(buffer, position)")
                for index, item in enumerate(sorted(known, key=lambda field: field.tag or 0)):
                    with self.lines.block(f"{'elif' if index else 'if'} tag == {item.tag}:"):
                        self._tag_value(item, flexible)
                with self.lines.block("else:"):
                    self.lines.add(f"position = {keep}(fields, buffer, position, tag, size)")
            self.lines.add("message.unknown_tagged_fields = fields")

    def _tag_value(self, item: Field, flexible: Versions) -> None:
        tagged = item.tagged & flexible
        test = condition(flexible - tagged, flexible) if tagged != flexible else None
        if test is not None:
            misplaced = self.names.use("misplaced_tag")
            with self.lines.block(f"if {test}:"):
                self.lines.add(f'raise {misplaced}("{self.struct.name}", {item.tag}, version)')
        if item.struct is not None and not item.is_array and can_be_null(item):
            read = f"read_{function_suffix(item.struct)}"
            uvarint = self.names.use("read_uvarint")
            self.lines.add(f"size, position = {uvarint}(buffer, position)")
            with self.lines.block("if size <= 0:"):
                self.lines.add(f"{target(item)} = None")
            with self.lines.block("else:"):
                self.lines.add(f"{target(item)}, position = {read}(buffer, position, version)")
            return
        self._value(item, tagged)


def read_signature(struct: Struct) -> str:
    lines = Lines()
    lines.call(
        f"def read_{function_suffix(struct)}(",
        ["buffer: Buffer", "position: int", "version: int"],
        f") -> tuple[{struct_class(struct)}, int]:",
    )
    return "\n".join(lines.lines)
