"""What generated code looks like: fused runs, few conditions, reproducible text."""

import pytest

from codegen.schema import SchemaError, parse_message
from tests.unit.codegen.generated import fixture, module_from, source_of


def schema(*fields, **changes):
    return {
        "type": "data",
        "name": "Sample",
        "validVersions": "2-6",
        "flexibleVersions": "none",
        "fields": list(fields),
    } | changes


def field(name, kind, versions="0+", **more):
    return {"name": name, "type": kind, "versions": versions, **more}


def function(source, name):
    """The lines of one function."""
    lines = source.splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith(f"def {name}("))
    end = start + 1
    while end < len(lines) and (not lines[end] or lines[end][0] in " )"):
        end += 1
    return "\n".join(lines[start:end]).strip()


def test_neighbours_of_fixed_size_are_one_call():
    source = source_of(schema(field("A", "int32"), field("B", "int64"), field("C", "bool")))
    reader = function(source, "read_sample")
    assert "message.a, message.b, message.c = _unpack_iqt(buffer, position)" in reader
    assert "position += 13" in reader
    assert "if version" not in reader
    writer = function(source, "write_sample")
    assert "_pack_iqt(message.a, message.b, message.c)" in writer
    assert '_unpack_iqt = Struct(">iq?").unpack_from' in source


def test_a_run_has_a_branch_per_change_and_one_sided_tests():
    fields = [field("A", "int8"), field("B", "int16", "4+"), field("C", "int32", "3-5")]
    reader = function(source_of(schema(*fields)), "read_sample")
    heads = [line.strip() for line in reader.splitlines() if "version" in line and ":" in line][2:]
    assert heads == [
        "if version == 6:",
        "elif version >= 4:",
        "elif version == 3:",
    ]
    assert reader.count("else:") == 1
    assert "message.a, message.b = _unpack_bh(" in reader
    assert "message.a, message.b, message.c = _unpack_bhi(" in reader
    assert "message.a, message.c = _unpack_bi(" in reader
    assert "(message.a,) = _unpack_b(" in reader


def test_conditions_that_are_implied_are_not_made():
    inner = field("Items", "[]Item", "4+", fields=[field("X", "string", "3+")])
    source = source_of(schema(inner))
    assert "version" not in "".join(function(source, "read_item_array").split("\n")[1:]).replace(
        "version: int", ""
    )
    assert "if version >= 4:" in function(source, "read_sample")


def test_a_field_of_no_living_version_is_left_out():
    source = source_of(schema(field("Old", "int32", "0-1"), field("New", "int32")))
    assert "old" not in source
    assert "new" in source


def test_versions_that_a_struct_does_not_have_are_an_error():
    common = {"name": "Late", "versions": "5+", "fields": [field("X", "int8")]}
    with pytest.raises(SchemaError):
        parse_message(schema(field("F", "Late"), commonStructs=[common]), "clients")


def test_smallest_elements_bound_the_count():
    inner = field("Items", "[]Item", fields=[field("X", "string"), field("Y", "uuid", "5+")])
    flexible = schema(inner, flexibleVersions="4+")
    reader = function(source_of(flexible), "read_sample")
    assert "read_compact_count(buffer, position, 2)" in reader  # version 4: no uuid
    assert "read_count(buffer, position, 2)" in reader
    inner = field("Items", "[]Item", fields=[field("X", "string", "3+")])
    assert "read_count(buffer, position, 1)" in function(source_of(schema(inner)), "read_sample")


def test_a_field_named_like_a_variable_of_the_reader():
    names = ("version", "buffer", "position", "message", "parts", "count", "tag", "size", "fields")
    fields = [field(name, "[]Item" if name == "count" else "[]string") for name in names]
    fields[5]["fields"] = [field("item", "int32")]
    module = module_from(schema(*fields))
    values = {name: [name] for name in names} | {"count": [module.Item(item=4)]}
    message = module.Sample(**values)
    parts = []
    module.write_sample(parts, message, 3)
    assert module.read_sample(parts[0], 0, 3) == (message, len(parts[0]))


def test_python_keywords():
    module = module_from(schema(field("From", "int32"), field("Class", "string")))
    message = module.Sample(from_=1, class_="x")
    parts = []
    module.write_sample(parts, message, 2)
    assert module.read_sample(parts[0], 0, 2)[0] == message


def test_a_field_tagged_only_in_later_versions():
    moved = field("Moved", "string", "0+", taggedVersions="5+", tag=0)
    source = schema(moved, field("Last", "int8"), flexibleVersions="4+")
    module = module_from(source)
    for version, expected in ((3, "000178" + "07"), (4, "0278" + "07" + "00")):
        parts = []
        module.write_sample(parts, module.Sample(moved="x", last=7), version)
        assert parts[0].hex() == expected
        assert module.read_sample(parts[0], 0, version)[0].moved == "x"
    parts = []
    module.write_sample(parts, module.Sample(moved="x", last=7), 5)
    assert parts[0].hex() == "07" + "01" + "00" + "02" + "0278"
    assert module.read_sample(parts[0], 0, 5)[0].moved == "x"


def test_generation_is_reproducible():
    for name in ("SimpleExampleMessage", "AllTypeMessage"):
        assert source_of(fixture(name)) == source_of(fixture(name))


def test_no_line_is_too_long():
    for name in ("SimpleExampleMessage", "AllTypeMessage", "NullableStructMessage"):
        assert max(map(len, source_of(fixture(name)).splitlines())) <= 100
