"""A connection without its socket: bytes in, requests dispatched in order, answers out.

A shell owns the socket. It puts received bytes where ``get_buffer`` says, calls ``turn`` while
there is work, sends ``output``, and awaits what ``turn`` says must be awaited. No method here
sends, receives or sleeps; ``finish_waiting`` awaits nothing but the answer itself.
"""

import logging
from enum import Enum
from struct import Struct
from typing import TYPE_CHECKING, Any, cast

from kbroker.common.parts import Buffer
from kbroker.network.frame import FrameCutter, looks_like
from kbroker.network.limits import POOLED_FROM
from kbroker.network.output import Output
from kbroker.protocol.headers import read_request_fields
from kbroker.protocol.wire import DecodeError
from kbroker.request_context import (
    Answer,
    CloseConnection,
    ConnectionContext,
    Dispatch,
    RequestContext,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from kbroker.common.clock import Clock
    from kbroker.network.limits import BufferPool, ByteBudget, NetworkCounters, NetworkLimits
    from kbroker.network.proxy_protocol import ProxyHeader

    ReadProxyHeader = Callable[[bytes | bytearray], tuple[ProxyHeader, int] | None]

_SIZE = Struct(">i")
_OUTPUT_STEP = 65_536
_SMALL_ANSWER = 16_384
_COMPLAINT_EVERY = 10.0

BAD_HEADER = "undecodable request header"
BAD_PROXY_HEADER = "malformed PROXY header"
CLOSED_IDLE = "idle"
CLOSED_TOO_MANY = "too many connections from this address"
CLOSED_SLOW_FRAME = "a request arrives too slowly"
CLOSED_UNREAD_ANSWER = "answers are not read"
CLOSED_BY_PEER = "closed by the peer"
CLOSED_BY_SERVER = "server stops"
CLOSED_BY_DISPATCH = "refused request"
CLOSED_BY_FAILURE = "failed request"


class Turn(Enum):
    """Why a turn ended, and so what the shell does next."""

    IDLE = "no complete request is left"
    MORE = "there are more, but others have their turn first"
    OUTPUT = "enough has been answered: send it, then go on"
    WAIT = "await finish_waiting()"
    CLOSE = "send what there is, then close"


class Complaints:
    """Warnings that peers cause, one in ten seconds at most: a peer must not fill the log."""

    __slots__ = ("_last", "_suppressed", "log")

    def __init__(self, log: logging.Logger) -> None:
        self.log = log
        self._last = float("-inf")
        self._suppressed = 0

    def about(self, subject: str, text: str, now: float, **fields: object) -> None:
        """Log it, with fields for those who search the log, or count it when one was logged a
        moment ago."""
        if now - self._last < _COMPLAINT_EVERY:
            self._suppressed += 1
            return
        more = f" ({self._suppressed} similar since the last)" if self._suppressed else ""
        self._last, self._suppressed = now, 0
        self.log.warning("%s: %s%s", subject, text, more, extra=fields)


class ConnectionSettings:
    """What all connections of a server share."""

    __slots__ = (
        "budget",
        "clock",
        "complaints",
        "counters",
        "dispatch",
        "limits",
        "log",
        "pool",
        "scratch",
    )

    def __init__(
        self,
        *,
        dispatch: Dispatch,
        limits: "NetworkLimits",
        clock: "Clock",
        budget: "ByteBudget",
        pool: "BufferPool",
        counters: "NetworkCounters",
        log: logging.Logger,
    ) -> None:
        self.dispatch = dispatch
        self.limits = limits
        self.clock = clock
        self.budget = budget
        self.pool = pool
        self.counters = counters
        self.log = log
        self.complaints = Complaints(log)
        self.scratch = memoryview(bytearray(limits.scratch_bytes))


class Connection:
    """The state of one connection.

    ``on_room`` is called when reading may go on that the server's budget had stopped. With
    ``read_proxy_header`` the connection begins with such a header; ``admit`` is then asked whether
    the address it names may have another connection.
    """

    __slots__ = (
        "_admit",
        "_frame",
        "_is_closed",
        "_on_room",
        "_proxy_bytes",
        "_read_proxy_header",
        "_settings",
        "_sweep",
        "bytes_in",
        "close_reason",
        "context",
        "cutter",
        "output",
        "waiting",
    )

    def __init__(
        self,
        settings: ConnectionSettings,
        context: ConnectionContext,
        *,
        on_room: "Callable[[], object]",
        read_proxy_header: "ReadProxyHeader | None" = None,
        admit: "Callable[[str], bool] | None" = None,
    ) -> None:
        self._settings = settings
        self.context = context
        self._on_room = on_room
        self.cutter = FrameCutter(
            scratch=settings.scratch,
            max_frame_bytes=settings.limits.max_frame_bytes,
            budget=settings.budget,
            pool=settings.pool,
            owner=self,
        )
        self._read_proxy_header = read_proxy_header
        self._admit = admit
        self._proxy_bytes: bytearray | None = None
        self._frame: memoryview | None = None
        self._is_closed = False
        self._sweep: _SweepMarks | None = None
        self.waiting: Coroutine[Any, Any, Answer] | None = None
        self.output = Output(settings.limits.output_chunk_bytes)
        self.bytes_in = 0
        self.close_reason: str | None = None
        """Why the connection closes when what is queued has been answered."""

    @property
    def peer(self) -> str:
        """The client's address, for logs."""
        return f"{self.context.client_host}:{self.context.client_port}"

    # input

    def get_buffer(self) -> memoryview:
        """Where the next bytes are to be received; ``received`` must follow before anything else
        happens on this thread: the memory is shared by all connections."""
        return self.cutter.get_buffer()

    def received(self, size: int) -> None:
        """``size`` bytes have been put there."""
        self.bytes_in += size
        self._settings.counters.bytes_in += size
        cutter = self.cutter
        if self.close_reason is not None:
            return
        if self._read_proxy_header is not None:
            self._receive_proxy_header(bytes(self._settings.scratch[:size]))
            return
        cutter.received(size)
        if cutter.bad is not None:
            self._on_bad_frame()

    def feed(self, data: Buffer) -> None:
        """The same for bytes that arrived in memory of their own."""
        self.bytes_in += len(data)
        self._settings.counters.bytes_in += len(data)
        if self.close_reason is not None:
            return
        if self._read_proxy_header is not None:
            self._receive_proxy_header(data)
            return
        self.cutter.feed(data)
        if self.cutter.bad is not None:
            self._on_bad_frame()

    def end_input(self, reason: str = CLOSED_BY_PEER) -> None:
        """No more is read: what is queued is still answered, then the connection closes."""
        if self.close_reason is None:
            self.close_reason = reason

    def on_room(self) -> None:
        """The budget may have room for the large frame that was stopped."""
        if self.cutter.grow():
            self._on_room()

    @property
    def must_pause(self) -> bool:
        """Read no further for now."""
        limits = self._settings.limits
        cutter = self.cutter
        return (
            cutter.is_blocked
            or self.close_reason is not None
            or cutter.queued_frames >= limits.queued_frames_per_connection
            or cutter.queued_bytes >= limits.queued_bytes_per_connection
        )

    @property
    def may_resume(self) -> bool:
        """Read again: with half the room free, so that this does not change at every request."""
        limits = self._settings.limits
        return not (
            self.must_pause
            or self.cutter.queued_frames * 2 > limits.queued_frames_per_connection
            or self.cutter.queued_bytes * 2 > limits.queued_bytes_per_connection
        )

    @property
    def has_news(self) -> bool:
        """Something came since ``turn`` returned IDLE: call it again."""
        return self.cutter.queued_frames > 0 or self.close_reason is not None

    @property
    def has_work(self) -> bool:
        """Requests are queued or one is being answered."""
        return self.cutter.queued_frames > 0 or self._frame is not None

    # requests

    def turn(self) -> Turn:
        """Answer queued requests, in order, until one must wait or others should have a turn."""
        settings = self._settings
        limits = settings.limits
        cutter = self.cutter
        output = self.output
        dispatch = settings.dispatch
        monotonic = settings.clock.monotonic
        context = self.context
        start = now = monotonic()
        deadline = start + limits.turn_time
        left = limits.turn_frames
        finished = 0
        result = Turn.IDLE
        while cutter.queued_frames:
            if left == 0 or now > deadline:
                result = Turn.MORE
                break
            left -= 1
            frame = cutter.next_frame()
            repeated = context.repeated
            try:
                answer = None if repeated is None else repeated.answer(frame)
                if answer is None:
                    api_key, version, correlation_id, client_id, position = read_request_fields(
                        frame
                    )
                    answer = dispatch(
                        RequestContext(context, api_key, version, correlation_id, client_id, now),
                        frame,
                        position,
                    )
            except Exception as error:
                self._frame = frame
                cutter.finished(finished)
                finished = 0
                self._on_error(error)
                self._finish_frame(None)
                break
            if answer is not None:
                if type(answer) is list:
                    output.add_answer(answer)
                elif type(answer) is bytes:
                    output.add_frame(answer)
                else:
                    self._frame = frame
                    self.waiting = cast("Coroutine[Any, Any, Answer]", answer)
                    result = Turn.WAIT
                    break
            size = len(frame)
            if size < POOLED_FROM:
                finished += size + 4
            else:
                self._frame = frame
                del frame
                self._finish_frame(None)
            now = monotonic()
            if output.size >= _OUTPUT_STEP and cutter.queued_frames:
                result = Turn.OUTPUT
                break
        counters = settings.counters
        counters.requests += limits.turn_frames - left
        if finished:
            cutter.finished(finished)
        if result is Turn.IDLE and self.close_reason is not None:
            result = Turn.CLOSE
        if result is Turn.WAIT or self.close_reason is not None:
            now = monotonic()  # the last one stands before the request that ended the turn
        spent = (now - start) * 1000
        if spent > counters.longest_turn_ms:
            counters.longest_turn_ms = spent
        return result

    def answer_alone(self, size: int) -> bytes | Turn | None:
        """Take ``size`` bytes as ``received`` does and answer them: for one small request, alone.

        Most are. None: they are not, nothing has happened; ``received`` and ``turn`` are to be
        called. Otherwise the whole answer, which is not in ``output``, or what ``turn`` would give.
        """
        output = self.output
        if self.close_reason is not None or self._read_proxy_header is not None or output.size:
            return None
        frame = self.cutter.take_alone(size)
        if frame is None:
            return None
        settings = self._settings
        counters = settings.counters
        self.bytes_in += size
        counters.bytes_in += size
        counters.requests += 1
        monotonic = settings.clock.monotonic
        start = monotonic()
        context = self.context
        repeated = context.repeated
        try:
            answer = None if repeated is None else repeated.answer(frame)
            if answer is None:
                api_key, version, correlation_id, client_id, position = read_request_fields(frame)
                answer = settings.dispatch(
                    RequestContext(context, api_key, version, correlation_id, client_id, start),
                    frame,
                    position,
                )
        except Exception as error:
            self._on_error(error)
            return Turn.CLOSE
        spent = (monotonic() - start) * 1000
        if spent > counters.longest_turn_ms:
            counters.longest_turn_ms = spent
        if type(answer) is bytes:
            if not self.has_news:
                return answer
            output.add_frame(answer)
        elif type(answer) is list:
            if self.close_reason is None and len(answer) == 2:
                head, body = answer
                if type(head) is bytes and type(body) is bytes and len(body) < _SMALL_ANSWER:
                    return _SIZE.pack(len(head) + len(body)) + head + body
            output.add_answer(answer)
        elif answer is not None:
            self._frame = frame
            self.cutter.hold(size)
            self.waiting = cast("Coroutine[Any, Any, Answer]", answer)
            return Turn.WAIT
        return Turn.IDLE if self.close_reason is None else Turn.CLOSE

    async def finish_waiting(self) -> None:
        """Await the answer for which ``turn`` returned WAIT."""
        waiting, self.waiting = self.waiting, None
        assert waiting is not None
        answer: Answer = None
        try:
            answer = await waiting
        except Exception as error:
            self._on_error(error)
        finally:
            self._finish_frame(answer)

    def close(self) -> None:
        """The transport is gone: free everything; an answer that comes later is dropped."""
        self._close(CLOSED_BY_PEER)
        self.output.clear()

    def drop_waiting(self) -> None:
        """The server ends and nobody will await the answer that ``turn`` said to wait for."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.close()

    def _finish_frame(self, answer: Answer) -> None:
        """The request being answered is done with; its memory may serve again."""
        frame, self._frame = self._frame, None
        if answer is not None and not self._is_closed:
            self.output.add_answer(answer)
        if frame is None:
            return
        size = len(frame)
        if size < POOLED_FROM:
            self.cutter.finished(size + 4)
            return
        buffer = frame.obj
        del frame, answer  # the pool takes no buffer that somebody can still see
        self.cutter.finished_large(buffer, size + 4)

    def _on_error(self, error: Exception) -> None:
        """A request was no request, was refused, or failed: close after the answers before it."""
        if isinstance(error, CloseConnection):
            self._close(CLOSED_BY_DISPATCH)
        elif isinstance(error, DecodeError):
            self._count_bad(BAD_HEADER, f"{BAD_HEADER} ({error})")
            self._close(BAD_HEADER)
        else:
            settings = self._settings
            settings.counters.dispatch_failures += 1
            settings.log.error(
                "a request from %s failed; closing",
                self.peer,
                exc_info=error,
                extra={"connection": self.context.connection_id, "peer": self.peer},
            )
            self._close(CLOSED_BY_FAILURE)

    def _close(self, reason: str) -> None:
        """Close after the answers that are ready; requests queued behind this one are dropped."""
        if self.close_reason is None:
            self.close_reason = reason
        self._is_closed = True
        self.cutter.close(in_progress=0 if self._frame is None else len(self._frame) + 4)

    # bad input

    def _on_bad_frame(self) -> None:
        """Frames before the bad one are still answered, then the connection closes."""
        reason = self.cutter.bad
        assert reason is not None
        self.close_reason = reason
        speech = looks_like(self.cutter.first_bytes)
        hint = f"; the first bytes look like {speech}" if speech else ""
        self._count_bad(reason, f"bad frame, {reason}{hint}")

    def _count_bad(self, reason: str, text: str) -> None:
        counters = self._settings.counters
        counters.bad_frames += 1
        counters.bad_frames_by_reason[reason] += 1
        now = self._settings.clock.monotonic()
        self._settings.complaints.about(
            f"closing the connection from {self.peer}",
            text,
            now,
            connection=self.context.connection_id,
            peer=self.peer,
            reason=reason,
        )

    def _receive_proxy_header(self, data: Buffer) -> None:
        from kbroker.network.proxy_protocol import ProxyHeaderError

        read = self._read_proxy_header
        assert read is not None
        if self._proxy_bytes is None:
            self._proxy_bytes = bytearray()
        self._proxy_bytes += data
        try:
            found = read(self._proxy_bytes)
        except ProxyHeaderError as error:
            self.close_reason = BAD_PROXY_HEADER
            self._proxy_bytes = None
            self._count_bad(BAD_PROXY_HEADER, f"{BAD_PROXY_HEADER} ({error})")
            return
        if found is None:
            return
        header, end = found
        rest = self._proxy_bytes[end:]
        self._proxy_bytes = self._read_proxy_header = None
        if header.has_addresses:
            self._take_addresses(header)
        if self._admit is not None and not self._admit(self.context.client_host):
            self.close_reason = CLOSED_TOO_MANY
        elif rest:
            self.cutter.feed(rest)
            if self.cutter.bad is not None:
                self._on_bad_frame()

    def _take_addresses(self, header: "ProxyHeader") -> None:
        context = self.context
        context.client_host, context.client_port = header.source_host, header.source_port
        if context.advertised_host is None:
            context.advertised_host = header.destination_host
            if context.advertised_port is None:
                context.advertised_port = header.destination_port

    # time

    def overdue(self, now: float, unsent: int, sent: int, *, is_paused: bool) -> str | None:
        """Why this connection has to be closed now; None when all is well.

        ``unsent`` bytes wait in the transport, ``sent`` bytes have ever left it, ``is_paused``
        tells that the server itself does not read. Called from time to time by the server.
        """
        marks = self._sweep
        if marks is None:
            marks = self._sweep = _SweepMarks(now)
        limits = self._settings.limits
        if self._is_too_slow(marks, now, is_paused=is_paused):
            return CLOSED_SLOW_FRAME
        if unsent and marks.is_unread(now, sent, limits):
            return CLOSED_UNREAD_ANSWER
        if not unsent:
            marks.unread_since = None
        moved = self.bytes_in + sent
        if moved != marks.moved or self.has_work or is_paused:
            marks.moved = moved
            marks.active_at = now
        elif 0 <= limits.idle_close <= now - marks.active_at:
            return CLOSED_IDLE
        return None

    def _is_too_slow(self, marks: "_SweepMarks", now: float, *, is_paused: bool) -> bool:
        cutter = self.cutter
        partial = cutter.partial
        if self._proxy_bytes is not None:
            partial = len(self._proxy_bytes)
        if not partial or is_paused or cutter.frames_cut != marks.frames_cut:
            marks.frames_cut = cutter.frames_cut
            marks.frame_since = None
            if not partial or is_paused:
                return False
        if marks.frame_since is None:
            marks.frame_since = now
            marks.frame_base = partial
            return False
        limits = self._settings.limits
        is_crowded = partial >= POOLED_FROM and self._settings.budget.is_crowded
        rate, grace = limits.slow_frame_rate, limits.slow_frame_grace
        if is_crowded:
            rate, grace = limits.crowded_frame_rate, limits.crowded_frame_grace
        elapsed = now - marks.frame_since
        return elapsed > grace and partial - marks.frame_base < rate * elapsed


class _SweepMarks:
    """What the last visits of the sweep saw."""

    __slots__ = (
        "active_at",
        "frame_base",
        "frame_since",
        "frames_cut",
        "moved",
        "unread_base",
        "unread_since",
    )

    def __init__(self, now: float) -> None:
        self.moved = -1
        self.active_at = now
        self.frames_cut = 0
        self.frame_since: float | None = None
        self.frame_base = 0
        self.unread_since: float | None = None
        self.unread_base = 0

    def is_unread(self, now: float, sent: int, limits: "NetworkLimits") -> bool:
        """The peer takes what is there for it too slowly."""
        if self.unread_since is None:
            self.unread_since, self.unread_base = now, sent
            return False
        elapsed = now - self.unread_since
        if elapsed <= limits.unread_answer_grace:
            return False
        return sent - self.unread_base < limits.unread_answer_rate * elapsed
