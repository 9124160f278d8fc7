"""How a Fetch request relates to its session: none, a new one, the next of one, or a mistake."""

from typing import TYPE_CHECKING, Protocol

from kbroker.protocol.error_codes import ErrorCode
from kbroker.replication.fetch_session import (
    FINAL_EPOCH,
    INITIAL_EPOCH,
    INVALID_SESSION_ID,
    Answer,
    FetchSession,
    FetchSessionCache,
    next_epoch,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kbroker.replication.cached_partition import CachedPartition, PartitionKey

Outcome = tuple[ErrorCode, int, list[Answer]]
"""(error of the whole answer, session id, what is sent)"""


class FetchContext(Protocol):
    """One Fetch request's view: what is read for it, and what of that is sent."""

    @property
    def partitions(self) -> "Sequence[CachedPartition]":
        """What to read, in order."""
        ...

    def respond(self, answers: list[Answer]) -> Outcome:
        """Decide what is sent; called once, with an answer for every partition."""
        ...


class SessionlessFetchContext:
    """Everything asked is answered, nothing is remembered."""

    __slots__ = ("partitions",)

    def __init__(self, partitions: "Sequence[CachedPartition]") -> None:
        self.partitions = partitions

    def respond(self, answers: list[Answer]) -> Outcome:
        return ErrorCode.NONE, INVALID_SESSION_ID, answers


class FullFetchContext:
    """Everything asked is answered, and a session begins when the cache has room."""

    __slots__ = ("_cache", "_is_follower", "_uses_topic_ids", "partitions")

    def __init__(
        self,
        partitions: "Sequence[CachedPartition]",
        cache: FetchSessionCache,
        *,
        is_follower: bool,
        uses_topic_ids: bool,
    ) -> None:
        self.partitions = partitions
        self._cache = cache
        self._is_follower = is_follower
        self._uses_topic_ids = uses_topic_ids

    def respond(self, answers: list[Answer]) -> Outcome:
        session_id = self._cache.maybe_create(
            answers, is_privileged=self._is_follower, uses_topic_ids=self._uses_topic_ids
        )
        return ErrorCode.NONE, session_id, answers


class IncrementalFetchContext:
    """The session's partitions are read, what changed is sent."""

    __slots__ = ("_expected_epoch", "_session", "partitions")

    def __init__(self, session: FetchSession) -> None:
        self._session = session
        self._expected_epoch = session.epoch
        self.partitions = list(session.partitions.values())

    def respond(self, answers: list[Answer]) -> Outcome:
        session = self._session
        if session.epoch != self._expected_epoch:  # another request used it while this one waited
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH, session.session_id, []
        return ErrorCode.NONE, session.session_id, session.select(answers)


class SessionErrorContext:
    """The session cannot be continued: nothing is read."""

    __slots__ = ("_error", "partitions")

    def __init__(self, error: ErrorCode) -> None:
        self._error = error
        self.partitions: Sequence[CachedPartition] = ()

    def respond(self, answers: list[Answer]) -> Outcome:
        return self._error, INVALID_SESSION_ID, []


def new_context(
    cache: FetchSessionCache,
    *,
    session_id: int,
    session_epoch: int,
    requested: "Sequence[CachedPartition]",
    forgotten: "Sequence[PartitionKey]",
    is_follower: bool,
    uses_topic_ids: bool,
) -> FetchContext:
    """The context of a request (FetchManager.newContext). Epochs 0 and -1 ask for everything and
    close the named session; any other must be the session's next one."""
    if session_epoch in (INITIAL_EPOCH, FINAL_EPOCH):
        if session_id != INVALID_SESSION_ID:
            cache.remove(session_id)
        if session_epoch == FINAL_EPOCH:
            return SessionlessFetchContext(requested)
        return FullFetchContext(
            requested, cache, is_follower=is_follower, uses_topic_ids=uses_topic_ids
        )
    session = cache.resume(session_id, session_epoch, uses_topic_ids=uses_topic_ids)
    if isinstance(session, ErrorCode):
        return SessionErrorContext(session)
    session.update(requested, forgotten)
    if not session.partitions:
        cache.remove(session_id)
        return SessionlessFetchContext(requested)
    cache.touch(session)
    session.epoch = next_epoch(session.epoch)
    return IncrementalFetchContext(session)
