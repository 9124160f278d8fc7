"""The tables of field names and versions are those of the schemas."""

import json
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path

from codegen.names import attribute, class_name, snake_case
from kbroker.log_tools.record_json import (
    JSON_NAMES,
    LIMITED_FIELDS,
    UUID_LISTS,
    json_name,
    record_json,
)
from kbroker.protocol.internal_records.offset_commit_value import OffsetCommitValue

SCHEMAS = Path(__file__).parents[3] / "schemas" / "internal_records"
SHOWN = ("group-coordinator", "share-coordinator", "transaction-coordinator", "metadata")
SHOWN_NAMES = (
    "ConsumerProtocolSubscription",
    "ConsumerProtocolAssignment",
    "LeaderChangeMessage",
    "SnapshotHeaderRecord",
    "SnapshotFooterRecord",
    "KRaftVersionRecord",
    "VotersRecord",
)


def structs():
    """(module, class name, valid versions, fields) of every struct that is shown."""
    for path in sorted(SCHEMAS.rglob("*.json")):
        schema = json.loads(re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.MULTILINE))
        name = schema["name"]
        if path.parent.name not in SHOWN and name not in SHOWN_NAMES:
            continue
        pending = [(name, schema["fields"])]
        pending += [(each["name"], each["fields"]) for each in schema.get("commonStructs", [])]
        while pending:
            struct_name, fields = pending.pop()
            yield snake_case(name), class_name(struct_name), schema["validVersions"], fields
            pending += [
                (each["type"].removeprefix("[]"), each["fields"])
                for each in fields
                if "fields" in each
            ]


def limits(field, valid):
    """As in the table; None for a field that is always there and always shown."""
    first_valid, _, last_valid = valid.partition("-")
    last_valid = int(last_valid or first_valid)
    own = field.get("versions") or field["taggedVersions"]
    if own.endswith("+"):
        first, last = int(own[:-1]), None
    else:
        first, _, last = own.partition("-")
        first, last = int(first), int(last or first)
        last = None if last >= last_valid else last
    is_tagged = "tag" in field
    if first <= int(first_valid) and last is None and not is_tagged:
        return None
    return first, last, is_tagged


def test_limited_fields_are_those_of_the_schemas():
    found = defaultdict(dict)
    for module, struct, valid, fields in structs():
        for field in fields:
            found[struct, attribute(field["name"])][module] = limits(field, valid)
    expected = {}
    for (struct, name), by_module in found.items():
        if len(set(by_module.values())) == 1:
            (value,) = set(by_module.values())
            if value is not None:
                expected[struct, name] = value
        else:
            for module, value in by_module.items():
                if value is not None:
                    expected[f"{module}.{struct}", name] = value
    del expected["ConsumerGroupMemberMetadataValue", "classic_member_metadata"]
    # Structs inside of a list that only later versions have are not met in earlier ones.
    for name in ("topic", "partitions"):
        expected.pop(("consumer_protocol_subscription.TopicPartition", name), None)
    assert expected == LIMITED_FIELDS


def test_names_are_those_of_the_schemas():
    for _, struct, _, fields in structs():
        for field in fields:
            wanted = field["name"][0].lower() + field["name"][1:]
            assert json_name(struct, attribute(field["name"])) == wanted
            if field["type"] == "[]uuid":
                assert attribute(field["name"]) in UUID_LISTS
            assert field["type"] != "[]bytes"
    assert {struct for struct, _ in JSON_NAMES} <= {struct for _, struct, _, _ in structs()}


def test_uuids_bytes_and_versions():
    value = OffsetCommitValue(5, 1, "m", 9, -1, bytes(15) + b"\x01")
    shown = record_json(value, 4)
    assert shown["topicId"] == "AAAAAAAAAAAAAAAAAAAAAQ"
    assert "expireTimestamp" not in shown
    assert record_json(value, 1) == {
        "offset": 5,
        "metadata": "m",
        "commitTimestamp": 9,
        "expireTimestamp": -1,
    }


def test_every_shown_record_can_be_shown():
    for module, struct, valid, _ in structs():
        kind = getattr(import_module(f"kbroker.protocol.internal_records.{module}"), struct)
        for version in range(int(valid[0]), int(valid[-1]) + 1):
            json.dumps(record_json(kind(), version))
