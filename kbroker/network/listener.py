"""Listening sockets: binding them, and an accept loop that survives running out of descriptors.

The loop's own ``create_server`` is not used: asyncio reports EMFILE to the loop's exception handler
at every try, uvloop answers it by closing connections unasked and knows no way to stop accepting,
and neither can hold back connections at a limit.
"""

import asyncio
import contextlib
import errno
import socket
import sys
from typing import TYPE_CHECKING, Any

import anyio

from kbroker.common.named_tuple import NamedTuple
from kbroker.network.protocol_shell import ProtocolShell
from kbroker.request_context import ConnectionContext

if TYPE_CHECKING:
    from kbroker.network.connection import ReadProxyHeader
    from kbroker.network.server import AcceptHost

_ONLY_THAT_CONNECTION = {errno.ECONNABORTED, errno.EPROTO, errno.EINTR, errno.EAGAIN}
_NOT_THIS_FAMILY = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT}
_PORT_TRIES = 16
_RETRY_AFTER_S = 1.0
_SMALLEST_BACKLOG = 512
_CONGESTION_CONTROL = getattr(socket, "TCP_CONGESTION", None)
_PACING = b"bbr"
_NOT_PACING = b"reno"  # always there
_NAME_BYTES = 16  # TCP_CA_NAME_MAX


class ListenerEndpoint(NamedTuple):
    """A listener as configured. Port 0 takes a free one."""

    name: str
    host: str
    port: int
    advertised_host: str | None = None
    advertised_port: int | None = None
    security_protocol: str = "PLAINTEXT"
    proxy_protocol: bool = False
    """Connections begin with a PROXY v2 header."""


class BoundListener(NamedTuple):
    """A listener that has its port. ``host`` is as configured."""

    name: str
    host: str
    port: int
    advertised_host: str | None = None
    advertised_port: int | None = None
    security_protocol: str = "PLAINTEXT"


class Listener:
    """The sockets of one endpoint: several where a name stands for several addresses."""

    def __init__(self, endpoint: ListenerEndpoint, sockets: list[socket.socket]) -> None:
        self.endpoint = endpoint
        self.sockets = sockets

    @property
    def bound(self) -> BoundListener:
        """What became of the endpoint."""
        endpoint = self.endpoint
        return BoundListener(
            name=endpoint.name,
            host=endpoint.host,
            port=int(self.sockets[0].getsockname()[1]),
            advertised_host=endpoint.advertised_host,
            advertised_port=endpoint.advertised_port,
            security_protocol=endpoint.security_protocol,
        )

    def listen(self, backlog: int) -> None:
        """Let the kernel take connections. Raises OSError: another process was faster.

        Past the backlog the kernel drops, and a client tries again after a second. It is never
        small: accepting shares its thread with requests, where Kafka has a thread for it alone.
        """
        for listening in self.sockets:
            listening.listen(max(backlog, _SMALLEST_BACKLOG))

    def close(self) -> None:
        """Close the sockets; connections in their backlog are reset."""
        for listening in self.sockets:
            listening.close()

    async def accept_forever(self, listening: socket.socket, host: "AcceptHost") -> None:
        """Accept connections of one of the sockets until cancelled."""
        loop = asyncio.get_running_loop()
        read_proxy_header = _proxy_reader(self.endpoint)
        paces = is_paced(listening)
        while True:
            await host.wait_for_room()
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                if error.errno not in _ONLY_THAT_CONNECTION:  # mostly EMFILE and its like
                    await host.pause_accepting(_RETRY_AFTER_S, error.strerror or str(error))
                continue
            if _is_near_limit(accepted.fileno(), host.settings.limits.spare_descriptors):
                accepted.close()
                host.refuse(host_of(address), "file descriptors are nearly used up")
            else:
                if paces:
                    stop_pacing_locally(accepted)
                await self._start_connection(accepted, address, host, read_proxy_header)
            await asyncio.sleep(0)  # neither an accept nor a refusal need have given way

    async def _start_connection(
        self,
        accepted: socket.socket,
        address: Any,
        host: "AcceptHost",
        read_proxy_header: "ReadProxyHeader | None",
    ) -> None:
        """Give the connection its shell, or close it when its address has too many."""
        try:
            local = accepted.getsockname()
        except OSError:  # reset already
            accepted.close()
            return
        endpoint = self.endpoint
        context = ConnectionContext(
            connection_id=host.next_connection_id(),
            listener_name=endpoint.name,
            security_protocol=endpoint.security_protocol,
            client_host=host_of(address),
            client_port=port_of(address),
            local_host=host_of(local),
            local_port=port_of(local),
            advertised_host=endpoint.advertised_host,
            advertised_port=endpoint.advertised_port,
        )
        if read_proxy_header is None and not host.admit(context.client_host):
            accepted.close()
            return
        shell = ProtocolShell(host, context, read_proxy_header)
        try:
            # Shielded; it takes one turn of the loop. uvloop, when it is cancelled in that turn,
            # closes the transport and never tells the protocol that the connection is lost.
            with anyio.CancelScope(shield=True):
                await asyncio.get_running_loop().connect_accepted_socket(lambda: shell, accepted)
        except BaseException as error:
            if not shell.abort_early():
                accepted.close()
            if not isinstance(error, OSError):
                raise


