"""The port for metrics and health: one request, one answer, and no way to harm the broker."""

import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeVar

import anyio
import pytest
from anyio.streams.stapled import StapledObjectStream

from kbroker.broker import metrics
from kbroker.broker.broker_server import BrokerServer, StartError
from kbroker.broker.metrics_server import LoopLag, MetricsServer, parse_metrics_address
from kbroker.common.clock import ManualClock
from kbroker.common.offload import InlineOffload
from kbroker.common.timer import Timer
from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError

pytestmark = pytest.mark.anyio
T = TypeVar("T")
LOG = logging.getLogger("tests.metrics")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Port:
    """A metrics server without a port, of a broker that is what a test says."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.timer = Timer(self.clock)
        self.broker: Any = SimpleNamespace(clock=self.clock, timer=self.timer, is_ready=True)
        self.server = MetricsServer(self.broker, LOG)

    async def ask(self, *pieces: bytes) -> bytes:
        """Everything that is answered until the connection closes."""
        to_server, of_client = anyio.create_memory_object_stream[bytes](100)
        to_client, of_server = anyio.create_memory_object_stream[bytes](100)
        for piece in pieces:
            to_server.send_nowait(piece)
        stream: Any = StapledObjectStream(to_client, of_client)
        with to_server, of_server:
            await self.server.serve(stream)
            return b"".join([data async for data in of_server])

    async def get(self, path: str, *fields: str) -> tuple[int, bytes]:
        lines = "\r\n".join([f"GET {path} HTTP/1.1", "Host: x", *fields, "", ""])
        answer = await self.ask(lines.encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


@pytest.fixture
def port() -> Port:
    return Port()


async def test_live_and_ready(port: Port) -> None:
    assert await port.get("/health/live") == (200, b"live\n")
    assert await port.get("/health/ready") == (200, b"ready\n")
    port.broker.is_ready = False
    assert await port.get("/health/live") == (200, b"live\n")
    assert await port.get("/health/ready") == (503, b"not ready\n")
    assert (await port.get("/metrics"))[0] == 503


async def test_other_paths_and_methods(port: Port) -> None:
    assert (await port.get("/"))[0] == 404
    assert (await port.get("/health/ready?verbose=1"))[0] == 200
    refused = await port.ask(b"POST /metrics HTTP/1.1\r\n\r\n")
    assert b" 405 " in refused
    assert b"\r\nAllow: GET, HEAD\r\n" in refused
    assert b" 400 " in await port.ask(b"hello\r\n\r\n")
    assert b" 400 " in await port.ask(*[b"x" * 1000] * 10)
    head = await port.ask(b"HEAD /health/live HTTP/1.1\r\n\r\n")
    assert head.endswith(b"\r\nContent-Length: 5\r\nConnection: close\r\n\r\n")


async def test_a_request_in_pieces(port: Port) -> None:
    request = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    answer = await port.ask(*(request[at : at + 1] for at in range(len(request))))
    assert answer.endswith(b"\r\n\r\nlive\n")


async def test_a_slow_peer_is_cut_off(port: Port) -> None:
    to_server, of_client = anyio.create_memory_object_stream[bytes](1)
    to_client, of_server = anyio.create_memory_object_stream[bytes](1)
    stream: Any = StapledObjectStream(to_client, of_client)
    with to_server, of_server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(port.server.serve, stream)
            await anyio.wait_all_tasks_blocked()
            port.clock.advance(11)
            port.timer.run_due()
        with pytest.raises(anyio.EndOfStream):
            of_server.receive_nowait()


@pytest.mark.parametrize("samples", [1, 501])
async def test_long_metrics_are_rendered_off_the_loop(
    port: Port, monkeypatch: pytest.MonkeyPatch, samples: int
) -> None:
    async def collect(server: Any) -> list[metrics.Family]:
        family = metrics.Family("many", metrics.GAUGE, "Many")
        for number in range(samples):
            family.add(number, number=str(number))
        return [family]

    class CountingOffload(InlineOffload):
        runs = 0

        async def run(self, work: Callable[[], T]) -> T:
            self.runs += 1
            return await super().run(work)

    offload = CountingOffload()
    port.broker.services = SimpleNamespace(offload=offload)
    monkeypatch.setattr(metrics, "collect", collect)
    status, body = await port.get("/metrics", "Accept: text/plain")
    assert status == 200
    assert body.count(b"\nmany{") == samples
    assert offload.runs == (samples > 500)


async def test_a_defect_is_logged_and_harms_nobody(
    port: Port, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(server: Any) -> Any:
        raise RuntimeError("defect")

    monkeypatch.setattr(metrics, "collect", fail)
    assert await port.ask(b"GET /metrics HTTP/1.1\r\n\r\n") == b""
    assert "a request for metrics or health failed" in caplog.text


async def test_accepting_goes_on_when_descriptors_had_run_out(port: Port) -> None:
    accepted = anyio.Event()

    class Listening:
        attempts = 0

        async def accept(self) -> Any:
            self.attempts += 1
            if self.attempts == 1:
                raise OSError(24, "Too many open files")
            accepted.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(port.server.accept_forever, Listening(), tasks)
        await anyio.wait_all_tasks_blocked()
        assert not accepted.is_set()
        port.clock.advance(1.1)
        port.timer.run_due()
        await accepted.wait()
        tasks.cancel_scope.cancel()


async def test_no_more_than_so_many_at_once(port: Port) -> None:
    port.server._open = 32
    assert await port.ask(b"GET /health/live HTTP/1.1\r\n\r\n") == b""


async def test_connections_that_ask_nothing_give_way(port: Port) -> None:
    ends = [anyio.create_memory_object_stream[bytes](1) for _ in range(64)]
    held = list(zip(ends[::2], ends[1::2], strict=True))
    async with anyio.create_task_group() as tasks:
        for (_, of_client), (to_client, _) in held:
            silent: Any = StapledObjectStream(to_client, of_client)
            tasks.start_soon(port.server.serve, silent)
        await anyio.wait_all_tasks_blocked()
        for _ in range(3):
            assert await port.get("/health/live") == (200, b"live\n")
        closed = [of_server.statistics().open_send_streams == 0 for _, (_, of_server) in held]
        tasks.cancel_scope.cancel()
    assert closed == [True, *[False] * 31]
    for (to_server, _), (_, of_server) in held:
        to_server.close()
        of_server.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("9404", ("127.0.0.1", 9404)),
        (":9404", ("127.0.0.1", 9404)),
        ("0.0.0.0:0", ("0.0.0.0", 0)),
        ("[::1]:9404", ("::1", 9404)),
    ],
)
async def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_metrics_address(text) == address


@pytest.mark.parametrize("text", ["x", "host:", "1:70000", "a:b"])
async def test_other_texts_are_no_addresses(text: str) -> None:
    with pytest.raises(ConfigError, match="neither PORT nor HOST:PORT"):
        parse_metrics_address(text)
    config = BrokerConfig.from_properties(
        {"listeners": "PLAINTEXT://127.0.0.1:0", "kbroker.metrics.address": text}
    )
    with pytest.raises(StartError, match="neither PORT nor HOST:PORT"):
        async with BrokerServer(config, memory=True):
            pass


async def test_the_lag_of_the_loop_is_the_worst_of_two_windows() -> None:
    clock = ManualClock()
    timer = Timer(clock)
    lag = LoopLag(SimpleNamespace(clock=clock, timer=timer))  # type: ignore[arg-type]

    def shown() -> float:
        (family,) = lag.families()
        return family.samples[0].value

    def run(seconds: float) -> None:
        for _ in range(int(seconds / 0.25)):
            clock.advance(0.25)
            timer.run_due()

    lag.start()
    assert shown() == 0
    clock.advance(0.25 + 1.5)  # the loop was busy
    timer.run_due()
    assert shown() == pytest.approx(1.5)
    run(65)
    assert shown() == pytest.approx(1.5)
    run(65)
    assert shown() == pytest.approx(0)
