"""The body of a struct's writer: what the schema says to write, and what must not be lost."""

from collections.abc import Sequence

from codegen.lines import WIDTH, Lines
from codegen.names import attribute
from codegen.plan import (
    ModuleNames,
    Run,
    branches,
    codec,
    compactness,
    element_name,
    function_suffix,
    holds,
    items,
    live_fields,
    run_segments,
    struct_class,
    tagged_fields,
)
from codegen.python_types import LETTERS, can_be_null, differs_from_default
from codegen.schema import FIXED_SIZES, Field, Message, Struct
from codegen.versions import Versions, condition, segments


class Writer:
    """Writes ``write_<struct>`` of one struct."""

    def __init__(self, message: Message, struct: Struct, names: ModuleNames) -> None:
        self.message = message
        self.struct = struct
        self.names = names
        self.possible = struct.versions
        self.lines = Lines(1)
        self.is_root = struct is message.root
        self.parts = "pieces" if self.is_root else "parts"

    def body(self) -> list[str]:
        if self.is_root:
            self._version_check()
            self.lines.add("pieces: list[Any] = []")
        for item in items(self.struct):
            if isinstance(item, Run):
                self._run(item)
            else:
                self._field(item)
        self._absent_tagged()
        if not self.message.flexible.empty:
            self._tagged_section()
        if self.is_root:
            if holds(self.struct, ("records",)):
                self.lines.add(f"{self.names.use('append_joined')}(parts, pieces)")
            else:
                self.lines.add('parts.append(b"".join(pieces))')
        elif not self.lines.lines:
            self.lines.add("pass")
        return self.lines.lines

    def _version_check(self) -> None:
        valid = self.message.valid
        test = (
            f"version != {valid.lowest}"
            if valid.lowest == valid.highest
            else f"not {valid.lowest} <= version <= {valid.highest}"
        )
        error, text = self.names.use("EncodeError"), self.names.use("unsupported_version")
        with self.lines.block(f"if {test}:"):
            self.lines.add(f'raise {error}({text}("{self.message.name}", version))')

    def _differs(self, item: Field) -> str:
        test = differs_from_default(item, f"message.{attribute(item.name)}")
        if "ZERO_UUID" in test:
            self.names.use("ZERO_UUID")
        return test

    def _refuse(self, item: Field, within: str | None = None) -> None:
        """In a version without the field: it may only hold its default, unless it is ignorable."""
        if item.ignorable:
            return
        absent = self.names.use("absent_field")
        test = self._differs(item)
        if within is not None:
            test = f"{within} and ({test})" if " or " in test else f"{within} and {test}"
        with self.lines.block(f"if {test}:"):
            self.lines.add(f'raise {absent}("{self.struct.name}.{item.name}", version)')

    def _codec(self, item: Field, version: int, kind: str) -> str:
        return codec("write", self.message, item, version, kind)

    # Fixed-size runs

    def _run(self, run: Run) -> None:
        parts = run_segments(run, self.possible)

        def refused(present: Sequence[Field]) -> list[Field]:
            """Absent ones that must hold their default; tagged fields are another function's."""
            return [
                item
                for item in run.fields
                if item not in present and not item.ignorable and item.tagged.empty
            ]

        while len(parts) > 1 and not parts[-1][1] and not refused(parts[-1][1]):
            parts.pop()  # nothing to do in the oldest versions: no branch for them
        if len(parts) == 1 and parts[0][0] != self.possible:
            test = condition(parts[0][0], self.possible)
            with self.lines.block(f"if {test}:"):
                self._pack(parts[0][1])
            return
        for index in branches(self.lines, self.possible, [part for part, _ in parts]):
            present = parts[index][1]
            absent = refused(present)
            for item in absent:
                self._refuse(item)
            if present:
                self._pack(present)
            elif not absent:
                self.lines.add("pass")

    def _pack(self, present: Sequence[Field]) -> None:
        pack = self.names.packer(present)
        values = [f"message.{attribute(item.name)}" for item in present]
        self.lines.add(f"{self.parts}.append({pack}({', '.join(values)}))")

    # Fields of variable size

    def _field(self, item: Field) -> None:
        present = item.inline & self.possible
        test = condition(present, self.possible)
        if test is None:
            self._value(item, present, self.parts)
            return
        with self.lines.block(f"if {test}:"):
            self._value(item, present, self.parts)
        if item.tagged.empty and not item.ignorable:
            absent = self.names.use("absent_field")
            with self.lines.block(f"elif {self._differs(item)}:"):
                self.lines.add(f'raise {absent}("{self.struct.name}.{item.name}", version)')

    def _value(self, item: Field, present: Versions, parts: str) -> None:
        if item.is_array:
            self._array(item, present, parts)
        elif item.struct is not None:
            self._struct(item, present, parts)
        else:
            self._scalar(item, present, parts)

    def _scalar(self, item: Field, present: Versions, parts: str) -> None:
        value = f"message.{attribute(item.name)}"
        if item.is_fixed:
            self.lines.add(f"{parts}.append({self.names.packer([item])}({value}))")
            return
        found = segments(present, lambda version: self._codec(item, version, item.type))
        for index in branches(self.lines, present, [part for part, _ in found]):
            part, write = found[index]
            argument = self._required(item, part, value)
            self.lines.call(f"{self.names.use(write)}(", [parts, argument], ")")

    def _required(self, item: Field, part: Versions, value: str) -> str:
        """``value``; wrapped where its type allows null but these versions do not."""
        if not can_be_null(item) or part.lowest in item.nullable:
            return value
        return f'{self.names.use("required")}({value}, "{self.struct.name}.{item.name}")'

    def _struct(self, item: Field, present: Versions, parts: str) -> None:
        assert item.struct is not None
        value = f"message.{attribute(item.name)}"
        write = f"write_{function_suffix(item.struct)}"
        found = segments(present, lambda version: version in item.nullable)
        for index in branches(self.lines, present, [part for part, _ in found]):
            part, nullable = found[index]
            if not nullable:
                argument = self._required(item, part, value)
                self.lines.call(f"{write}(", [parts, argument, "version"], ")")
                continue
            with self.lines.block(f"if {value} is None:"):
                self.lines.add(f'{parts}.append(b"\\xff")')
            with self.lines.block("else:"):
                self.lines.add(f'{parts}.append(b"\\x01")')
                self.lines.add(f"{write}({parts}, {value}, version)")

    def _array(self, item: Field, present: Versions, parts: str) -> None:
        value = f"message.{attribute(item.name)}"
        found = segments(present, lambda version: self._codec(item, version, "count"))
        for index in branches(self.lines, present, [part for part, _ in found]):
            part, write = found[index]
            argument = self._required(item, part, value)
            self.lines.call(f"{self.names.use(write)}(", [parts, argument], ")")
        if can_be_null(item):
            with self.lines.block(f"if {value} is not None:"):
                self._elements(item, present, parts, value)
        else:
            self._elements(item, present, parts, value)

    def _elements(self, item: Field, present: Versions, parts: str, value: str) -> None:
        if item.type == "uuid":
            self.lines.add(f"{self.names.use('write_uuid_array')}({parts}, {value})")
            return
        if item.type in FIXED_SIZES:
            write = self.names.use("write_fixed_array")
            self.lines.add(f'{write}({parts}, {value}, "{LETTERS[item.type]}")')
            return
        element = element_name(self.struct, item)
        with self.lines.block(f"for {element} in {value}:"):
            if item.struct is not None:
                write = f"write_{function_suffix(item.struct)}"
                self.lines.add(f"{write}({parts}, {element}, version)")
                return
            found = segments(present, compactness(self.message, item))
            for index in branches(self.lines, present, [part for part, _ in found]):
                prefix = "write_compact_" if found[index][1] else "write_"
                self.lines.add(f"{self.names.use(prefix + item.type)}({parts}, {element})")

    # Tagged fields

    def _absent_tagged(self) -> None:
        """Tagged fields in versions where they are neither tagged nor inline."""
        for item in live_fields(self.struct):
            if item.tagged.empty or item.ignorable:
                continue
            missing = self.possible - (item.versions & self.possible)
            if missing.empty:
                continue
            test = condition(missing, self.possible)
            self._refuse(item, within=test)

    def _tagged_section(self) -> None:
        flexible = self.message.flexible & self.possible
        if flexible.empty:
            return
        test = condition(flexible, self.possible)
        if test is None:
            self._tags(flexible)
            return
        with self.lines.block(f"if {test}:"):
            self._tags(flexible)
        with self.lines.block("elif message.unknown_tagged_fields:"):
            absent = self.names.use("absent_field")
            self.lines.add(f'raise {absent}("{self.struct.name}.unknown_tagged_fields", version)')

    def _tags(self, flexible: Versions) -> None:
        write = self.names.use("write_tagged_fields")
        known = sorted(tagged_fields(self.struct), key=lambda item: item.tag or 0)
        if not known:
            with self.lines.block("if message.unknown_tagged_fields:"):
                self.lines.add(f"{write}({self.parts}, message.unknown_tagged_fields)")
            with self.lines.block("else:"):
                self.lines.add(f'{self.parts}.append(b"\\0")')
            return
        self.lines.add("fields = message.unknown_tagged_fields")
        for item in known:
            tagged = item.tagged & flexible
            test = condition(tagged, flexible)
            differs = self._differs(item)
            if test is not None:
                differs = f"({differs})" if " or " in differs else differs
            head = differs if test is None else f"{test} and {differs}"
            with self.lines.block(f"if {head}:"):
                self._tag_value(item, tagged)
        with self.lines.block("if fields:"):
            self.lines.add(f"{write}({self.parts}, fields)")
        with self.lines.block("else:"):
            self.lines.add(f'{self.parts}.append(b"\\0")')

    def _tag_value(self, item: Field, tagged: Versions) -> None:
        annotated = ": list[Any]" if self._first_tag(item) else ""
        self.lines.add(f"field_parts{annotated} = []")
        value = f"message.{attribute(item.name)}"
        if item.struct is not None and not item.is_array and can_be_null(item):
            write = f"write_{function_suffix(item.struct)}"
            with self.lines.block(f"if {value} is None:"):
                self.lines.add('field_parts.append(b"\\0")')
            with self.lines.block("else:"):
                self.lines.add('field_parts.append(b"\\x01")')
                self.lines.add(f"{write}(field_parts, {value}, version)")
        else:
            self._value(item, tagged, "field_parts")
        self.lines.add(f'fields = (*fields, ({item.tag}, b"".join(field_parts)))')

    def _first_tag(self, item: Field) -> bool:
        return item.tag == min(known.tag or 0 for known in tagged_fields(self.struct))


