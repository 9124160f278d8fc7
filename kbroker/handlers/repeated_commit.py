"""OffsetCommit requests that differ from an earlier one in offsets and leader epochs only.

A consumer commits the same partitions again and again, and the answer, when all goes well, says
nothing of the offsets. Both are kept, by all that stands between the numbers, so that such a
request is neither decoded nor its answer encoded. Whether the member may commit is looked at each
time, as for every commit.
"""

from collections.abc import Sequence
from struct import Struct
from struct import error as struct_error
from typing import TYPE_CHECKING, Any, Final, Literal

from kbroker.coordinator.group.repeated_commit import CommitTemplate
from kbroker.handlers.group_requests import answer_of
from kbroker.handlers.repeating import KnownOfImage, context_of
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    write_offset_commit_request,
)
from kbroker.request_context import RequestContext

if TYPE_CHECKING:
    from kbroker.common.parts import Buffer, Part
    from kbroker.handlers.dispatch import Conclude
    from kbroker.handlers.services import Services
    from kbroker.protocol.messages.offset_commit_response import OffsetCommitResponse
    from kbroker.request_context import ConnectionContext

_CORRELATION_ID: Final = Struct(">i")
_SIZE_AND_ID: Final = Struct(">ii")
_FIRST_VERSION: Final = 6
"""From here on an epoch follows each offset, and requests have no retention time of their own."""
_NUMBERS_SIZE: Final = 12  # offset and epoch
_SIGN: Final = Struct("14s")
"""So many bytes tell one group's kind of request from another's of the same size."""
_LARGEST: Final = 1_024
_MOST: Final = 4_096
_PRICE: Final = 8
_SAVED: Final = 1_024


class _Known:
    """One kind of request, and what it is answered when all goes well."""

    __slots__ = ("answer", "template")

    def __init__(self, template: CommitTemplate, answer: bytes) -> None:
        self.template = template
        self.answer = answer
        """Behind the correlation id."""


class RepeatedCommits(KnownOfImage):
    """The ``Shortcut`` of OffsetCommit; everything is forgotten when the image changes.

    To remember costs as much as a request. Where none comes again, at most one of eight is
    remembered.
    """

    __slots__ = ("_credit", "_known", "_layouts")

    def __init__(self, services: "Services") -> None:
        super().__init__(services)
        self._layouts: dict[tuple[int, int, tuple[bytes]], Struct] = {}
        """What reads a request, by its version, its size and how it begins."""
        self._known: dict[tuple[int, tuple[bytes, ...]], _Known] = {}
        """By the version and all but the numbers."""
        self._credit = _SAVED

    def answer(
        self, context: RequestContext, buffer: "Buffer", position: int
    ) -> "list[Part] | tuple[OffsetCommitRequest, Any] | None":
        """The answer, or (request, what its handler gives); None: nothing has happened."""
        services = self._services
        if services.metadata.image is not self._image:
            return None
        version = context.api_version
        try:
            sign = _SIGN.unpack_from(buffer, position)
        except struct_error:
            return None
        layout = self._layouts.get((version, len(buffer) - position, sign))
        if layout is None:
            return None
        fields = layout.unpack_from(buffer, position)
        known = self._known.get((version, fields[::3]))
        if known is None:
            return None
        outcome = _commit(services, known, fields[1::3], fields[2::3])
        if outcome is not True:
            return outcome
        if self._conclude is not None and context.connection.is_repeated(known):
            context.connection.repeated = _SameCommitter(
                self,
                services,
                known,
                buffer,
                layout,
                connection=context.connection,
                conclude=self._conclude,
            )
        return [_CORRELATION_ID.pack(context.correlation_id), known.answer]

    def remember(
        self,
        context: RequestContext,
        buffer: "Buffer",
        position: int,
        request: OffsetCommitRequest,
        response: "OffsetCommitResponse",
        answer: "list[Part]",
    ) -> None:
        """The request at ``position`` of ``buffer`` was answered so just now."""
        version = context.api_version
        size = len(buffer) - position
        if not (version >= _FIRST_VERSION and _SIGN.size <= size <= _LARGEST):
            return
        if self._credit < _PRICE:
            self._credit += 1
            return
        image = self._services.metadata.image
        if self._image is not image or len(self._known) >= _MOST:
            self._layouts.clear()
            self._known.clear()
            self.era = object()
            self._image = image
        if not _is_plain(request, response):
            return
        self._credit -= _PRICE - 1
        layout = _layout(bytes(buffer[position:]), request, version)
        if layout is None:
            return
        key = version, layout.unpack_from(buffer, position)[::3]
        encoded = b"".join(answer)  # type: ignore[arg-type]
        template = CommitTemplate(request, version, response)
        self._layouts[version, size, _SIGN.unpack_from(buffer, position)] = layout
        self._known[key] = _Known(template, encoded[_CORRELATION_ID.size :])


