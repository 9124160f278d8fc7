"""The tracer around dispatch: which lines it writes, and that it changes nothing."""

import json
from typing import Any

import anyio
import pytest

from kbroker.broker.trace import Tracer, UnknownApiError, parse_api_names
from kbroker.common.clock import ManualClock
from kbroker.common.parts import Part
from kbroker.protocol.messages.api_versions_response import ApiVersionsResponse
from kbroker.protocol.messages.heartbeat_request import HeartbeatRequest
from kbroker.protocol.messages.heartbeat_response import HeartbeatResponse
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.protocol.registry import APIS, write_request, write_response
from kbroker.request_context import Answer, CloseConnection, ConnectionContext, RequestContext

pytestmark = pytest.mark.anyio

HEARTBEAT, METADATA, API_VERSIONS = 12, 3, 18
CLOCK = ManualClock(monotonic=100.25, time_ms=1_700_000_000_123)


class Traced:
    """A tracer around a dispatch that does as told."""

    def __init__(self, answer: Any, **options: Any) -> None:
        self.lines: list[str] = []
        self.answer = answer
        made = {"apis": None, "style": "text", "full": False, "write": self.lines.append}
        self._dispatch = Tracer(**(made | options)).around(self._answer, CLOCK)

    def _answer(self, context: RequestContext, buffer: Any, position: int) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def ask(self, key: int, version: int, request: Any, client_id: str | None = "app") -> Any:
        connection = ConnectionContext(connection_id=5, client_host="10.0.0.9", client_port=4711)
        parts: list[Any] = [b"header"]
        if request is not None:
            write_request(key, version, request, parts)
        context = RequestContext(connection, key, version, 77, client_id, 100.0)
        return self._dispatch(context, b"".join(parts), len("header"))


def answer(key: int, version: int, response: Any, header: bytes = b"\0\0\0\x4d\0") -> Answer:
    parts: list[Any] = [header]
    write_response(key, version, response, parts)
    return parts


def beat(traced: Traced, **fields: Any) -> Any:
    return traced.ask(HEARTBEAT, 4, HeartbeatRequest("g", 1, "m"), **fields)


def test_a_request_and_its_answer_are_two_lines():
    given = answer(HEARTBEAT, 4, HeartbeatResponse(error_code=27))
    traced = Traced(given)
    assert beat(traced) is given
    assert traced.lines == [
        "22:13:20.123 #5 10.0.0.9:4711 'app' > Heartbeat v4 77 (16 B) "
        "group_id=g generation_id=1 member_id=m",
        "22:13:20.123 #5 10.0.0.9:4711 'app' < Heartbeat v4 77 (12 B, 250.00 ms) "
        "error_code=REBALANCE_IN_PROGRESS",
    ]


def test_json_lines_are_objects_with_the_same_fields():
    traced = Traced(answer(HEARTBEAT, 4, HeartbeatResponse()), style="json")
    beat(traced)
    request, response = map(json.loads, traced.lines)
    assert request == {
        "time": "2023-11-14T22:13:20.123Z",
        "event": "request",
        "connection": 5,
        "peer": "10.0.0.9:4711",
        "client_id": "app",
        "api": "Heartbeat",
        "api_key": 12,
        "api_version": 4,
        "correlation_id": 77,
        "size": 16,
        "body": {"group_id": "g", "generation_id": 1, "member_id": "m"},
    }
    assert response["event"] == "response"
    assert response["ms"] == 250.0
    assert response["body"] == {"error_code": "NONE"}


async def test_an_answer_that_waits_is_traced_when_it_comes():
    given = answer(HEARTBEAT, 4, HeartbeatResponse())

    async def later() -> Answer:
        return given

    traced = Traced(later())
    waiting = beat(traced)
    assert len(traced.lines) == 1
    assert await waiting is given
    assert " < Heartbeat" in traced.lines[1]


async def test_a_refusal_is_traced_and_passed_on():
    async def refuse() -> Answer:
        raise CloseConnection("no\nway")

    for made in (CloseConnection("no\nway"), refuse()):
        traced = Traced(made)
        with pytest.raises(CloseConnection):
            waiting = beat(traced)
            await waiting
        assert traced.lines[1].endswith(
            "x Heartbeat v4 77 (250.00 ms) connection is closed: no\\nway"
        )


