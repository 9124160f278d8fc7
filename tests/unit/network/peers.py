"""A client and a server joined without a port, the same for every shell and event loop."""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from kbroker.common.clock import ManualClock
from kbroker.common.timer import Timer
from kbroker.network.limits import NetworkLimits
from kbroker.network.protocol_shell import ProtocolShell
from kbroker.network.server import NetworkServer
from kbroker.network.stream_shell import StreamShell
from kbroker.request_context import ConnectionContext, RequestContext

KINDS = ("protocol-asyncio", "protocol-uvloop", "stream-asyncio", "stream-trio")
PROTOCOL_KINDS = KINDS[:2]
ECHO, WAIT, FAIL, SILENT, CLOSE = 3, 1, 2, 0, 22


def backend_of(kind: str) -> tuple[str, dict[str, Any]]:
    """What anyio's pytest plugin wants to know for a kind."""
    if kind.endswith("uvloop"):
        pytest.importorskip("uvloop")
    if kind.endswith("trio"):
        return "trio", {}
    return "asyncio", {"use_uvloop": kind.endswith("uvloop")}


def request(api_key: int, correlation_id: int, body: bytes = b"", *, version: int = 0) -> bytes:
    """A request with its size; header version 1."""
    header = struct.pack(">hhih", api_key, version, correlation_id, 2) + b"me"
    return struct.pack(">i", len(header) + len(body)) + header + body


def answer(correlation_id: int, body: bytes = b"") -> bytes:
    """The answer that ``Dispatcher`` gives to such a request, with its size."""
    return struct.pack(">ii", 4 + len(body), correlation_id) + body


class Dispatcher:
    """Answers by API key: echoes, waits for ``release``, fails, is silent, closes."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int, bytes]] = []
        """(API key, correlation id, body) in the order of dispatch."""
        self.frames: list[Any] = []
        self.contexts: list[RequestContext] = []
        self.released = anyio.Event()
        self.finished = 0
        self.cancelled = 0
        self.parts: Callable[[bytes], list[Any]] = lambda body: [body]
        self.on_dispatch: Callable[[], object] = lambda: None

    def release(self) -> None:
        """Let every waiting request end, and all that come later."""
        self.released.set()

    def __call__(self, context: RequestContext, frame: Any, position: int) -> Any:
        from kbroker.request_context import CloseConnection

        body = bytes(frame[position:])
        self.requests.append((context.api_key, context.correlation_id, body))
        self.frames.append(frame)
        self.contexts.append(context)
        self.on_dispatch()
        if context.api_key == FAIL:
            if body == b"later":
                return self._fail_later()
            raise ZeroDivisionError("planted")
        if context.api_key == CLOSE:
            if body == b"later":
                return self._close_later()
            raise CloseConnection
        if context.api_key == SILENT:
            return None
        parts = [struct.pack(">i", context.correlation_id), *self.parts(body)]
        return self._wait(parts) if context.api_key == WAIT else parts

    async def _wait(self, parts: list[Any]) -> list[Any]:
        try:
            await self.released.wait()
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        self.finished += 1
        return parts

    async def _fail_later(self) -> None:
        await anyio.lowlevel.checkpoint()
        raise ZeroDivisionError("planted")

    async def _close_later(self) -> None:
        from kbroker.request_context import CloseConnection

        await anyio.lowlevel.checkpoint()
        raise CloseConnection


class MemoryStream(anyio.abc.ByteStream):
    """One end of a pipe for bytes, in memory."""

    def __init__(self, receive: Any, send: Any) -> None:
        self._receive = receive
        self._send = send
        self._rest = b""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        data = self._rest or await self._receive.receive()
        self._rest = data[max_bytes:]
        return data[:max_bytes]

    async def send(self, item: bytes) -> None:
        await self._send.send(bytes(item))

    async def send_eof(self) -> None:
        await self._send.aclose()

    async def aclose(self) -> None:
        await self._send.aclose()
        await self._receive.aclose()


class SocketStream(anyio.abc.ByteStream):
    """A socket on asyncio or uvloop."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    async def receive(self, max_bytes: int = 65536) -> bytes:
        try:
            data = await asyncio.get_running_loop().sock_recv(self._socket, max_bytes)
        except OSError:
            raise anyio.BrokenResourceError from None
        if not data:
            raise anyio.EndOfStream
        return data

    async def send(self, item: bytes) -> None:
        try:
            await asyncio.get_running_loop().sock_sendall(self._socket, item)
        except OSError:
            raise anyio.BrokenResourceError from None

    async def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    async def aclose(self) -> None:
        self._socket.close()


