"""The production shell: an asyncio transport around a ``Connection``, on asyncio and on uvloop.

Requests are dispatched from within the read event. One coroutine per connection, started when
first needed, takes over whenever something has to be waited for: an answer, a full write buffer,
other connections' turns. Until it is done nothing else of that connection is begun, so answers
leave in the order of their requests.
"""

import asyncio
import os
import sys
from typing import TYPE_CHECKING, cast

from kbroker.network.connection import CLOSED_BY_PEER, CLOSED_BY_SERVER, Connection, Turn

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer
    from kbroker.network.busy_poll import BusyPoll
    from kbroker.network.connection import ConnectionSettings, ReadProxyHeader
    from kbroker.network.direct_socket import DirectSocket
    from kbroker.network.server import ShellHost
    from kbroker.request_context import ConnectionContext

_GATHERING_ASYNCIO = sys.version_info >= (3, 12)
_HAS_SENDFILE = hasattr(os, "sendfile")
_PLAINTEXT = ("PLAINTEXT", "SASL_PLAINTEXT")
_LONELY_ENOUGH = 8
_PROBE_EVERY = 64


def _usable_processors() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WriteBatch:
    """Writes the answers of many connections together, after all of a loop turn have been read.

    A write wakes its reader, which then competes with the server for the rest of the turn: with 32
    busy connections a request costs a third less when all are written at the end. A connection that
    is alone would only wait longer, so where turns bring one answer, it is written at once, but for
    one in 64, which looks whether that has changed.
    """

    __slots__ = ("_is_deferring", "_lonely", "_shells", "_until_probe", "busy_poll")

    def __init__(self) -> None:
        self.busy_poll: BusyPoll | None = None
        """Told of each answer that was alone in its turn."""
        self._is_deferring = True
        self._lonely = 0
        self._until_probe = 0
        self._shells: list[ProtocolShell] = []

    def take(self, shell: "ProtocolShell") -> bool:
        """True: ``shell.flush()`` follows at the end of the turn; False: it writes at once."""
        shells = self._shells
        if not shells:  # the first of its turn
            if not self._is_deferring:
                self._until_probe -= 1
                if self._until_probe > 0:
                    return False
                self._is_deferring = True
            asyncio.get_running_loop().call_soon(self._flush)
        shells.append(shell)
        return True

    def _flush(self) -> None:
        shells, self._shells = self._shells, []
        if len(shells) > 1:
            self._lonely = 0
        else:
            self._lonely += 1
            if self._lonely >= _LONELY_ENOUGH:
                self._is_deferring = False
                self._until_probe = _PROBE_EVERY
                self._lonely = _LONELY_ENOUGH - 1
        for shell in shells:
            shell.flush()
        if self.busy_poll is not None and len(shells) == 1:
            self.busy_poll.answered()

    def look_out(self, settings: "ConnectionSettings") -> None:
        """Poll busily as the limits say, unless a client would need this very processor."""
        from kbroker.network.busy_poll import BusyPoll

        if _usable_processors() > 1:
            call_soon = asyncio.get_running_loop().call_soon
            span, monotonic = settings.limits.busy_poll, settings.clock.monotonic
            self.busy_poll = BusyPoll(span, monotonic, call_soon)


