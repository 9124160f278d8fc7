"""Who asks, through which connection, and what an answer looks like to the network."""

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from kbroker.common.parts import Buffer, Part


class CloseConnection(Exception):
    """Raised by dispatch: close this connection without an answer, as Kafka does."""


class ConnectionContext:
    """One client connection. Addresses are text; ports are numbers, -1 when unknown."""

    __slots__ = (
        "advertised_host",
        "advertised_port",
        "client_host",
        "client_port",
        "client_software_name",
        "client_software_version",
        "connection_id",
        "last_kind",
        "listener_name",
        "local_host",
        "local_port",
        "principal",
        "repeated",
        "security_protocol",
    )

    def __init__(
        self,
        *,
        connection_id: int,
        listener_name: str = "PLAINTEXT",
        security_protocol: str = "PLAINTEXT",
        client_host: str = "",
        client_port: int = -1,
        local_host: str = "",
        local_port: int = -1,
        advertised_host: str | None = None,
        advertised_port: int | None = None,
    ) -> None:
        self.connection_id = connection_id
        self.listener_name = listener_name
        self.security_protocol = security_protocol
        self.client_host = client_host
        self.client_port = client_port
        self.local_host = local_host
        self.local_port = local_port
        self.advertised_host = advertised_host
        self.advertised_port = advertised_port
        self.principal = "User:ANONYMOUS"
        self.client_software_name = "unknown"
        self.client_software_version = "unknown"
        self.repeated: Repeated | None = None
        """Asked before dispatch is, where that lets requests be repeated."""
        self.last_kind: object = None

    def is_repeated(self, kind: object) -> bool:
        """Whether requests of this kind came twice in a row and ``repeated`` is still to be set.

        Where kinds take turns, to set it each time would cost more than it saves.
        """
        if self.last_kind is kind:
            return self.repeated is None
        self.last_kind = kind
        self.repeated = None
        return False

    def forget_repeated(self) -> None:
        """What came is not answered by ``repeated`` any more, though it looks as before."""
        self.last_kind = self.repeated = None

    def advertised_address(self) -> tuple[str, int]:
        """(host, port) under which this client reaches this node.

        What was configured or what a PROXY header named, else the local address of this very
        connection: right at once on localhost, on a LAN and in a network namespace.
        """
        host = self.advertised_host if self.advertised_host is not None else self.local_host
        port = self.advertised_port if self.advertised_port is not None else self.local_port
        return host, port


class RequestContext:
    """One request: its header, its connection, and when it came (monotonic seconds)."""

    __slots__ = (
        "api_key",
        "api_version",
        "client_id",
        "connection",
        "correlation_id",
        "received_at",
    )

    def __init__(
        self,
        connection: ConnectionContext,
        api_key: int,
        api_version: int,
        correlation_id: int,
        client_id: str | None,
        received_at: float,
    ) -> None:
        self.connection = connection
        self.api_key = api_key
        self.api_version = api_version
        self.correlation_id = correlation_id
        self.client_id = client_id
        self.received_at = received_at


Answer = list[Part] | None
"""Header and body of a response, without the frame's size; None when nothing is to be sent."""

Dispatched = Answer | Coroutine[Any, Any, Answer]


class Repeated(Protocol):
    """Answers requests of one connection that are the one before in all that this one knows.

    It has been answered by dispatch, so its header need not be read, nor its handler looked up.
    """

    def answer(
        self, frame: memoryview
    ) -> "bytes | list[Part] | Coroutine[Any, Any, Answer] | None":
        """The whole answer, its size in front, or what dispatch would give.

        None: it is another request, dispatch is to be asked; nothing has happened.
        """
        ...


Dispatch = Callable[[RequestContext, Buffer, int], Dispatched]
"""(context, frame, position of the body in it) -> the answer, or a coroutine that gives it."""
