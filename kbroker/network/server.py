"""The server: listeners, the connections they gave, limits over all of them, and the way out."""

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import anyio

from kbroker.network.connection import (
    CLOSED_BY_SERVER,
    CLOSED_TOO_MANY,
    Connection,
    ConnectionSettings,
)
from kbroker.network.limits import BufferPool, ByteBudget, NetworkCounters, NetworkLimits
from kbroker.network.listener import BoundListener, Listener, ListenerEndpoint, bind
from kbroker.network.protocol_shell import WriteBatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anyio.abc import ByteStream, TaskGroup

    from kbroker.common.clock import Clock
    from kbroker.common.entropy import Entropy
    from kbroker.common.timer import Timer, TimerHandle
    from kbroker.request_context import ConnectionContext, Dispatch

__all__ = ["BoundListener", "ListenerEndpoint", "NetworkLimits", "NetworkServer"]

_SWEEP_SLICE = 256
_LONGEST_SWEEP_INTERVAL_S = 5.0
_SHORTEST_SWEEP_INTERVAL_S = 0.05
_CHECKS_PER_LIMIT = 4


class Shell(Protocol):
    """A connection with its transport."""

    @property
    def connection(self) -> Connection: ...

    def fileno(self) -> int: ...

    def direct_fileno(self) -> int: ...

    def overdue(self, now: float) -> str | None: ...

    def finish(self) -> None: ...

    def abort(self, reason: str) -> None: ...


class ShellHost(Protocol):
    """What a shell needs of its server."""

    settings: ConnectionSettings
    write_batch: WriteBatch

    def on_connected(self, shell: Shell) -> None: ...

    def on_lost(self, shell: Shell) -> None: ...

    def on_closed(self, shell: Shell, admitted_host: str | None) -> None: ...

    def admit(self, host: str) -> bool: ...

    def leave(self, host: str) -> None: ...

    def spawn(
        self, function: Callable[..., Coroutine[Any, Any, object]], *args: object
    ) -> None: ...


class AcceptHost(ShellHost, Protocol):
    """What an accept loop needs of its server."""

    def next_connection_id(self) -> int: ...

    def refuse(self, host: str, reason: str) -> None: ...

    async def wait_for_room(self) -> None: ...

    async def pause_accepting(self, seconds: float, reason: str) -> None: ...


