"""The generated registry: ranges, laziness, and errors that never leak."""

import json
import subprocess
import sys

import pytest

from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.wire import DecodeError, EncodeError
from tests.unit import reference_codec as reference

REQUESTS = {
    schema["apiKey"]: schema for schema in reference.load_all() if schema["type"] == "request"
}


def test_every_live_api_is_there():
    assert registry.APIS.keys() == REQUESTS.keys()
    for key, info in registry.APIS.items():
        schema = REQUESTS[key]
        versions = reference.versions(schema)
        unstable = schema.get("latestVersionUnstable", False)
        assert info.key == key
        assert info.name + "Request" == schema["name"]
        assert info.min_version == versions[0]
        assert info.max_version == versions[-1] - unstable
        assert info.latest_version_unstable is unstable
        assert info.listeners == frozenset(schema["listeners"])
        flexible = [v for v in versions if reference.is_flexible(schema, v)]
        assert info.flexible_from == (flexible[0] if flexible else 32767)


def test_the_facts_of_4_3():
    assert len(registry.APIS) == 89
    assert frozenset({4, 5, 6, 7}) == registry.RESERVED_KEYS
    produce = registry.APIS[0]
    assert (produce.min_version, produce.max_version, produce.flexible_from) == (3, 13, 9)
    init_producer_id = registry.APIS[22]
    assert (init_producer_id.max_version, init_producer_id.latest_version_unstable) == (5, True)
    assert registry.APIS[52].listeners == frozenset({"controller"})
    assert sum("broker" in info.listeners for info in registry.APIS.values()) == 77


def test_reserved_and_unknown_keys():
    for key in (4, 7, 93, -1, 999):
        assert registry.api(key) is None
        with pytest.raises(DecodeError):
            registry.read_request(key, 0, b"", 0)
        with pytest.raises(EncodeError):
            registry.write_response(key, 0, object(), [])
        with pytest.raises(KeyError):
            registry.request_reader(key)
    assert ApiKey.CONTROLLED_SHUTDOWN == 7  # its number stays taken


def test_names_of_keys():
    assert ApiKey(0).name == "PRODUCE"
    assert ApiKey.API_VERSIONS == 18
    for key, info in registry.APIS.items():
        assert ApiKey(key).name.lower() == info.module


def test_tables_cannot_be_changed():
    with pytest.raises(TypeError):
        registry.APIS[0] = registry.APIS[1]


def test_importing_the_registry_imports_no_message():
    script = (
        "import json, sys\n"
        "import kbroker.protocol.registry, kbroker.protocol.internal_records.registry\n"
        "names = lambda start: [name for name in sys.modules if name.startswith(start)]\n"
        "print(json.dumps(names('kbroker.protocol')))\n"
        "from kbroker.protocol.registry import request_reader\n"
        "request_reader(3)\n"
        "print(json.dumps(names('kbroker.protocol.messages.')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    before, after = result.stdout.splitlines()
    assert set(json.loads(before)) == {
        "kbroker.protocol",
        "kbroker.protocol.wire",
        "kbroker.protocol.registry",
        "kbroker.protocol.internal_records",
        "kbroker.protocol.internal_records.registry",
    }
    assert json.loads(after) == ["kbroker.protocol.messages.metadata_request"]


def test_round_trip_through_every_entry_point():
    request = MetadataRequest(topics=[MetadataRequestTopic(name="a")])
    parts = []
    registry.write_request(3, 4, request, parts)
    data = b"header" + b"".join(parts) + b"trailing bytes are ignored"
    assert registry.read_request(3, 4, data, 6) == request
    parts = []
    registry.request_writer(3)(parts, request, 4)
    assert registry.request_reader(3)(parts[0], 0, 4) == (request, len(parts[0]))
    response = registry.read_response(12, 0, b"\0\0", 0)
    parts = []
    registry.write_response(12, 0, response, parts)
    assert parts == [b"\0\0"]
    assert registry.response_reader(12)(b"\0\x19", 0, 0)[0].error_code == 25
    registry.response_writer(12)(parts, response, 1)
    assert parts[1] == bytes(6)


@pytest.mark.parametrize("version", [-1, 14, 99])
def test_versions_that_are_not(version):
    with pytest.raises(DecodeError, match="has no version"):
        registry.read_request(3, version, bytes(100), 0)
    with pytest.raises(EncodeError, match="has no version"):
        registry.write_request(3, version, MetadataRequest(), [])


def test_the_unstable_version_is_known_to_the_codec():
    request = InitProducerIdRequest(enable2_pc=True)
    parts = []
    registry.write_request(22, 6, request, parts)
    assert registry.read_request(22, 6, parts[0], 0).enable2_pc


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        b"\x7f\xff\xff\xff",
        b"\0\0\0\1\xff\xff\0",
        b"\0\0\0\1\0\5ab",
    ],
)
def test_bytes_that_do_not_decode(data):
    with pytest.raises(DecodeError, match="Metadata request v4"):
        registry.read_request(3, 4, data, 0)


@pytest.mark.parametrize(
    ("key", "version", "data"),
    [
        (10, 1, b"\xff\xff\0"),  # a key that must not be null
        (10, 1, b"\xff\xfe\0"),  # any negative length is null
        (3, 9, b"\xff\xff\xff\xff\xff\xff\1"),  # a varint too long
        (3, 9, b"\1\0\0\0\1\0\5ab"),  # a tagged field that is cut
    ],
)
def test_what_kafka_refuses(key, version, data):
    with pytest.raises(DecodeError):
        registry.read_request(key, version, data, 0)


def test_what_kafka_accepts():
    assert registry.read_request(3, 1, b"\xff\xff\xff\xfe", 0).topics is None
    assert registry.read_request(3, 4, b"\0\0\0\0\7", 0).allow_auto_topic_creation is True
    (topic,) = registry.read_request(3, 1, b"\0\0\0\1\0\2\xff\xfe", 0).topics
    assert topic.name == "\ufffd\ufffd"


@pytest.mark.parametrize(
    "message",
    [
        MetadataRequest(topics=[MetadataRequestTopic(name=None)]),
        MetadataRequest(topics=[MetadataRequestTopic(name="x" * 40_000)]),
        MetadataRequest(topics=[MetadataRequestTopic(name="\ud800")]),
        MetadataRequest(include_cluster_authorized_operations=True),
        MetadataRequest(unknown_tagged_fields=((1, b""),)),
    ],
)
def test_messages_that_cannot_be_written(message):
    with pytest.raises(EncodeError, match="Metadata request v4"):
        registry.write_request(3, 4, message, [])


@pytest.mark.parametrize("topics", [[5], "ab", 5, [MetadataRequest()]])
def test_wrong_types_cannot_be_written(topics):
    """Compiled, some are refused when the message is made."""
    with pytest.raises((EncodeError, TypeError)):
        registry.write_request(3, 4, MetadataRequest(topics=topics), [])


def test_numbers_out_of_range_cannot_be_written():
    with pytest.raises(EncodeError):
        registry.write_request(22, 0, InitProducerIdRequest(transaction_timeout_ms=2**31), [])
