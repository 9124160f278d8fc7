"""Sessions: what is remembered, what is sent, who is evicted (KIP-227)."""

from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.fetch_request import FetchPartition
from kbroker.protocol.messages.fetch_response import EpochEndOffset, PartitionData
from kbroker.protocol.wire import ZERO_UUID
from kbroker.replication.cached_partition import CachedPartition
from kbroker.replication.fetch_context import Outcome, new_context
from kbroker.replication.fetch_session import (
    Answer,
    FetchSession,
    FetchSessionCache,
    next_epoch,
)


def asked(topic: str | None = "t", index: int = 0, *, offset: int = 0, topic_id: bytes = ZERO_UUID):
    request = FetchPartition(index, fetch_offset=offset, partition_max_bytes=1 << 20)
    return CachedPartition(topic, topic_id, index, request)


def data(
    index: int = 0, *, records: bytes = b"", high_watermark: int = 0, error: int = 0
) -> PartitionData:
    return PartitionData(
        index,
        error,
        -1 if error else high_watermark,
        log_start_offset=-1 if error else 0,
        records=records,
    )


class Sessions:
    """A cache and one client that fetches through it."""

    def __init__(self, slots: int = 1000) -> None:
        self.clock = ManualClock()
        self.cache = FetchSessionCache(slots, self.clock, SeededEntropy(1))

    def fetch(
        self,
        session_id: int,
        epoch: int,
        requested: list[CachedPartition],
        answer: dict[int, PartitionData] | None = None,
        *,
        forgotten: list[tuple[str | bytes | None, int]] | None = None,
        is_follower: bool = False,
        uses_topic_ids: bool = False,
    ) -> Outcome:
        context = new_context(
            self.cache,
            session_id=session_id,
            session_epoch=epoch,
            requested=requested,
            forgotten=forgotten or [],
            is_follower=is_follower,
            uses_topic_ids=uses_topic_ids,
        )
        answers: list[Answer] = [
            (one, (answer or {}).get(one.index, data(one.index))) for one in context.partitions
        ]
        return context.respond(answers)

    def open(self, size: int = 1, *, is_follower: bool = False) -> int:
        requested = [asked(index=index) for index in range(size)]
        return self.fetch(0, 0, requested, is_follower=is_follower)[1]

    def session(self, session_id: int) -> FetchSession:
        session = self.cache.get(session_id)
        assert session is not None
        return session


def sent(outcome: Outcome) -> list[int]:
    assert outcome[0] == ErrorCode.NONE
    return [one.index for one, _ in outcome[2]]


def test_epochs_wrap_to_one_and_final_stays_final() -> None:
    assert [next_epoch(epoch) for epoch in (0, 1, 2**31 - 1, -1)] == [1, 2, 1, -1]


def test_without_a_session_everything_is_sent() -> None:
    sessions = Sessions()
    outcome = sessions.fetch(0, -1, [asked(index=0), asked(index=1)])
    assert outcome[1] == 0
    assert sent(outcome) == [0, 1]
    assert len(sessions.cache) == 0


def test_an_incremental_answer_holds_what_changed() -> None:
    sessions = Sessions()
    error, session_id, answers = sessions.fetch(0, 0, [asked(index=0), asked(index=1)])
    assert (error, len(answers)) == (ErrorCode.NONE, 2)
    assert session_id > 0
    assert sent(sessions.fetch(session_id, 1, [])) == []
    assert sent(sessions.fetch(session_id, 2, [], {1: data(1, records=b"x")})) == [1]
    assert sent(sessions.fetch(session_id, 3, [], {0: data(0, high_watermark=5)})) == [0]
    again = {0: data(0, high_watermark=5)}
    assert sent(sessions.fetch(session_id, 4, [], again)) == []
    moved_start = data(0, high_watermark=5)
    moved_start.log_start_offset = 3
    assert sent(sessions.fetch(session_id, 5, [], {0: moved_start})) == [0]


def test_preferred_replicas_and_diverging_epochs_are_sent() -> None:
    sessions = Sessions()
    session_id = sessions.open(2)
    preferred = data(0)
    preferred.preferred_read_replica = 3
    diverging = data(1)
    diverging.diverging_epoch = EpochEndOffset(2, 10)
    assert sent(sessions.fetch(session_id, 1, [], {0: preferred, 1: diverging})) == [0, 1]


def test_after_an_error_the_partition_is_sent_once_it_is_well() -> None:
    sessions = Sessions()
    session_id = sessions.open(1)
    failed = {0: data(0, error=6)}
    assert sent(sessions.fetch(session_id, 1, [], failed)) == [0]
    assert sent(sessions.fetch(session_id, 2, [], failed)) == [0]
    assert sent(sessions.fetch(session_id, 3, [])) == [0]
    assert sent(sessions.fetch(session_id, 4, [])) == []


def test_partitions_with_data_take_the_last_place() -> None:
    sessions = Sessions()
    session_id = sessions.open(3)
    sessions.fetch(session_id, 1, [], {0: data(0, records=b"x")})
    order = [partition.index for partition in sessions.session(session_id).partitions.values()]
    assert order == [1, 2, 0]


