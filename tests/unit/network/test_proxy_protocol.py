"""PROXY protocol version 2."""

import ipaddress
import random
import struct

import pytest

from kbroker.network.proxy_protocol import (
    SIGNATURE,
    ProxyHeader,
    ProxyHeaderError,
    read_proxy_header,
)
from tests.sizes import size


def header(command, family, addresses, *, version=2, length=None):
    length = len(addresses) if length is None else length
    return SIGNATURE + struct.pack(">BBH", version << 4 | command, family, length) + addresses


def addresses(source, destination, ports=(51000, 9092)):
    packed = [ipaddress.ip_address(text).packed for text in (source, destination)]
    return b"".join(packed) + struct.pack(">HH", *ports)


TCP4 = header(1, 0x11, addresses("203.0.113.7", "198.51.100.2"))
TCP6 = header(1, 0x21, addresses("2001:db8::7", "2001:db8::2"))


def test_tcp4():
    assert read_proxy_header(TCP4 + b"rest") == (
        ProxyHeader("203.0.113.7", 51000, "198.51.100.2", 9092),
        len(TCP4),
    )


def test_tcp6():
    assert read_proxy_header(TCP6) == (
        ProxyHeader("2001:db8::7", 51000, "2001:db8::2", 9092),
        len(TCP6),
    )


def test_ipv4_inside_ipv6_is_shown_as_ipv4():
    data = header(1, 0x21, addresses("::ffff:203.0.113.7", "::ffff:198.51.100.2"))
    found, _ = read_proxy_header(data)
    assert (found.source_host, found.destination_host) == ("203.0.113.7", "198.51.100.2")


def test_extensions_are_skipped():
    data = header(1, 0x11, addresses("203.0.113.7", "198.51.100.2") + b"\x03\0\x04abcd" * 500)
    found, end = read_proxy_header(data + b"rest")
    assert found.destination_port == 9092
    assert data[:end] == data


@pytest.mark.parametrize(
    "data",
    [
        header(0, 0x00, b""),
        header(0, 0x11, addresses("203.0.113.7", "198.51.100.2")),
        header(0, 0x11, b"xyz"),
        header(1, 0x00, b""),
        header(1, 0x31, bytes(216)),
        header(1, 0x12, addresses("203.0.113.7", "198.51.100.2")),
    ],
    ids=["local", "local with addresses", "local with junk", "unspec", "unix", "datagram"],
)
def test_headers_without_usable_addresses(data):
    found, end = read_proxy_header(data + b"rest")
    assert (found, end) == (ProxyHeader(), len(data))
    assert not found.has_addresses


@pytest.mark.parametrize("data", [TCP4, TCP6])
def test_every_prefix_asks_for_more(data):
    for cut in range(len(data)):
        assert read_proxy_header(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY TCP4 1.2.3.4 1.2.3.5 1 2\r\n",
        b"\0\0\0\x10\0\x12\0\0",
        SIGNATURE[:11] + b"x",
        header(1, 0x11, TCP4[16:], version=1),
        header(1, 0x11, TCP4[16:], version=3),
        header(2, 0x11, TCP4[16:]),
        header(1, 0x41, bytes(12)),
        header(1, 0x13, bytes(12)),
        header(1, 0x11, bytes(11)),
        header(1, 0x21, bytes(35)),
        header(1, 0x31, bytes(215)),
    ],
)
def test_malformed(data):
    with pytest.raises(ProxyHeaderError):
        read_proxy_header(data)


@pytest.mark.parametrize("seed", range(size(ci=300, full=20_000)))
def test_corruptions_end_in_a_known_way(seed):
    chance = random.Random(seed)
    data = bytearray(chance.choice([TCP4, TCP6]) + bytes(20))
    for _ in range(chance.randrange(1, 4)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    try:
        found = read_proxy_header(data)
    except ProxyHeaderError:
        return
    assert found is None or 16 <= found[1] <= len(data)
