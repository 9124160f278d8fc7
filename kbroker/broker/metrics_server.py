"""A small HTTP port: ``/metrics`` for Prometheus, ``/health/live`` and ``/health/ready``.

Opened when ``kbroker.metrics.address`` is set, before the logs are loaded: a broker that recovers
is alive and not ready. Each connection gets one answer. Health needs nothing but this module;
metrics need prometheus_client (extra ``metrics``), imported at the first scrape.
"""

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import anyio
from anyio.abc import SocketAttribute

from kbroker.config.config_def import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from anyio.abc import AsyncResource, ByteStream, SocketListener, TaskGroup

    from kbroker.broker.broker_server import BrokerServer
    from kbroker.broker.metrics import Family
    from kbroker.common.timer import TimerHandle

_MOST_CONNECTIONS: Final = 32
_RENDERED_INLINE: Final = 500
_MOST_REQUEST_BYTES: Final = 8192
_TIME_LIMIT_S: Final = 10.0
_ACCEPT_AGAIN_S: Final = 1.0
_LAG_INTERVAL_S: Final = 0.25
_LAG_WINDOW_S: Final = 60.0
_END_OF_HEAD: Final = b"\r\n\r\n"
_TEXT: Final = "text/plain; charset=utf-8"
_NOT_ALLOWED: Final = 405
_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    _NOT_ALLOWED: "Method Not Allowed",
    501: "Not Implemented",
    503: "Service Unavailable",
}


class _Answer(NamedTuple):
    status: int
    body: bytes
    content_type: str = _TEXT


class MetricsServer:
    """The port of one broker. ``start`` binds it; its tasks end with the task group."""

    def __init__(self, server: "BrokerServer", log: logging.Logger) -> None:
        self._server = server
        self._log = log
        self._open = 0
        self._unasked: dict[anyio.CancelScope, None] = {}  # have not asked yet, the longest first
        self._lag = LoopLag(server)
        self._render: Callable[[Sequence[Family], str], tuple[bytes, str]] | None = None
        self.address = ("", -1)

    async def start(self, address: str, background: "TaskGroup") -> None:
        """Listen on ``HOST:PORT`` or a port. Raises OSError; ConfigError for anything else."""
        host, port = parse_metrics_address(address)
        listener = await anyio.create_tcp_listener(local_host=host, local_port=port)
        self.address = (host, listener.extra(SocketAttribute.local_port))
        shown = f"[{host}]" if ":" in host else host
        self._log.info("metrics and health on http://%s:%d/", shown, self.address[1])
        background.start_soon(self._run, listener, listener.listeners)
        self._lag.start()

    async def _run(self, opened: "AsyncResource", listeners: "Sequence[Any]") -> None:
        async with opened, anyio.create_task_group() as tasks:
            for listener in listeners:
                tasks.start_soon(self.accept_forever, listener, tasks)

    async def accept_forever(self, listener: "SocketListener", tasks: "TaskGroup") -> None:
        """Not ``listener.serve``, which ends, and the broker with it, when descriptors run out."""
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                self._log.warning("no connection for metrics is accepted for now: %s", error)
                later = anyio.Event()
                self._server.timer.schedule(_ACCEPT_AGAIN_S, later.set)
                await later.wait()
            else:
                tasks.start_soon(self.serve, stream)

    async def serve(self, stream: "ByteStream") -> None:
        """One connection: one request, one answer. Whatever happens here, the broker goes on.

        When there are too many, one that has not asked anything gives way: who only holds
        connections open must not keep an orchestrator from asking whether the broker lives.
        """
        async with stream:
            if self._open >= _MOST_CONNECTIONS:
                if not self._unasked:
                    return
                oldest = next(iter(self._unasked))
                del self._unasked[oldest]
                oldest.cancel()
            self._open += 1
            with anyio.CancelScope() as scope:
                self._unasked[scope] = None
                limit = self._server.timer.schedule(_TIME_LIMIT_S, scope.cancel)
                try:
                    await self._answer(stream, scope)
                except (anyio.BrokenResourceError, anyio.EndOfStream):
                    pass  # the peer has gone: nobody is left to be told
                except Exception:
                    self._log.exception("a request for metrics or health failed")
                finally:
                    limit.cancel()
                    self._unasked.pop(scope, None)
                    self._open -= 1

    async def _answer(self, stream: "ByteStream", scope: anyio.CancelScope) -> None:
        head = b""
        while _END_OF_HEAD not in head:
            if len(head) > _MOST_REQUEST_BYTES:
                await stream.send(_encode(_Answer(400, b"too long\n"), with_body=True))
                return
            head += await stream.receive()
        self._unasked.pop(scope, None)
        request, _, fields = head.partition(b"\r\n")
        words = request.split(b" ")
        if len(words) != 3:
            answer = _Answer(400, b"not HTTP\n")
        elif words[0] not in (b"GET", b"HEAD"):
            answer = _Answer(_NOT_ALLOWED, b"GET or HEAD\n")
        else:
            path = words[1].partition(b"?")[0].decode("latin-1")
            answer = await self._resource(path, _accepted(fields))
        await stream.send(_encode(answer, with_body=words[0] != b"HEAD"))

    async def _resource(self, path: str, accept: str) -> _Answer:
        if path == "/health/live":
            return _Answer(200, b"live\n")
        is_ready = self._server.is_ready
        if path == "/health/ready":
            return _Answer(200, b"ready\n") if is_ready else _Answer(503, b"not ready\n")
        if path != "/metrics":
            return _Answer(404, b"/metrics, /health/live or /health/ready\n")
        if not is_ready:
            return _Answer(503, b"not ready\n")
        return await self._metrics(accept)

    async def _metrics(self, accept: str) -> _Answer:
        if self._render is None:
            try:
                from kbroker.broker.prometheus import new_renderer
            except ImportError:
                return _Answer(
                    501, b"metrics need prometheus_client: pip install kbroker[metrics]\n"
                )
            self._render = new_renderer()
        from kbroker.broker.metrics import collect

        families = await collect(self._server)
        families += self._lag.families()
        render = partial(self._render, families, accept)
        # Some us a sample: with thousands of partitions too much for one turn of the loop.
        is_long = sum(len(family.samples) for family in families) > _RENDERED_INLINE
        offload = self._server.services.offload
        body, content_type = await offload.run(render) if is_long else render()
        return _Answer(200, body, content_type)


