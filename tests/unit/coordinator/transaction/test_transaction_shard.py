"""EndTxn, InitProducerId and AddPartitionsToTxn by state, epoch and version: the tables of Kafka's
TransactionCoordinatorTest. Scenarios with time and restarts are in test_transaction_coordinator."""

from typing import Literal

import pytest

from kbroker.coordinator.transaction.transaction_metadata import Identity, TransactionState
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.internal_records.transaction_log_key import TransactionLogKey
from tests.unit.coordinator.transaction.coordinated import DATA, MORE, TXN, Coordinated

NONE = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
UNKNOWN_ID = ErrorCode.INVALID_PRODUCER_ID_MAPPING
BAD_STATE = ErrorCode.INVALID_TXN_STATE

EMPTY = TransactionState.EMPTY
ONGOING = TransactionState.ONGOING
PREPARED_COMMIT = TransactionState.PREPARE_COMMIT
PREPARED_ABORT = TransactionState.PREPARE_ABORT
COMMITTED = TransactionState.COMPLETE_COMMIT
ABORTED = TransactionState.COMPLETE_ABORT

PID = 1000
EPOCH = 7
Epoch = Literal["current", "before", "after"]
"""Of the request, seen from what the coordinator has."""


def standing(state: TransactionState, epoch: int = EPOCH) -> Coordinated:
    """A coordinator whose only transaction is in this state; markers are refused."""
    broker = Coordinated()
    broker.producer()
    is_open = state not in (EMPTY, COMMITTED, ABORTED)
    metadata = broker.metadata()._replace(
        producer_epoch=epoch,
        previous_producer_id=PID,
        state=state,
        partitions=frozenset({DATA} if is_open else ()),
        start_ms=broker.clock.time_ms() if state is not EMPTY else -1,
    )
    broker.coordinator.shard(TXN).replay(0, -1, TransactionLogKey(TXN), metadata)
    broker.markers.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
    return broker


def end(state: TransactionState, epoch: Epoch, *, commit: bool, version: int) -> Identity:
    asked = EPOCH + {"current": 0, "before": -1, "after": 1}[epoch]
    return standing(state).end((PID, asked), commit=commit, version=version)


BUMPED = Identity(NONE, PID, EPOCH + 1)
SAME = Identity(NONE, PID, EPOCH)


@pytest.mark.parametrize(
    ("state", "epoch", "commit", "expected"),
    [
        (ONGOING, "current", True, BUMPED),
        (ONGOING, "current", False, BUMPED),
        (ONGOING, "before", True, FENCED),
        (ONGOING, "before", False, FENCED),
        (EMPTY, "current", False, BUMPED),
        (EMPTY, "current", True, BAD_STATE),
        (EMPTY, "before", False, FENCED),
        (EMPTY, "before", True, FENCED),
        (ABORTED, "current", False, BUMPED),
        (ABORTED, "current", True, BAD_STATE),
        (ABORTED, "before", False, SAME),
        (ABORTED, "before", True, BAD_STATE),
        (COMMITTED, "current", False, BUMPED),
        (COMMITTED, "current", True, BAD_STATE),
        (COMMITTED, "before", False, BAD_STATE),
        (COMMITTED, "before", True, SAME),
        *[(state, "after", True, FENCED) for state in (EMPTY, ONGOING, COMMITTED, ABORTED)],
    ],
)
def test_ends_of_version_2(
    state: TransactionState, epoch: Epoch, commit: bool, expected: Identity | ErrorCode
) -> None:
    """In version 2 the epoch before tells a retry from the end of the next transaction."""
    wanted = expected if isinstance(expected, Identity) else Identity(expected)
    assert end(state, epoch, commit=commit, version=2) == wanted


