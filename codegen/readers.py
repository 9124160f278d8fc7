"""The body of a struct's reader: one ``if`` per change between versions, fused fixed-size runs.

What the readers leave out because something else makes up for it:

* A flexible struct ends with the number of its tagged fields. A string that the buffer cuts short
  is therefore noticed by the next read, and an array of less than 127 elements by the first one
  that is not there; only longer ones are compared with what is left of the buffer. Nothing may
  follow the value of a tagged field: there all is checked.
* Where a message holds no bytes or records, the root makes ``bytes`` of its buffer: they are cut
  and decoded faster than a memoryview. Bulk is never copied that way.
* Structs in arrays are read by one function for the whole array, with ``while`` because ``range``
  costs more than the few elements that most arrays have.
"""

from collections.abc import Sequence

from codegen.lines import WIDTH, Lines
from codegen.names import attribute
from codegen.plan import (
    FunctionPlan,
    ModuleNames,
    Run,
    branches,
    codec,
    compactness,
    element_name,
    function_suffix,
    holds,
    is_used,
    items,
    live_fields,
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
    is_mutable,
    smallest_size,
)
from codegen.schema import FIXED_SIZES, Field, Message, Struct
from codegen.versions import Versions, condition, segments

# Read faster from ``bytes`` than from any buffer; almost always the length is one byte.
_SHORT = {
    "read_compact_string": "read_short_string",
    "read_compact_nullable_string": "read_short_nullable_string",
}
# Of mypyc's run-time library: single machine instructions, and a test of the bounds.
_NATIVE = {
    "int16": "read_i16_be",
    "uint16": "read_i16_be",
    "int32": "read_i32_be",
    "uint32": "read_i32_be",
    "int64": "read_i64_be",
    "float64": "read_f64_be",
}


