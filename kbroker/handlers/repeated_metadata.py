"""Metadata requests that have been answered before, from the same image of the cluster.

Clients ask the same question again and again. What the answer says depends on the request's bytes,
its version, the address by which the client came and the image, and on nothing else, unless topics
are missing: those may be created by the asking, so such answers are not kept.
"""

from struct import Struct
from typing import TYPE_CHECKING, Any, Final

from kbroker.handlers.repeating import KnownOfImage

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer, Part
    from kbroker.handlers.services import Services
    from kbroker.request_context import RequestContext

_CORRELATION_ID: Final = Struct(">i")
_SIZE_AND_ID: Final = Struct(">ii")
_LARGEST_QUESTION: Final = 1_024
_LARGEST_ANSWER: Final = 65_536
_KEPT_BYTES: Final = 1_048_576

_Question = tuple[bytes, int, str, str, int]


class RepeatedMetadata(KnownOfImage):
    """The ``Shortcut`` of Metadata: encoded answers, forgotten when the image changes."""

    __slots__ = ("_answers", "_bytes")

    def __init__(self, services: "Services") -> None:
        super().__init__(services)
        self._answers: dict[_Question, bytes] = {}
        self._bytes = 0

    def answer(
        self, context: "RequestContext", buffer: "Buffer", position: int
    ) -> "list[Part] | None":
        """Header and body of the answer; None when this was not asked before."""
        if self._image is not self._services.metadata.image or len(buffer) > _LARGEST_QUESTION:
            return None
        found = self._answers.get(_question(context, buffer, position))
        if found is None:
            return None
        if self._conclude is not None and context.connection.is_repeated(found):
            context.connection.repeated = _SameQuestion(self, buffer, found)
        return [_CORRELATION_ID.pack(context.correlation_id), found]

    def remember(
        self,
        context: "RequestContext",
        buffer: "Buffer",
        position: int,
        request: Any,
        response: Any,
        answer: "list[Part]",
    ) -> None:
        """The request at ``position`` of ``buffer`` was answered so just now."""
        image = self._services.metadata.image
        if self._image is not image:
            self._forget()
            self._image = image
        if len(buffer) > _LARGEST_QUESTION or any(topic.error_code for topic in response.topics):
            return
        head, *body = answer
        assert isinstance(head, bytes)
        kept = head[_CORRELATION_ID.size :] + b"".join(body)  # type: ignore[arg-type]
        if len(kept) > _LARGEST_ANSWER:
            return
        self._bytes += len(kept) + len(buffer)
        if self._bytes > _KEPT_BYTES:
            self._forget()
            self._bytes = len(kept) + len(buffer)
        self._answers[_question(context, buffer, position)] = kept

    def _forget(self) -> None:
        self._answers.clear()
        self._bytes = 0
        self.era = object()


class _SameQuestion:
    """A connection's ``Repeated``: the same bytes, but for the correlation id."""

    __slots__ = ("_answer", "_answer_size", "_before", "_behind", "_era", "_fields", "_known")

    def __init__(self, known: RepeatedMetadata, frame: "Buffer", answer: bytes) -> None:
        """``answer``: what follows the correlation id in it."""
        self._known = known
        self._era = known.era
        self._fields = Struct(f">4si{len(frame) - 8}s")
        self._before, _, self._behind = self._fields.unpack_from(frame)
        self._answer = answer
        self._answer_size = _CORRELATION_ID.size + len(answer)

    def answer(self, frame: memoryview) -> bytes | None:
        """See ``Repeated``."""
        known = self._known
        if known.era is not self._era or not known.is_current or len(frame) != self._fields.size:
            return None
        before, correlation_id, behind = self._fields.unpack_from(frame)
        if behind != self._behind or before != self._before:
            return None
        return _SIZE_AND_ID.pack(self._answer_size, correlation_id) + self._answer


def _question(context: "RequestContext", buffer: "Buffer", position: int) -> _Question:
    connection = context.connection
    host, port = connection.advertised_address()
    return bytes(buffer[position:]), context.api_version, connection.listener_name, host, port
