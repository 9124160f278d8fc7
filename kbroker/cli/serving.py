"""The process around a broker: event loop, signals, garbage collector, the line on stdout."""

import gc
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

import anyio

from kbroker.broker.broker_server import BrokerServer, StartError
from kbroker.common.faults import Faults
from kbroker.config.broker_config import BrokerConfig

if TYPE_CHECKING:
    from kbroker.broker.trace import Tracer

log = logging.getLogger("kbroker.serve")

_GC_THRESHOLD = (50_000, 20, 100)
"""Requests are acyclic: the collector has little to find, so it looks seldom."""

_STDIN = 0
_INPUT_BYTES = 4096

_SWITCH_INTERVAL_S = 0.0002
"""How long a thread that runs Python (compaction, recompression, metrics) keeps the loop waiting
once requests are there. With Python's 5 ms each turn of the loop waits for so long."""


def serve(
    config: BrokerConfig,
    *,
    memory: bool,
    tracer: "Tracer | None" = None,
    stop_with_stdin: bool = False,
) -> int:
    """Run until a signal, or the end of standard input; the exit status."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    try:
        uvloop = {"use_uvloop": _has_uvloop()}
        anyio.run(_main, config, memory, tracer, stop_with_stdin, backend_options=uvloop)
    except StartError as error:
        print(f"kbroker: cannot start: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:  # where there are no signal receivers: Windows
        return 0
    return 0


def _has_uvloop() -> bool:
    try:
        import uvloop  # noqa: F401
    except ImportError:  # Windows, PyPy
        return False
    return True


async def _main(
    config: BrokerConfig, memory: bool, tracer: "Tracer | None", stop_with_stdin: bool
) -> None:
    server = BrokerServer(
        config,
        memory=memory,
        faults=Faults.from_environment(os.environ),
        around_dispatch=tracer.around if tracer is not None else None,
    )
    _tell_where(config, memory=memory)
    stop = anyio.Event()
    if stop_with_stdin:
        _watch_input(stop)
    failure: StartError | None = None
    async with anyio.create_task_group() as tasks:
        if sys.platform != "win32":
            await tasks.start(_receive_signals, stop)
        try:
            async with server:
                _print_ready(server)
                _settle_garbage_collector()
                tasks.start_soon(_end_without_storage, server)
                await stop.wait()
        except StartError as error:
            failure = error  # raised here, it would leave the task group as an ExceptionGroup
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    log.info("stopped")


def _watch_input(stop: anyio.Event) -> None:
    """Stop at its end. Whoever holds the other end of the pipe may die without a word."""
    import asyncio

    loop = asyncio.get_running_loop()

    def look() -> None:
        if not os.read(_STDIN, _INPUT_BYTES):
            loop.remove_reader(_STDIN)
            log.info("standard input is closed: finishing requests")
            stop.set()

    try:
        loop.add_reader(_STDIN, look)
    except (OSError, NotImplementedError) as error:  # a file; Windows
        raise StartError(f"--stop-with-stdin: standard input cannot be watched: {error}") from error


async def _end_without_storage(server: BrokerServer) -> None:
    """As Kafka: a broker whose last data directory failed dies at once; nothing can be saved."""
    await server.storage_failed.wait()
    log.critical("every data directory has failed: ending")
    logging.shutdown()
    os._exit(1)


async def _receive_signals(
    stop: anyio.Event, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """The first signal asks for a clean end, the second one ends the process at once."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            name = signal.Signals(number).name
            if stop.is_set():
                log.warning("%s again: ending at once", name)
                logging.shutdown()
                os._exit(1)
            log.info("%s: finishing requests; a second signal ends at once", name)
            stop.set()


def _tell_where(config: BrokerConfig, *, memory: bool) -> None:
    directories = map(os.path.abspath, config.data_directories())
    log.info("data directory: %s", "memory" if memory else ", ".join(directories))
    for name in config.unknown:
        nearest = config.nearest(name)
        hint = f"; did you mean {nearest}?" if nearest else ""
        log.warning("unknown setting %s is ignored%s", name, hint)


def _print_ready(server: BrokerServer) -> None:
    line = (
        f"kbroker ready bootstrap={server.bootstrap_servers} node={server.node_id} "
        f"cluster={server.cluster_id} pid={os.getpid()}"
    )
    try:
        print(line, flush=True)
    except OSError:  # whoever started us has closed the pipe; that must not end the broker
        log.warning("stdout is closed: %s", line)


def _settle_garbage_collector() -> None:
    gc.freeze()  # uncollected: the little garbage of the start is not worth the first client's wait
    gc.set_threshold(*_GC_THRESHOLD)
    gc.enable()
