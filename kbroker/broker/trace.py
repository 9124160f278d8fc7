"""What ``kbroker serve --trace`` prints: a line for each request, and one for each answer.

Text::

    12:00:00.123 #5 127.0.0.1:53822 'app' > Produce v9 1234 (312 B) acks=-1 topic_data=[{...}]
    12:00:00.124 #5 127.0.0.1:53822 'app' < Produce v9 1234 (48 B, 0.41 ms) responses=[{...}]

``#5`` is the connection, ``'app'`` the client id, 1234 the correlation id; sizes are those of the
frames without their length field. The time of an answer counts from when its request's turn came,
so it holds waiting for data or replicas, not waiting behind the connection's earlier requests.

The tracer stands around dispatch and decodes what passes, so a broker without one pays nothing.
"""

import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final

from kbroker.broker.trace_values import MessageReader, Summary
from kbroker.common.parts import gather, parts_size
from kbroker.handlers.registry import HANDLERS
from kbroker.protocol.headers import response_header_version
from kbroker.protocol.registry import APIS, read_request, read_response
from kbroker.protocol.wire import DecodeError
from kbroker.request_context import CloseConnection

if TYPE_CHECKING:
    from kbroker.common.clock import Clock
    from kbroker.common.parts import Buffer
    from kbroker.request_context import Answer, Dispatch, Dispatched, RequestContext

_log = logging.getLogger("kbroker.trace")

_MOST_CHARACTERS: Final = 2000
_MOST_ITEMS: Final = 10
_CORRELATION_ID_SIZE: Final = 4
_API_VERSIONS: Final = 18


class UnknownApiError(ValueError):
    """A name that no served API has; the text lists those that there are."""


