"""Incremental fetch sessions (KIP-227): what a client fetches is kept here between its requests.

A session is not bound to a connection and outlives it. Epoch 0 opens one, -1 closes it, any other
continues it and must be the next one. Topic ids (Fetch v13+) and names do not mix inside a session.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.replication.cached_partition import CachedPartition, PartitionKey

if TYPE_CHECKING:
    from kbroker.common.clock import Clock
    from kbroker.common.entropy import Entropy
    from kbroker.protocol.messages.fetch_response import PartitionData

INVALID_SESSION_ID: Final = 0
INITIAL_EPOCH: Final = 0
FINAL_EPOCH: Final = -1
_INT32_MAX: Final = 2**31 - 1
EVICTION_MS: Final = 120_000
"""A session that was idle for longer may go; a younger one is safe from other consumers."""

_EvictableKey = tuple[bool, int, int]  # (is_privileged, partitions, session id)

Answer = tuple[CachedPartition, "PartitionData"]


def next_epoch(epoch: int) -> int:
    """The epoch after this one; wraps to 1, and stays -1 when it was final."""
    if epoch < 0:
        return FINAL_EPOCH
    return 1 if epoch == _INT32_MAX else epoch + 1


class FetchSession:
    """What one client fetches, in the order in which it is served."""

    __slots__ = (
        "created_ms",
        "epoch",
        "evictable_size",
        "is_privileged",
        "last_used_ms",
        "partitions",
        "session_id",
        "uses_topic_ids",
    )

    def __init__(
        self,
        session_id: int,
        *,
        is_privileged: bool,
        uses_topic_ids: bool,
        partitions: dict[PartitionKey, CachedPartition],
        now_ms: int,
    ) -> None:
        self.session_id = session_id
        self.is_privileged = is_privileged
        self.uses_topic_ids = uses_topic_ids
        self.partitions = partitions
        self.created_ms = now_ms
        self.last_used_ms = now_ms
        self.epoch = next_epoch(INITIAL_EPOCH)
        self.evictable_size = -1  # size under which the cache has it listed, -1 when it has not

    def update(
        self, requested: Iterable[CachedPartition], forgotten: Iterable[PartitionKey]
    ) -> None:
        """Add or change what an incremental request lists, then drop what it forgets."""
        for asked in requested:
            known = self.partitions.get(asked.key)
            if known is None:
                self.partitions[asked.key] = asked
            else:
                known.fetch_offset = asked.fetch_offset
                known.max_bytes = asked.max_bytes
                known.current_leader_epoch = asked.current_leader_epoch
                known.last_fetched_epoch = asked.last_fetched_epoch
                known.log_start_offset = asked.log_start_offset
        for key in forgotten:
            self.partitions.pop(key, None)

    def select(self, answers: list[Answer]) -> list[Answer]:
        """What of a full answer has to be sent; what carries data is served last next time."""
        selected = []
        for answer in answers:
            partition, data = answer
            if not partition.update_response(data):
                continue
            selected.append(answer)
            if len(data.records or b""):
                key = partition.key
                if self.partitions.pop(key, None) is not None:
                    self.partitions[key] = partition
        return selected


class FetchSessionCache:
    """The sessions of one broker; at most max.incremental.fetch.session.cache.slots of them.

    When it is full, an idle session goes first; else one that is worth less than the new one: a
    consumer's for a follower, a smaller for a larger one, and only when it is older than two
    minutes (followers may take a consumer's at once). Otherwise the client gets no session.
    """

    def __init__(self, max_entries: int, clock: "Clock", entropy: "Entropy") -> None:
        self.max_entries = max_entries
        self.evictions = 0
        self._clock = clock
        self._entropy = entropy
        self._sessions: OrderedDict[int, FetchSession] = OrderedDict()  # least recently used first
        self._evictable_by_all: list[_EvictableKey] = []  # both sorted
        self._evictable_by_privileged: list[_EvictableKey] = []

    def __len__(self) -> int:
        return len(self._sessions)

    def now_ms(self) -> int:
        """The cache's time: it never goes back."""
        return int(self._clock.monotonic() * 1000)

    def get(self, session_id: int) -> FetchSession | None:
        """The session of this id."""
        return self._sessions.get(session_id)

    def resume(
        self, session_id: int, epoch: int, *, uses_topic_ids: bool
    ) -> "FetchSession | ErrorCode":
        """The session that an incremental request continues, or the error of the whole request."""
        session = self._sessions.get(session_id)
        if session is None:
            return ErrorCode.FETCH_SESSION_ID_NOT_FOUND
        if session.epoch != epoch:
            return ErrorCode.INVALID_FETCH_SESSION_EPOCH
        if session.uses_topic_ids != uses_topic_ids:
            return ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR
        return session

    def touch(self, session: FetchSession) -> None:
        """The session was used just now; its size may have changed."""
        now_ms = self.now_ms()
        session.last_used_ms = now_ms
        self._sessions.move_to_end(session.session_id)
        size = len(session.partitions)
        is_old = now_ms - session.created_ms > EVICTION_MS
        if size == session.evictable_size and not is_old:
            return
        self._unlist(session)
        session.evictable_size = size
        key = (session.is_privileged, size, session.session_id)
        if not session.is_privileged or is_old:
            insort(self._evictable_by_privileged, key)
        if is_old:
            insort(self._evictable_by_all, key)

    def remove(self, session_id: int) -> None:
        """Close a session; unknown ids are ignored."""
        session = self._sessions.pop(session_id, None)
        if session is not None:
            self._unlist(session)

    def maybe_create(
        self, partitions: list[Answer], *, is_privileged: bool, uses_topic_ids: bool
    ) -> int:
        """Open a session for what a full request fetched; its id, 0 when there is no room."""
        if len(self._sessions) >= self.max_entries and not self._try_evict(
            is_privileged, len(partitions)
        ):
            return INVALID_SESSION_ID
        cached: dict[PartitionKey, CachedPartition] = {}
        for partition, data in partitions:
            partition.high_watermark = data.high_watermark
            partition.local_log_start_offset = data.log_start_offset
            cached[partition.key] = partition
        session = FetchSession(
            self._new_session_id(),
            is_privileged=is_privileged,
            uses_topic_ids=uses_topic_ids,
            partitions=cached,
            now_ms=self.now_ms(),
        )
        self._sessions[session.session_id] = session
        self.touch(session)
        return session.session_id

    def _new_session_id(self) -> int:
        while True:
            session_id = self._entropy.randint(1, _INT32_MAX)
            if session_id not in self._sessions:
                return session_id

    def _try_evict(self, is_privileged: bool, size: int) -> bool:
        if not self._sessions:
            return False
        oldest = next(iter(self._sessions.values()))
        if self.now_ms() - oldest.last_used_ms > EVICTION_MS:
            victim = oldest.session_id
        else:
            listed = self._evictable_by_privileged if is_privileged else self._evictable_by_all
            if not listed or (is_privileged, size, 0) < listed[0]:
                return False
            victim = listed[0][2]
        self.remove(victim)
        self.evictions += 1
        return True

    def _unlist(self, session: FetchSession) -> None:
        key = (session.is_privileged, session.evictable_size, session.session_id)
        for listed in (self._evictable_by_privileged, self._evictable_by_all):
            found = bisect_left(listed, key)
            if found < len(listed) and listed[found] == key:
                del listed[found]
