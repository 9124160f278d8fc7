"""Kafka's own generator fixtures: every type, tags, nullable structs, arrays, records."""

import random

import pytest
from hypothesis import HealthCheck, given, settings

from kbroker.protocol.wire import DecodeError, EncodeError
from tests.sizes import size
from tests.unit import reference_codec as reference
from tests.unit.codegen.generated import FIXTURES, fixture, module_from
from tests.unit.protocol.message_values import messages, random_message, read, to_object, write

SCHEMAS = {path.stem: fixture(path.stem) for path in sorted(FIXTURES.glob("*.json"))}
MODULES = {name: module_from(schema) for name, schema in SCHEMAS.items()}
CASES = [
    (name, version) for name, schema in SCHEMAS.items() for version in reference.versions(schema)
]


def agree(name, version, message):
    schema, module = SCHEMAS[name], MODULES[name]
    expected = reference.encode(schema, version, message)
    written = to_object(schema, message, module)
    assert write(schema, version, written, module) == expected
    assert read(schema, version, memoryview(expected), module) == (written, len(expected))


@pytest.mark.parametrize(("name", "version"), CASES)
def test_parity(name, version):
    schema = SCHEMAS[name]
    agree(name, version, reference.default_struct(schema, schema["fields"], version))
    chance = random.Random(version)
    for _ in range(size(ci=10, full=200)):
        agree(name, version, random_message(schema, version, chance))

    @settings(
        max_examples=size(ci=20, full=500),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(messages(schema, version))
    def check(message):
        agree(name, version, message)

    check()


def encode(name, version, message):
    return write(SCHEMAS[name], version, message, MODULES[name])


def decode(name, version, data):
    return read(SCHEMAS[name], version, data, MODULES[name])[0]


def test_defaults_of_every_type():
    message = MODULES["AllTypeMessage"].AllTypeMessage()
    assert message.my_boolean is False
    assert (message.my_int8, message.my_int16, message.my_uint16) == (12, 123, 33000)
    assert (message.my_int32, message.my_uint32) == (1234, 1234567)
    assert message.my_uint64 == 0xCAFCACAFCACAFCA
    assert message.my_uuid == bytes.fromhex("1f728a3b835344f6825ad1269b7bd6ec")
    assert message.my_float64 == 12.34
    assert (message.my_string, message.my_compact_string) == ("string", "compact string")
    assert message.my_nullable_string is None
    assert message.my_bytes == b""
    assert message.my_nullable_bytes is None
    assert message.my_records == b""
    assert message.my_nullable_records is None
    assert message.my_int_array == []
    assert message.my_nullable_int_array is None
    assert (message.my_common_struct.foo, message.my_common_struct.bar) == (123, 123)


def test_defaults_are_not_shared():
    module = MODULES["AllTypeMessage"]
    one, other = module.AllTypeMessage(), module.AllTypeMessage()
    one.my_int_array.append(1)
    one.my_common_struct.foo = 5
    one.unknown_tagged_fields += ((9, b""),)
    assert other == module.AllTypeMessage()


def test_a_nullable_struct():
    module = MODULES["NullableStructMessage"]
    message = module.NullableStructMessage()
    assert message.nullable_struct is None
    assert message.nullable_struct2 == module.MyStruct2()
    assert message.nullable_struct3 is None
    assert message.nullable_struct4 == module.MyStruct4()
    # v2: null marker; present with empty string, int and no tags; then no tags at all
    assert encode("NullableStructMessage", 2, message).hex() == "ff" + "01" + "01" + "00000000" + (
        "00" + "00"
    )
    message.nullable_struct2 = None
    message.nullable_struct3 = module.MyStruct3(my_int=1)
    message.nullable_struct4 = None
    assert encode("NullableStructMessage", 2, message).hex() == (
        "ff" + "ff" + "02" + "0007" + "01" + "01" + "00000001" + "00" + "0101" + "00"
    )


def test_null_in_a_version_that_has_no_null():
    module = MODULES["NullableStructMessage"]
    message = module.NullableStructMessage(nullable_struct2=None)
    with pytest.raises(EncodeError, match=r"NullableStruct2 must not be null"):
        encode("NullableStructMessage", 0, message)


def test_any_negative_marker_is_null():
    data = bytes.fromhex("80" + "fe" + "00")
    found = decode("NullableStructMessage", 1, data)
    assert found.nullable_struct is None
    assert found.nullable_struct2 is None


def test_tagged_fields_stand_in_ascending_order_and_only_where_set():
    module = MODULES["SimpleExampleMessage"]
    empty = encode("SimpleExampleMessage", 1, module.SimpleExampleMessage())
    message = module.SimpleExampleMessage(
        my_string="x", my_int16=5, unknown_tagged_fields=((90, b"u"), (30, b""))
    )
    data = encode("SimpleExampleMessage", 1, message)
    assert empty.endswith(b"\0")
    assert data == empty[:-1] + bytes.fromhex("04" + "02020005" + "04020278" + "1e00" + "5a0175")
    found = decode("SimpleExampleMessage", 1, data)
    assert found.unknown_tagged_fields == ((30, b""), (90, b"u"))
    assert (found.my_int16, found.my_string) == (5, "x")


def test_known_tags_in_any_order_and_twice():
    module = MODULES["SimpleExampleMessage"]
    head = encode("SimpleExampleMessage", 1, module.SimpleExampleMessage())[:-1]
    found = decode(
        "SimpleExampleMessage", 1, head + bytes.fromhex("03" + "04020278" + "02020005" + "02020007")
    )
    assert (found.my_string, found.my_int16) == ("x", 7)


def test_a_known_tag_in_a_version_without_it():
    module = MODULES["SimpleExampleMessage"]
    head = encode("SimpleExampleMessage", 1, module.SimpleExampleMessage())[:-1]
    with pytest.raises(DecodeError, match="tag 9 of SimpleExampleMessage is not valid"):
        decode("SimpleExampleMessage", 1, head + bytes.fromhex("01" + "0908") + bytes(8))


def test_ignorable_fields_are_dropped_and_others_are_not():
    module = MODULES["SimpleExampleMessage"]
    message = module.SimpleExampleMessage(tagged_long_flexible_version_subset=8)
    found = decode("SimpleExampleMessage", 1, encode("SimpleExampleMessage", 1, message))
    assert found.tagged_long_flexible_version_subset == 0
    for change in (
        {"my_struct": module.MyStruct(struct_id=1)},
        {"my_tagged_struct": module.TaggedStruct(struct_id="x")},
    ):
        with pytest.raises(EncodeError, match="version 1 has no such field"):
            encode("SimpleExampleMessage", 1, module.SimpleExampleMessage(**change))
    for change in (
        {"process_id": bytes(15) + b"\1"},
        {"my_tagged_int_array": [1]},
        {"my_nullable_string": ""},
        {"my_float64": 0.5},
        {"my_bytes": b"x"},
        {"zero_copy_byte_buffer": b"x"},
        {"my_uint16": 1},
        {"unknown_tagged_fields": ((100, b""),)},
    ):
        with pytest.raises(EncodeError, match="version 0 has no such field"):
            encode("SimpleExampleMessage", 0, module.SimpleExampleMessage(**change))


def test_a_struct_that_is_null_where_the_field_is_not():
    module = MODULES["SimpleExampleMessage"]
    message = module.SimpleExampleMessage(nullable_zero_copy_byte_buffer=None)
    with pytest.raises(EncodeError, match="version 2 has no such field"):
        encode("SimpleExampleMessage", 2, message)


def test_array_elements_have_versions_too():
    module = MODULES["SimpleArraysMessage"]
    goats = [module.StructArray(color=3, name="Bessie")]
    message = module.SimpleArraysMessage(goats=goats, sheep=[-1])
    assert decode("SimpleArraysMessage", 2, encode("SimpleArraysMessage", 2, message)) == message
    with pytest.raises(EncodeError, match=r"StructArray\.Name is set, but version 1"):
        encode("SimpleArraysMessage", 1, message)
    with pytest.raises(EncodeError, match=r"SimpleArraysMessage\.Goats is set, but version 0"):
        encode("SimpleArraysMessage", 0, message)


def test_an_array_longer_than_the_message():
    with pytest.raises(DecodeError, match="cannot fit"):
        decode("SimpleArraysMessage", 0, bytes.fromhex("7fffffff" + "00000000"))


@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("record_set", [None, b"", b"x" * 10_000, bytearray(b"abc")])
def test_records_are_passed_through(version, record_set):
    module = MODULES["SimpleRecordsMessage"]
    message = module.SimpleRecordsMessage(topic="t", record_set=record_set)
    parts = []
    module.write_simple_records_message(parts, message, version)
    if record_set is not None and len(record_set) == 10_000:
        assert parts[1] is record_set
    found, _ = module.read_simple_records_message(memoryview(b"".join(parts)), 0, version)
    if record_set is None:
        assert found.record_set is None
    else:
        assert isinstance(found.record_set, memoryview)
        assert found.record_set == record_set


def test_repr_and_equality():
    module = MODULES["SimpleRecordsMessage"]
    message = module.SimpleRecordsMessage(topic="t", record_set=b"x" * 100)
    assert repr(message) == (
        "SimpleRecordsMessage(topic='t', record_set=<100 bytes>, unknown_tagged_fields=())"
    )
    assert message == module.SimpleRecordsMessage("t", b"x" * 100)
    assert message != module.SimpleRecordsMessage("u", b"x" * 100)
    assert message != "something else"
    with pytest.raises(AttributeError):
        message.topics = "a misspelt attribute"
    with pytest.raises(TypeError):
        hash(message)
