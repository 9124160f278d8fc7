"""A broker inside the caller's process, for tests and tools.

``async with Broker(...)`` runs in the caller's event loop: for programs on an asyncio client.
``with BrokerThread(...)`` runs in a thread and a loop of its own: for every other client.

Both take a free port, keep everything in memory unless given a directory, and leave nothing behind:
no signals, logging configuration, garbage collector settings or environment are touched. Many live
side by side. A child made by fork closes its copy of the sockets and locks; the broker stays with
the parent.
"""

import asyncio
import contextvars
import logging
import os
import select
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping
from types import FrameType, TracebackType
from typing import Any, Final, Self, TypeVar

from kbroker.broker.broker_server import BrokerServer, StartError
from kbroker.broker.local_client import ConsumedRecord, Headers, LocalClient
from kbroker.config.broker_config import BrokerConfig

__all__ = ["Broker", "BrokerThread", "ConsumedRecord", "StartError"]

T = TypeVar("T")
Settings = Mapping[str, str | int | float | bool]
"""Settings under Kafka's names."""

STOP_TIMEOUT_S: Final = 30.0
"""How long a broker may take to stop before its thread is given up."""

BLOCKED_AFTER_S: Final = 1.4
"""A loop that leaves one of its broker's connections unread for so long is called blocked; clients
give up after 2 s at the earliest."""

_NOT_RUNNING = (
    "the broker is not running: use it inside `async with Broker()` or `with BrokerThread()`"
)

_log = logging.getLogger("kbroker.embedded")


def _make_config(
    data_dir: str | os.PathLike[str] | None,
    host: str,
    port: int,
    settings: Settings | None,
    profile: str,
) -> BrokerConfig:
    properties = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (settings or {}).items()
    }
    address = f"[{host}]" if ":" in host else host
    properties.setdefault("listeners", f"PLAINTEXT://{address}:{port}")
    properties.setdefault("kbroker.busy.poll.us", "0")  # the loop is somebody else's
    if data_dir is not None:
        properties["log.dirs"] = os.fspath(data_dir)
    config = BrokerConfig.from_properties(properties, profile=profile)
    if problems := config.problems():
        raise StartError("; ".join(problems))
    return config


class _Runner:
    """A BrokerServer in a task of its own on the running loop.

    The task, not the caller, enters the broker's task groups: so a broker may be started in one
    task and stopped in another (as async test fixtures are), and a failing broker does not cancel
    its caller.
    """

    def __init__(self, config: BrokerConfig, *, memory: bool) -> None:
        self._config = config
        self._memory = memory
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.server: BrokerServer | None = None
        self.client: LocalClient | None = None

    async def start(self) -> None:
        """Return when connections are accepted. Raises StartError."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        self._task = loop.create_task(self._run(ready), name="kbroker", context=_context())
        try:
            await asyncio.shield(ready)
        except asyncio.CancelledError:
            self._stop.set()
            await asyncio.wait([self._task])
            raise

    async def _run(self, ready: "asyncio.Future[None]") -> None:
        server = BrokerServer(self._config, memory=self._memory)
        try:
            async with server:
                _servers.add(server)
                self.server = server
                self.client = LocalClient(server)
                if not ready.done():
                    ready.set_result(None)
                await self._stop.wait()
        except Exception as error:
            if ready.done():
                raise  # to whoever stops the broker
            ready.set_exception(error)
        finally:
            _servers.discard(server)
            if not ready.done():
                ready.cancel()

    async def stop(self) -> None:
        """Finish requests in flight and end; raises what the broker failed with, if it did."""
        task = self._task
        if task is None:
            return
        self._stop.set()
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:  # the caller's: the broker ends all the same
                if task.cancelled():
                    break
                cancelled = error
            except Exception:
                break
        self._task = None
        if cancelled is not None:
            raise cancelled
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure


def _context() -> contextvars.Context:
    """A context in which anyio knows its event loop in plain callbacks too.

    ``anyio.run`` sees to that by itself; under ``asyncio.run``, where sniffio is installed, anyio
    finds the loop in tasks only, and connections are served from callbacks.
    """
    context = contextvars.copy_context()
    try:
        import sniffio
    except ImportError:  # then anyio asks asyncio
        return context
    context.run(sniffio.current_async_library_cvar.set, "asyncio")
    return context


_servers: "weakref.WeakSet[BrokerServer]" = weakref.WeakSet()
"""Running brokers of this process, for the one hook below: Python offers no way to take back a hook
at fork, so one for each broker would be a leak."""


def _close_in_child() -> None:
    """A child made by fork must not keep its parent's ports, connections and locks."""
    for server in list(_servers):
        server.release_in_child()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