def parse_metrics_address(text: str) -> tuple[str, int]:
    """``9404`` is that port of 127.0.0.1; else ``HOST:PORT``. Raises ConfigError."""
    host, _, port = text.strip().rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise ConfigError(f"kbroker.metrics.address: {text!r} is neither PORT nor HOST:PORT")
    return host or "127.0.0.1", int(port)


def _accepted(fields: bytes) -> str:
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"accept":
            return value.strip().decode("latin-1")
    return ""


def _encode(answer: _Answer, *, with_body: bool) -> bytes:
    allowed = "Allow: GET, HEAD\r\n" if answer.status == _NOT_ALLOWED else ""
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\n{allowed}"
        f"Content-Type: {answer.content_type}\r\n"
        f"Content-Length: {len(answer.body)}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    return head + answer.body if with_body else head


class LoopLag:
    """How late the event loop runs a timer that is due: what every request waits for.

    Looked at four times a second; the worst of the last one to two minutes is kept.
    """

    def __init__(self, server: "BrokerServer") -> None:
        self._clock = server.clock
        self._timer = server.timer
        self._due = 0.0
        self._window_end = 0.0
        self._worst = [0.0, 0.0]  # of this window, of the one before
        self._handle: TimerHandle | None = None

    def start(self) -> None:
        """Begin; the timer's end is the end of it."""
        self._window_end = self._clock.monotonic() + _LAG_WINDOW_S
        self._schedule()

    def _schedule(self) -> None:
        self._due = self._clock.monotonic() + _LAG_INTERVAL_S
        self._handle = self._timer.schedule(_LAG_INTERVAL_S, self._look)

    def _look(self) -> None:
        now = self._clock.monotonic()
        if now >= self._window_end:
            self._worst = [0.0, self._worst[0]]
            self._window_end = now + _LAG_WINDOW_S
        self._worst[0] = max(self._worst[0], now - self._due)
        self._schedule()

    def families(self) -> "Iterable[Family]":
        """The one gauge."""
        from kbroker.broker.metrics import GAUGE, Family

        text = "Longest that the event loop kept a timer waiting, in the last one to two minutes"
        yield Family("kbroker_loop_lag_seconds", GAUGE, text).add(max(self._worst))