@pytest.mark.parametrize(
    ("state", "commit", "expected"),
    [
        (ONGOING, True, NONE),
        (ONGOING, False, NONE),
        (EMPTY, True, BAD_STATE),
        (EMPTY, False, BAD_STATE),
        (COMMITTED, True, NONE),
        (COMMITTED, False, BAD_STATE),
        (ABORTED, False, NONE),
        (ABORTED, True, BAD_STATE),
    ],
)
def test_ends_of_version_1(state: TransactionState, commit: bool, expected: ErrorCode) -> None:
    """The epoch must be the present one, whatever the state; the same end again is fine."""
    wanted = SAME if expected is NONE else Identity(expected)
    assert end(state, "current", commit=commit, version=0) == wanted
    for epoch in ("before", "after"):
        assert end(state, epoch, commit=commit, version=0) == Identity(FENCED)


@pytest.mark.parametrize("state", [PREPARED_COMMIT, PREPARED_ABORT])
def test_while_a_transaction_completes_everybody_waits(state: TransactionState) -> None:
    """Before the producer's id and epoch are looked at: those that come next are in use already.

    Only EndTxn of version 1, and a verification, look at the producer first.
    """
    broker = standing(state)
    for producer in ((PID, EPOCH), (PID, EPOCH - 1), (PID, EPOCH + 1), (PID + 1, 0)):
        assert broker.init(expected=producer) == Identity(CONCURRENT)
        assert broker.add(producer, version=0) == CONCURRENT
        assert broker.add(producer, version=2) == CONCURRENT
        for commit in (True, False):
            assert broker.end(producer, commit=commit, version=2) == Identity(CONCURRENT)
    for commit in (True, False):
        assert broker.end((PID, EPOCH), commit=commit) == Identity(CONCURRENT)
        assert broker.end((PID, EPOCH - 1), commit=commit) == Identity(FENCED)
        assert broker.end((PID + 1, EPOCH), commit=commit) == Identity(UNKNOWN_ID)
    verify = broker.coordinator.verify_partitions
    assert verify(TXN, PID, EPOCH, [DATA]) == {DATA: CONCURRENT}
    assert verify(TXN, PID, EPOCH - 1, [DATA]) == {DATA: FENCED}
    assert verify(TXN, PID + 1, 0, [DATA]) == {DATA: UNKNOWN_ID}


def test_a_partition_with_its_marker_is_not_in_the_transaction_any_more() -> None:
    broker = standing(EMPTY)
    broker.add((PID, EPOCH), DATA, MORE, version=2)
    broker.markers.failure = None
    broker.markers.waits = True
    broker.end((PID, EPOCH), version=2)
    assert broker.metadata().partitions == {DATA, MORE}
    first, second = broker.markers.open
    first.complete(None)
    assert broker.metadata().partitions == {MORE}
    assert broker.metadata().state is PREPARED_COMMIT
    second.complete(None)
    broker.advance(1)
    assert broker.metadata().state is COMMITTED


@pytest.mark.parametrize("state", [EMPTY, ONGOING, COMMITTED, ABORTED])
def test_who_may_add_partitions(state: TransactionState) -> None:
    broker = standing(state)
    assert broker.add((PID, EPOCH - 1)) == FENCED
    assert broker.add((PID, EPOCH + 1)) == FENCED
    assert broker.add((PID + 1, EPOCH)) == UNKNOWN_ID
    assert broker.add((PID, EPOCH), DATA, MORE) == NONE
    assert broker.metadata().state is ONGOING
    assert broker.metadata().partitions == {DATA, MORE}


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("epoch", [32765, 32766])
def test_ends_near_the_last_epoch(epoch: int, commit: bool) -> None:
    """32766 is the last one that a client gets; 32767 is only written into the markers."""
    broker = standing(ONGOING, epoch)
    answer = broker.end((PID, epoch), commit=commit, version=2)
    following = Identity(NONE, PID, 32766) if epoch == 32765 else Identity(NONE, PID + 1, 0)
    assert answer == following
    broker.markers.failure = None
    broker.advance(1)
    [(_, _, marker)] = broker.markers.written
    assert (marker.producer_id, marker.producer_epoch) == (PID, epoch + 1)
    assert broker.end((PID, epoch), commit=commit, version=2) == following, "asked again"
    assert broker.end((PID, epoch), commit=not commit, version=2) == Identity(BAD_STATE)


def test_a_retry_by_the_last_epoch_must_be_of_this_producer_id() -> None:
    broker = standing(COMMITTED, 0)
    assert broker.end((PID - 1, 32766), version=2) == Identity(UNKNOWN_ID)