def parse_api_names(text: str) -> frozenset[int] | None:
    """API keys of comma-separated names, in any case; None, which means all, for the empty text."""
    by_name = {APIS[key].name.lower(): key for key in HANDLERS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    keys = set()
    for name in names:
        key = by_name.get(name.lower())
        if key is None:
            near = get_close_matches(name.lower(), by_name, n=1)
            hint = f" (did you mean {APIS[by_name[near[0]]].name}?)" if near else ""
            known = ", ".join(sorted(APIS[key].name for key in HANDLERS))
            raise UnknownApiError(f"there is no API {name!r}{hint}; there are: {known}")
        keys.add(key)
    return frozenset(keys) if names else None


class Tracer:
    """Writes what goes through a ``Dispatch``.

    ``apis``: keys to trace, None for all. ``write`` takes one line without its end. ``full``: no
    line is cut, no list is shortened.
    """

    def __init__(
        self,
        *,
        apis: frozenset[int] | None,
        style: str,
        full: bool,
        write: Callable[[str], object],
    ) -> None:
        self._apis = apis
        self._format = _as_json if style == "json" else _as_text
        self._limit = None if full else _MOST_CHARACTERS
        self._reader = MessageReader(None if full else _MOST_ITEMS)
        self._write = write

    def around(self, dispatch: "Dispatch", clock: "Clock") -> "Dispatch":
        """The same dispatch, watched."""

        def traced(context: "RequestContext", buffer: "Buffer", position: int) -> "Dispatched":
            if self._apis is not None and context.api_key not in self._apis:
                return dispatch(context, buffer, position)
            self._on_request(context, clock, buffer, position)
            try:
                answer = dispatch(context, buffer, position)
            except Exception as error:
                self._on_error(context, clock, error)
                raise
            if answer is not None and not isinstance(answer, list):
                return finish(context, answer)
            self._on_answer(context, clock, answer)
            return answer

        async def finish(
            context: "RequestContext", waiting: "Coroutine[Any, Any, Answer]"
        ) -> "Answer":
            try:
                answer = await waiting
            except Exception as error:
                self._on_error(context, clock, error)
                raise
            except BaseException:  # cancelled: the client has gone, or the broker stops
                self._on_error(context, clock, CloseConnection(_ABANDONED))
                raise
            self._on_answer(context, clock, answer)
            return answer

        return traced

    def _on_request(
        self, context: "RequestContext", clock: "Clock", buffer: "Buffer", position: int
    ) -> None:
        line = _line_of(context, clock, "request")
        line["size"] = len(buffer)
        self._add_body(line, read_request, context.api_key, context.api_version, buffer, position)
        self._print(line)

    def _on_answer(self, context: "RequestContext", clock: "Clock", answer: "Answer") -> None:
        if answer is None:
            line = _line_of(context, clock, "unanswered")
            line["ms"] = _elapsed_ms(context, clock)
            self._print(line)
            return
        key, version = context.api_key, context.api_version
        if key == _API_VERSIONS and version > APIS[key].max_version:
            version = 0  # KIP-511: how an unknown version is answered
        line = _line_of(context, clock, "response")
        line["size"] = parts_size(answer)
        line["ms"] = _elapsed_ms(context, clock)
        start = _CORRELATION_ID_SIZE + response_header_version(key, version)
        self._add_body(line, read_response, key, version, b"".join(gather(answer)), start)
        self._print(line)

    def _on_error(self, context: "RequestContext", clock: "Clock", error: Exception) -> None:
        line = _line_of(context, clock, "closed")
        line["ms"] = _elapsed_ms(context, clock)
        line["problem"] = str(error) if isinstance(error, CloseConnection) else repr(error)
        self._print(line)

    def _add_body(
        self,
        line: dict[str, Any],
        read: Callable[[int, int, "Buffer", int], Any],
        key: int,
        version: int,
        buffer: "Buffer",
        position: int,
    ) -> None:
        try:
            line["body"] = self._reader.read(read(key, version, buffer, position))
        except DecodeError as error:
            line["problem"] = str(error)

    def _print(self, line: dict[str, Any]) -> None:
        """A trace that cannot be written ends; the requests do not end with it."""
        try:
            self._write(self._format(line, self._limit))
        except OSError as error:
            self._write = _nowhere
            _log.warning("the trace ends: %s", error)


def _nowhere(line: str) -> None:
    """Where a trace goes that has ended."""


def _line_of(context: "RequestContext", clock: "Clock", event: str) -> dict[str, Any]:
    connection = context.connection
    now = datetime.fromtimestamp(clock.time_ms() / 1000, UTC)
    api = APIS.get(context.api_key)
    return {
        "time": now.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "event": event,
        "connection": connection.connection_id,
        "peer": f"{connection.client_host}:{connection.client_port}",
        "client_id": context.client_id,
        "api": api.name if api is not None else None,
        "api_key": context.api_key,
        "api_version": context.api_version,
        "correlation_id": context.correlation_id,
    }


def _elapsed_ms(context: "RequestContext", clock: "Clock") -> float:
    return round((clock.monotonic() - context.received_at) * 1000, 3)


# -- forms


def _as_json(line: Mapping[str, Any], limit: int | None) -> str:
    text = json.dumps(line)
    if limit is None or len(text) <= limit or "body" not in line:
        return text
    shorter = dict(line)  # still an object: what is cut is a text inside
    body = _text_of_struct(shorter.pop("body"))
    spare = limit - len(json.dumps(shorter))
    return json.dumps(shorter | {"body_text": _cut(body, max(spare, 0))})


_SIGNS: Final = {"request": ">", "response": "<", "unanswered": "-", "closed": "x"}
_UNANSWERED: Final = "no answer was asked for"
_ABANDONED: Final = "it ended before the answer was there"


def _as_text(line: Mapping[str, Any], limit: int | None) -> str:
    measures = []
    if "size" in line:
        measures.append(f"{line['size']} B")
    if "ms" in line:
        measures.append(f"{line['ms']:.2f} ms")
    words = [
        line["time"][11:-1],
        f"#{line['connection']}",
        line["peer"],
        repr(line["client_id"]) if line["client_id"] is not None else "-",
        _SIGNS[line["event"]],
        line["api"] or f"API-{line['api_key']}",
        f"v{line['api_version']}",
        str(line["correlation_id"]),
        f"({', '.join(measures)})",
    ]
    if line["event"] == "unanswered":
        words.append(_UNANSWERED)
    if line["event"] == "closed":
        words.append("connection is closed:")
    if "problem" in line:
        words.append(_one_line(line["problem"]))
    if line.get("body"):
        words.append(_text_of_struct(line["body"]))
    text = " ".join(words)
    return text if limit is None else _cut(text, limit)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


def _text_of_struct(struct: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={_text_of(value)}" for name, value in struct.items())


def _text_of(value: Any) -> str:
    if isinstance(value, Summary):
        return f"<{_text_of_summary(value)}>"
    if isinstance(value, dict):
        return f"{{{_text_of_struct(value)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text_of, value))}]"
    if isinstance(value, str):
        return value if value.isidentifier() else repr(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _text_of_summary(summary: Mapping[str, Any]) -> str:
    if list(summary) == ["more"]:
        return f"{summary['more']} more"
    if list(summary) == ["bytes"]:
        return f"{summary['bytes']} B"
    return " ".join(f"{name}={_one_line(str(value))}" for name, value in summary.items())


def _one_line(text: str) -> str:
    """What a client sends must not forge lines or colour a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()
