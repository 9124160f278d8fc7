"""The schema model: what it reads, and what it refuses."""

import pytest

from codegen.schema import SchemaError, parse_message
from codegen.versions import NONE, Versions

INT = {"name": "Number", "type": "int32", "versions": "0+"}


def message(*fields, **changes):
    source = {
        "type": "data",
        "name": "Sample",
        "validVersions": "0-3",
        "flexibleVersions": "2+",
        "fields": list(fields),
    }
    return parse_message({**source, **changes}, "clients")


def only_field(source, **changes):
    return message(source, **changes).root.fields[0]


def test_a_message():
    found = message(INT, apiKey=7, type="request", listeners=["broker"], latestVersionUnstable=True)
    assert (found.name, found.type, found.api_key) == ("Sample", "request", 7)
    assert found.valid == Versions(0, 3)
    assert found.flexible_from == 2
    assert found.listeners == ("broker",)
    assert found.latest_version_unstable
    assert not found.removed


def test_a_removed_message():
    found = parse_message(
        {"type": "request", "apiKey": 4, "name": "LeaderAndIsrRequest", "validVersions": "none"},
        "clients",
    )
    assert found.removed
    assert found.structs == []


def test_never_flexible():
    assert message(INT, flexibleVersions="none").flexible_from == 32767
    assert message(INT, flexibleVersions="9+").flexible_from == 32767


@pytest.mark.parametrize(
    ("kind", "default", "value"),
    [
        ("int32", None, 0),
        ("int32", "-1", -1),
        ("int32", -1, -1),
        ("int32", "0x7fffffff", 2**31 - 1),
        ("int64", "0xcafcacafcacafca", 0xCAFCACAFCACAFCA),
        ("uint16", "33000", 33000),
        ("bool", None, False),
        ("bool", "true", True),
        ("bool", False, False),
        ("float64", "12.34", 12.34),
        ("string", "text", "text"),
        ("string", None, ""),
        ("bytes", None, b""),
        ("uuid", None, bytes(16)),
        ("uuid", "H3KKO4NTRPaCWtEmm3vW7A", bytes.fromhex("1f728a3b835344f6825ad1269b7bd6ec")),
    ],
)
def test_defaults(kind, default, value):
    source = {"name": "F", "type": kind, "versions": "0+"}
    if default is not None:
        source["default"] = default
    field = only_field(source)
    assert not field.null_by_default
    assert field.default() == value
    assert type(field.default()) is type(value)


def test_null_defaults():
    source = {"name": "F", "type": "string", "versions": "0+", "nullableVersions": "0+"}
    assert only_field({**source, "default": "null"}).null_by_default
    assert not only_field(source).null_by_default
    assert not only_field({**source, "default": None}).null_by_default  # as Kafka reads JSON's null
    assert only_field({**source, "type": "records"}).null_by_default


def test_versions_from_tagged_versions():
    field = only_field({"name": "F", "type": "int8", "taggedVersions": "2+", "tag": 0})
    assert field.versions == Versions(2, 32767)
    assert field.inline == NONE


def test_a_tag_written_as_text():
    assert only_field({**tagged("A", 0), "tag": "0"}).tag == 0


def test_tagged_only_in_later_versions():
    field = only_field(
        {"name": "F", "type": "int8", "versions": "0+", "taggedVersions": "2+", "tag": 0}
    )
    assert field.inline == Versions(0, 1)


def test_ignorable_may_be_written_as_text():
    source = {"name": "F", "type": "int8", "versions": "0+"}
    assert not only_field({**source, "ignorable": "false"}).ignorable
    assert only_field({**source, "ignorable": True}).ignorable


def test_structs_occur_where_their_fields_do():
    inner = {
        "name": "Items",
        "type": "[]Item",
        "versions": "1+",
        "fields": [
            INT,
            {"name": "Shared", "type": "Common", "versions": "3+"},
        ],
    }
    common = {"name": "Common", "versions": "0+", "fields": [INT]}
    again = {"name": "Early", "type": "Common", "versions": "0-1"}
    found = message(inner, again, commonStructs=[common])
    versions = {struct.name: struct.versions for struct in found.structs}
    assert versions == {
        "Sample": Versions(0, 3),
        "Item": Versions(1, 3),
        "Common": Versions(0, 3),
    }
    assert next(struct.name for struct in found.structs) == "Sample"


def tagged(name, tag):
    return {"name": name, "type": "int8", "taggedVersions": "2+", "tag": tag}


@pytest.mark.parametrize(
    ("fields", "changes", "reason"),
    [
        ([INT], {"type": "letter"}, "unknown message type"),
        ([INT], {"validVersions": "x"}, "not a version range"),
        ([{"name": "F", "type": "int8"}], {}, "no version range"),
        ([{"name": "F", "type": "Nowhere", "versions": "0+"}], {}, "unknown type Nowhere"),
        ([{**INT, "nullableVersions": "0+"}], {}, "cannot be nullable"),
        ([{**INT, "default": "2147483648"}], {}, "does not fit int32"),
        ([{**INT, "type": "bool", "default": "maybe"}], {}, "is not a bool"),
        ([{**INT, "type": "uuid", "default": "AAAA"}], {}, "is not a uuid"),
        ([{**INT, "type": "bytes", "default": "x"}], {}, "can only be null"),
        ([{**INT, "type": "[]int32", "default": "[]"}], {}, "can only be null"),
        (
            [{"name": "F", "type": "string", "versions": "0+", "default": "null"}],
            {},
            "null by default but not nullable",
        ),
        ([{**INT, "tag": 0}], {}, "go together"),
        ([{**INT, "taggedVersions": "2+"}], {}, "go together"),
        ([{**INT, "taggedVersions": "2-3", "tag": 0}], {}, "must be open"),
        ([{**INT, "versions": "3+", "taggedVersions": "2+", "tag": 0}], {}, "within versions"),
        ([tagged("A", 0), tagged("B", 0)], {}, "are not 0, 1, 2"),
        ([tagged("A", 1)], {}, "are not 0, 1, 2"),
        ([INT, INT], {}, "occurs twice"),
        (
            [
                {"name": "F", "type": "string", "taggedVersions": "2+", "tag": 0}
                | {"nullableVersions": "3+"}
            ],
            {},
            "all tagged versions are nullable or none",
        ),
        ([{**INT, "flexibleVersions": "none"}], {}, "override on int32"),
        (
            [{"name": "F", "type": "Late", "versions": "0+"}],
            {"commonStructs": [{"name": "Late", "versions": "2+", "fields": [INT]}]},
            "is declared 2\\+, used in 0-3",
        ),
        (
            [{"name": "F", "type": "Twice", "versions": "0+", "fields": [INT]}],
            {"commonStructs": [{"name": "Twice", "versions": "0+", "fields": [INT]}]},
            "is a common struct",
        ),
        (
            [
                {"name": "F", "type": "Twice", "versions": "0+", "fields": [INT]},
                {"name": "G", "type": "Twice", "versions": "0+", "fields": [INT]},
            ],
            {},
            "defined twice",
        ),
    ],
)
def test_refused(fields, changes, reason):
    with pytest.raises(SchemaError, match=reason):
        message(*fields, **changes)


def test_flexible_versions_must_be_said():
    with pytest.raises(SchemaError, match="flexibleVersions is missing"):
        parse_message(
            {"type": "data", "name": "S", "validVersions": "0", "fields": [INT]}, "clients"
        )
