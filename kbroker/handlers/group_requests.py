"""What the handlers of groups share: who asks, and answers that must wait."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from kbroker.coordinator.deferred import Answer, Deferred
from kbroker.coordinator.group.classic_protocol import ClientInfo
from kbroker.request_context import RequestContext

R = TypeVar("R")


def client_info(context: RequestContext) -> ClientInfo:
    """The client as groups remember it; a client without an id has an empty one."""
    return ClientInfo(
        context.client_id or "",
        java_address(context.connection.client_host),
        context.api_version,
    )


def java_address(host: str) -> str:
    """An address as Java's InetAddress prints one without a name: ``/127.0.0.1``.

    Java writes all eight groups of an IPv6 address, and an IPv4 address in one as IPv4.
    """
    if ":" not in host:
        return f"/{host}"
    import ipaddress  # 3 ms, and only for who needs it

    bare, _, scope = host.partition("%")
    address = ipaddress.IPv6Address(bare)
    if address.ipv4_mapped is not None:
        return f"/{address.ipv4_mapped}"
    groups = ":".join(f"{int(group, 16):x}" for group in address.exploded.split(":"))
    return f"/{groups}%{scope}" if scope else f"/{groups}"


def answer_of(outcome: Answer[R]) -> R | Coroutine[Any, Any, R]:
    """What a handler returns: the answer, or a coroutine that waits for it."""
    return outcome.wait() if isinstance(outcome, Deferred) else outcome
