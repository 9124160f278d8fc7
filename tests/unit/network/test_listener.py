"""Listening sockets: the one test module that binds, to port 0 of the loopback address."""

import asyncio
import contextlib
import errno
import os
import socket

import anyio
import pytest

from kbroker.network.limits import NetworkLimits
from kbroker.network.listener import (
    ListenerEndpoint,
    bind,
    host_of,
    is_paced,
    port_of,
    stop_pacing_locally,
)
from kbroker.network.server import NetworkServer
from tests.unit.network.peers import (
    ECHO,
    PROTOCOL_KINDS,
    Client,
    SocketStream,
    World,
    answer,
    request,
    settle,
    until,
)
from tests.unit.network.test_proxy_protocol import SIGNATURE, TCP4

pytestmark = pytest.mark.anyio
HAS_IPV6 = socket.has_dualstack_ipv6()


@pytest.fixture(params=PROTOCOL_KINDS)
def kind(request):
    return request.param


def endpoint(host="127.0.0.1", port=0, **more):
    return ListenerEndpoint(name="PLAINTEXT", host=host, port=port, **more)


class Listening(World):
    """A server that listens."""

    async def dial(self, port, host="127.0.0.1"):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        client = Client(SocketStream(sock))
        self._clients.append(client)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        return client


async def run(kind, scenario, endpoints, **limits):
    """The scenario gets (world, bound listeners)."""
    world = Listening(kind, NetworkLimits(**limits))
    bound = await world.server.bind(endpoints)
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.server.serve)
            world.server.start_accepting()
            await settle()
            try:
                await scenario(world, bound)
            finally:
                tasks.cancel_scope.cancel()
        await world.close()
        await settle()


async def echo(client, number):
    await client.send(request(ECHO, number))
    return await client.receive(8) == answer(number)


async def test_connections_know_their_addresses(kind):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        assert await echo(client, 1)
        connection = world.dispatcher.contexts[0].connection
        assert connection.client_host == "127.0.0.1"
        assert connection.client_port > 0
        assert connection.advertised_address() == ("127.0.0.1", bound[0].port)
        assert connection.listener_name == "PLAINTEXT"

    await run(kind, scenario, [endpoint()])


async def test_what_is_configured_is_advertised(kind):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        assert await echo(client, 1)
        connection = world.dispatcher.contexts[0].connection
        assert connection.advertised_address() == ("broker.example", 19092)
        assert bound[0].advertised_host == "broker.example"

    await run(kind, scenario, [endpoint(advertised_host="broker.example", advertised_port=19092)])


@pytest.mark.skipif(not HAS_IPV6, reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["", "::"])
async def test_any_address_is_both_families(kind, host):
    async def scenario(world, bound):
        for number, address in enumerate(("127.0.0.1", "::1")):
            client = await world.dial(bound[0].port, address)
            assert await echo(client, number)
            told = world.dispatcher.contexts[-1].connection.advertised_address()
            assert told == (address, bound[0].port)

    await run(kind, scenario, [endpoint(host)])


async def test_several_listeners(kind):
    async def scenario(world, bound):
        assert [b.name for b in bound] == ["PLAINTEXT", "INNER"]
        assert bound[0].port != bound[1].port
        for number, listener in enumerate(bound):
            assert await echo(await world.dial(listener.port), number)
            assert world.dispatcher.contexts[-1].connection.listener_name == listener.name

    inner = ListenerEndpoint(name="INNER", host="127.0.0.1", port=0)
    await run(kind, scenario, [endpoint(), inner])


async def test_localhost_has_one_port_in_every_family(kind):
    listener = await bind(endpoint("localhost"))
    try:
        assert len({sock.getsockname()[1] for sock in listener.sockets}) == 1
        assert listener.bound.host == "localhost"
    finally:
        listener.close()


