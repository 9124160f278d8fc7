"""Requests to a dispatcher as they come off the wire, and answers as a client reads them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.offload import InlineOffload
from kbroker.common.parts import gather
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.services import Services
from kbroker.metadata.client_metrics import ClientMetricsManager
from kbroker.protocol import headers, registry
from kbroker.request_context import ConnectionContext, RequestContext
from tests.unit.metadata.clusters import LISTENER, LOG, Node, running_node

CORRELATION_ID = 0x01020304


class Asker:
    """A client on one connection of one broker."""

    def __init__(self, node: Node) -> None:
        self.node = node
        clock = ManualClock()
        self.services = Services(
            node_id=node.node_id,
            clock=clock,
            timer=None,  # type: ignore[arg-type]
            entropy=SeededEntropy(0),
            offload=InlineOffload(),
            config=node.config,
            metadata=node.publisher,
            controller=node.controller,
            replica_manager=None,  # type: ignore[arg-type]
            coordinators=None,  # type: ignore[arg-type]
            fetch_sessions=None,  # type: ignore[arg-type]
            producer_ids=None,  # type: ignore[arg-type]
            log=LOG,
            client_metrics=lambda: self.client_metrics,
        )
        self.client_metrics = ClientMetricsManager(
            metadata=node.publisher,
            config=node.config,
            clock=clock,
            entropy=SeededEntropy(1),
        )
        self.clock = clock
        self.dispatcher = Dispatcher(self.services)
        self.connection = ConnectionContext(
            connection_id=1,
            listener_name=LISTENER,
            local_host="10.1.2.3",
            local_port=4567,
        )

    def have(self, **services: Any) -> None:
        """Put these services in place of those it was made with."""
        self.services = self.services._replace(**services)
        self.dispatcher = Dispatcher(self.services)

    async def ask(self, key: int, version: int, request: Any) -> Any:
        """The decoded answer; every byte of it is accounted for."""
        parts: list[Any] = []
        registry.request_writer(key)(parts, request, version)
        data = await self.ask_bytes(key, version, b"".join(gather(parts)))
        response, end = self.read(key, version, data)
        assert end == len(data)
        return response

    async def ask_bytes(self, key: int, version: int, body: bytes) -> bytes:
        """The answer without its size."""
        context = RequestContext(self.connection, key, version, CORRELATION_ID, "me", 0.0)
        frame = memoryview(bytearray(b"head" + body))
        answer = self.dispatcher.dispatch(context, frame, 4)
        if answer is not None and not isinstance(answer, list):
            answer = await answer
        assert answer is not None
        return b"".join(gather(answer))

    @staticmethod
    def read(key: int, version: int, data: bytes) -> tuple[Any, int]:
        """(response, position after it); checks the header."""
        assert data[:4] == CORRELATION_ID.to_bytes(4, "big")
        position = 4
        if headers.response_header_version(key, version):
            assert data[4] == 0
            position = 5
        return registry.response_reader(key)(data, position, version)


@asynccontextmanager
async def asking(settings: Mapping[str, str] | None = None) -> AsyncIterator[Asker]:
    """A client of a single running broker."""
    async with running_node(settings=settings) as node:
        yield Asker(node)
