"""``python -m benchmarks.echo``: what the network layer itself costs, without a broker behind it.

A server in a process of its own answers at once: 100-byte echoes (connections x requests sent
together), 1 MiB requests, 1 MiB answers from a file. Printed is the CPU of the server per request,
system calls included, best of interleaved rounds, for the product's shell and for the least that
asyncio's Protocol can do with the same framing ("bare"), each on asyncio and uvloop.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import multiprocessing
import os
import selectors
import socket
import struct
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import anyio

from kbroker.common.clock import SystemClock
from kbroker.common.timer import Timer
from kbroker.network.limits import NetworkLimits
from kbroker.network.server import ListenerEndpoint, NetworkServer
from kbroker.storage.fetch_info import FileSlice

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

    from kbroker.request_context import RequestContext

MIB = 1 << 20
ECHO, INGEST, SERVE = 3, 0, 1
SERVERS = ("product", "product, sendfile", "bare")
LOOPS = ("asyncio", "uvloop")
_CORRELATION = struct.Struct(">i")


def main() -> int:
    options = _options()
    servers = [
        (name, loop)
        for name in SERVERS
        for loop in LOOPS
        if options.only in f"{name} {loop}" and not (loop == "uvloop" and not _has_uvloop())
    ]
    best: dict[tuple[str, str, str], tuple[float, float]] = {}
    for _ in range(options.rounds):
        for name, loop in servers:
            for work, run in _works(name).items():
                figures = _measure(name, loop, run, options.seconds)
                key = (name, loop, work)
                best[key] = min(best.get(key, (1e9, 0.0)), figures)
    print(f"{'server':<28} {'work':<14} {'CPU us/request':>15} {'requests/s':>12}")
    for (name, loop, work), (cpu_us, rate) in best.items():
        print(f"{name + ', ' + loop:<28} {work:<14} {cpu_us:>15.2f} {rate:>12.0f}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.echo", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--only", default="", help="servers whose name contains this")
    return parser.parse_args()


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True


def _works(server: str) -> dict[str, Callable[[int, float], int]]:
    """Name -> (port, seconds) -> requests answered."""
    if server.endswith("sendfile"):
        return {"serve 1 MiB": lambda port, s: _drive(port, s, 4, 1, SERVE, b"")}
    works: dict[str, Callable[[int, float], int]] = {
        "echo 1x1": lambda port, s: _drive(port, s, 1, 1, ECHO, bytes(86)),
        "echo 32x1": lambda port, s: _drive(port, s, 32, 1, ECHO, bytes(86)),
        "echo 8x16": lambda port, s: _drive(port, s, 8, 16, ECHO, bytes(86)),
        "ingest 1 MiB": lambda port, s: _drive(port, s, 4, 1, INGEST, bytes(MIB)),
    }
    if server == "product":
        works["serve 1 MiB"] = lambda port, s: _drive(port, s, 4, 1, SERVE, b"")
    return works


def _measure(
    name: str, loop: str, run: Callable[[int, float], int], seconds: float
) -> tuple[float, float]:
    """(CPU us per request, requests per second)."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(name, loop, there))
    process.start()
    try:
        port = here.recv()
        run(port, seconds / 4)
        here.send("cpu")
        cpu = here.recv()
        began = time.perf_counter()
        requests = run(port, seconds)
        elapsed = time.perf_counter() - began
        here.send("cpu")
        cpu = here.recv() - cpu
    finally:
        here.send("end")
        process.join(10)
    return cpu * 1e6 / requests, requests / elapsed


def _drive(port: int, seconds: float, connections: int, burst: int, key: int, body: bytes) -> int:
    """Keep ``burst`` requests of each connection under way; requests answered in the time."""
    header = struct.pack(">hhih", key, 0, 1, 0)
    request = struct.pack(">i", len(header) + len(body)) + header + body
    answer = 8 + (len(body) if key == ECHO else MIB if key == SERVE else 0)
    selector = selectors.DefaultSelector()
    sockets = []
    for _ in range(connections):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(sock, selectors.EVENT_READ, [0])
        sockets.append(sock)
    buffer = bytearray(4 * MIB)
    done = 0
    for sock in sockets:
        sock.sendall(request * burst)
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        for ready, _ in selector.select():
            got = ready.data
            got[0] += ready.fileobj.recv_into(buffer)  # type: ignore[union-attr]
            if got[0] == answer * burst:
                got[0] = 0
                done += burst
                ready.fileobj.sendall(request * burst)  # type: ignore[union-attr]
    for sock in sockets:
        sock.close()
    selector.close()
    return done


def _serve(name: str, loop: str, pipe: Connection) -> None:
    logging.basicConfig(level=logging.WARNING)
    serve = _serve_bare if name == "bare" else _serve_product
    anyio.run(
        serve, pipe, name.endswith("sendfile"), backend_options={"use_uvloop": loop == "uvloop"}
    )


async def _obey(pipe: Connection) -> None:
    """Answer questions about CPU until told to end."""
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()
    loop.add_reader(pipe.fileno(), asked.set)
    while True:
        await asked.wait()
        asked.clear()
        while pipe.poll():  # the event may be set a second time for the same question
            if pipe.recv() == "end":
                loop.remove_reader(pipe.fileno())
                return
            pipe.send(time.process_time())


async def _serve_product(pipe: Connection, use_sendfile: bool) -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(MIB))
        file.flush()

        def dispatch(context: RequestContext, frame: Any, position: int) -> Any:
            head = _CORRELATION.pack(context.correlation_id)
            if context.api_key == ECHO:
                return [head, bytes(frame[position:])]
            if context.api_key == SERVE:
                return [head, FileSlice(_Served(file.fileno()), 0, MIB)]
            return [head]

        clock = SystemClock()
        timer = Timer(clock)
        limits = NetworkLimits(use_sendfile=use_sendfile)
        server = NetworkServer(dispatch=dispatch, limits=limits, clock=clock, timer=timer)
        (bound,) = await server.bind([ListenerEndpoint(name="bench", host="127.0.0.1", port=0)])
        server.start_accepting()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(timer.run)
            tasks.start_soon(server.serve)
            pipe.send(bound.port)
            await _obey(pipe)
            await server.drain(1.0)
            tasks.cancel_scope.cancel()


class _Served:
    """As much of a file as a slice needs."""

    path = "benchmark"

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read_at(self, size: int, position: int) -> bytes:
        return os.pread(self._descriptor, size, position)

    def fileno(self) -> int:
        return self._descriptor


class _Bare(asyncio.Protocol):
    """Framing and an echo, nothing else: no limits, no order, no headers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer
        buffer += data
        position, end = 0, len(buffer)
        answers = []
        while end - position >= 4:
            (size,) = _CORRELATION.unpack_from(buffer, position)
            if position + 4 + size > end:
                break
            frame = buffer[position + 4 : position + 4 + size]
            body = frame[10:] if frame[1] == ECHO else b""
            answers.append(_CORRELATION.pack(4 + len(body)) + frame[4:8] + body)
            position += 4 + size
        if position:
            del buffer[:position]
            self.transport.write(b"".join(answers))


async def _serve_bare(pipe: Connection, use_sendfile: bool) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Bare, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    await _obey(pipe)
    server.close()


if __name__ == "__main__":
    sys.exit(main())
