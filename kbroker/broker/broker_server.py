"""One broker: makes the parts, joins them, starts and stops them in the right order.

Start: lock the data directory, open the metadata store, recover the logs, lead the partitions, and
only then listen: a client never sees a partition that is not led for one request and is for the
next. Stop: the other way round; requests in flight are finished first.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from kbroker.broker.coordinators import Coordinators
from kbroker.common.clock import Clock, SystemClock
from kbroker.common.entropy import Entropy, SystemEntropy
from kbroker.common.faults import NO_FAULTS, Faults
from kbroker.common.files import FileSystem, OsFileSystem
from kbroker.common.offload import ThreadOffload
from kbroker.common.timer import Timer
from kbroker.config.broker_config import BrokerConfig, ConfigHolder
from kbroker.config.config_def import ConfigError
from kbroker.config.topic_config import LogConfig
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.services import Services
from kbroker.metadata.controller import Controller
from kbroker.metadata.keys import ConfigResourceType, Keys
from kbroker.metadata.memory_store import MemoryStore
from kbroker.metadata.producer_ids import ProducerIdManager
from kbroker.metadata.publisher import MetadataPublisher
from kbroker.metadata.store import StoreError
from kbroker.network.limits import NetworkLimits
from kbroker.network.listener import BoundListener, ListenerEndpoint
from kbroker.network.server import NetworkServer
from kbroker.protocol.wire import ZERO_UUID
from kbroker.replication.fetch_session import FetchSessionCache
from kbroker.replication.replica_manager import ReplicaManager
from kbroker.storage.log_directory import DataDirectoryError
from kbroker.storage.log_manager import LogManager

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from kbroker.broker.client_telemetry import ClientTelemetry
    from kbroker.handlers.pose import Pose
    from kbroker.metadata.client_metrics import ClientMetricsManager
    from kbroker.metadata.delta import MetadataDelta
    from kbroker.metadata.image import MetadataImage
    from kbroker.metadata.store import MetadataStore
    from kbroker.request_context import Dispatch
    from kbroker.storage.unified_log import UnifiedLog

__all__ = ["BrokerServer", "StartError"]

MEMORY_DIRECTORY = "/kbroker"

IMPORT_AHEAD_AFTER_S = 0.5
"""Pause between being ready and importing the handlers that nobody has asked for yet."""


class StartError(Exception):
    """The broker cannot start; the text is fit for the person who started it."""


class BrokerServer:
    """A broker while it is entered: ``async with BrokerServer(config) as server``.

    Raises StartError on entering when an address or a data directory cannot be used. Touches
    nothing of the process: no signals, no logging configuration, no garbage collector.
    """

    def __init__(
        self,
        config: BrokerConfig,
        *,
        memory: bool = False,
        files: FileSystem | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
        faults: Faults = NO_FAULTS,
        log: logging.Logger | None = None,
        around_dispatch: "Callable[[Dispatch, Clock], Dispatch] | None" = None,
    ) -> None:
        """``memory``: keep everything in memory and leave nothing behind. ``around_dispatch``:
        makes what every request goes through of what answers it."""
        self.config = ConfigHolder(config)
        self.node_id = config.node_id
        self.clock = clock or SystemClock()
        self.entropy = entropy or SystemEntropy()
        self.log = log or logging.getLogger("kbroker.broker")
        self._memory = memory
        self._files = files or _file_system(memory=memory)
        self._directories = [MEMORY_DIRECTORY] if memory else list(config.data_directories())
        self._faults = faults
        self._around_dispatch = around_dispatch
        self._offload = ThreadOffload()
        self._stack = AsyncExitStack()
        self._listeners: list[BoundListener] = []
        self._logs_are_loaded = False
        self.is_ready = False
        """Connections are accepted, and not yet for the last time."""
        self.telemetry: ClientTelemetry | None = None
        """Takes the metrics that clients push, where somebody can ask for them."""
        self._client_metrics_manager: ClientMetricsManager | None = None
        self.timer = Timer(self.clock)

    @property
    def cluster_id(self) -> str:
        """22 characters, made at the first start on the data directory."""
        return self.publisher.image.cluster_id

    @property
    def bootstrap_servers(self) -> str:
        """``host:port`` of each listener, comma-separated, as programs on this machine dial it."""
        return ",".join(_dialled(listener) for listener in self._listeners)

    # -- life

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException as error:
            await self._stack.aclose()  # without the error: task groups would wrap it
            if isinstance(error, (DataDirectoryError, StoreError)):
                raise StartError(str(error)) from error
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        self.is_ready = False
        with anyio.CancelScope(shield=True):
            await self.network.drain(self.config.current.kbroker_drain_timeout_ms / 1000)
        return await self._stack.__aexit__(exc_type, exc, traceback)

    async def _start(self) -> None:
        """Everything entered on the stack is left in the opposite order."""
        config = self.config.current
        self.log_manager = LogManager(
            self._files,
            self._directories,
            config.log_defaults(),
            self.clock,
            self.timer,
            self._offload,
            self.entropy,
            logging.getLogger("kbroker.storage"),
            faults=self._faults,
            producer_id_expiration_ms=config.producer_id_expiration_ms,
            checkpoint_interval_s=config.log_flush_offset_checkpoint_interval_ms / 1000,
            retention_check_interval_s=config.log_retention_check_interval_ms / 1000,
            producer_expiry_interval_s=config.producer_id_expiration_check_interval_ms / 1000,
            cleaner_enable=config.log_cleaner_enable,
            cleaner_backoff_s=config.log_cleaner_backoff_ms / 1000,
            cleaner_dedupe_buffer_size=config.log_cleaner_dedupe_buffer_size,
            cleaner_io_max_bytes_per_s=config.log_cleaner_io_max_bytes_per_second,
            cleaner_threads=config.log_cleaner_threads,
        )
        self.config.subscribe(lambda old, new: self._set_log_settings(new))
        self.storage_failed = anyio.Event()  # the last data directory failed: there is no going on
        self.log_manager.on_all_failed = self.storage_failed.set
        self.log_manager.open_directories()
        self._stack.push_async_callback(self._stop_logs)
        store = await self._open_store()
        background = await self._stack.enter_async_context(anyio.create_task_group())
        self._stack.callback(background.cancel_scope.cancel)
        background.start_soon(self.timer.run)
        if config.kbroker_metrics_address:
            await self._start_metrics(config.kbroker_metrics_address, background)
        await self._start_metadata(store, background)
        await self._load_logs()
        self._start_services()
        await self._bind()
        await self._register()
        self.log_manager.start_background(background)
        try:
            self.network.start_accepting()
        except OSError as error:
            raise _cannot_listen(self._listeners[0].host, self._listeners[0].port, error) from None
        background.start_soon(self.network.serve)
        self.coordinators.start(background)
        self.is_ready = True
        background.start_soon(self._import_ahead)

    async def _import_ahead(self) -> None:
        """A convenience: what cannot be imported now fails at its first request, and only that.

        Not at once: whoever waited for the broker is about to ask it something.
        """
        later = anyio.Event()
        self.timer.schedule(IMPORT_AHEAD_AFTER_S, later.set)
        await later.wait()
        try:
            await self.dispatcher.import_ahead()
            self.coordinators.import_ahead()
        except Exception:
            self.log.exception("a handler cannot be imported")

    async def _open_store(self) -> "MetadataStore":
        if self._memory:
            return MemoryStore()
        from kbroker.metadata.sqlite_store import METADATA_FILE, SqliteStore

        path = os.path.join(self._directories[0], METADATA_FILE)
        store = await SqliteStore.open(path, self._offload)
        self._stack.push_async_callback(_shielded, store.close)
        return store

    async def _stop_logs(self) -> None:
        """What was not loaded must not be marked as cleanly shut down."""
        with anyio.CancelScope(shield=True):
            await self.log_manager.shutdown(clean=self._logs_are_loaded)

    async def _start_metadata(self, store: "MetadataStore", background: "TaskGroup") -> None:
        keys = Keys()
        self.publisher = MetadataPublisher(store, keys, logging.getLogger("kbroker.metadata"))
        await self.publisher.start()
        background.start_soon(self.publisher.run)
        self.controller = Controller(
            node_id=self.node_id,
            store=store,
            keys=keys,
            publisher=self.publisher,
            config=self.config,
            entropy=self.entropy,
            log=logging.getLogger("kbroker.controller"),
        )
        await self.controller.start()
        self._stack.push_async_callback(_shielded, self.controller.stop)
        background.start_soon(self.controller.run)
        self.publisher.subscribe(self._apply_dynamic_settings)

    async def _load_logs(self) -> None:
        self.log_manager.claim_directories(self.cluster_id, self.node_id)
        image = self.publisher.image
        defaults = self.config.current.log_defaults()

        def config_of(topic: str) -> LogConfig:
            overrides = image.topic_overrides(topic)
            return LogConfig.from_properties(overrides, defaults) if overrides else defaults

        def is_known(log: "UnifiedLog") -> bool:
            topic = image.topics.get(log.topic)
            return (
                topic is not None
                and log.partition < len(topic.partitions)
                and log.topic_id in (topic.topic_id, ZERO_UUID)
            )

        await self.log_manager.load(config_of)
        self._logs_are_loaded = True
        self.log_manager.set_aside_strays(is_known)

    def _start_services(self) -> None:
        """Order of subscription matters: partitions are led before a coordinator is told."""
        self.replica_manager = ReplicaManager(
            node_id=self.node_id,
            log_manager=self.log_manager,
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            offload=self._offload,
            faults=self._faults,
        )
        self.replica_manager.on_offline = self.controller.report_offline
        self.publisher.subscribe(self.replica_manager.apply)
        producer_ids = ProducerIdManager(self.controller)
        self.coordinators = Coordinators(
            node_id=self.node_id,
            config=self.config,
            clock=self.clock,
            timer=self.timer,
            entropy=self.entropy,
            metadata=self.publisher,
            replica_manager=self.replica_manager,
            producer_ids=producer_ids,
            faults=self._faults,
        )
        config = self.config.current
        self.services = Services(
            node_id=self.node_id,
            clock=self.clock,
            timer=self.timer,
            entropy=self.entropy,
            offload=self._offload,
            config=self.config,
            metadata=self.publisher,
            controller=self.controller,
            replica_manager=self.replica_manager,
            coordinators=self.coordinators,
            fetch_sessions=FetchSessionCache(
                config.max_incremental_fetch_session_cache_slots, self.clock, self.entropy
            ),
            producer_ids=producer_ids,
            log=logging.getLogger("kbroker.handlers"),
            client_metrics=self._client_metrics,
            receives_telemetry=self.telemetry is not None,
            pose=_pose(config),
        )
        self.dispatcher = self._new_dispatcher()

    def _client_metrics(self) -> "ClientMetricsManager":
        if self._client_metrics_manager is None:
            from kbroker.metadata.client_metrics import ClientMetricsManager

            self._client_metrics_manager = ClientMetricsManager(
                metadata=self.publisher,
                config=self.config,
                clock=self.clock,
                entropy=self.entropy,
                receiver=self.telemetry,
            )
        return self._client_metrics_manager

    def _new_dispatcher(self) -> Dispatcher:
        if not self.config.current.kbroker_metrics_address:
            lets_repeat = self._around_dispatch is None
            return Dispatcher(self.services, pose=self.services.pose, lets_repeat=lets_repeat)
        from kbroker.broker.request_meter import MeteredDispatcher

        return MeteredDispatcher(self.services, pose=self.services.pose)

    async def _start_metrics(self, address: str, background: "TaskGroup") -> None:
        """Before the logs are loaded: a broker that recovers is alive, and not ready."""
        from kbroker.broker.client_telemetry import ClientTelemetry
        from kbroker.broker.metrics_server import MetricsServer

        self.telemetry = ClientTelemetry()
        metrics = MetricsServer(self, logging.getLogger("kbroker.metrics"))
        try:
            await metrics.start(address, background)
        except OSError as error:
            reason = error.strerror or error
            raise StartError(f"cannot listen on {address} for metrics: {reason}") from None
        except ConfigError as error:
            raise StartError(str(error)) from None

    async def _bind(self) -> None:
        config = self.config.current
        dispatch: Dispatch = self.dispatcher.dispatch
        if self._around_dispatch is not None:
            dispatch = self._around_dispatch(dispatch, self.clock)
        try:
            limits = _limits(config)
            if unprotected := config.unprotected_listeners():  # by dynamic settings
                raise StartError("; ".join(unprotected))
            endpoints = [
                ListenerEndpoint(
                    name=spec.name,
                    host=spec.host,
                    port=spec.port,
                    advertised_host=spec.advertised_host,
                    advertised_port=spec.advertised_port,
                    security_protocol=spec.security_protocol,
                    proxy_protocol=config.kbroker_proxy_protocol,
                )
                for spec in config.listener_specs()
            ]
        except ConfigError as error:
            raise StartError(str(error)) from None
        self.network = NetworkServer(
            dispatch=dispatch,
            limits=limits,
            clock=self.clock,
            timer=self.timer,
            log=logging.getLogger("kbroker.network"),
        )
        self.config.subscribe(lambda old, new: self.network.set_limits(_limits(new)))
        for endpoint in endpoints:
            try:
                self._listeners.extend(await self.network.bind([endpoint]))
            except OSError as error:
                raise _cannot_listen(endpoint.host, endpoint.port, error) from None

    async def _register(self) -> None:
        """Become a broker of the cluster: from here on the partitions are led."""
        endpoints = {
            bound.name: (spec.advertised_host or spec.host, spec.advertised_port or bound.port)
            for spec, bound in zip(
                self.config.current.listener_specs(), self._listeners, strict=True
            )
        }
        await self.controller.register_broker(
            endpoints=endpoints,
            rack=self.config.current.broker_rack,
            clean_shutdown=all(each.was_clean for each in self.log_manager.directories),
        )

    def release_in_child(self) -> None:
        """In a forked child: close its copies of sockets and locks; the parent keeps its own.

        Sockets become /dev/null instead of being closed: the objects that hold their numbers would
        close them again later, when the child has opened something else under them.
        """
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in self.network.filenos():
            with suppress(OSError):
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)
        self.log_manager.release_in_child()

    # -- dynamic settings

    def _set_log_settings(self, config: BrokerConfig) -> None:
        """Those of all logs together; topics' defaults are the replica manager's business."""
        self.log_manager.env.producer_id_expiration_ms = config.producer_id_expiration_ms
        self.log_manager.cleaner.set_dynamic(
            backoff_s=config.log_cleaner_backoff_ms / 1000,
            dedupe_buffer_size=config.log_cleaner_dedupe_buffer_size,
            io_max_bytes_per_s=config.log_cleaner_io_max_bytes_per_second,
            threads=config.log_cleaner_threads,
        )
        self.log_manager.moves.set_rate(config.replica_alter_log_dirs_io_max_bytes_per_second)

    def _apply_dynamic_settings(self, delta: "MetadataDelta", image: "MetadataImage") -> None:
        """Put this broker's and the cluster's dynamic settings in force."""
        if not any(kind == ConfigResourceType.BROKER for kind, _ in delta.changed_configs):
            return
        own, default = image.broker_overrides(self.node_id), image.cluster_overrides()
        current = self.config.current
        if own == current.dynamic and default == current.dynamic_default:
            return
        try:
            new = current.with_dynamic(own, default)
        except ConfigError:
            self.log.exception("dynamic settings cannot be used and do not act")
            return
        self.config.replace(new)


def _file_system(*, memory: bool) -> FileSystem:
    if not memory:
        return OsFileSystem()
    from kbroker.common.memory_files import MemoryFileSystem

    return MemoryFileSystem()


async def _shielded(finish: Callable[[], Awaitable[object]]) -> None:
    """Finish even when the broker's task is being cancelled."""
    with anyio.CancelScope(shield=True):
        await finish()


def _pose(config: BrokerConfig) -> "Pose | None":
    if not config.kbroker_api_versions:
        return None
    from kbroker.handlers.pose import load_pose

    try:
        return load_pose(config.kbroker_api_versions)
    except ConfigError as error:
        raise StartError(str(error)) from None


def _limits(config: BrokerConfig) -> NetworkLimits:
    return NetworkLimits(
        max_frame_bytes=config.socket_request_max_bytes,
        queued_bytes=config.kbroker_queued_max_bytes,
        max_connections=config.max_connections,
        max_connections_per_ip=config.max_connections_per_ip,
        max_connections_per_ip_overrides=config.connections_per_ip_overrides(),
        listen_backlog=config.socket_listen_backlog_size,
        idle_close=config.connections_max_idle_ms / 1000,
        busy_poll=config.kbroker_busy_poll_us / 1e6,
        use_sendfile=config.kbroker_fetch_sendfile,
    )


def _cannot_listen(host: str, port: int, error: OSError) -> StartError:
    return StartError(f"cannot listen on {host or '0.0.0.0'}:{port}: {error.strerror or error}")


def _dialled(listener: BoundListener) -> str:
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(listener.host, listener.host)
    return f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"