class _Embedded:
    """What both forms have in common."""

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        profile: str = "dev",
    ) -> None:
        """``data_dir`` keeps the data there, else it is in memory; port 0 takes a free one.

        ``settings`` are Kafka's names (``{"num.partitions": 3}``) over those of ``profile``.
        Raises ConfigError or StartError for settings that cannot be.
        """
        self._config = _make_config(data_dir, host, port, settings, profile)
        self._memory = data_dir is None
        self._runner: _Runner | None = None
        self._owner = os.getpid()

    def __repr__(self) -> str:
        where = self.bootstrap_servers if self._runner is not None else "not running"
        return f"<{type(self).__name__} {where}>"

    @property
    def server(self) -> BrokerServer:
        """The broker itself; RuntimeError when it is not running."""
        if self._runner is None or self._runner.server is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._runner.server

    @property
    def bootstrap_servers(self) -> str:
        """``host:port``, as clients take it."""
        return self.server.bootstrap_servers

    @property
    def port(self) -> int:
        """The port that was taken."""
        return int(self.bootstrap_servers.rpartition(":")[2])

    @property
    def cluster_id(self) -> str:
        """The cluster's id, 22 characters."""
        return self.server.cluster_id

    def _client(self) -> LocalClient:
        if self._owner != os.getpid():
            raise RuntimeError(f"this broker runs in process {self._owner}, which forked this one")
        if self._runner is None or self._runner.client is None:
            raise RuntimeError(_NOT_RUNNING)
        return self._runner.client

    async def _start(self) -> None:
        if self._runner is not None:
            raise RuntimeError("the broker is running already")
        runner = self._runner = _Runner(self._config, memory=self._memory)
        try:
            await runner.start()
        except BaseException:
            self._runner = None
            raise
        self._owner = os.getpid()

    async def _end(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.stop()


class Broker(_Embedded):
    """``async with Broker() as broker``: a broker in the running asyncio loop.

    For clients that run in the same loop (aiokafka). A client that blocks would stop the very loop
    that has to answer it: use ``with BrokerThread()`` for those. uvloop or not is the caller's
    choice.
    """

    _watchdog: "_Watchdog | None" = None

    async def start(self) -> None:
        """Return when connections are accepted. Raises StartError."""
        await self._start()
        self._watchdog = _Watchdog(asyncio.get_running_loop(), self.server)

    async def stop(self) -> None:
        """Finish requests in flight, close everything. A second call does nothing."""
        watchdog, self._watchdog = self._watchdog, None
        if watchdog is not None:
            watchdog.stop()
        await self._end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        raise TypeError("use `async with Broker()`, or `with BrokerThread()` in plain code")

    def __exit__(self, *_: object) -> None:
        raise NotImplementedError  # __enter__ never lets it come to that

    async def create_topic(
        self, name: str, *, partitions: int = 1, config: Settings | None = None
    ) -> None:
        """Create a topic. Raises KafkaError, for instance TOPIC_ALREADY_EXISTS."""
        await self._client().create_topic(name, partitions=partitions, config=config)

    async def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[int, int]:
        """Append one record; (partition, offset). A missing topic is created. KafkaError."""
        return await self._client().produce(
            topic, value, key=key, partition=partition, headers=headers, timestamp=timestamp
        )

    async def consume(
        self,
        topic: str,
        *,
        count: int | None = None,
        partition: int | None = None,
        timeout_s: float = 5.0,
    ) -> list[ConsumedRecord]:
        """The topic's records from its beginning; with ``count`` waits for so many.

        Raises TimeoutError when they do not come in time.
        """
        return await self._client().consume(
            topic, count=count, partition=partition, timeout_s=timeout_s
        )


class BrokerThread(_Embedded):
    """``with BrokerThread() as broker``: a broker in a daemon thread with a loop of its own.

    For every client: blocking ones, and asyncio programs that want the broker out of their loop.
    The loop is uvloop's where it is installed.
    """

    _thread: threading.Thread | None = None
    _loop: asyncio.AbstractEventLoop | None = None
    _finished: asyncio.Event | None = None

    def start(self) -> None:
        """Return when connections are accepted. Raises StartError."""
        if self._thread is not None:
            raise RuntimeError("the broker is running already")
        started = _Outcome()
        thread = threading.Thread(target=self._work, args=(started,), name="kbroker", daemon=True)
        thread.start()
        try:
            started.wait()
        except BaseException:
            thread.join(STOP_TIMEOUT_S)
            raise
        self._thread = thread
        thread.name = f"kbroker-{self.port}"

    def stop(self) -> None:
        """Finish requests in flight, close everything, join the thread; again: nothing."""
        thread, loop, finished = self._thread, self._loop, self._finished
        self._thread = self._loop = self._finished = None
        if thread is None or loop is None or finished is None or self._owner != os.getpid():
            return  # a forked child has no such thread
        loop.call_soon_threadsafe(finished.set)
        thread.join(STOP_TIMEOUT_S)
        if thread.is_alive():
            raise TimeoutError(f"{thread.name} has not stopped within {STOP_TIMEOUT_S:.0f} s")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _work(self, started: "_Outcome") -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve(started))
        except BaseException as error:
            if not started.fail(error):
                _log.exception("the broker in thread %s failed", threading.current_thread().name)

    async def _serve(self, started: "_Outcome") -> None:
        finished = asyncio.Event()
        await self._start()
        self._loop, self._finished = asyncio.get_running_loop(), finished
        started.succeed()
        try:
            await finished.wait()
        finally:
            await self._end()

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None or self._owner != os.getpid():
            work.close()
            self._client()  # raises what says why
            raise RuntimeError(_NOT_RUNNING)
        return asyncio.run_coroutine_threadsafe(work, loop).result()

    def create_topic(
        self, name: str, *, partitions: int = 1, config: Settings | None = None
    ) -> None:
        """Create a topic. Raises KafkaError, for instance TOPIC_ALREADY_EXISTS."""
        self._call(self._client().create_topic(name, partitions=partitions, config=config))

    def produce(
        self,
        topic: str,
        value: bytes | str | None,
        *,
        key: bytes | str | None = None,
        partition: int | None = None,
        headers: Headers = (),
        timestamp: int | None = None,
    ) -> tuple[int, int]:
        """Append one record; (partition, offset). A missing topic is created. KafkaError."""
        return self._call(
            self._client().produce(
                topic, value, key=key, partition=partition, headers=headers, timestamp=timestamp
            )
        )

    def consume(
        self,
        topic: str,
        *,
        count: int | None = None,
        partition: int | None = None,
        timeout_s: float = 5.0,
    ) -> list[ConsumedRecord]:
        """The topic's records from its beginning; with ``count`` waits for so many.

        Raises TimeoutError when they do not come in time.
        """
        return self._call(
            self._client().consume(topic, count=count, partition=partition, timeout_s=timeout_s)
        )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    try:
        import uvloop
    except ImportError:  # Windows, PyPy
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class _Outcome:
    """Whether a thread's work has begun, told once."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._error: BaseException | None = None

    def succeed(self) -> None:
        self._told.set()

    def fail(self, error: BaseException) -> bool:
        """False when success was told before: then somebody else must hear of the error."""
        if self._told.is_set():
            return False
        self._error = error
        self._told.set()
        return True

    def wait(self) -> None:
        """Return after success; raises the error."""
        self._told.wait()
        if self._error is not None:
            raise self._error


class _Watchdog:
    """Names a loop that is blocked while one of its own broker's connections waits to be read.

    That is what happens when a blocking client is used under ``async with Broker()``: without a
    word from us it looks as if the broker hung. A thread looks now and then whether a socket of
    the broker stays readable, and only then asks the loop for a sign of life; an idle loop is never
    woken.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, server: BrokerServer) -> None:
        self._loop = loop
        self._loop_thread = threading.get_ident()
        self._server = server
        self._stopped = threading.Event()
        self._alive = threading.Event()
        self._thread: threading.Thread | None = None
        if hasattr(select, "poll"):  # not on Windows
            self._thread = threading.Thread(
                target=self._watch, name="kbroker-watchdog", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it."""
        self._stopped.set()
        if self._thread is not None and self._thread.is_alive():
            self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(BLOCKED_AFTER_S / 2):
            if not self._is_waited_for():
                continue
            self._alive.clear()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop is closed
                return
            if self._alive.wait(BLOCKED_AFTER_S / 2) or self._stopped.is_set():
                continue
            if self._is_waited_for():
                self._complain()
                return  # once is enough

    def _is_waited_for(self) -> bool:
        """Whether a connection, or a client that wants one, has sent what nobody has read."""
        poll = select.poll()
        gone = select.POLLHUP | getattr(select, "POLLRDHUP", 0)
        for descriptor in self._server.network.filenos():
            if descriptor >= 0:
                poll.register(descriptor, select.POLLIN | gone)
        # Who has hung up waits for nothing.
        return any(event & select.POLLIN and not event & gone for _, event in poll.poll(0))

    def _complain(self) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        _log.warning(
            "the event loop of this broker is blocked in %s while a client of the broker waits for "
            "an answer; a client that blocks needs the broker in another thread: use "
            "`with BrokerThread() as broker:` instead of `async with Broker()`, or call the "
            "client by `await asyncio.to_thread(...)`",
            _place(frame),
        )


def _place(frame: FrameType | None) -> str:
    """Where a thread is, the innermost place and who called it, without the standard library."""
    places: list[str] = []
    standard = os.path.dirname(os.__file__)
    while frame is not None and len(places) < 2:
        path = frame.f_code.co_filename
        is_library = path.startswith(standard) and "site-packages" not in path
        if not is_library and not path.startswith("<"):
            places.append(f"{path}:{frame.f_lineno} ({frame.f_code.co_name})")
        frame = frame.f_back
    return " called from ".join(places) or "an unknown place"
