"""One connection of a dispatcher, without its socket: frames in, frames out."""

import logging
from typing import Any

from kbroker.common.clock import ManualClock
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.services import Services
from kbroker.network.connection import Connection, ConnectionSettings, Turn
from kbroker.network.limits import BufferPool, ByteBudget, NetworkCounters, NetworkLimits
from kbroker.protocol import headers
from kbroker.request_context import ConnectionContext, RequestContext


class WirePeer:
    """``dispatched`` counts the requests that the connection had dispatched."""

    def __init__(self, services: Services, *, lets_repeat: bool) -> None:
        self.dispatcher = Dispatcher(services, lets_repeat=lets_repeat)
        self.dispatched = 0
        self._number = 0
        limits = NetworkLimits()
        self.context = ConnectionContext(connection_id=1, local_host="127.0.0.1", local_port=1)
        settings = ConnectionSettings(
            dispatch=self._dispatch,
            limits=limits,
            clock=ManualClock(),
            budget=ByteBudget(limits.queued_bytes),
            pool=BufferPool(limits.pooled_bytes),
            counters=NetworkCounters(),
            log=logging.getLogger("kbroker.test"),
        )
        self.connection = Connection(settings, self.context, on_room=lambda: None)

    def _dispatch(self, context: RequestContext, frame: Any, position: int) -> Any:
        self.dispatched += 1
        return self.dispatcher.dispatch(context, frame, position)

    def frame(self, key: int, version: int, body: bytes, client_id: str = "me") -> bytes:
        """The next request as it is sent."""
        self._number += 1
        named = client_id.encode()
        head = b"".join(
            (
                key.to_bytes(2, "big"),
                version.to_bytes(2, "big"),
                self._number.to_bytes(4, "big"),
                len(named).to_bytes(2, "big"),
                named,
                b"\0" if headers.request_header_version(key, version) == 2 else b"",
            )
        )
        return (len(head) + len(body)).to_bytes(4, "big") + head + body

    async def ask(self, key: int, version: int, body: bytes, client_id: str = "me") -> bytes:
        """The answer with its size; nothing when the connection closes instead."""
        return await self.send(self.frame(key, version, body, client_id))

    async def send(self, *frames: bytes) -> bytes:
        """The answers to frames that arrive together."""
        connection = self.connection
        data = b"".join(frames)
        connection.get_buffer()[: len(data)] = data
        outcome = connection.answer_alone(len(data)) if len(frames) == 1 else None
        if isinstance(outcome, bytes):
            return outcome
        if outcome is None:
            connection.received(len(data))
            outcome = connection.turn()
        answers = b""
        while True:
            answers += b"".join(connection.output.take())
            if outcome is Turn.WAIT:
                await connection.finish_waiting()
            elif outcome is not Turn.MORE and outcome is not Turn.OUTPUT:
                return answers
            outcome = connection.turn()
