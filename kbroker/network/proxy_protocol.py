"""The header that a load balancer puts before a connection's own bytes: PROXY protocol version 2.

It tells who the client is and which address it dialled: the one to be advertised to that client.
Format: the 12-byte signature, version and command, family and transport, the length of the rest,
addresses, and TLVs, which are skipped. Source: haproxy.org, proxy-protocol.txt, section 2.2.
"""

import ipaddress
from struct import Struct
from typing import NamedTuple

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED = Struct(">12sBBH")
_PORTS = Struct(">HH")
_VERSION = 2
_LOCAL, _PROXY = 0, 1
_ADDRESS_SIZES = {1: 4, 2: 16, 3: 108}  # AF_INET, AF_INET6, AF_UNIX
_INET, _INET6 = 1, 2
_UNSPEC, _STREAM = 0, 1


class ProxyHeaderError(Exception):
    """The bytes are no PROXY v2 header; the connection is to be closed."""


class ProxyHeader(NamedTuple):
    """What the header told. Addresses are empty for LOCAL (health checks) and other families."""

    source_host: str = ""
    source_port: int = -1
    destination_host: str = ""
    destination_port: int = -1

    @property
    def has_addresses(self) -> bool:
        """False: keep what the socket says."""
        return self.source_port >= 0


def read_proxy_header(data: bytes | bytearray) -> tuple[ProxyHeader, int] | None:
    """The header and the position after it; None while bytes are missing.

    A wrong signature is found at its first wrong byte. Raises ProxyHeaderError.
    """
    if not SIGNATURE.startswith(data[:12]):
        raise ProxyHeaderError("no PROXY v2 signature")
    if len(data) < _FIXED.size:
        return None
    _, version_command, family_transport, size = _FIXED.unpack_from(data)
    version, command = version_command >> 4, version_command & 15
    if version != _VERSION:
        raise ProxyHeaderError(f"PROXY version {version}")
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError(f"PROXY command {command}")
    family, transport = family_transport >> 4, family_transport & 15
    if family > 3 or transport > 2:
        raise ProxyHeaderError(f"PROXY family {family}, transport {transport}")
    needed = 2 * _ADDRESS_SIZES.get(family, 0) + (4 if family in (_INET, _INET6) else 0)
    if command == _PROXY and size < needed:
        raise ProxyHeaderError(f"{size} bytes of addresses, {needed} needed")
    end = _FIXED.size + size
    if len(data) < end:
        return None
    if command == _LOCAL or family not in (_INET, _INET6) or transport != _STREAM:
        return ProxyHeader(), end
    return _addresses(data, _ADDRESS_SIZES[family]), end


def _addresses(data: bytes | bytearray, width: int) -> ProxyHeader:
    middle = _FIXED.size + width
    ports = middle + width
    source_port, destination_port = _PORTS.unpack_from(data, ports)
    return ProxyHeader(
        host_text(bytes(data[_FIXED.size : middle])),
        source_port,
        host_text(bytes(data[middle:ports])),
        destination_port,
    )


def host_text(packed: bytes) -> str:
    """4 or 16 bytes as text; an IPv4 address inside an IPv6 one is shown as IPv4."""
    if len(packed) == 4:
        return str(ipaddress.IPv4Address(packed))
    address = ipaddress.IPv6Address(packed)
    mapped = address.ipv4_mapped
    return str(mapped if mapped is not None else address)