@pytest.mark.parametrize("version", [0, 2])
def test_what_the_coordinator_aborts_ends_as_in_version_2(version: int) -> None:
    """Whatever its producer speaks: the markers are stricter, and the epoch is bumped once."""
    broker = standing(EMPTY)
    assert broker.add((PID, EPOCH), version=version) == NONE
    broker.markers.failure = None
    assert broker.init() == Identity(CONCURRENT)
    [(_, _, marker)] = broker.markers.written
    assert (marker.producer_epoch, marker.transaction_version) == (EPOCH + 1, 2)
    assert broker.metadata().state is ABORTED
    assert broker.init() == (NONE, PID, EPOCH + 2)
    assert broker.init(expected=(PID, EPOCH)) == Identity(FENCED), "another one has begun"


def test_a_producer_whose_transaction_timed_out_may_go_on() -> None:
    """KIP-360 at level 2: it has the epoch before the abort, and nobody else has begun."""
    broker = standing(EMPTY)
    broker.markers.failure = None
    assert broker.add((PID, EPOCH), version=2) == NONE
    broker.advance(61)
    assert broker.metadata().state is ABORTED
    assert broker.add((PID, EPOCH), version=2) == FENCED
    assert broker.end((PID, EPOCH), version=2) == Identity(BAD_STATE)
    assert broker.end((PID, EPOCH), commit=False, version=2) == BUMPED
    assert broker.init(expected=(PID, EPOCH)) == BUMPED


def test_a_fence_in_the_last_epoch_brings_a_new_producer_id() -> None:
    broker = standing(EMPTY, 32766)
    assert broker.add((PID, 32766), version=0) == NONE
    broker.markers.failure = None
    assert broker.init() == Identity(CONCURRENT)
    [(_, _, marker)] = broker.markers.written
    assert (marker.producer_id, marker.producer_epoch) == (PID, 32767)
    metadata = broker.metadata()
    assert (metadata.producer_id, metadata.producer_epoch) == (PID + 1, 0)


def test_a_late_end_of_the_last_epoch_gets_the_new_producer_id() -> None:
    """The coordinator has aborted at the timeout; nobody else has begun."""
    broker = standing(EMPTY, 32766)
    broker.markers.failure = None
    assert broker.add((PID, 32766), version=2) == NONE
    assert broker.init() == Identity(CONCURRENT)
    following = Identity(NONE, PID + 1, 0)
    assert broker.end((PID, 32766), commit=False, version=2) == following
    assert broker.end((PID, 32766), commit=True, version=2) == Identity(BAD_STATE)
    assert broker.init(expected=(PID, 32766)) == following
    assert broker.init(expected=(PID, 32765)) == Identity(FENCED)


def test_a_producer_whose_id_was_replaced_may_ask_again() -> None:
    broker = standing(COMMITTED, 32766)
    assert broker.init(expected=(PID, 32766)) == (NONE, PID + 1, 0)
    assert broker.init(expected=(PID, 32766)) == (NONE, PID + 1, 0)
    assert broker.init(expected=(PID, 32765)) == Identity(FENCED)
    assert broker.init(expected=(PID + 1, 7)) == Identity(FENCED)
    assert broker.init(expected=(PID + 1, 0)) == (NONE, PID + 1, 1)
    assert broker.init(expected=(PID, 32766)) == Identity(FENCED), "its successor has begun"


