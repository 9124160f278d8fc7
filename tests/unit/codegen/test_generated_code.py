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


def request(*fields):
    return schema(*fields, type="request", apiKey=1, listeners=["broker"], flexibleVersions="4+")


def test_the_number_of_tagged_fields_is_read_with_the_run_before_it():
    reader = function(source_of(request(field("A", "int32"))), "read_sample")
    assert "message.a, tag_count = _unpack_iB(buffer, position)" in reader
    assert "tag_count = 0" in reader  # versions 2 and 3
    assert "buffer[position]" not in reader


def test_only_messages_without_bulk_are_read_from_bytes():
    reader = function(source_of(request(field("A", "string"))), "read_sample")
    assert "buffer = bytes(buffer)" in reader
    assert "read_short_string(buffer, position)" in reader
    for kind in ("bytes", "records"):
        reader = function(source_of(request(field("A", "string"), field("B", kind))), "read_sample")
        assert "bytes(buffer)" not in reader
        assert "read_compact_string(buffer, position)" in reader
    assert "bytes(buffer)" not in source_of(schema(field("A", "string")))  # no request


def test_in_a_tag_nothing_is_left_to_the_next_read():
    tags = [
        field("A", "string", "4+", taggedVersions="4+", tag=0),
        field("B", "[]uuid", "4+", taggedVersions="4+", tag=1),
    ]
    reader = function(source_of(request(*tags)), "read_sample")
    assert "read_compact_string(buffer, position)" in reader
    assert "count, position = read_compact_count(buffer, position, 16)" in reader
    assert "count = buffer[position] - 1" not in reader


def test_a_struct_in_arrays_and_alone_has_a_reader_for_each():
    common = {"name": "Both", "versions": "0+", "fields": [field("X", "int8")]}
    source = source_of(
        schema(field("One", "Both"), field("Many", "[]Both"), commonStructs=[common])
    )
    assert "message.x" in function(source, "read_both")
    assert "message, position = read_both(" in function(source, "read_both_array")
    inner = field("Items", "[]Item", fields=[field("X", "int8")])
    assert "def read_item(" not in source_of(schema(inner))


def test_what_is_compiled_reads_numbers_one_by_one():
    names = ("bool", "int8", "int16", "uint16", "int32", "uint32", "int64", "float64", "uuid")
    fields = [field(name.upper(), name) for name in names]
    reader = function(source_of(request(*fields), native=True), "read_sample")
    for line in (
        "message = Sample()",
        "message.bool = buffer[position] != 0",
        "message.int8 = (buffer[position + 1] ^ 128) - 128",
        "message.uint16 = int(read_i16_be(buffer, position + 4)) & 65535",
        "message.int64 = read_i64_be(buffer, position + 14)",
        "message.uuid = read_uuid(buffer, position + 30)",
        "tag_count = buffer[position + 46]",
        "position += 47",
    ):
        assert line in reader
    assert "unpack" not in reader
    in_bulk = source_of(request(field("A", "int32"), field("B", "bytes")), native=True)
    assert "_unpack_i(buffer, position)" in in_bulk


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