class NetworkServer:
    """Accepts connections and has their requests dispatched.

    Order of use: ``bind``, ``start_accepting`` and ``serve`` (in a task group, either first),
    ``drain``, then cancel ``serve``.
    """

    def __init__(
        self,
        *,
        dispatch: "Dispatch",
        limits: NetworkLimits,
        clock: "Clock",
        timer: "Timer",
        entropy: "Entropy | None" = None,
        log: logging.Logger | None = None,
    ) -> None:
        self.counters = NetworkCounters()
        self.settings = ConnectionSettings(
            dispatch=dispatch,
            limits=limits,
            clock=clock,
            budget=ByteBudget(limits.queued_bytes),
            pool=BufferPool(limits.pooled_bytes),
            counters=self.counters,
            log=log or logging.getLogger("kbroker.network"),
        )
        self.write_batch = WriteBatch()
        self._timer = timer
        self._log = self.settings.log
        self._listeners: list[Listener] = []
        self._shells: dict[Shell, None] = {}
        self._per_host: Counter[str] = Counter()
        self._connection_ids = 0
        self._tasks: TaskGroup | None = None
        self._accepts: tuple[anyio.CancelScope, anyio.Event] | None = None
        self._accepting = anyio.Event()
        self._room: anyio.Event | None = None
        self._empty: anyio.Event | None = None
        self._sweep_handle: TimerHandle | None = None
        self._is_draining = False

    # life

    async def bind(self, endpoints: Sequence[ListenerEndpoint]) -> list[BoundListener]:
        """Take the addresses without accepting on them yet; one result per endpoint.

        Raises OSError for a taken or unknown address; what was bound before is then closed.
        """
        bound: list[Listener] = []
        try:
            for endpoint in endpoints:
                bound += [await bind(endpoint)]
        except BaseException:
            for listener in bound:
                listener.close()
            raise
        self._listeners += bound
        return [listener.bound for listener in bound]

    def start_accepting(self) -> None:
        """Open the listeners. Raises OSError when another process took an address meanwhile."""
        for listener in self._listeners:
            listener.listen(self.settings.limits.listen_backlog)
        self._accepting.set()

    async def serve(self) -> None:
        """Serve until cancelled; then every connection is gone."""
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                await self._accepting.wait()
                await self._accept_all()
                await anyio.sleep_forever()
        finally:
            self._tasks = None
            self._close_listeners()
            for shell in self._shells:
                shell.connection.drop_waiting()
            self._abort_all()
            if self._sweep_handle is not None:
                self._sweep_handle.cancel()
                self._sweep_handle = None

    async def serve_stream(self, stream: "ByteStream", context: "ConnectionContext") -> None:
        """Serve one connection over a stream of anyio, until it has closed."""
        from kbroker.network.stream_shell import StreamShell

        if not self.admit(context.client_host):
            await anyio.aclose_forcefully(stream)
            return
        await StreamShell(self, stream, context).run()

    async def drain(self, timeout_s: float) -> None:
        """Accept and read no more, answer what was received, close; after the time, abort.

        A second call, while the first waits or later, aborts at once.
        """
        if self._is_draining:
            self._abort_all()
            timeout_s = min(timeout_s, 1.0)
        self._is_draining = True
        if self._accepts is not None:
            scope, stopped = self._accepts
            scope.cancel()
            await stopped.wait()
        self._close_listeners()
        for shell in list(self._shells):
            shell.finish()
        if timeout_s <= 0:
            self._abort_all()
        elif self._shells:
            self._empty = self._empty or anyio.Event()
            forced = self._timer.schedule(timeout_s, self._abort_all)
            try:
                await self._empty.wait()
            finally:
                forced.cancel()

    def set_limits(self, limits: NetworkLimits) -> None:
        """Put other limits in force; buffer sizes and sendfile for new connections only."""
        self.settings.limits = limits
        self.settings.budget.limit = limits.queued_bytes
        self._make_room()

    def queued_requests(self) -> int:
        """Requests that have arrived and are not answered, of all connections."""
        return sum(shell.connection.cutter.queued_frames for shell in self._shells)

    def filenos(self) -> "Iterator[int]":
        """Descriptors of all sockets: readable ones mean that somebody waits for this loop."""
        for listener in list(self._listeners):
            for listening in listener.sockets:
                yield listening.fileno()
        for shell in list(self._shells):
            if (descriptor := shell.fileno()) >= 0:
                yield descriptor
            if (descriptor := shell.direct_fileno()) >= 0:
                yield descriptor

    # accepting

    async def _accept_all(self) -> None:
        """Accept on every listener until they are to be closed; then they are."""
        listeners = self._listeners
        stopped = anyio.Event()
        try:
            with anyio.CancelScope() as scope:
                self._accepts = (scope, stopped)
                async with anyio.create_task_group() as tasks:
                    for listener in listeners:
                        for listening in listener.sockets:
                            tasks.start_soon(listener.accept_forever, listening, self)
        finally:
            # Not before the loop has forgotten the descriptors: their numbers are used again.
            self._accepts = None
            self._close_listeners()
            stopped.set()

    def next_connection_id(self) -> int:
        self._connection_ids += 1
        return self._connection_ids

    def admit(self, host: str) -> bool:
        """Count a connection of an address; False when it has its share already."""
        if self._per_host[host] >= self.settings.limits.connections_for(host):
            if not self._per_host[host]:
                del self._per_host[host]
            self.refuse(host, CLOSED_TOO_MANY)
            return False
        self._per_host[host] += 1
        return True

    def refuse(self, host: str, reason: str) -> None:
        """Count a connection that was closed at once."""
        self.counters.connections_refused += 1
        now = self.settings.clock.monotonic()
        self.settings.complaints.about(f"refusing a connection from {host}", reason, now)

    async def wait_for_room(self) -> None:
        """Return when another connection is allowed."""
        while self.counters.connections >= self.settings.limits.max_connections:
            self._room = self._room or anyio.Event()
            await self._room.wait()

    async def pause_accepting(self, seconds: float, reason: str) -> None:
        """Return after so long, or when a connection has closed."""
        self.counters.accept_failures += 1
        self.settings.complaints.about(
            "no connection is accepted for now", reason, self.settings.clock.monotonic()
        )
        room = self._room = self._room or anyio.Event()
        retry = self._timer.schedule(seconds, self._make_room)
        try:
            await room.wait()
        finally:
            retry.cancel()

    def _make_room(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.set()

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    # what shells call

    def spawn(self, function: Callable[..., Coroutine[Any, Any, object]], *args: object) -> None:
        """Run the coroutine of a connection in the server's task group."""
        if self._tasks is None:
            raise RuntimeError("the server is not serving")
        self._tasks.start_soon(function, *args)

    def on_connected(self, shell: Shell) -> None:
        """A connection begins."""
        self._shells[shell] = None
        self.counters.connections += 1
        self.counters.connections_accepted += 1
        if self._is_draining:
            shell.finish()
        elif self._sweep_handle is None:
            self._sweep_soon()

    def on_lost(self, shell: Shell) -> None:
        """The transport of a connection is gone; a request of it may still be in progress."""
        del self._shells[shell]
        if not self._shells and self._empty is not None:
            self._empty.set()

    def on_closed(self, shell: Shell, admitted_host: str | None) -> None:
        """Nothing of the connection is left, so another may come; ``admitted_host`` had it."""
        self.counters.connections -= 1
        reason = shell.connection.close_reason or "unknown"
        self.counters.connections_closed_by_reason[reason] += 1
        if admitted_host is not None:
            self.leave(admitted_host)
        self._make_room()

    def leave(self, host: str) -> None:
        """One connection less of an address."""
        self._per_host[host] -= 1
        if self._per_host[host] <= 0:
            del self._per_host[host]

    def _abort_all(self) -> None:
        for shell in list(self._shells):
            shell.abort(CLOSED_BY_SERVER)

    # time

    def _sweep_interval(self) -> float:
        limits = self.settings.limits
        graces = (limits.idle_close, limits.slow_frame_grace, limits.unread_answer_grace)
        shortest = min((grace for grace in graces if grace >= 0), default=0.0)
        interval = min(shortest / _CHECKS_PER_LIMIT, _LONGEST_SWEEP_INTERVAL_S)
        return max(interval, _SHORTEST_SWEEP_INTERVAL_S)

    def _sweep_soon(self) -> None:
        self._sweep_handle = self._timer.schedule(
            self._sweep_interval(), lambda: self._sweep(list(self._shells))
        )

    def _sweep(self, shells: list[Shell]) -> None:
        """Visit a slice of the connections, the rest in later turns; none left, no more sweeps."""
        now = self.settings.clock.monotonic()
        for shell in shells[:_SWEEP_SLICE]:
            reason = shell.overdue(now)
            if reason is not None:
                self._log.info("closing connection %s: %s", shell.connection.peer, reason)
                shell.abort(reason)
        rest = shells[_SWEEP_SLICE:]
        if rest:
            self._sweep_handle = self._timer.schedule(0.0, lambda: self._sweep(rest))
            return
        self.settings.pool.forget_unused()
        if self._shells:
            self._sweep_soon()
        else:
            self._sweep_handle = None
