"""Dispatch: what closes the connection, what is answered, and what a failing handler becomes."""

import logging
import sys
from collections.abc import AsyncIterator
from types import ModuleType, SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest, write_heartbeat_request
from kbroker.protocol.messages.heartbeat_response import (
    HeartbeatResponse,
    read_heartbeat_response,
)
from kbroker.request_context import CloseConnection, ConnectionContext, RequestContext

pytestmark = pytest.mark.anyio

HEARTBEAT, API_VERSIONS, PRODUCE = 12, 18, 0


def body(version: int = 4) -> bytes:
    parts: list[Any] = []
    write_heartbeat_request(parts, HeartbeatRequest("g", 1, "m"), version)
    return b"".join(parts)


class Handler(ModuleType):
    """A heartbeat handler that does what a test tells it."""

    def __init__(self) -> None:
        super().__init__("kbroker.handlers.fake_heartbeat")
        self.answer: Any = HeartbeatResponse(error_code=7)
        self.has_error_response = True

    def handle(self, services: Any, context: RequestContext, request: HeartbeatRequest) -> Any:
        assert request.group_id == "g"
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer

    def error_response(
        self, request: HeartbeatRequest, error: KafkaError, version: int
    ) -> HeartbeatResponse | None:
        assert request.group_id == "g"
        if not self.has_error_response:
            return None
        return HeartbeatResponse(error_code=error.error_code)


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Handler:
    made = Handler()
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.fixture
def dispatcher(handler: Handler) -> Dispatcher:
    services = SimpleNamespace(log=logging.getLogger("tests.dispatch"))
    return Dispatcher(services, {HEARTBEAT: "fake_heartbeat", API_VERSIONS: HANDLERS[18]})  # type: ignore[arg-type]


def context(key: int = HEARTBEAT, version: int = 4) -> RequestContext:
    return RequestContext(ConnectionContext(connection_id=1), key, version, 99, "client", 0.0)


def code_of(answer: Any, version: int = 4) -> int:
    data = b"".join(answer)
    flexible = version >= 4
    assert data[:4] == b"\0\0\0\x63"
    assert not flexible or data[4] == 0
    response, end = read_heartbeat_response(data, 5 if flexible else 4, version)
    assert end == len(data)
    return response.error_code


@pytest.mark.parametrize("version", range(5))
async def test_an_answer_at_once_has_the_header_of_its_version(
    dispatcher: Dispatcher, version: int
) -> None:
    answer = dispatcher.dispatch(context(version=version), b"xx" + body(version), 2)
    assert isinstance(answer, list)
    assert code_of(answer, version) == 7


async def test_an_answer_that_must_wait_is_a_coroutine(
    dispatcher: Dispatcher, handler: Handler
) -> None:
    async def later() -> HeartbeatResponse:
        await anyio.lowlevel.checkpoint()
        return HeartbeatResponse(error_code=8)

    handler.answer = later()
    answer = dispatcher.dispatch(context(), body(), 0)
    assert answer is not None
    assert not isinstance(answer, list)
    assert code_of(await answer) == 8


async def test_none_is_no_answer(dispatcher: Dispatcher, handler: Handler) -> None:
    handler.answer = None
    assert dispatcher.dispatch(context(), body(), 0) is None

    async def nothing() -> None:
        return None

    handler.answer = nothing()
    answer = dispatcher.dispatch(context(), body(), 0)
    assert answer is not None
    assert not isinstance(answer, list)
    assert await answer is None


async def test_a_request_of_millions_of_elements_closes_before_it_is_decoded(
    dispatcher: Dispatcher,
) -> None:
    padding = bytes((4 << 20) - len(body()))
    assert code_of(dispatcher.dispatch(context(), padding + body(), len(padding))) == 7
    with pytest.raises(CloseConnection, match="4194305 bytes"):
        dispatcher.dispatch(context(), b"\0" + padding + body(), 1 + len(padding))


@pytest.mark.parametrize(
    ("key", "version"),
    [
        (HEARTBEAT, 5),
        (HEARTBEAT, -1),
        (PRODUCE, 9),  # not in this dispatcher's table
        (4, 0),
        (93, 0),
        (-1, 0),
        (32767, 32767),
    ],
)
async def test_an_unknown_key_or_version_closes(
    dispatcher: Dispatcher, key: int, version: int
) -> None:
    with pytest.raises(CloseConnection):
        dispatcher.dispatch(context(key, version), body(), 0)


@pytest.mark.parametrize("version", [0, 1, 2, 14])
async def test_produce_versions_that_are_advertised_but_not_served_close(version: int) -> None:
    services = SimpleNamespace(log=logging.getLogger("tests.dispatch"))
    dispatcher = Dispatcher(services)  # type: ignore[arg-type]
    with pytest.raises(CloseConnection):
        dispatcher.dispatch(context(PRODUCE, version), bytes(40), 0)