class ProtocolShell(asyncio.BufferedProtocol):
    """Moves bytes between a transport and a connection."""

    __slots__ = (
        "_admitted_host",
        "_connection",
        "_counters",
        "_direct",
        "_gathers",
        "_has_worker",
        "_host",
        "_is_begun",
        "_is_busy",
        "_is_lost",
        "_is_read_paused",
        "_is_write_paused",
        "_ready",
        "_sends_files",
        "_transport",
        "_wake",
        "_writable",
        "_write_batch",
        "bytes_out",
        "get_buffer",
    )

    def __init__(
        self,
        host: "ShellHost",
        context: "ConnectionContext",
        read_proxy_header: "ReadProxyHeader | None" = None,
    ) -> None:
        self._host = host
        self._admitted_host: str | None = None
        if read_proxy_header is None:
            self._admitted_host = context.client_host  # asked before it was accepted
        self._connection = Connection(
            host.settings,
            context,
            on_room=self._resume_reading,
            read_proxy_header=read_proxy_header,
            admit=self._admit,
        )
        # What the loop calls for each read is the cutter's own method, without a step in between.
        self.get_buffer = self._connection.cutter.get_buffer  # type: ignore[method-assign]
        self._transport = cast("asyncio.Transport", None)
        self._write_batch = host.write_batch
        self._counters = host.settings.counters
        self._gathers = False
        self._sends_files = (
            _HAS_SENDFILE
            and host.settings.limits.use_sendfile
            and context.security_protocol in _PLAINTEXT
        )
        self._direct: DirectSocket | None = None  # made by the first file range
        self._is_begun = False
        self._is_busy = False  # the coroutine has the connection
        self._has_worker = False
        self._is_lost = False
        self._is_read_paused = False
        self._is_write_paused = False
        self._ready: bytes | None = None  # the answer that flush() writes
        self._wake: asyncio.Future[Turn | None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self.bytes_out = 0

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._is_begun = True
        high = self._host.settings.limits.write_buffer_bytes
        self._transport.set_write_buffer_limits(high=high, low=high // 4)
        if self._host.write_batch.busy_poll is None and self._host.settings.limits.busy_poll > 0:
            self._host.write_batch.look_out(self._host.settings)
        self._gathers = _GATHERING_ASYNCIO or type(transport).__module__.startswith("uvloop")
        self._host.on_connected(self)

    def buffer_updated(self, nbytes: int) -> None:
        connection = self._connection
        try:
            if not (self._is_busy or self._is_write_paused or self._is_read_paused):
                answer = connection.answer_alone(nbytes)
                if answer is not None:
                    if type(answer) is not bytes:
                        self._settle(cast("Turn", answer))
                    elif self._write_batch.take(self):
                        self._is_busy = True
                        self._ready = answer
                    else:
                        self._write_alone(answer)
                    return
            connection.received(nbytes)
            if not self._is_busy:
                self._advance()
            elif connection.must_pause:
                self._pause_reading()
        except Exception:
            self._fail()

    def eof_received(self) -> bool:
        """What was sent before the end is still answered: the transport stays open for that."""
        self._connection.end_input()
        if not self._is_busy:
            try:
                self._advance()
            except Exception:
                self._fail()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        self._connection.close()
        if self._direct is not None:
            self._direct.close()
        self.resume_writing()
        self._wake_worker(None)
        self._host.on_lost(self)
        if not self._has_worker:
            self._release()

    def pause_writing(self) -> None:
        self._is_write_paused = True

    def resume_writing(self) -> None:
        self._is_write_paused = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # what the server calls

    @property
    def connection(self) -> Connection:
        """The connection inside."""
        return self._connection

    def fileno(self) -> int:
        """The socket's descriptor, -1 when it is gone."""
        if self._is_lost:
            return -1
        found = self._transport.get_extra_info("socket")
        return -1 if found is None else int(found.fileno())

    def direct_fileno(self) -> int:
        """The descriptor of the socket's duplicate for sendfile, -1 when there is none."""
        return -1 if self._direct is None else self._direct.fileno()

    def overdue(self, now: float) -> str | None:
        """Why it must be aborted now, None when all is well."""
        if self._is_lost:
            return None
        buffered = self._transport.get_write_buffer_size()
        connection = self._connection
        return connection.overdue(
            now,
            unsent=buffered + connection.output.size,
            sent=self.bytes_out - buffered,
            is_paused=self._is_read_paused,
        )

    def finish(self) -> None:
        """Read no more; close when everything received has been answered and sent."""
        if self._is_lost:
            return
        self._connection.end_input(CLOSED_BY_SERVER)
        self._pause_reading()
        if not self._is_busy:
            try:
                self._advance()
            except Exception:
                self._fail()

    def abort(self, reason: str) -> None:
        """Close now; what is unsent is lost."""
        if not self._is_lost:
            self._connection.end_input(reason)
            self._transport.abort()

    def abort_early(self) -> bool:
        """Undo a connection that could not begin; False when there is no transport to close."""
        if self._is_begun:
            self.abort(CLOSED_BY_SERVER)
            return True
        if self._admitted_host is not None:
            self._host.leave(self._admitted_host)
        return False

    # requests

    def _advance(self) -> None:
        """Answer what is queued; have the answers written now or at the end of the loop's turn."""
        self._settle(self._connection.turn())

    def _settle(self, turn: Turn) -> None:
        output = self._connection.output
        if turn is Turn.IDLE and output.size and self._write_batch.take(self):
            self._is_busy = True  # until flush()
        else:
            self._end_turn(turn)

    def _write_alone(self, answer: bytes) -> None:
        """The same for an answer that is whole, and the only one: now."""
        self._write_answer(answer)
        if self._is_write_paused:
            self._end_turn(Turn.IDLE)
        busy_poll = self._write_batch.busy_poll
        if busy_poll is not None:
            busy_poll.answered()

    def _write_answer(self, answer: bytes) -> None:
        transport = self._transport
        if not transport.is_closing():
            size = len(answer)
            self.bytes_out += size
            self._counters.bytes_out += size
            transport.write(answer)

    def flush(self) -> None:
        """Write the answers of this turn of the loop."""
        self._is_busy = False
        ready, self._ready = self._ready, None
        if self._is_lost:
            return
        try:
            connection = self._connection
            if ready is not None:
                self._write_answer(ready)
                if self._is_write_paused:
                    self._end_turn(Turn.IDLE)
                    return
                cutter = connection.cutter
                if not (
                    cutter.queued_frames
                    or cutter.is_blocked
                    or self._is_read_paused
                    or connection.close_reason is not None
                ):
                    return
            self._end_turn(connection.turn() if connection.has_news else Turn.IDLE)
        except Exception:
            self._fail()

    def _end_turn(self, turn: Turn) -> None:
        """Write; hand over to the coroutine what can not be done at once."""
        connection = self._connection
        output = connection.output
        if output.size and not self._is_write_paused:
            self._write_now()
        if turn is Turn.IDLE and not output.size and not self._is_write_paused:
            if connection.cutter.is_blocked:
                self._pause_reading()
            elif self._is_read_paused and connection.may_resume:
                self._resume_reading()
        elif turn is Turn.CLOSE and not output.size:
            self._transport.close()
        else:
            if connection.must_pause:
                self._pause_reading()
            self._is_busy = True
            if self._has_worker:
                self._wake_worker(turn)
            else:
                self._start_worker(turn)

    def _start_worker(self, turn: Turn) -> None:
        self._has_worker = True
        try:
            self._host.spawn(self._work, turn)
        except BaseException:  # the server has ended meanwhile
            self._has_worker = False
            self._connection.drop_waiting()
            raise

    async def _work(self, turn: Turn) -> None:
        """Do what waits, then give the connection back to the read event."""
        try:
            woken: Turn | None = turn
            while woken is not None:
                if not await self._finish_turns(woken):
                    return
                self._is_busy = False
                self._wake = asyncio.get_running_loop().create_future()
                woken = await self._wake
        except Exception:
            self._fail()
        finally:
            self._has_worker = False
            self._wake = None
            if self._is_lost:
                self._release()
            elif not self._transport.is_closing():
                self._transport.abort()

    async def _finish_turns(self, turn: Turn) -> bool:
        """Go on until nothing is queued and all is sent; False when the connection is done."""
        connection = self._connection
        while True:
            await self._send_output()
            if turn is Turn.WAIT:  # also when the client has gone: what was begun is done
                await connection.finish_waiting()
            if self._is_lost:
                return False
            if self._is_read_paused and connection.may_resume:
                self._resume_reading()
            if turn is Turn.IDLE and not connection.has_news:
                return True
            if turn is Turn.CLOSE:
                self._transport.close()
                return False
            if turn is Turn.MORE and not await self._give_way():
                return False
            turn = connection.turn()

    async def _give_way(self) -> bool:
        """Let others have a turn; False when the connection was lost in it."""
        await asyncio.sleep(0)
        return not self._is_lost

    def _wake_worker(self, turn: Turn | None) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(turn)

    def _pause_reading(self) -> None:
        if not self._is_read_paused and not self._transport.is_closing():
            self._is_read_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_read_paused and not self._is_lost and not self._transport.is_closing():
            self._is_read_paused = False
            self._transport.resume_reading()

    # output

    def _write(self, buffers: "list[Buffer]") -> None:
        """Hand buffers to the transport, without joining large ones."""
        transport = self._transport
        if transport.is_closing():
            return
        size = len(buffers[0]) if len(buffers) == 1 else sum(map(len, buffers))
        self.bytes_out += size
        self._counters.bytes_out += size
        if len(buffers) == 1:
            transport.write(buffers[0])
        elif self._gathers:
            transport.writelines(buffers)
            if not self._is_write_paused:
                self._check_write_buffer()
        else:
            for data in buffers:
                transport.write(data)

    def _check_write_buffer(self) -> None:
        """Have pause_writing called where due: writelines of asyncio 3.12 and 3.13.0 forgets it."""
        high = self._host.settings.limits.write_buffer_bytes
        if self._transport.get_write_buffer_size() > high:
            self._transport.set_write_buffer_limits(high=high, low=high // 4)

    def _write_now(self) -> bool:
        """Send what can be sent at once; False when the socket must take something first.

        No more than about ``output_chunk_bytes``: others have their turn.
        """
        output = self._connection.output
        if not self._sends_files:
            if buffers := output.take():
                self._write(buffers)
            return True
        if self._transport.is_closing():
            return True
        left = output.chunk_bytes
        while left > 0:
            before = output.size
            buffers, file_range = output.take_to_file()
            if file_range is None:
                if buffers:
                    self._write(buffers)
                return True
            try:
                if not (self._send_head(buffers) and self._send_file(*file_range)):
                    return False
            except ConnectionError:  # before the transport noticed
                self.abort(CLOSED_BY_PEER)
                return True
            if not output.size:
                return True
            left -= before - output.size
        return True

    def _send_head(self, buffers: "list[Buffer]") -> bool:
        """Send what stands before a file range; False when not all of it has left."""
        if self._transport.get_write_buffer_size():
            if buffers:
                self._write(buffers)
            return False
        if self._direct is None:
            from kbroker.network.direct_socket import DirectSocket

            self._direct = DirectSocket(self.fileno())
        if not buffers:
            return True
        sent = self._direct.send(buffers)
        self.bytes_out += sent
        self._counters.bytes_out += sent
        rest: list[Buffer] = []
        for data in buffers:
            if sent < len(data):
                rest.append(memoryview(data)[sent:] if sent else data)
            sent = max(0, sent - len(data))
        if rest:
            self._write(rest)
        return not rest

    def _send_file(self, descriptor: int, position: int, size: int) -> bool:
        """Send the file range that is next; False when not all of it has left."""
        assert self._direct is not None
        sent = self._direct.send_file(descriptor, position, size)
        self.bytes_out += sent
        self._counters.bytes_out += sent
        self._connection.output.sent_from_file(sent)
        return sent == size

    async def _send_output(self) -> None:
        """Send all output as the peer takes it; returns early when the connection is lost."""
        output = self._connection.output
        while not self._is_lost:
            if self._is_write_paused:
                await self._wait_writable()
            elif not output.size:
                return
            elif not self._write_now():
                await self._wait_for_socket()
            elif output.size and not self._is_write_paused:
                await asyncio.sleep(0)

    async def _wait_for_socket(self) -> None:
        """Return when a file range can go on: all before it has left, the socket takes more."""
        transport = self._transport
        if transport.get_write_buffer_size():
            high = self._host.settings.limits.write_buffer_bytes
            transport.set_write_buffer_limits(high=0)
            while self._is_write_paused and not self._is_lost:
                await self._wait_writable()
            if not self._is_lost:
                transport.set_write_buffer_limits(high=high, low=high // 4)
        elif self._direct is not None:
            await self._direct.wait_writable()

    async def _wait_writable(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()
        try:
            await self._writable
        finally:
            self._writable = None

    # ends

    def _admit(self, host: str) -> bool:
        if not self._host.admit(host):
            return False
        self._admitted_host = host
        return True

    def _fail(self) -> None:
        self._host.settings.log.exception("a connection failed; closing it")
        self.abort("failure")

    def _release(self) -> None:
        """Neither transport nor coroutine is left."""
        host, self._admitted_host = self._admitted_host, None
        self._host.on_closed(self, host)