async def test_a_taken_port_is_an_error_and_frees_what_was_bound(kind):
    world = Listening(kind, NetworkLimits())
    taken = await bind(endpoint())
    taken.listen(1)
    with pytest.raises(OSError) as raised:
        await world.server.bind([endpoint(), endpoint(port=taken.bound.port)])
    assert raised.value.errno == errno.EADDRINUSE
    taken.close()
    assert list(world.server.filenos()) == []


async def test_an_unknown_address_is_an_error(kind):
    with pytest.raises(OSError):
        await bind(endpoint("192.0.2.1"))


async def test_a_bound_port_refuses_until_accepting_begins(kind):
    listener = await bind(endpoint())
    try:
        with (
            socket.socket() as probe,
            pytest.raises(ConnectionRefusedError),
        ):
            probe.connect(("127.0.0.1", listener.bound.port))
    finally:
        listener.close()


async def test_connections_past_the_limit_wait_for_one_to_close(kind):
    async def scenario(world, bound):
        first, second = [await world.dial(bound[0].port) for _ in range(2)]
        third = await world.dial(bound[0].port)
        assert await echo(first, 1)
        await third.send(request(ECHO, 3))
        await settle(30)
        assert world.server.counters.connections == 2
        await second.close()
        assert await third.receive(8) == answer(3)

    await run(kind, scenario, [endpoint()], max_connections=2)


async def test_connections_past_the_limit_of_an_address_are_closed(kind):
    async def scenario(world, bound):
        assert await echo(await world.dial(bound[0].port), 1)
        assert await (await world.dial(bound[0].port)).receive_all() == b""
        assert world.server.counters.connections_refused == 1

    await run(kind, scenario, [endpoint()], max_connections_per_ip=1)


async def test_running_out_of_descriptors_pauses_accepting(kind, monkeypatch, caplog):
    """Nothing escapes to the loop; connections are accepted again after a second or a close."""

    async def scenario(world, bound):
        loop = asyncio.get_running_loop()
        unhandled = []
        loop.set_exception_handler(lambda _, context: unhandled.append(context))
        first = await world.dial(bound[0].port)
        assert await echo(first, 1)
        failing = [True]
        accept = socket.socket.accept

        def fail(self):
            if failing[0]:
                raise OSError(errno.EMFILE, "Too many open files")
            return accept(self)

        monkeypatch.setattr(socket.socket, "accept", fail)
        second = await world.dial(bound[0].port)
        await until(lambda: world.server.counters.accept_failures)
        await settle(50)
        assert world.server.counters.accept_failures == 1, "no busy loop"
        await world.pass_time(1.0)
        await until(lambda: world.server.counters.accept_failures == 2)
        assert await echo(first, 2)
        failing[0] = False
        await first.close()
        assert await echo(second, 3)
        assert unhandled == []
        assert "Too many open files" in caplog.text

    await run(kind, scenario, [endpoint()])


async def test_connections_leave_descriptors_to_others(kind, monkeypatch, caplog):
    resource = pytest.importorskip("resource")

    async def scenario(world, bound):
        first = await world.dial(bound[0].port)
        assert await echo(first, 1)
        monkeypatch.setattr(resource, "getrlimit", lambda which: (8, 8))
        second = await world.dial(bound[0].port)
        assert await second.receive_all() == b""
        assert await echo(first, 2)
        assert "nearly used up" in caplog.text

    await run(kind, scenario, [endpoint()])


async def test_drain_refuses_new_connections(kind):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        assert await echo(client, 1)
        await world.server.drain(10.0)
        assert await client.receive_all() == b""
        with pytest.raises(OSError):
            await world.dial(bound[0].port)

    await run(kind, scenario, [endpoint()])


