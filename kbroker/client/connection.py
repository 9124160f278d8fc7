"""One connection to one broker: requests are pipelined, answers come in the same order."""

from struct import Struct
from typing import Any, Final

import anyio
from anyio.abc import ByteStream

from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.headers import (
    RequestHeader,
    request_header_version,
    response_header_version,
)
from kbroker.protocol.messages.api_versions_request import ApiVersionsRequest
from kbroker.protocol.messages.request_header import write_request_header
from kbroker.protocol.wire import DecodeError, EncodeError, read_tagged_fields

MAX_FRAME_BYTES: Final = 128 * 1024 * 1024
"""The largest answer that is accepted; a fetch asks for less."""

_RECEIVE_BYTES: Final = 256 * 1024
_SIZE: Final = Struct(">i")
_UNSUPPORTED_VERSION: Final = Struct(">h").pack(ErrorCode.UNSUPPORTED_VERSION)
_API_VERSIONS_ASKED: Final = 3
_SOFTWARE: Final = ("kbroker", "0.1")

CLIENT_VERSIONS: Final = {
    ApiKey.PRODUCE: (3, 12),
    ApiKey.FETCH: (4, 12),
    ApiKey.METADATA: (4, 12),
    ApiKey.OFFSET_COMMIT: (2, 9),
    ApiKey.OFFSET_FETCH: (2, 9),
    ApiKey.DELETE_TOPICS: (1, 5),
}
"""Versions that this client speaks where they are fewer than the codec's: topics go by name
(produce before 13, fetch before 13, offsets before 10), and metadata must not create topics by
asking (4)."""


class ConnectionLostError(Exception):
    """The connection ended, or was never made; the request may or may not have been served."""


class _Waiting:
    """A request that was sent."""

    __slots__ = ("answer", "arrived", "problem")

    def __init__(self) -> None:
        self.arrived = anyio.Event()
        self.answer: bytes | None = None
        self.problem: str | None = None