def is_paced(listening: socket.socket) -> bool:
    """Whether connections send as a timer tells them (BBR is how this system avoids congestion)."""
    if _CONGESTION_CONTROL is None:
        return False
    try:
        name = listening.getsockopt(socket.IPPROTO_TCP, _CONGESTION_CONTROL, _NAME_BYTES)
    except OSError:
        return False
    return name.startswith(_PACING)


def stop_pacing_locally(accepted: socket.socket) -> None:
    """Let a connection within this machine send as fast as it is read from.

    There is nothing to congest, and a timer for each 64 KiB is a third of what sending costs.
    """
    with contextlib.suppress(OSError):  # it goes on as before, or it is reset already
        peer, own = host_of(accepted.getpeername()), host_of(accepted.getsockname())
        if peer == own or peer.startswith("127."):
            accepted.setsockopt(socket.IPPROTO_TCP, _CONGESTION_CONTROL or 0, _NOT_PACING)


def _proxy_reader(endpoint: ListenerEndpoint) -> "ReadProxyHeader | None":
    if not endpoint.proxy_protocol:
        return None
    from kbroker.network.proxy_protocol import read_proxy_header

    return read_proxy_header


def _is_near_limit(descriptor: int, spare: int) -> bool:
    """Whether connections would soon take the descriptors that log segments need.

    The lowest free number is given to a new descriptor, so its value tells how many are in use.
    """
    if sys.platform == "win32" or not spare:
        return False
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return False
    return descriptor >= soft - min(spare, soft // 4)


async def bind(endpoint: ListenerEndpoint) -> Listener:
    """Bind the addresses an endpoint stands for, all to the same port. Raises OSError."""
    addresses = await _addresses(endpoint.host)
    for tries_left in reversed(range(_PORT_TRIES)):
        try:
            return Listener(endpoint, _bind_all(addresses, endpoint.port))
        except OSError as error:
            is_unlucky = endpoint.port == 0 and len(addresses) > 1
            if not (is_unlucky and error.errno == errno.EADDRINUSE and tries_left):
                raise
    raise AssertionError("unreachable")


async def _addresses(host: str) -> list[tuple[int, str]]:
    """(family, address) for a host; any address, in both families where the system can."""
    if host in ("", "*", "::"):
        if socket.has_dualstack_ipv6():
            return [(socket.AF_INET6, "::")]
        return [(socket.AF_INET, "0.0.0.0")]
    if _is_ipv4(host):  # Python's look-up would load its IDNA codec for it
        return [(socket.AF_INET, host)]
    numeric = socket.AI_NUMERICHOST if _is_numeric(host) else 0
    if numeric or host == "localhost":  # no look-up that could take long
        found = socket.getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=numeric | socket.AI_PASSIVE
        )
    else:
        found = await asyncio.get_running_loop().getaddrinfo(
            host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    addresses: dict[tuple[int, str], None] = {}
    for family, _, _, _, address in found:
        if family in (socket.AF_INET, socket.AF_INET6):
            addresses[family, _with_scope(address)] = None
    if not addresses:
        raise OSError(errno.EADDRNOTAVAIL, f"no address of {host!r} to listen on")
    return sorted(addresses, key=lambda pair: pair[0] != socket.AF_INET)


def _is_ipv4(host: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return False
    return True


def _is_numeric(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _bind_all(addresses: list[tuple[int, str]], port: int) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    try:
        for family, host in addresses:
            try:
                bound = _bind_one(family, host, port)
            except OSError as error:
                if error.errno not in _NOT_THIS_FAMILY:
                    raise
                failure = error  # such as ::1 where IPv6 is off
                continue
            sockets.append(bound)
            port = int(bound.getsockname()[1])
    except BaseException:
        for bound in sockets:
            bound.close()
        raise
    if not sockets and failure is not None:
        raise failure
    return sockets


def _bind_one(family: int, host: str, port: int) -> socket.socket:
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        if sys.platform == "win32":
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        elif port:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        address: Any = (host, port)
        if "%" in host:
            numeric = socket.AI_NUMERICHOST
            found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=numeric)
            address = found[0][4]
        bound.bind(address)
        if sys.platform != "win32":
            # Only now for a port that the kernel chose: with it the kernel may choose one that
            # another process has bound and not yet listened on. Connections inherit it, so that
            # a broker restarted on its port does not meet them in TIME_WAIT.
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    except BaseException:
        bound.close()
        raise
    return bound


def host_of(address: Any) -> str:
    """The host of a socket address as clients write it.

    IPv4 inside IPv6 as IPv4; a link-local address with its interface, without which it is no use.
    """
    if not isinstance(address, tuple):
        return ""
    host: str = _with_scope(address)
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return host


def _with_scope(address: Any) -> str:
    host = str(address[0])
    if len(address) == 4 and address[3] and "%" not in host:
        name = str(address[3])
        with contextlib.suppress(OSError, AttributeError):
            name = socket.if_indextoname(address[3])
        return f"{host}%{name}"
    return host


def port_of(address: Any) -> int:
    """The port of a socket address, -1 where there is none."""
    return int(address[1]) if isinstance(address, tuple) else -1
