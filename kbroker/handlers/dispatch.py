"""From a request frame to the parts of its answer: look up, decode, handle, encode.

Follows Kafka's RequestContext.parseRequest and KafkaApis.handle: an unknown key, a version outside
the advertised range and a body that does not decode close the connection; only ApiVersions answers
a version it does not know (KIP-511). An error that leaves a handler becomes the answer that Kafka's
``getErrorResponse`` gives; where there is none (Produce with acks=0), the connection closes.
"""

from collections.abc import Callable, Coroutine
from functools import partial
from importlib import import_module
from struct import Struct
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from anyio.lowlevel import checkpoint

from kbroker.handlers.registry import HANDLERS
from kbroker.protocol import registry
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.request_context import Answer, CloseConnection, Dispatched, RequestContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kbroker.common.parts import Buffer, Part
    from kbroker.handlers.pose import Pose
    from kbroker.handlers.services import Services

_API_VERSIONS_KEY: Final = 18
_IMPORT_SLICE_S: Final = 0.002  # how long imports in the background may hold the loop at once
_NEVER_FLEXIBLE: Final = 1 << 15
_LARGEST_REQUEST: Final = 4 << 20
_MAY_BE_LARGER: Final = frozenset({0, 11, 14, 72})
"""Produce, JoinGroup, SyncGroup, PushTelemetry: few elements that hold many bytes.

100 MB of any other request are millions of small elements, gigabytes once decoded, and seconds in
which nobody else is served. What a group or the cluster can store in one go is smaller than 4 MiB.
"""
_CORRELATION_ID: Final = Struct(">i")

Conclude = Callable[[RequestContext, Any, Any], Dispatched]
"""(context, request, what its handler gave) -> what dispatch gives."""

_Handle = Callable[["Services", RequestContext, Any], Any]
_ErrorResponse = Callable[[Any, KafkaError, int], Any]


class Shortcut(Protocol):
    """Answers requests that are like one before, without decoding them: the same bytes, as soon."""

    def answer(
        self, context: RequestContext, buffer: "Buffer", position: int
    ) -> "list[Part] | tuple[Any, Any] | None":
        """Header and body, or (request, what a handler would give for it).

        None: it has to go the ordinary way, nothing has happened.
        """
        ...

    def remember(
        self,
        context: RequestContext,
        buffer: "Buffer",
        position: int,
        request: Any,
        response: Any,
        answer: "list[Part]",
    ) -> None:
        """A request that was answered the ordinary way, at once."""
        ...


class RepeatingShortcut(Shortcut, Protocol):
    """One that knows how to set ``ConnectionContext.repeated``."""

    def let_repeat(self, conclude: Conclude) -> None:
        """It may. ``conclude`` is for what has no answer yet, or another than a sound request."""
        ...


class _Api:
    """One API key, its codec and its handler, as dispatch needs them: looked up once, then kept."""

    __slots__ = (
        "error_response",
        "first_flexible_header",
        "handle",
        "key",
        "latest_version",
        "oldest_version",
        "read",
        "shortcut",
        "write",
    )

    def __init__(
        self,
        *,
        key: int,
        oldest_version: int,
        latest_version: int,
        first_flexible_header: int,
        read: registry.Reader,
        write: registry.Writer,
        handle: _Handle,
        error_response: _ErrorResponse,
        shortcut: Shortcut | None,
    ) -> None:
        self.key = key
        self.oldest_version = oldest_version
        self.latest_version = latest_version
        self.first_flexible_header = first_flexible_header
        self.read = read
        self.write = write
        self.handle = handle
        self.error_response = error_response
        self.shortcut = shortcut