class Reader:
    """Writes ``read_<struct>`` of one struct, or ``read_<struct>_array`` of an array of them."""

    def __init__(self, message: Message, struct: Struct, names: ModuleNames) -> None:
        self.message = message
        self.struct = struct
        self.names = names
        self.possible = struct.versions
        self.flexible = message.flexible & self.possible
        self.of_bytes = reads_bytes(message)
        self.in_tag = False  # what is read is the value of a tagged field
        self.lines = Lines(1)
        self.declared: list[Field] = []  # lists whose local variable has its annotation

    def body(self) -> list[str]:
        """One struct."""
        if self.struct is self.message.root:
            self._version_check()
            if self.of_bytes:
                with self.lines.block("if not isinstance(buffer, bytes):"):
                    self.lines.add("buffer = bytes(buffer)")
        self._fields()
        self.lines.add("return message, position")
        return self.lines.lines

    def array_body(self, *, has_single: bool) -> list[str]:
        """``left`` of them; by the function for one where there is such."""
        self.lines.add(f"messages: list[{struct_class(self.struct)}] = []")
        with self.lines.block("while left > 0:"):
            self.lines.add("left -= 1")
            if has_single:
                read = f"read_{function_suffix(self.struct)}"
                self.lines.add(f"message, position = {read}(buffer, position, version)")
            else:
                self._fields()
            self.lines.add("messages.append(message)")
        self.lines.add("return messages, position")
        return self.lines.lines

    def _fields(self) -> None:
        name = struct_class(self.struct)
        if self.names.native:  # compiled, the constructor is the quicker of the two
            self.lines.add(f"message = {name}()")
        else:
            self.lines.add(f"message = {self.names.use('new')}({name})")
        found = items(self.struct)
        ends_with_run = bool(found) and isinstance(found[-1], Run)
        for item in found:
            if not isinstance(item, Run):
                self._field(item)
            elif item is found[-1] and not self.flexible.empty:
                self._last_run(item)
            else:
                self._run(item)
        if not self.flexible.empty:
            self._tagged_section(is_counted=ends_with_run)

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

    def _set_default(self, item: Field) -> None:
        inner = item.struct
        if inner is None or not is_flat(item) or self.names.native:
            self.lines.add(f"{target(item)} = {self._default(item)}")
            return
        # A small struct that is absent in most messages: quicker than its ``__init__``.
        name = local(item)
        self.lines.add(f"{name} = {target(item)} = {self.names.use('new')}({struct_class(inner)})")
        for field in live_fields(inner):
            self.lines.add(f"{name}.{attribute(field.name)} = {self._default(field)}")
        if not (self.message.flexible & inner.versions).empty:
            self.lines.add(f"{name}.unknown_tagged_fields = ()")

    # Fixed-size runs

    def _run(self, run: Run) -> None:
        parts = run_segments(run, self.possible)
        for index in branches(self.lines, self.possible, [part for part, _ in parts]):
            present = parts[index][1]
            if present:
                self._unpack(present)
            for item in run.fields:
                if item not in present:
                    self._set_default(item)

    def _last_run(self, run: Run) -> None:
        """Before the tagged fields: where there are some, their number is read along."""

        def present(version: int) -> tuple[tuple[Field, ...], bool]:
            fields = tuple(item for item in run.fields if version in item.inline)
            return fields, version in self.flexible

        parts = segments(self.possible, present)
        for index in branches(self.lines, self.possible, [part for part, _ in parts]):
            fields, is_flexible = parts[index][1]
            if fields:
                self._unpack(fields, with_tag_count=is_flexible)
            elif is_flexible:
                self.lines.add("tag_count = buffer[position]")
                self.lines.add("position += 1")
            if not is_flexible:
                self.lines.add("tag_count = 0")
            for item in run.fields:
                if item not in fields:
                    self._set_default(item)

    def _unpack(self, present: Sequence[Field], *, with_tag_count: bool = False) -> None:
        if self.names.native and self.of_bytes:
            self._read_natively(present, with_tag_count=with_tag_count)
            return
        unpack = self.names.unpacker(present, with_byte=with_tag_count)
        targets = [target(item) for item in present]
        if with_tag_count:
            targets.append("tag_count")
        value = f"{unpack}(buffer, position)"
        flat = f"{', '.join(targets)} = {value}"
        if len(targets) > 1 and len(flat) + 12 <= WIDTH:
            self.lines.add(flat)
        else:
            self.lines.call("(", targets, f") = {value}", comma=True)
        self.lines.add(f"position += {run_size(present) + with_tag_count}")

    def _read_natively(self, present: Sequence[Field], *, with_tag_count: bool) -> None:
        """Field by field: compiled, that costs less than the tuple of an ``unpack``."""
        size = 0
        for item in present:
            at = f"position + {size}" if size else "position"
            self.lines.add(f"{target(item)} = {self._native_value(item, at)}")
            size += FIXED_SIZES[item.type]
        if with_tag_count:
            self.lines.add(f"tag_count = buffer[position + {size}]")
        self.lines.add(f"position += {size + with_tag_count}")

    def _native_value(self, item: Field, at: str) -> str:
        """What is read at ``at``; IndexError where the buffer has ended."""
        if item.type == "bool":
            return f"buffer[{at}] != 0"
        if item.type == "int8":
            return f"(buffer[{at}] ^ 128) - 128"
        if item.type == "uuid":
            return f"{self.names.use('read_uuid')}(buffer, {at})"
        read = _NATIVE[item.type]
        self.names.librt.add(read)
        if item.type.startswith("uint"):
            return f"int({read}(buffer, {at})) & {(1 << 8 * FIXED_SIZES[item.type]) - 1}"
        return f"{read}(buffer, {at})"

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
            self._set_default(item)

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
            read = self._wire(parts[index][1])
            self.lines.add(f"{target(item)}, position = {read}(buffer, position)")

    def _codec(self, item: Field, version: int, kind: str) -> str:
        return codec("read", self.message, item, version, kind)

    def _wire(self, name: str) -> str:
        """The function of ``wire`` that reads a scalar, from what the buffer is here."""
        is_followed = self.of_bytes and not self.in_tag
        return self.names.use(_SHORT.get(name, name) if is_followed else name)

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
            if "_compact_" not in read or self.in_tag:
                self.lines.call(f"count, position = {self.names.use(read)}(", arguments, ")")
                continue
            lowest = -1 if "_nullable_" in read else 0
            self.lines.add("count = buffer[position] - 1")
            with self.lines.block(f"if {lowest} <= count < 127:"):
                self.lines.add("position += 1")
            with self.lines.block("else:"):
                self.lines.call(f"count, position = {self.names.use(read)}(", arguments, ")")
        if can_be_null(item) and not (item.nullable & present).empty:
            with self.lines.block("if count < 0:"):
                self.lines.add(f"{target(item)} = None")
            with self.lines.block("else:"):
                self._elements(item, present)
        elif item.struct is not None:
            with self.lines.block("if count > 0:"):
                self._elements(item, present)
            with self.lines.block("else:"):
                self.lines.add(f"{target(item)} = []")
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
        elif item.struct is not None:
            read = f"read_{function_suffix(item.struct)}_array"
            self.lines.add(f"{name}, position = {read}(buffer, position, version, count)")
        else:
            element = element_name(self.struct, item)
            annotated = f"{local(item)}: list[{element_annotation(item)}]"
            self.lines.add(f"{local(item) if item in self.declared else annotated} = []")
            self.declared.append(item)
            with self.lines.block("while count > 0:"):
                self.lines.add("count -= 1")
                self._element(item, element, present)
                self.lines.add(f"{local(item)}.append({element})")
            self.lines.add(f"{name} = {local(item)}")

    def _element(self, item: Field, element: str, present: Versions) -> None:
        compact = compactness(self.message, item)
        parts = segments(present, compact)
        for index in branches(self.lines, present, [part for part, _ in parts]):
            prefix = "read_compact_" if parts[index][1] else "read_"
            read = self._wire(prefix + item.type)
            self.lines.add(f"{element}, position = {read}(buffer, position)")

    # Tagged fields

    def _tagged_section(self, *, is_counted: bool) -> None:
        known = tagged_fields(self.struct)
        for item in known:
            if (item.inline & self.possible).empty:
                self._set_default(item)
        if is_counted:
            self._tags(known, is_counted=True)
            return
        test = condition(self.flexible, self.possible)
        if test is None:
            self._tags(known, is_counted=False)
        else:
            with self.lines.block(f"if {test}:"):
                self._tags(known, is_counted=False)
            with self.lines.block("else:"):
                self.lines.add("message.unknown_tagged_fields = ()")

    def _tags(self, known: Sequence[Field], *, is_counted: bool) -> None:
        """One byte tells that there are none, which is the rule; ``is_counted``: it was read."""
        count = "tag_count" if is_counted else "buffer[position]"
        start = "position - 1" if is_counted else "position"
        with self.lines.block(f"if {count} == 0:"):
            self.lines.add("message.unknown_tagged_fields = ()")
            if not is_counted:
                self.lines.add("position += 1")
        with self.lines.block("else:"):
            if not known:
                read = self.names.use("read_tagged_fields")
                self.lines.add(f"message.unknown_tagged_fields, position = {read}(buffer, {start})")
                return
            uvarint = self.names.use("read_uvarint")
            keep = self.names.use("keep_tagged_field")
            self.lines.add("fields: list[tuple[int, bytes]] = []")
            self.lines.add(f"tag_count, position = {uvarint}(buffer, {start})")
            with self.lines.block("while tag_count > 0:"):
                self.lines.add("tag_count -= 1")
                self.lines.add(f"tag, position = {uvarint}(buffer, position)")
                self.lines.add(f"size, position = {uvarint}(buffer, position)")
                for index, item in enumerate(sorted(known, key=lambda field: field.tag or 0)):
                    with self.lines.block(f"{'elif' if index else 'if'} tag == {item.tag}:"):
                        self.in_tag = True
                        self._tag_value(item)
                        self.in_tag = False
                with self.lines.block("else:"):
                    self.lines.add(f"position = {keep}(fields, buffer, position, tag, size)")
            self.lines.add("message.unknown_tagged_fields = tuple(fields)")

    def _tag_value(self, item: Field) -> None:
        flexible = self.flexible
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


