"""Headers as in protocol notes of Kafka 4: versions 1 and 2, ApiVersions always answered in 0."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.protocol.headers import (
    RequestHeader,
    read_request_fields,
    read_request_header,
    request_header_version,
    response_header_version,
    write_response_header,
)
from kbroker.protocol.messages.request_header import (
    read_request_header as read_generated,
)
from kbroker.protocol.messages.request_header import write_request_header
from kbroker.protocol.messages.response_header import ResponseHeader
from kbroker.protocol.messages.response_header import write_response_header as w
from kbroker.protocol.registry import APIS
from kbroker.protocol.wire import DecodeError


@pytest.mark.parametrize(
    ("key", "version", "request_version", "response_version"),
    [
        (0, 8, 1, 0),
        (0, 9, 2, 1),
        (18, 2, 1, 0),
        (18, 3, 2, 0),
        (18, 99, 2, 0),
        (18, -1, 1, 0),
        (17, 1, 1, 0),
        (60, 0, 2, 1),
        (999, 5, 1, 0),
        (4, 7, 1, 0),
    ],
)
def test_versions(key, version, request_version, response_version):
    assert request_header_version(key, version) == request_version
    assert response_header_version(key, version) == response_version


def test_every_api():
    for key, info in APIS.items():
        for version in range(info.min_version, info.max_version + 1):
            flexible = version >= info.flexible_from
            assert request_header_version(key, version) == (2 if flexible else 1)
            assert response_header_version(key, version) == (1 if flexible and key != 18 else 0)


@pytest.mark.parametrize("client_id", [None, "", "me", "日本"])
@pytest.mark.parametrize(("key", "version"), [(18, 0), (18, 3), (1, 12), (93, 0), (-1, -1)])
def test_agrees_with_the_generated_codec(client_id, key, version):
    header_version = request_header_version(key, version)
    header = RequestHeader(key, version, -7, client_id)
    if header_version == 2:
        header.unknown_tagged_fields = ((3, b"abc"), (200, b""))
    parts = []
    write_request_header(parts, header, header_version)
    data = b"frame" + b"".join(parts) + b"body"
    found, position = read_request_header(memoryview(data), 5)
    assert found == header
    assert data[position:] == b"body"
    assert read_generated(data, 5, header_version) == (header, position)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\x12\0\0",
        b"\0\x12\0\0\0\0\0\1",
        b"\0\x12\0\0\0\0\0\1\0\7di",
        b"\0\x12\0\0\0\0\0\1\x7f\xff",
        b"\0\x12\0\3\0\0\0\1\0\1d",
        b"\0\x12\0\3\0\0\0\1\0\1d\1\0\xff\x7f",
        b"\0\x12\0\3\0\0\0\1\0\1d\xff\xff\xff\xff\xff\xff",
    ],
)
def test_malformed(data):
    with pytest.raises(DecodeError):
        read_request_header(data, 0)


def test_what_kafka_accepts():
    header, position = read_request_header(b"\0\x12\0\0\0\0\0\1\xff\xfe", 0)
    assert (header.client_id, position) == (None, 10)
    header, _ = read_request_header(b"\0\x12\0\0\0\0\0\1\0\2\xff\xfe", 0)
    assert header.client_id == "��"
    header, position = read_request_header(b"\0\x12\0\3\0\0\0\1\0\1d\2\5\0\4\0rest", 0)
    assert header.unknown_tagged_fields == ((5, b""), (4, b""))
    assert position == 16


@pytest.mark.parametrize("version", [0, 1])
def test_response_header(version):
    parts = []
    write_response_header(parts, -2, version)
    expected = []
    w(expected, ResponseHeader(-2), version)
    assert parts == expected


@pytest.mark.parametrize(
    "data",
    [
        b"\0\x12\0\0\0\0\0\1\xff\xff",
        b"\0\x12\0\0\0\0\0\1\0\0",
        b"\0\x12\0\0\0\0\0\1\0\2\xff\xfebody",
        b"\0\x12\0\3\0\0\0\1\0\1d\0body",
        b"\0\x12\0\3\0\0\0\1\0\1d\2\5\0\4\0rest",
        b"\0\0\0\7\x7f\0\0\1\0\5bench" + bytes(30),
        b"\x03\xe7\0\7\0\0\0\1\0\1abody",
    ],
)
def test_the_fields_alone_are_those_of_the_header(data):
    header, position = read_request_header(data, 0)
    assert read_request_fields(memoryview(data)) == (
        header.request_api_key,
        header.request_api_version,
        header.correlation_id,
        header.client_id,
        position,
    )


@pytest.mark.parametrize("data", [b"", b"\0\x12\0\0\0\0\0\1\0", b"\0\x12\0\0\0\0\0\1\0\5ab"])
def test_fields_of_a_header_that_is_cut_short(data):
    with pytest.raises(DecodeError):
        read_request_fields(memoryview(data))


@given(st.binary(max_size=40))
def test_fields_and_header_agree_about_any_bytes(data):
    try:
        header, position = read_request_header(data, 0)
    except DecodeError:
        with pytest.raises(DecodeError):
            read_request_fields(memoryview(data))
        return
    found = read_request_fields(memoryview(data))
    assert found[3:] == (header.client_id, position)
    assert found[:3] == (header.request_api_key, header.request_api_version, header.correlation_id)
