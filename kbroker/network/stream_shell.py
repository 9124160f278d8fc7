"""The other shell: a ``Connection`` over a byte stream of anyio.

For tests, simulation and whatever is no socket of asyncio. The same core, hence the same answers;
a request costs several times as much as through the protocol shell.
"""

from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel

from kbroker.network.connection import CLOSED_BY_SERVER, Connection, Turn

if TYPE_CHECKING:
    from anyio.abc import ByteStream

    from kbroker.common.parts import Buffer
    from kbroker.network.connection import ReadProxyHeader
    from kbroker.network.server import ShellHost
    from kbroker.request_context import ConnectionContext

_RECEIVE_SIZE = 65_536
_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)


class StreamShell:
    """Moves bytes between a stream and a connection: one task reads, one answers."""

    __slots__ = (
        "_admitted_host",
        "_connection",
        "_host",
        "_readable",
        "_scope",
        "_sending",
        "_stream",
        "_work",
        "bytes_out",
    )

    def __init__(
        self,
        host: "ShellHost",
        stream: "ByteStream",
        context: "ConnectionContext",
        read_proxy_header: "ReadProxyHeader | None" = None,
    ) -> None:
        self._host = host
        self._stream = stream
        self._admitted_host = context.client_host if read_proxy_header is None else None
        self._connection = Connection(
            host.settings,
            context,
            on_room=self._let_read,
            read_proxy_header=read_proxy_header,
            admit=self._admit,
        )
        self._scope = anyio.CancelScope()
        self._work = anyio.Event()
        self._readable: anyio.Event | None = None
        self._sending = 0
        self.bytes_out = 0

    async def run(self) -> None:
        """Serve the connection until it has closed; its address must have been admitted."""
        self._host.on_connected(self)
        try:
            with self._scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._read)
                    await self._answer()
                    tasks.cancel_scope.cancel()
        finally:
            self._connection.close()
            with anyio.CancelScope(shield=True):
                await anyio.aclose_forcefully(self._stream)
            self._host.on_lost(self)
            self._host.on_closed(self, self._admitted_host)

    # what the server calls

    @property
    def connection(self) -> Connection:
        """The connection inside."""
        return self._connection

    def fileno(self) -> int:
        """-1: a stream need not have a socket."""
        return -1

    def direct_fileno(self) -> int:
        """-1: nothing is sent past the stream."""
        return -1

    def overdue(self, now: float) -> str | None:
        """Why it must be aborted now, None when all is well."""
        return self._connection.overdue(
            now,
            unsent=self._sending + self._connection.output.size,
            sent=self.bytes_out,
            is_paused=self._readable is not None,
        )

    def finish(self) -> None:
        """Read no more; close when everything received has been answered and sent."""
        self._connection.end_input(CLOSED_BY_SERVER)
        self._work.set()

    def abort(self, reason: str) -> None:
        """Close now; what is unsent is lost."""
        self._connection.end_input(reason)
        self._scope.cancel()

    # the two tasks

    async def _read(self) -> None:
        connection = self._connection
        while connection.close_reason is None:
            if connection.must_pause:
                self._readable = anyio.Event()
                await self._readable.wait()
                self._readable = None
                continue
            try:
                data = await self._stream.receive(_RECEIVE_SIZE)
            except _GONE:
                connection.end_input()
            else:
                connection.feed(data)
            self._work.set()

    async def _answer(self) -> None:
        connection = self._connection
        while True:
            self._work = anyio.Event()  # before the look: what comes after it is seen
            turn = connection.turn()
            try:
                await self._send_output()
            except _GONE:
                return
            except Exception:
                self._host.settings.log.exception("a connection failed; closing it")
                return
            if turn is Turn.CLOSE:
                return
            if self._readable is not None and connection.may_resume:
                self._readable.set()
            if turn is Turn.WAIT:
                await connection.finish_waiting()
            elif turn is Turn.MORE:
                await anyio.lowlevel.checkpoint()
            elif turn is Turn.IDLE:
                await self._work.wait()

    async def _send_output(self) -> None:
        output = self._connection.output
        while output.size:
            buffers = output.take()
            self._sending = sum(map(len, buffers))
            for data in buffers:
                await self._send(data)

    async def _send(self, data: "Buffer") -> None:
        await self._stream.send(data if isinstance(data, bytes) else bytes(data))
        size = len(data)
        self._sending -= size
        self.bytes_out += size
        self._host.settings.counters.bytes_out += size

    def _let_read(self) -> None:
        if self._readable is not None:
            self._readable.set()

    def _admit(self, host: str) -> bool:
        if not self._host.admit(host):
            return False
        self._admitted_host = host
        return True