def _commit(
    services: "Services", known: _Known, offsets: Sequence[int], epochs: Sequence[int]
) -> "Literal[True] | tuple[OffsetCommitRequest, Any] | None":
    """True when all went well; else (request, what its handler gives), or None: nothing has
    happened, it has to go the ordinary way."""
    template = known.template
    try:
        response = services.group_coordinator.requests.commit_again(template, offsets, epochs)
    except Exception as error:
        return template.request, _failed(error)
    if response is template.response:
        return True
    return None if response is None else (template.request, answer_of(response))


class _SameCommitter:
    """A connection's ``Repeated``: the same bytes, but for the correlation id and the numbers."""

    __slots__ = (
        "_answer_size",
        "_before",
        "_behind",
        "_conclude",
        "_connection",
        "_era",
        "_fields",
        "_known",
        "_owner",
        "_services",
        "_words",
    )

    def __init__(
        self,
        owner: RepeatedCommits,
        services: "Services",
        known: _Known,
        frame: "Buffer",
        layout: Struct,
        *,
        connection: "ConnectionContext",
        conclude: "Conclude",
    ) -> None:
        """``layout`` reads what stands behind the header of ``frame``, to its end."""
        self._owner = owner
        self._services = services
        self._known = known
        self._connection = connection
        self._conclude = conclude
        self._era = owner.era
        header_size = len(frame) - layout.size
        self._fields = Struct(f">4si{header_size - 8}s{layout.format[1:]}")
        fields = self._fields.unpack_from(frame)
        self._before, self._behind, self._words = fields[0], fields[2], fields[3::3]
        self._answer_size = _CORRELATION_ID.size + len(known.answer)

    def answer(self, frame: memoryview) -> "bytes | list[Part] | Any | None":
        """See ``Repeated``."""
        owner = self._owner
        if owner.era is not self._era or len(frame) != self._fields.size or not owner.is_current:
            return None
        fields = self._fields.unpack_from(frame)
        if fields[0] != self._before or fields[2] != self._behind or fields[3::3] != self._words:
            return None
        known = self._known
        outcome = _commit(self._services, known, fields[4::3], fields[5::3])
        if outcome is True:
            return _SIZE_AND_ID.pack(self._answer_size, fields[1]) + known.answer
        if outcome is None:
            self._connection.forget_repeated()
            return None
        return self._conclude(context_of(frame, self._connection, self._services), *outcome)


async def _failed(error: Exception) -> Any:
    """A handler that failed, for dispatch to tell the client."""
    raise error


def _is_plain(request: OffsetCommitRequest, response: "OffsetCommitResponse") -> bool:
    """Whether every partition was committed, and none with metadata."""
    return (
        bool(request.topics)
        and not any(
            partition.error_code for topic in response.topics for partition in topic.partitions
        )
        and not any(
            partition.committed_metadata
            for topic in request.topics
            for partition in topic.partitions
        )
    )


def _layout(body: bytes, request: OffsetCommitRequest, version: int) -> Struct | None:
    """What reads all that stands before the first numbers, those, and so on to the end.

    None for a request that we would write otherwise, so that its places are not known.
    """
    partitions = [partition for topic in request.topics for partition in topic.partitions]
    if _encoded(request, version) != body:
        return None
    for partition in partitions:  # every bit of the numbers, and no other
        partition.committed_offset = ~partition.committed_offset
        partition.committed_leader_epoch = ~partition.committed_leader_epoch
    places = [
        place
        for place, (old, new) in enumerate(zip(body, _encoded(request, version), strict=True))
        if old != new
    ][::_NUMBERS_SIZE]
    form = ">"
    end = 0
    for place in places:
        form += f"{place - end}sqi"
        end = place + _NUMBERS_SIZE
    return Struct(f"{form}{len(body) - end}s")


def _encoded(request: OffsetCommitRequest, version: int) -> bytes:
    parts: list[Any] = []
    write_offset_commit_request(parts, request, version)
    return b"".join(parts)
