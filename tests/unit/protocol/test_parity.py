"""The generated codec agrees with the reference codec, for every version of every message."""

import random

import pytest
from hypothesis import HealthCheck, given, settings

from tests.sizes import size
from tests.unit import reference_codec as reference
from tests.unit.protocol.message_values import (
    messages,
    random_message,
    read,
    to_object,
    write,
)

SCHEMAS = {schema["name"]: schema for schema in reference.load_all()}


def agree(schema, version, message):
    """Both encode the same bytes, and both read them back, from bytes and from a memoryview."""
    expected = reference.encode(schema, version, message)
    written = to_object(schema, message)
    assert write(schema, version, written) == expected
    found, end = read(schema, version, expected)
    assert end == len(expected)
    assert found == written
    padded = memoryview(bytearray(expected + b"\x55"))
    assert read(schema, version, padded) == (written, len(expected))
    decoded, end = reference.decode(schema, version, expected)
    assert end == len(expected)
    assert reference.encode(schema, version, decoded) == expected


def test_there_is_something_to_compare():
    assert len(SCHEMAS) > 250
    assert sum(len(reference.versions(schema)) for schema in SCHEMAS.values()) > 700


@pytest.mark.parametrize("name", SCHEMAS)
def test_defaults(name):
    schema = SCHEMAS[name]
    for version in reference.versions(schema):
        agree(schema, version, reference.default_struct(schema, schema["fields"], version))


@pytest.mark.parametrize("name", SCHEMAS)
def test_filled(name):
    schema = SCHEMAS[name]
    for version in reference.versions(schema):
        chance = random.Random(f"{name} {version}")
        for _ in range(size(ci=2, full=50)):
            agree(schema, version, random_message(schema, version, chance))


def any_value_agrees(schema, version):
    @settings(
        max_examples=size(ci=3, full=100),
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(messages(schema, version))
    def check(message):
        agree(schema, version, message)

    check()


@pytest.mark.parametrize("name", SCHEMAS)
def test_any_value(name):
    for version in reference.versions(SCHEMAS[name]):
        any_value_agrees(SCHEMAS[name], version)