class Connection:
    """Correlates answers with requests; ``run`` receives, in a task of whoever made it."""

    def __init__(self, stream: ByteStream, *, client_id: str, name: str) -> None:
        self.name = name
        self.is_closed = False
        self._stream = stream
        self._client_id = client_id
        self._correlation_id = 0
        self._waiting: dict[int, _Waiting] = {}
        self._sending = anyio.Lock()
        self._receiving = anyio.CancelScope()
        self._versions: dict[int, tuple[int, int]] = {}

    async def run(self) -> None:
        """Receive until the connection ends; every request that waits then fails."""
        problem = "the connection was closed"
        try:
            with self._receiving:
                problem = await self._receive_all()
        finally:
            self.is_closed = True
            for waiting in self._waiting.values():
                waiting.problem = problem
                waiting.arrived.set()
            self._waiting.clear()
            await anyio.aclose_forcefully(self._stream)

    def close(self) -> None:
        """End it; ``run`` returns soon after."""
        self.is_closed = True
        self._receiving.cancel()

    async def negotiate(self) -> None:
        """Ask which versions the broker speaks (KIP-511: an older one answers in version 0)."""
        version = _API_VERSIONS_ASKED
        request = ApiVersionsRequest(*_SOFTWARE)
        answer = await self._exchange(ApiKey.API_VERSIONS, version, request)
        if answer[4:6] == _UNSUPPORTED_VERSION:
            version = 0
            answer = await self._exchange(ApiKey.API_VERSIONS, version, ApiVersionsRequest())
        try:
            response = registry.read_response(ApiKey.API_VERSIONS, version, answer, 4)
        except (DecodeError, IndexError) as error:
            raise self._unreadable(error) from error
        if response.error_code:
            raise KafkaError(ErrorCode.for_code(response.error_code))
        self._versions = {
            each.api_key: (each.min_version, each.max_version) for each in response.api_keys
        }

    def knows(self, api_key: ApiKey) -> bool:
        """Whether the broker has this API at all."""
        return api_key in self._versions

    def version(self, api_key: ApiKey) -> int:
        """The highest version that both sides speak. Raises KafkaError UNSUPPORTED_VERSION."""
        info = registry.APIS[api_key]
        least, most = CLIENT_VERSIONS.get(api_key, (info.min_version, info.max_version))
        theirs = self._versions.get(api_key)
        if theirs is None:
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION, f"the broker {self.name} has no {info.name} request"
            )
        version = min(most, theirs[1])
        if version < max(least, theirs[0]):
            raise KafkaError(
                ErrorCode.UNSUPPORTED_VERSION,
                f"the broker {self.name} speaks {info.name} {theirs[0]} to {theirs[1]}, "
                f"this client {least} to {most}",
            )
        return version

    async def call(self, api_key: ApiKey, request: Any, *, answered: bool = True) -> Any:
        """The decoded response, None where none is due (``answered=False``: produce, acks=0).

        Raises ConnectionLostError, and KafkaError UNSUPPORTED_VERSION.
        """
        version = self.version(api_key)
        if not answered:
            await self._send(api_key, version, request, None)
            return None
        answer = await self._exchange(api_key, version, request)
        try:
            position = 4
            if response_header_version(api_key, version):
                _, position = read_tagged_fields(answer, position)
            return registry.read_response(api_key, version, answer, position)
        except (DecodeError, IndexError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> ConnectionLostError:
        self.close()
        return ConnectionLostError(f"{self.name} answers unreadably: {error}")

    async def _exchange(self, api_key: ApiKey, version: int, request: Any) -> bytes:
        waiting = _Waiting()
        try:
            await self._send(api_key, version, request, waiting)
            await waiting.arrived.wait()
        except KafkaError:
            raise  # nothing was sent
        except BaseException:
            self.close()  # cancelled, perhaps in the middle of a frame
            raise
        if waiting.answer is None:
            raise ConnectionLostError(f"{self.name}: {waiting.problem}")
        return waiting.answer

    async def _send(
        self, api_key: ApiKey, version: int, request: Any, waiting: _Waiting | None
    ) -> None:
        async with self._sending:
            if self.is_closed:
                raise ConnectionLostError(f"{self.name}: the connection was closed")
            self._correlation_id = (self._correlation_id + 1) & 0x7FFFFFFF
            header = RequestHeader(api_key, version, self._correlation_id, self._client_id)
            parts: list[Any] = []
            write_request_header(parts, header, request_header_version(api_key, version))
            try:
                registry.write_request(api_key, version, request, parts)
            except EncodeError as error:
                raise self._unsendable(api_key, request, error) from error
            body = b"".join(parts)
            if waiting is not None:
                self._waiting[self._correlation_id] = waiting
            try:
                await self._stream.send(_SIZE.pack(len(body)) + body)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                self.close()
                raise ConnectionLostError(f"{self.name}: the connection was closed") from error

    def _unsendable(self, api_key: ApiKey, request: Any, error: EncodeError) -> KafkaError:
        """A field that this old a version has not, or a value that no version can have."""
        try:
            registry.write_request(api_key, registry.APIS[api_key].max_version, request, [])
        except EncodeError:
            return KafkaError(ErrorCode.INVALID_REQUEST, f"it cannot be sent: {error}")
        return KafkaError(
            ErrorCode.UNSUPPORTED_VERSION, f"the broker {self.name} is too old: {error}"
        )

    async def _receive_all(self) -> str:
        """Hand out answers until the stream ends; why it ended."""
        buffer = bytearray()
        wanted = _SIZE.size
        while True:
            while len(buffer) < wanted:
                try:
                    buffer += await self._stream.receive(_RECEIVE_BYTES)
                except anyio.EndOfStream:
                    return "the broker closed the connection"
                except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError) as error:
                    return f"the connection broke ({error!r})"
            if wanted == _SIZE.size:
                (size,) = _SIZE.unpack_from(buffer)
                if not 4 <= size <= MAX_FRAME_BYTES:
                    return _not_kafka(bytes(buffer[: _SIZE.size]), size)
                wanted += size
                continue
            frame = bytes(memoryview(buffer)[_SIZE.size : wanted])
            del buffer[:wanted]
            wanted = _SIZE.size
            waiting = self._waiting.pop(_SIZE.unpack_from(frame)[0], None)
            if waiting is None:
                return "an answer came that nobody had asked for; is this a Kafka port?"
            waiting.answer = frame
            waiting.arrived.set()


def _not_kafka(beginning: bytes, size: int) -> str:
    """Who it may be that answers so."""
    if beginning == b"HTTP":
        return "an HTTP server answers, not Kafka"
    if beginning[:2] in (b"\x15\x03", b"\x16\x03"):  # an alert, or a handshake
        return "it speaks TLS, which this client does not"
    return f"it announced an answer of {size} bytes; is this a Kafka port?"