async def test_a_request_whose_client_leaves_is_said_to_be_abandoned():
    async def wait() -> Answer:
        await anyio.sleep_forever()
        raise AssertionError("unreachable")

    traced = Traced(wait())
    with anyio.move_on_after(0):
        await beat(traced)
    assert traced.lines[1].endswith("connection is closed: it ended before the answer was there")


def test_a_request_that_wants_no_answer_is_said_to_have_none():
    traced = Traced(None)
    assert beat(traced) is None
    assert traced.lines[1].endswith("- Heartbeat v4 77 (250.00 ms) no answer was asked for")


def test_only_the_named_apis_are_traced():
    traced = Traced(answer(HEARTBEAT, 4, HeartbeatResponse()), apis=frozenset({METADATA}))
    assert beat(traced) is traced.answer
    assert traced.lines == []
    Traced(None, apis=frozenset({HEARTBEAT}), write=traced.lines.append).ask(
        HEARTBEAT, 4, HeartbeatRequest("g", 1, "m")
    )
    assert len(traced.lines) == 2


def test_the_answer_to_an_unknown_api_versions_request_is_read_as_version_0():
    body = ApiVersionsResponse(error_code=35)
    traced = Traced(answer(API_VERSIONS, 0, body, header=b"\0\0\0\x4d"))
    traced.ask(API_VERSIONS, APIS[API_VERSIONS].max_version + 5, None)
    assert "error_code=UNSUPPORTED_VERSION" in traced.lines[1]


def test_log_slices_of_an_answer_are_read():
    class Slice:
        def __len__(self) -> int:
            return 2

        def parts(self) -> list[Part]:
            return [b"\0", b"\0"]

    given = [b"\0\0\0\x4d\0", b"\0\0\0\0", Slice(), b"\0"]  # throttle time, error code, tags
    traced = Traced(given)
    assert beat(traced) is given
    assert "(12 B, 250.00 ms) error_code=NONE" in traced.lines[1]


@pytest.mark.parametrize("style", ["text", "json"])
def test_lines_are_cut_unless_all_of_them_is_asked_for(style):
    request = MetadataRequest([MetadataRequestTopic(name=f"{n}{'x' * 190}") for n in range(50)])

    def line(full: bool) -> str:
        traced = Traced(None, style=style, full=full)
        traced.ask(METADATA, 12, request)
        return traced.lines[0]

    assert len(line(False)) < 2200
    assert " characters)" in line(False)
    assert "49xxx" in line(True)
    assert "49xxx" not in line(False)
    if style == "json":
        assert json.loads(line(False))["body_text"].startswith("topics=[{name=")
        assert len(json.loads(line(True))["body"]["topics"]) == 50


def test_what_a_client_sends_forges_no_line():
    evil = "x\n12:00 \x1b[31m\x9b31m\u2028y"
    for style in ("text", "json"):
        traced = Traced(answer(HEARTBEAT, 4, HeartbeatResponse()), style=style)
        traced.ask(HEARTBEAT, 4, HeartbeatRequest(evil, 1, evil), client_id=evil)
        for line in traced.lines:
            assert line.isprintable(), line


def test_a_trace_that_cannot_be_written_harms_no_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    attempts: list[str] = []

    def fail(line: str) -> None:
        attempts.append(line)
        raise BrokenPipeError(32, "Broken pipe")

    traced = Traced(answer(HEARTBEAT, 4, HeartbeatResponse()), write=fail)
    for _ in range(3):
        assert beat(traced) is traced.answer
    assert len(attempts) == 1
    assert caplog.messages == ["the trace ends: [Errno 32] Broken pipe"]


def test_a_body_that_is_none_is_said_to_be_undecodable():
    traced = Traced(CloseConnection("undecodable"))
    with pytest.raises(CloseConnection):
        traced.ask(HEARTBEAT, 4, None)
    assert "cut short" in traced.lines[0]


class TestNames:
    def test_none_is_all(self):
        assert parse_api_names("") is None
        assert parse_api_names(" , ") is None

    def test_names_in_any_case(self):
        assert parse_api_names("produce, FETCH,ApiVersions") == {0, 1, 18}

    def test_an_unknown_name_gets_the_list(self):
        with pytest.raises(UnknownApiError) as caught:
            parse_api_names("Produce,Fetsch")
        text = str(caught.value)
        assert "no API 'Fetsch' (did you mean Fetch?)" in text
        assert ", Heartbeat, " in text
        assert "LeaderAndIsr" not in text