@pytest.mark.parametrize("version", [0, 2])
def test_a_fence_that_cannot_be_written_bumps_no_epoch(version: int) -> None:
    broker = standing(EMPTY)
    broker.markers.failure = None
    assert broker.add((PID, EPOCH), version=version) == NONE
    for _ in range(3):
        broker.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        assert broker.init() == Identity(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        assert (broker.metadata().state, broker.metadata().producer_epoch) == (ONGOING, EPOCH)
    broker.log.failure = None
    assert broker.init() == Identity(CONCURRENT)
    assert broker.metadata().producer_epoch == EPOCH + 1


@pytest.mark.parametrize("state", [PREPARED_COMMIT, PREPARED_ABORT, COMMITTED, ABORTED, EMPTY])
def test_only_open_transactions_time_out(state: TransactionState) -> None:
    broker = standing(state)
    broker.advance(3600)
    assert (broker.metadata().state, broker.metadata().producer_epoch) == (state, EPOCH)


@pytest.mark.parametrize("state", [ONGOING, PREPARED_COMMIT, PREPARED_ABORT])
def test_ids_in_use_do_not_expire(state: TransactionState) -> None:
    broker = standing(state)
    metadata = broker.metadata()._replace(update_ms=0)
    broker.coordinator.shard(TXN).replay(0, -1, TransactionLogKey(TXN), metadata)
    broker.advance(4000)
    assert broker.metadata().state is state


@pytest.mark.parametrize("state", [EMPTY, COMMITTED, ABORTED])
def test_ids_at_rest_expire_and_begin_anew(state: TransactionState) -> None:
    broker = standing(state)
    broker.advance(7 * 86_400 + 4000)
    assert broker.written_states()[-1] == "-"
    assert broker.add((PID, EPOCH)) == UNKNOWN_ID
    assert broker.end((PID, EPOCH), version=2) == Identity(UNKNOWN_ID)
    assert broker.init(expected=(PID, EPOCH)) == (NONE, PID + 1, 0)


@pytest.mark.parametrize("version", [0, 2])
def test_the_errors_of_a_log_that_cannot_be_written(version: int) -> None:
    """What the producer is told, and tries again after; the state stands."""
    told = {
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_ENOUGH_REPLICAS: ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.REQUEST_TIMED_OUT: ErrorCode.COORDINATOR_NOT_AVAILABLE,
        ErrorCode.NOT_LEADER_OR_FOLLOWER: ErrorCode.NOT_COORDINATOR,
        ErrorCode.KAFKA_STORAGE_ERROR: ErrorCode.NOT_COORDINATOR,
        ErrorCode.MESSAGE_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
        ErrorCode.RECORD_LIST_TOO_LARGE: ErrorCode.UNKNOWN_SERVER_ERROR,
        ErrorCode.INVALID_REQUIRED_ACKS: ErrorCode.INVALID_REQUIRED_ACKS,
    }
    for failure, error in told.items():
        for state in (ONGOING, EMPTY):
            broker = standing(state)
            broker.log.fail(KafkaError(failure))
            assert broker.add((PID, EPOCH), MORE, version=version) == error
            commit = state is ONGOING
            if commit or version == 2:
                answer = broker.end((PID, EPOCH), commit=commit, version=version)
                assert answer == Identity(error)
            assert broker.init() == Identity(error)
            assert (broker.metadata().state, broker.metadata().producer_epoch) == (state, EPOCH)


@pytest.mark.parametrize("loading", [True, False])
def test_nobody_else_answers(loading: bool) -> None:
    """While the partition is loaded, and when another broker leads it."""
    broker = Coordinated()
    broker.producer()
    other = Coordinated(broker.log, lead=loading)
    error = ErrorCode.COORDINATOR_LOAD_IN_PROGRESS if loading else ErrorCode.NOT_COORDINATOR
    assert other.init() == Identity(error)
    assert other.add((PID, 0)) == error
    for version in (0, 2):
        assert other.end((PID, 0), version=version) == Identity(error)
    assert other.coordinator.verify_partitions(TXN, PID, 0, [DATA]) == {DATA: error}
    with pytest.raises(KafkaError) as caught:
        other.metadata()
    assert caught.value.error_code is error
    if loading:
        with pytest.raises(KafkaError) as caught:
            other.coordinator.transactions()
        assert caught.value.error_code is error


def test_an_epoch_beyond_the_last_can_still_be_aborted() -> None:
    """Older brokers could leave one; it does not overflow."""
    broker = standing(ONGOING, 32767)
    broker.markers.failure = None
    assert broker.init() == Identity(CONCURRENT)
    [(_, _, marker)] = broker.markers.written
    assert marker.producer_epoch == 32767
    assert broker.init() == (NONE, PID + 1, 1)
