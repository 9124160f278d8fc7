"""Requests over plain sockets: one after the other, or from many connections at once."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.process_stats import cpu_seconds
from tests.peers.probe import split_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.brokers import MeasuredBroker

    Check = Callable[[memoryview], object]


@dataclass(frozen=True)
class Load:
    """What so many requests took."""

    requests: int
    seconds: float
    broker_cpu_s: float

    @property
    def requests_per_s(self) -> float:
        return self.requests / self.seconds

    @property
    def cpu_us_per_request(self) -> float:
        return 1e6 * self.broker_cpu_s / self.requests


def connect(bootstrap: str) -> socket.socket:
    """A connection without Nagle's delay."""
    peer = socket.create_connection(split_address(bootstrap), timeout=60)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peer


def receive_frame(peer: socket.socket) -> memoryview:
    """The next frame without its size."""
    received = bytearray()
    while len(received) < 4 or len(received) < 4 + int.from_bytes(received[:4], "big"):
        piece = peer.recv(65536)
        if not piece:
            raise ConnectionError("the broker closed the connection")
        received += piece
    return memoryview(received)[4:]


def keep_busy(
    broker: MeasuredBroker,
    requests: Sequence[bytes],
    *,
    connections: int,
    count: int,
    check: Check,
) -> Load:
    """``count`` requests, always one under way on each connection.

    ``requests`` are sent in turn; every answer goes through ``check``.
    """
    with ExitStack() as stack:
        selector = stack.enter_context(selectors.DefaultSelector())
        peers = [
            _Peer(stack.enter_context(connect(broker.bootstrap)), selector)
            for _ in range(connections)
        ]
        cpu, started = cpu_seconds(broker.pid), time.perf_counter()
        sent = done = 0
        for peer in peers:
            peer.send(requests[sent % len(requests)])
            sent += 1
        while done < count:
            for key, events in selector.select(60):
                peer = key.data
                if events & selectors.EVENT_WRITE:
                    peer.send_more()
                if events & selectors.EVENT_READ and peer.receive(check):
                    done += 1
                    if sent < count + connections:
                        peer.send(requests[sent % len(requests)])
                        sent += 1
        return Load(done, time.perf_counter() - started, cpu_seconds(broker.pid) - cpu)


class _Peer:
    """One connection with one request under way."""

    def __init__(self, connected: socket.socket, selector: selectors.BaseSelector) -> None:
        connected.setblocking(False)
        self._socket = connected
        self._selector = selector
        self._unsent = memoryview(b"")
        self._buffer = bytearray(4096)
        self._filled = 0
        selector.register(connected, selectors.EVENT_READ, self)

    def send(self, request: bytes) -> None:
        self._unsent = memoryview(request)
        self.send_more()

    def send_more(self) -> None:
        waited = bool(self._selector.get_key(self._socket).events & selectors.EVENT_WRITE)
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent)
                self._unsent = self._unsent[sent:]
        except BlockingIOError:
            pass
        if bool(self._unsent) != waited:
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._socket, events, self)

    def receive(self, check: Check) -> bool:
        """Take what is there; True when that ended the answer."""
        size = self._socket.recv_into(memoryview(self._buffer)[self._filled :])
        if not size:
            raise ConnectionError("the broker closed the connection")
        self._filled += size
        if self._filled < 4:
            return False
        total = 4 + int.from_bytes(self._buffer[:4], "big")
        if total > len(self._buffer):
            self._buffer += bytes(total - len(self._buffer))
        if self._filled < total:
            return False
        self._filled = 0
        with memoryview(self._buffer) as answer:
            check(answer[4:total])
        return True