class Dispatcher:
    """The ``Dispatch`` of one broker. Handlers and codecs are imported at a key's first request."""

    def __init__(
        self,
        services: "Services",
        handlers: "Mapping[int, str]" = HANDLERS,
        pose: "Pose | None" = None,
        *,
        lets_repeat: bool = False,
    ) -> None:
        """``pose``: serve what another broker would, and no more. ``lets_repeat``: nobody counts
        or looks at requests on their way to this dispatcher, so they may be answered without it."""
        self._lets_repeat = lets_repeat
        self._services = services
        self._handlers = handlers
        self._pose = pose
        self._apis: dict[int, _Api] = {}

    def dispatch(self, context: RequestContext, buffer: "Buffer", position: int) -> Dispatched:
        """The answer's parts, None when there is none, or a coroutine that gives either.

        Raises CloseConnection as Kafka closes: unknown key or version, undecodable body.
        """
        api = self._apis.get(context.api_key)
        if api is None:
            api = self._load(context.api_key)
        version = context.api_version
        if not api.oldest_version <= version <= api.latest_version:
            if api.key == _API_VERSIONS_KEY:
                return self._answer_unknown_api_versions(api, context)
            raise CloseConnection(f"version {version} of API key {api.key} is not supported")
        if len(buffer) > _LARGEST_REQUEST and api.key not in _MAY_BE_LARGER:
            raise CloseConnection(f"request of API key {api.key} with {len(buffer)} bytes")
        shortcut = api.shortcut
        if shortcut is not None:
            known = shortcut.answer(context, buffer, position)
            if type(known) is list:
                return known
            if known is not None:
                return self._conclude(api, context, *known)
        try:
            request, _ = api.read(buffer, position, version)
        except Exception as error:  # whatever it is, it says that the bytes are no request
            raise CloseConnection(
                f"undecodable request of API key {api.key}, version {version}: {error}"
            ) from error
        try:
            response = api.handle(self._services, context, request)
            if response.__class__ is CoroutineType:
                return self._finish(api, context, request, response)
            answer = self._encode(api, context, response)
            if shortcut is not None and answer is not None:
                shortcut.remember(context, buffer, position, request, response, answer)
            return answer
        except CloseConnection:
            raise
        except Exception as error:
            return self._answer_error(api, context, request, error)

    def _conclude(
        self, api: _Api, context: RequestContext, request: Any, response: Any
    ) -> Dispatched:
        try:
            if response.__class__ is CoroutineType:
                return self._finish(api, context, request, response)
            return self._encode(api, context, response)
        except Exception as error:
            return self._answer_error(api, context, request, error)

    async def _finish(
        self,
        api: _Api,
        context: RequestContext,
        request: Any,
        waiting: Coroutine[Any, Any, Any],
    ) -> Answer:
        try:
            return self._encode(api, context, await waiting)
        except CloseConnection:
            raise
        except Exception as error:
            return self._answer_error(api, context, request, error)

    def _encode(self, api: _Api, context: RequestContext, response: Any) -> Answer:
        if response is None:
            return None
        version = context.api_version
        header = _CORRELATION_ID.pack(context.correlation_id)
        if version >= api.first_flexible_header:
            header += b"\0"  # response header v1: no tagged fields
        parts: list[Part] = [header]
        api.write(parts, response, version)
        return parts

    def _answer_error(
        self, api: _Api, context: RequestContext, request: Any, error: Exception
    ) -> Answer:
        """What Kafka's getErrorResponse gives; CloseConnection when the API has no such answer."""
        if not isinstance(error, KafkaError):
            self._services.log.error(
                "request of API key %d, version %d, client %r failed",
                api.key,
                context.api_version,
                context.client_id,
                exc_info=error,
                extra={
                    "connection": context.connection.connection_id,
                    "peer": f"{context.connection.client_host}:{context.connection.client_port}",
                    "correlation_id": context.correlation_id,
                },
            )
            error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR)
        try:
            response = api.error_response(request, error, context.api_version)
            answer = self._encode(api, context, response)
        except Exception as failure:
            self._services.log.exception("API key %d: the error answer failed too", api.key)
            raise CloseConnection(f"API key {api.key}: the error answer failed") from failure
        if answer is None:
            raise CloseConnection(f"API key {api.key} has no error answer for this request")
        return answer

    def _answer_unknown_api_versions(self, api: _Api, context: RequestContext) -> Answer:
        """KIP-511: the v0 answer with the range to try again with; the body is not looked at."""
        known = RequestContext(
            context.connection,
            context.api_key,
            0,
            context.correlation_id,
            context.client_id,
            context.received_at,
        )
        response = api.error_response(None, KafkaError(ErrorCode.UNSUPPORTED_VERSION), 0)
        for own in response.api_keys:
            own.max_version = api.latest_version
        return self._encode(api, known, response)

    def _load(self, key: int) -> _Api:
        module_name = self._handlers.get(key)
        if module_name is None:
            raise CloseConnection(f"API key {key} is not served")
        served = self._served_versions(key)
        if served is None:
            raise CloseConnection(f"API key {key} is not served by the broker posed as")
        module = import_module(f"kbroker.handlers.{module_name}")
        info = registry.APIS[key]
        oldest, latest = served
        make_shortcut = getattr(module, "shortcut", None)
        shortcut = None if make_shortcut is None else make_shortcut(self._services)
        api = _Api(
            key=key,
            oldest_version=oldest,
            latest_version=latest,
            first_flexible_header=(
                _NEVER_FLEXIBLE if key == _API_VERSIONS_KEY else info.flexible_from
            ),
            read=registry.request_reader(key),
            write=registry.response_writer(key),
            handle=module.handle,
            error_response=module.error_response,
            shortcut=shortcut,
        )
        self._apis[key] = api
        if self._lets_repeat and hasattr(shortcut, "let_repeat"):
            cast("RepeatingShortcut", shortcut).let_repeat(partial(self._conclude, api))
        return api

    def _served_versions(self, key: int) -> tuple[int, int] | None:
        info = registry.APIS[key]
        if self._pose is None:
            return info.min_version, info.max_version
        return self._pose.serves(key, info.min_version, info.max_version)

    async def import_ahead(self) -> None:
        """Import what no request has needed yet, giving way to the loop every 2 ms."""
        clock = self._services.clock
        slice_end = clock.monotonic() + _IMPORT_SLICE_S
        for key in sorted(self._handlers):
            if key not in self._apis and self._served_versions(key) is not None:
                self._load(key)
            if clock.monotonic() >= slice_end:
                await checkpoint()
                slice_end = clock.monotonic() + _IMPORT_SLICE_S