async def test_every_cut_of_a_body_closes(dispatcher: Dispatcher) -> None:
    for version in (0, 4):
        whole = body(version)
        for size in range(len(whole)):
            with pytest.raises(CloseConnection):
                dispatcher.dispatch(context(version=version), whole[:size], 0)


async def test_bytes_after_the_body_are_ignored(dispatcher: Dispatcher) -> None:
    answer = dispatcher.dispatch(context(), body() + b"\xde\xad", 0)
    assert code_of(answer) == 7


@pytest.fixture(params=["at once", "later"])
def fail(request: pytest.FixtureRequest, handler: Handler) -> Any:
    def arrange(error: BaseException) -> None:
        async def later() -> HeartbeatResponse:
            raise error

        handler.answer = error if request.param == "at once" else later()

    return arrange


async def outcome(dispatcher: Dispatcher) -> Any:
    answer = dispatcher.dispatch(context(), body(), 0)
    return answer if isinstance(answer, list) or answer is None else await answer


async def test_a_kafka_error_becomes_the_error_response(dispatcher: Dispatcher, fail: Any) -> None:
    fail(KafkaError(ErrorCode.NOT_COORDINATOR, "elsewhere"))
    assert code_of(await outcome(dispatcher)) == ErrorCode.NOT_COORDINATOR


async def test_any_other_exception_is_logged_and_an_unknown_server_error(
    dispatcher: Dispatcher, fail: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fail(ZeroDivisionError("surprise"))
    assert code_of(await outcome(dispatcher)) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "ZeroDivisionError: surprise" in caplog.text
    assert "API key 12, version 4" in caplog.text


async def test_an_answer_that_cannot_be_encoded_is_an_unknown_server_error(
    dispatcher: Dispatcher, handler: Handler, caplog: pytest.LogCaptureFixture
) -> None:
    handler.answer = HeartbeatResponse(error_code=1 << 20)
    assert code_of(await outcome(dispatcher)) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert "struct.error" in caplog.text


async def test_no_error_response_closes(
    dispatcher: Dispatcher, handler: Handler, fail: Any
) -> None:
    handler.has_error_response = False
    fail(KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
    with pytest.raises(CloseConnection):
        await outcome(dispatcher)


async def test_an_error_response_that_fails_closes_and_is_logged(
    dispatcher: Dispatcher,
    handler: Handler,
    fail: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(request: Any, error: KafkaError, version: int) -> Any:
        raise LookupError("broken twice")

    monkeypatch.setattr(handler, "error_response", broken, raising=False)
    fail(KafkaError(ErrorCode.NOT_COORDINATOR))
    with pytest.raises(CloseConnection):
        await outcome(dispatcher)
    assert "broken twice" in caplog.text


async def test_a_handler_may_close(dispatcher: Dispatcher, fail: Any) -> None:
    fail(CloseConnection("because"))
    with pytest.raises(CloseConnection, match="because"):
        await outcome(dispatcher)


async def test_cancellation_passes_through(dispatcher: Dispatcher, handler: Handler) -> None:
    async def forever() -> None:
        await anyio.sleep_forever()

    handler.answer = forever()
    answer = dispatcher.dispatch(context(), body(), 0)
    assert answer is not None
    assert not isinstance(answer, list)
    with anyio.move_on_after(0.01) as scope:
        await answer
    assert scope.cancelled_caught


@pytest.mark.parametrize("version", [5, 99, 32767, -1, -32768])
async def test_an_api_versions_request_of_the_future_is_answered_as_v0(
    dispatcher: Dispatcher, version: int
) -> None:
    answer = dispatcher.dispatch(context(API_VERSIONS, version), b"\xff\xff", 0)
    assert isinstance(answer, list)
    assert b"".join(answer) == bytes.fromhex("00000063 0023 00000001 0012 0000 0004")  # type: ignore[arg-type]


class SteppingClock:
    """Each look at the clock takes a millisecond."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += 0.001
        return self.now


async def ticks(count: list[int]) -> None:
    while True:
        count[0] += 1
        await anyio.lowlevel.checkpoint()


@pytest.fixture
async def turns() -> AsyncIterator[list[int]]:
    count = [0]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ticks, count)
        yield count
        tasks.cancel_scope.cancel()


async def test_importing_ahead_loads_everything_and_lets_others_run(turns: list[int]) -> None:
    services = SimpleNamespace(log=logging.getLogger("tests.dispatch"), clock=SteppingClock())
    dispatcher = Dispatcher(services)  # type: ignore[arg-type]
    await anyio.lowlevel.checkpoint()
    before = turns[0]
    await dispatcher.import_ahead()
    assert dispatcher._apis.keys() == HANDLERS.keys()
    assert turns[0] - before >= len(HANDLERS) // 3
