"""The bytes agree with those of kafka-python's own encoder, for every message that it has."""

import importlib
import pkgutil
import random
import uuid
import warnings

import pytest

from kbroker.protocol.headers import request_header_version
from kbroker.protocol.messages.request_header import RequestHeader, write_request_header
from tests.sizes import size
from tests.unit import reference_codec as reference
from tests.unit.protocol.message_values import random_message, read, to_object, write


def kafka_python_messages():
    """Message name -> class, for every request and response of the installed kafka-python."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # theirs, while they read their schemas
        package = importlib.import_module("kafka.protocol")
        for module in pkgutil.walk_packages(package.__path__, "kafka.protocol."):
            if ".old" not in module.name and "generate" not in module.name:
                importlib.import_module(module.name)
    root = importlib.import_module("kafka.protocol.api_message").ApiMessage
    found = {}
    pending = [root]
    while pending:
        for subclass in pending.pop().__subclasses__():
            pending.append(subclass)
            found[subclass.__name__] = subclass
    return found


OURS = {schema["name"]: schema for schema in reference.load_all()}
THEIRS = {name: cls for name, cls in kafka_python_messages().items() if name in OURS}


# They call these the same everywhere, to have them in one form.
RENAMED = {
    "ClusterAuthorizedOperations": "authorized_operations",
    "TopicAuthorizedOperations": "authorized_operations",
}


def bits(number):
    """kafka-python holds an "authorized operations" bit field as a set of bit numbers."""
    return {bit for bit in range(32) if number >> bit & 1}


def convert(fields, theirs, message):
    """A message of the reference codec as arguments of a kafka-python class."""
    arguments = {}
    for field in fields:
        if field["name"] not in message:
            continue
        value = message[field["name"]]
        others = {item._name: item for item in theirs._struct.fields.values()}
        other = others.get(field["name"]) or others[RENAMED[field["name"]]]
        if other.type_str == "bitfield":
            value = bits(value)
        elif field["type"].endswith("uuid"):
            many = isinstance(value, list)
            value = [uuid.UUID(bytes=v) for v in value] if many else uuid.UUID(bytes=value)
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            value = [struct_of(other, fields, field, item) for item in value]
        elif isinstance(value, dict):
            value = struct_of(other, fields, field, value)
        arguments[other.name] = value
    return arguments


def struct_of(other, fields, field, value):
    inner = reference.struct_fields(SCHEMA_OF[id(fields)], field)
    SCHEMA_OF[id(inner)] = SCHEMA_OF[id(fields)]
    return other.data_class(**convert(inner, other.data_class, value))


SCHEMA_OF = {id(schema["fields"]): schema for schema in OURS.values()}


def without_unknown_tags(message):
    """kafka-python has its own way with them; they are compared with the reference codec."""
    if isinstance(message, dict):
        return {k: without_unknown_tags(v) for k, v in message.items() if k != "_tags"}
    if isinstance(message, list):
        return [without_unknown_tags(item) for item in message]
    return message


def common_versions(name):
    ours = reference.versions(OURS[name])
    return [version for version in ours if version <= THEIRS[name].max_version]


def test_there_is_something_to_compare():
    assert len(THEIRS) > 80
    assert sum(len(common_versions(name)) for name in THEIRS) > 300


@pytest.mark.parametrize("name", sorted(THEIRS))
def test_bytes_agree(name):
    schema, theirs = OURS[name], THEIRS[name]
    assert schema["apiKey"] == theirs.API_KEY
    for version in common_versions(name):
        chance = random.Random(f"{name} {version}")
        for _ in range(size(ci=3, full=50)):
            message = without_unknown_tags(random_message(schema, version, chance))
            expected = theirs(**convert(schema["fields"], theirs, message)).encode(version=version)
            ours = to_object(schema, message)
            assert write(schema, version, ours) == expected
            assert read(schema, version, expected) == (ours, len(expected))


@pytest.mark.parametrize(("key", "version"), [(18, 0), (18, 3), (3, 8), (3, 9)])
def test_request_headers_agree(key, version):
    theirs = next(
        cls for name, cls in THEIRS.items() if key == cls.API_KEY and name.endswith("Request")
    )
    request = theirs(version=version)
    request.with_header(correlation_id=99, client_id="someone")
    data = request.encode(header=True)
    parts = []
    header = RequestHeader(key, version, 99, "someone")
    write_request_header(parts, header, request_header_version(key, version))
    assert data.startswith(parts[0])
    assert data[len(parts[0]) :] == request.encode()