async def test_a_proxy_header_tells_the_addresses(kind):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        stream = TCP4 + request(ECHO, 1)
        for byte in stream[:-3]:
            await client.send(bytes([byte]))
            await settle(1)
        await client.send(stream[-3:] + request(ECHO, 2))
        assert await client.receive(16) == answer(1) + answer(2)
        connection = world.dispatcher.contexts[0].connection
        assert (connection.client_host, connection.client_port) == ("203.0.113.7", 51000)
        assert connection.advertised_address() == ("198.51.100.2", 9092)
        refused = await world.dial(bound[0].port)
        await refused.send(TCP4 + request(ECHO, 3))
        assert await refused.receive_all() == b"", "counted by the address it names"

    await run(kind, scenario, [endpoint(proxy_protocol=True)], max_connections_per_ip=1)


@pytest.mark.parametrize("data", [request(ECHO, 1), b"GET / HTTP", SIGNATURE + b"\x31\x11\0\0"])
async def test_a_connection_without_its_proxy_header_is_closed(kind, data):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        await client.send(data)
        assert await client.receive_all() == b""
        assert world.server.counters.bad_frames == 1
        assert not world.dispatcher.requests

    await run(kind, scenario, [endpoint(proxy_protocol=True)])


async def test_sockets_are_named_for_a_watchdog(kind):
    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        assert await echo(client, 1)
        numbers = list(world.server.filenos())
        assert len(numbers) == 2
        assert min(numbers) > 2

    await run(kind, scenario, [endpoint()])


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("::ffff:192.0.2.1", 5, 0, 0), "192.0.2.1"),
        (("2001:db8::1", 5, 0, 0), "2001:db8::1"),
        (("fe80::1%eth9", 5, 0, 3), "fe80::1%eth9"),
        (("fe80::1", 5, 0, 999_999), "fe80::1%999999"),
        ("/tmp/socket", ""),
    ],
)
def test_hosts_of_addresses(kind, address, host):
    assert host_of(address) == host
    assert port_of(address) == (5 if isinstance(address, tuple) else -1)


async def test_a_server_starts_and_stops_without_listeners(kind):
    world = Listening(kind, NetworkLimits())
    assert isinstance(world.server, NetworkServer)
    await world.server.drain(0)
    with anyio.move_on_after(0.01):
        await world.server.serve()


class Accepted:
    """What is asked of an accepted socket, and what it is told."""

    def __init__(self, peer, own, error=None):
        self.getpeername = lambda: (peer, 4321)
        self.getsockname = lambda: (own, 9092)
        self.options = []
        self._error = error

    def setsockopt(self, *option):
        if self._error is not None:
            raise self._error
        self.options.append(option)


on_linux = pytest.mark.skipif(
    not hasattr(socket, "TCP_CONGESTION"), reason="this system has one congestion control"
)


@on_linux
@pytest.mark.parametrize(
    ("peer", "own", "is_local"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.2", "127.0.0.1", True),
        ("::1", "::1", True),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1", True),
        ("192.0.2.7", "192.0.2.7", True),
        ("192.0.2.8", "192.0.2.7", False),
        ("2001:db8::2", "2001:db8::1", False),
    ],
)
def test_only_connections_within_the_machine_are_no_longer_paced(peer, own, is_local):
    accepted = Accepted(peer, own)
    stop_pacing_locally(accepted)
    expected = (socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    assert accepted.options == ([expected] if is_local else [])


@on_linux
def test_a_connection_goes_on_as_it_is_when_the_system_refuses():
    stop_pacing_locally(Accepted("127.0.0.1", "127.0.0.1", PermissionError()))


@on_linux
async def test_a_system_that_paces_is_told_not_to_on_accepted_connections(kind):
    """Where BBR is not to be had, nothing is changed."""

    async def scenario(world, bound):
        client = await world.dial(bound[0].port)
        assert await echo(client, 1)
        [shell] = world.server._shells
        with socket.socket(fileno=os.dup(shell.fileno())) as accepted:
            assert not is_paced(accepted)

    original = socket.socket.listen

    def listen(self, backlog):
        with contextlib.suppress(OSError):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"bbr")
        original(self, backlog)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "listen", listen)
        await run(kind, scenario, [endpoint()])