class DefaultTest:
    """Writes ``is_default_<struct>``: whether every field holds its default."""

    def __init__(self, message: Message, struct: Struct, names: ModuleNames) -> None:
        self.message = message
        self.struct = struct
        self.names = names

    def body(self) -> list[str]:
        lines = Lines(1)
        tests = []
        for item in live_fields(self.struct):
            test = differs_from_default(item, f"message.{attribute(item.name)}")
            if "ZERO_UUID" in test:
                self.names.use("ZERO_UUID")
            tests.append(test)
        if not (self.message.flexible & self.struct.versions).empty:
            tests.append("message.unknown_tagged_fields")
        flat = " or ".join(tests)
        if len(flat) + len("    return not ()") <= WIDTH:
            lines.add(f"return not ({flat})")
            return lines.lines
        with lines.block("return not ("):
            if len(flat) + 8 <= WIDTH:
                lines.add(flat)
            else:
                for index, test in enumerate(tests):
                    lines.add(f"{'or ' if index else ''}{test}")
        lines.add(")")
        return lines.lines


def write_signature(struct: Struct) -> str:
    lines = Lines()
    lines.call(
        f"def write_{function_suffix(struct)}(",
        ["parts: list[Any]", f"message: {struct_class(struct)}", "version: int"],
        ") -> None:",
    )
    return "\n".join(lines.lines)