def test_partitions_are_added_changed_and_forgotten() -> None:
    sessions = Sessions()
    session_id = sessions.open(2)
    outcome = sessions.fetch(
        session_id, 1, [asked(index=1, offset=7), asked(index=5)], forgotten=[("t", 0)]
    )
    assert sent(outcome) == [5]  # new to the session
    partitions = sessions.session(session_id).partitions
    assert [(one.index, one.fetch_offset) for one in partitions.values()] == [(1, 7), (5, 0)]


def test_forgetting_everything_closes_the_session() -> None:
    sessions = Sessions()
    session_id = sessions.open(1)
    error, answered_id, answers = sessions.fetch(session_id, 1, [], forgotten=[("t", 0)])
    assert (error, answered_id, answers) == (ErrorCode.NONE, 0, [])
    assert len(sessions.cache) == 0


def test_wrong_sessions_and_epochs() -> None:
    sessions = Sessions()
    session_id = sessions.open(1)
    assert sessions.fetch(99, 1, []) == (ErrorCode.FETCH_SESSION_ID_NOT_FOUND, 0, [])
    assert sessions.fetch(0, 5, [])[0] == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert sessions.fetch(session_id, 2, [])[0] == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    assert sessions.fetch(session_id, -5, [])[0] == ErrorCode.INVALID_FETCH_SESSION_EPOCH
    mixed = sessions.fetch(session_id, 1, [], uses_topic_ids=True)
    assert mixed == (ErrorCode.FETCH_SESSION_TOPIC_ID_ERROR, 0, [])
    assert sent(sessions.fetch(session_id, 1, [])) == []  # none of them moved the epoch


def test_a_full_request_replaces_the_session_and_a_final_one_closes_it() -> None:
    sessions = Sessions()
    first = sessions.open(1)
    _, second, _ = sessions.fetch(first, 0, [asked()])
    assert second not in (0, first)
    assert sessions.cache.get(first) is None
    error, session_id, answers = sessions.fetch(second, -1, [asked()])
    assert (error, session_id, len(answers)) == (ErrorCode.NONE, 0, 1)
    assert len(sessions.cache) == 0


def test_a_session_used_meanwhile_fails_the_request_that_waited() -> None:
    sessions = Sessions()
    session_id = sessions.open(1)
    waiting = new_context(
        sessions.cache,
        session_id=session_id,
        session_epoch=1,
        requested=[],
        forgotten=[],
        is_follower=False,
        uses_topic_ids=False,
    )
    sessions.fetch(session_id, 2, [])
    answers: list[Answer] = [(one, data()) for one in waiting.partitions]
    outcome = waiting.respond(answers)
    assert outcome == (ErrorCode.INVALID_FETCH_SESSION_EPOCH, session_id, [])


def test_topic_ids_identify_partitions_whatever_their_name() -> None:
    sessions = Sessions()
    first, second = bytes([1]) * 16, bytes([2]) * 16
    requested = [asked("t", topic_id=first), asked("t", topic_id=second)]
    _, session_id, _ = sessions.fetch(0, 0, requested, uses_topic_ids=True)
    assert len(sessions.session(session_id).partitions) == 2
    sessions.fetch(session_id, 1, [], forgotten=[(first, 0)], uses_topic_ids=True)
    assert list(sessions.session(session_id).partitions) == [(second, 0)]


def test_a_full_cache_keeps_what_it_has() -> None:
    sessions = Sessions(slots=2)
    kept = [sessions.open(1), sessions.open(1)]
    assert sessions.open(100) == 0
    assert all(sessions.cache.get(session_id) for session_id in kept)
    assert sessions.cache.evictions == 0


def test_an_idle_session_goes_first() -> None:
    sessions = Sessions(slots=2)
    idle, used = sessions.open(1), sessions.open(1)
    sessions.clock.advance(100)
    sessions.fetch(used, 1, [])
    sessions.clock.advance(21)
    assert sessions.open(1) > 0
    assert sessions.cache.get(idle) is None
    assert sessions.cache.get(used) is not None
    assert sessions.cache.evictions == 1


def test_an_old_smaller_session_gives_way_to_a_larger_one() -> None:
    sessions = Sessions(slots=2)
    small, large = sessions.open(2), sessions.open(5)
    sessions.clock.advance(100)
    for session_id in (small, large):
        sessions.fetch(session_id, 1, [])
    sessions.clock.advance(30)
    for session_id in (small, large):
        sessions.fetch(session_id, 2, [])  # old enough by now, and in use
    assert sessions.open(2) == 0  # not larger
    assert sessions.open(3) > 0
    assert sessions.cache.get(small) is None
    assert sessions.cache.get(large) is not None


def test_a_follower_takes_a_consumers_place_at_once() -> None:
    sessions = Sessions(slots=2)
    consumer = sessions.open(50)
    follower = sessions.open(1, is_follower=True)
    assert sessions.open(1, is_follower=True) > 0
    assert sessions.cache.get(consumer) is None
    assert sessions.open(9, is_follower=True) == 0  # followers do not evict young followers
    assert sessions.cache.get(follower) is not None


def test_no_slots_no_sessions() -> None:
    assert Sessions(slots=0).open(1) == 0


def test_closed_sessions_leave_nothing_in_the_lists() -> None:
    sessions = Sessions()
    for size in range(1, 30):
        session_id = sessions.open(size)
        sessions.clock.advance(121)
        sessions.fetch(session_id, 1, [])
        sessions.cache.remove(session_id)
    assert sessions.cache._evictable_by_all == []
    assert sessions.cache._evictable_by_privileged == []
