"""A broker in the caller's process: ``async with Broker()`` or ``with BrokerThread()``.

``Broker`` runs on the caller's event loop and is for async clients. ``BrokerThread`` runs a loop of
its own in a daemon thread and is for everything that blocks: most clients, most tests. Neither
touches signals, logging, warnings, the garbage collector, the loop policy or the environment.
"""

import asyncio
import contextlib
import logging
import os
import select
import sys
import threading
import weakref
from collections.abc import Coroutine, Mapping
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

from kbroker.broker.broker_server import BrokerServer, StartError
from kbroker.broker.local_client import ConsumedRecord, Headers, LocalClient
from kbroker.config.broker_config import BrokerConfig

__all__ = ["Broker", "BrokerThread", "ConsumedRecord", "StartError"]

T = TypeVar("T")
Settings = Mapping[str, str | int | float | bool]

BLOCKED_AFTER_S = 2.0
"""A loop that does not come round for so long, while a client waits, is told about."""

_log = logging.getLogger("kbroker.embedded")

_servers: "weakref.WeakSet[BrokerServer]" = weakref.WeakSet()
"""Running brokers of this process, for a forked child alone: a fork hook cannot be taken back."""


def _close_in_child() -> None:
    """A child that was forked off must not keep its parent's ports, connections and locks."""
    for server in list(_servers):
        server.release_in_child()
    _servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def _make_server(
    data_dir: str | os.PathLike[str] | None,
    host: str,
    port: int,
    settings: Settings | None,
    profile: str,
) -> BrokerServer:
    properties = {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in (settings or {}).items()
    }
    address = f"[{host}]" if ":" in host else host
    properties.setdefault("listeners", f"PLAINTEXT://{address}:{port}")
    if data_dir is not None:
        properties["log.dirs"] = os.fspath(data_dir)
    config = BrokerConfig.from_properties(properties, profile=profile)
    problems = config.problems()
    if problems:
        raise StartError("; ".join(problems))
    return BrokerServer(config, memory=data_dir is None)


class Broker:
    """A broker on the running asyncio loop, while it is entered.

    ``data_dir`` None keeps everything in memory; ``port`` 0 takes a free one; ``settings`` are
    broker settings under Kafka's names. Raises StartError when it cannot start. For a client that
    blocks use ``BrokerThread``: it would wait for the very loop that it blocks.
    """

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        profile: str = "dev",
    ) -> None:
        self._server = _make_server(data_dir, host, port, settings, profile)
        self._client = LocalClient(self._server)
        self._watchdog: _Watchdog | None = None

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for a client's bootstrap.servers."""
        return self._server.bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """The cluster's id, 22 characters."""
        return self._server.cluster_id

    async def __aenter__(self) -> Self:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "Broker needs a running asyncio loop; elsewhere use BrokerThread"
            ) from None
        await self._server.__aenter__()
        _servers.add(self._server)
        self._watchdog = _Watchdog(loop, self._server)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        if self._watchdog is not None:
            self._watchdog.stop()
        try:
            return await self._server.__aexit__(exc_type, exc, traceback)
        finally:
            _servers.discard(self._server)

    async def create_topic(
        self, name: str, *, partitions: int = 1, config: Settings | None = None
    ) -> None:
        """Create a topic. Raises KafkaError, for instance TOPIC_ALREADY_EXISTS."""
        await self._client.create_topic(name, partitions=partitions, config=config)

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
        """Append one record; returns (partition, offset). See ``LocalClient.produce``."""
        return await self._client.produce(
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
        """The topic's records from its beginning; ``count`` waits for so many (TimeoutError)."""
        return await self._client.consume(
            topic, count=count, partition=partition, timeout_s=timeout_s
        )


class BrokerThread:
    """A broker with a loop and a daemon thread of its own, while it is entered.

    Parameters as ``Broker``. All methods block and may be called from any thread. ``start`` and
    ``stop`` do the same as entering and leaving.
    """

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        settings: Settings | None = None,
        profile: str = "dev",
    ) -> None:
        self._server = _make_server(data_dir, host, port, settings, profile)
        self._client = LocalClient(self._server)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` for a client's bootstrap.servers."""
        return self._server.bootstrap_servers

    @property
    def cluster_id(self) -> str:
        """The cluster's id, 22 characters."""
        return self._server.cluster_id

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start and return when connections are accepted. Raises StartError."""
        if self._thread is not None:
            raise RuntimeError("this broker was started before; make a new one")
        ready: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="kbroker", daemon=True
        )
        self._thread.start()
        try:
            ready.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Finish requests, stop, and return when the thread has ended."""
        thread, loop, stop = self._thread, self._loop, self._stop
        if thread is None or loop is None or stop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop has ended by itself
            loop.call_soon_threadsafe(stop.set)
        thread.join()
        self._loop = None

    def _run(self, ready: "Future[None]") -> None:
        try:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(self._serve(ready))
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            else:
                _log.exception("a broker's thread has failed")

    async def _serve(self, ready: "Future[None]") -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._server:
            _servers.add(self._server)
            ready.set_result(None)
            try:
                await self._stop.wait()
            finally:
                _servers.discard(self._server)

    def _call(self, verb: Coroutine[Any, Any, T]) -> T:
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            verb.close()
            raise RuntimeError("the broker is not running: use it inside 'with BrokerThread()'")
        return asyncio.run_coroutine_threadsafe(verb, self._loop).result()

    def create_topic(
        self, name: str, *, partitions: int = 1, config: Settings | None = None
    ) -> None:
        """Create a topic. Raises KafkaError, for instance TOPIC_ALREADY_EXISTS."""
        self._call(self._client.create_topic(name, partitions=partitions, config=config))

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
        """Append one record; returns (partition, offset). See ``LocalClient.produce``."""
        return self._call(
            self._client.produce(
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
        """The topic's records from its beginning; ``count`` waits for so many (TimeoutError)."""
        return self._call(
            self._client.consume(topic, count=count, partition=partition, timeout_s=timeout_s)
        )


def _loop_factory() -> Any:
    """uvloop where there is one: this loop is ours alone."""
    try:
        import uvloop
    except ImportError:
        return asyncio.SelectorEventLoop if sys.platform == "win32" else None
    return uvloop.new_event_loop


class _Watchdog:
    """Notices a loop that stands still while a client of its own broker waits, and says so once.

    A thread asks the loop for a sign of life; without one it looks whether one of the broker's
    sockets has something to read.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, server: BrokerServer) -> None:
        self._loop = loop
        self._server = server
        self._alive = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="kbroker-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._alive.set()  # the loop cannot: it is here
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(BLOCKED_AFTER_S / 2):
            self._alive.clear()
            try:
                self._loop.call_soon_threadsafe(self._alive.set)
            except RuntimeError:  # the loop was closed under the broker
                return
            if self._alive.wait(BLOCKED_AFTER_S) or self._stopped.is_set():
                continue
            if self._somebody_waits():
                _log.warning(
                    "the event loop has stood still for %g s while a client of this broker waits "
                    "for it: a blocking client inside 'async with Broker()' waits for itself. "
                    "Use 'with BrokerThread()', which has a loop of its own.",
                    BLOCKED_AFTER_S,
                )
                return

    def _somebody_waits(self) -> bool:
        descriptors = [fd for fd in self._server.network.filenos() if fd >= 0]
        if not descriptors:
            return False
        try:
            readable, _, _ = select.select(descriptors, (), (), 0)
        except (OSError, ValueError):  # closed meanwhile, or more than select can take
            return False
        return bool(readable)
