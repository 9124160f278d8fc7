"""Cut and corrupted messages end in DecodeError or in a value, soon, and in little memory."""

import contextlib
import random
import time
import tracemalloc
from struct import error as struct_error

import pytest

from kbroker.protocol import registry, wire
from kbroker.protocol.internal_records import registry as records
from kbroker.protocol.wire import DecodeError
from tests.sizes import size
from tests.unit import reference_codec as reference
from tests.unit.protocol.corruption import corrupted
from tests.unit.protocol.message_values import module_of, random_message, read

API_SCHEMAS = [
    schema for schema in reference.load_all() if schema["type"] in ("request", "response")
]
RECORD_SCHEMAS = [schema for schema in reference.load_all() if schema not in API_SCHEMAS]


def sample(schema, version, seed=0):
    chance = random.Random(f"{schema['name']} {version} {seed}")
    return reference.encode(schema, version, random_message(schema, version, chance))


def decode(schema, version, data):
    """Through the entry point that the broker and the client use."""
    if schema["type"] == "request":
        return registry.read_request(schema["apiKey"], version, data, 0)
    return registry.read_response(schema["apiKey"], version, data, 0)


@pytest.mark.parametrize("schema", API_SCHEMAS, ids=lambda schema: schema["name"])
def test_every_truncation(schema):
    for version in reference.versions(schema):
        data = memoryview(sample(schema, version))
        decode(schema, version, data)
        for end in range(len(data)):
            with pytest.raises(DecodeError):
                decode(schema, version, data[:end])


@pytest.mark.parametrize("schema", RECORD_SCHEMAS, ids=lambda schema: schema["name"])
def test_every_truncation_of_a_record(schema):
    for version in reference.versions(schema):
        data = sample(schema, version)
        for end in range(len(data)):
            with pytest.raises((DecodeError, IndexError, struct_error)):
                read(schema, version, data[:end])


def corrupt_messages(count, seed):
    """(schema, version, corrupted bytes) over all requests and responses in turn."""
    chance = random.Random(seed)
    cases = [
        (schema, version, sample(schema, version, seed))
        for schema in API_SCHEMAS
        for version in reference.versions(schema)
    ]
    for number in range(count):
        schema, version, data = cases[number % len(cases)]
        yield schema, version, corrupted(data, chance)


def test_random_corruptions():
    failed = decoded = 0
    slowest = 0.0
    for schema, version, data in corrupt_messages(size(ci=100_000, full=1_000_000), seed=1):
        start = time.process_time()
        try:
            decode(schema, version, data)
            decoded += 1
        except DecodeError:
            failed += 1
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1.0
    assert failed > decoded // 10
    assert decoded > failed // 10


def test_memory_of_corruptions():
    cases = list(corrupt_messages(size(ci=4_000, full=100_000), seed=2))
    for schema in API_SCHEMAS:
        module_of(schema)
    tracemalloc.start()
    try:
        for schema, version, data in cases:
            before = tracemalloc.get_traced_memory()[0]
            tracemalloc.reset_peak()
            with contextlib.suppress(DecodeError):
                decode(schema, version, data)
            peak = tracemalloc.get_traced_memory()[1] - before
            assert peak < 40_000 + 100 * len(data), (schema["name"], version, bytes(data))
    finally:
        tracemalloc.stop()


def test_the_largest_count_costs_nothing():
    data = b"\xff\xff\xff\xff\x07" + bytes(100)
    start = time.process_time()
    with pytest.raises(DecodeError):
        registry.read_request(3, 9, data, 0)
    assert time.process_time() - start < 1.0


def test_a_request_of_millions_of_elements():
    """10 MB that would become five million objects."""
    count = 5_000_000
    data = wire.uvarint(count + 1) + b"\1\0" * count + bytes(4)
    start = time.process_time()
    with pytest.raises(DecodeError, match="too many"):
        registry.read_request(3, 9, data, 0)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    "table", [records.GROUP_RECORDS, records.TRANSACTION_RECORDS, records.SHARE_RECORDS]
)
def test_coordinator_records_are_complete(table):
    for number, info in table.items():
        assert info.record_type == number
        for record in (info.key, info.value):
            message = record.message_class()()
            parts = []
            record.writer()(parts, message, record.max_version)
            assert record.reader()(parts[0], 0, record.max_version) == (message, len(parts[0]))