def memory_pair(pieces: int = 4) -> tuple[MemoryStream, MemoryStream]:
    """Two ends; each direction holds so many pieces."""
    to_server, from_client = anyio.create_memory_object_stream[bytes](pieces)
    to_client, from_server = anyio.create_memory_object_stream[bytes](pieces)
    return MemoryStream(from_client, to_client), MemoryStream(from_server, to_server)


class Client:
    """The far end of a connection, whatever carries it."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def send(self, data: bytes) -> None:
        """Send all; a connection that the server has closed takes it silently."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stream.send(data)

    async def half_close(self) -> None:
        await self._stream.send_eof()

    async def close(self) -> None:
        await self._stream.aclose()

    async def receive(self, size: int) -> bytes:
        """Exactly ``size`` bytes, fewer when the connection ends before."""
        with anyio.fail_after(10):
            while len(self._buffer) < size:
                try:
                    self._buffer += await self._stream.receive(1 << 18)
                except (anyio.EndOfStream, anyio.BrokenResourceError):
                    break
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    async def receive_all(self) -> bytes:
        """Everything until the server closes."""
        return await self.receive(1 << 62)


class World:
    """A server without listeners, on a clock that a test moves, and its clients."""

    def __init__(self, kind: str, limits: NetworkLimits) -> None:
        self.kind = kind
        self.clock = ManualClock(monotonic=1000.0)
        self.timer = Timer(self.clock)
        self.dispatcher = Dispatcher()
        self.server = NetworkServer(
            dispatch=self.dispatcher,
            limits=limits,
            clock=self.clock,
            timer=self.timer,
            log=logging.getLogger("kbroker.test"),
        )
        self.tasks: anyio.abc.TaskGroup
        self.serving = anyio.CancelScope()
        self._clients: list[Client] = []

    async def connect(
        self,
        *,
        host: str = "192.0.2.1",
        proxy: bool = False,
        security_protocol: str = "PLAINTEXT",
    ) -> Client:
        """A new connection."""
        from kbroker.network.proxy_protocol import read_proxy_header

        context = ConnectionContext(
            connection_id=self.server.next_connection_id(),
            client_host=host,
            client_port=4000,
            local_host="192.0.2.9",
            local_port=9092,
            security_protocol=security_protocol,
        )
        reader = read_proxy_header if proxy else None
        if not proxy:
            assert self.server.admit(host)
        if self.kind.startswith("stream"):
            near, far = memory_pair()
            shell = StreamShell(self.server, near, context, reader)
            self.tasks.start_soon(shell.run)
            client = Client(far)
        else:
            client = Client(await self._connect_socket(context, reader))
        await settle()
        self._clients.append(client)
        return client

    async def _connect_socket(self, context: ConnectionContext, reader: Any) -> Any:
        near, far = socket.socketpair()
        near.setblocking(False)
        far.setblocking(False)
        shell = ProtocolShell(self.server, context, reader)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: shell, near)
        return SocketStream(far)

    async def pass_time(self, seconds: float, *, step: float = 1.0) -> None:
        """Move the clock in steps, running timers and tasks in between."""
        left = seconds
        while left > 0:
            self.clock.advance(min(step, left))
            left -= step
            for _ in range(3):
                self.timer.run_due()
                await settle(2)

    async def close(self) -> None:
        for client in self._clients:
            await client.close()


async def settle(turns: int = 8) -> None:
    """Let every task and every socket that is ready have its turn."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], object]) -> None:
    """Let others run until it holds; the test's own time limit ends a wait in vain."""
    while not condition():
        await anyio.lowlevel.checkpoint()


@contextlib.asynccontextmanager
async def world(kind: str, **limits: Any) -> AsyncIterator[World]:
    """A serving server; after the block it is cancelled and must have nothing left."""
    made = World(kind, NetworkLimits(**limits))
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            made.tasks = tasks

            async def serve() -> None:
                with made.serving:
                    await made.server.serve()

            tasks.start_soon(serve)
            made.server.start_accepting()
            await settle()
            try:
                yield made
            finally:
                tasks.cancel_scope.cancel()
        await made.close()
        await settle()
    assert made.server.settings.budget.used == 0