def is_flat(item: Field) -> bool:
    """Whether the default of a field is a struct of no more than four plain values."""
    if item.struct is None or item.is_array or item.null_by_default:
        return False
    fields = live_fields(item.struct)
    return len(fields) <= 4 and not any(is_mutable(field) for field in fields)


def reads_bytes(message: Message) -> bool:
    """Whether the readers below the root are given ``bytes`` rather than any buffer.

    Records stand in buffers that hold many of them, which are not to be copied for each.
    """
    return message.type in ("request", "response") and not holds(message.root, ("bytes", "records"))


def read_functions(message: Message, struct: Struct, names: ModuleNames) -> list[FunctionPlan]:
    """For one struct, for an array of them, or both: as the message needs them."""
    kind = "bytes" if reads_bytes(message) and struct is not message.root else "Buffer"
    name, suffix = struct_class(struct), function_suffix(struct)
    parameters = [f"buffer: {kind}", "position: int", "version: int"]
    in_arrays = is_used(message, struct, in_array=True)
    alone = struct is message.root or is_used(message, struct, in_array=False)
    found = []
    if alone:
        lines = Lines()
        lines.call(f"def read_{suffix}(", parameters, f") -> tuple[{name}, int]:")
        found.append(FunctionPlan("\n".join(lines.lines), Reader(message, struct, names).body()))
    if in_arrays:
        lines = Lines()
        tail = f") -> tuple[list[{name}], int]:"
        lines.call(f"def read_{suffix}_array(", [*parameters, "left: int"], tail)
        body = Reader(message, struct, names).array_body(has_single=alone)
        found.append(FunctionPlan("\n".join(lines.lines), body))
    return found
