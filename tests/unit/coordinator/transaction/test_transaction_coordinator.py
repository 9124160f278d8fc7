"""TransactionCoordinator: the scenarios of Kafka's TransactionCoordinatorTest and
TransactionStateManagerTest, told again; KIP-890 with client version 2."""

import anyio
import anyio.lowlevel
import pytest

from kbroker.coordinator.deferred import Deferred
from kbroker.coordinator.transaction.transaction_metadata import Identity
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.coordinator.transaction.coordinated import (
    DATA,
    INDEX,
    MORE,
    TXN,
    Coordinated,
    restarted,
)

NONE = ErrorCode.NONE
FENCED = ErrorCode.PRODUCER_FENCED
CONCURRENT = ErrorCode.CONCURRENT_TRANSACTIONS
UNKNOWN_ID = ErrorCode.INVALID_PRODUCER_ID_MAPPING
BAD_STATE = ErrorCode.INVALID_TXN_STATE
WEEK_S = 7 * 86_400


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


# InitProducerId


def test_a_new_id_begins_at_epoch_0_and_is_bumped_from_then_on() -> None:
    broker = Coordinated()
    assert broker.init() == (NONE, 1000, 0)
    assert broker.metadata().previous_producer_id == 1000, "as Kafka writes it"
    assert broker.init() == (NONE, 1000, 1)
    assert broker.written_states() == ["Empty", "Empty"]


def test_what_a_new_id_brings_along_does_not_count() -> None:
    assert Coordinated().init(expected=(5, 7)) == (NONE, 1000, 0)


@pytest.mark.parametrize(
    ("transactional_id", "timeout_ms", "error"),
    [
        ("", 1000, ErrorCode.INVALID_REQUEST),
        ("x", 0, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        ("x", -1, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
        ("x", 900_001, ErrorCode.INVALID_TRANSACTION_TIMEOUT),
    ],
)
def test_what_is_refused(transactional_id: str, timeout_ms: int, error: ErrorCode) -> None:
    answer = Coordinated().coordinator.init_producer_id(transactional_id, timeout_ms, None)
    assert answer == Identity(error)


def test_without_the_topic_nobody_coordinates() -> None:
    broker = Coordinated(lead=False)
    assert broker.init() == Identity(ErrorCode.NOT_COORDINATOR)
    assert not broker.coordinator.has_topic


def test_a_producer_that_recovers_bumps_its_own_epoch_and_may_ask_twice() -> None:
    broker = Coordinated()
    producer = broker.producer()
    assert broker.init(expected=producer) == (NONE, 1000, 1)
    assert broker.init(expected=producer) == (NONE, 1000, 1), "the answer was lost"
    assert broker.init(expected=(1000, 1)) == (NONE, 1000, 2)
    assert broker.init(expected=producer) == Identity(FENCED)
    assert broker.init(expected=(999, 2)) == Identity(FENCED)


def test_exhausted_epochs_bring_a_new_producer_id() -> None:
    broker = Coordinated()
    producer = broker.set_epoch(32766)
    assert producer == (1000, 32766)
    assert broker.init(expected=producer) == (NONE, 1001, 0)
    assert broker.init(expected=producer) == (NONE, 1001, 0), "the answer was lost"
    assert broker.init(expected=(1000, 32765)) == Identity(FENCED)


@pytest.mark.anyio
async def test_a_block_of_producer_ids_is_waited_for() -> None:
    broker = Coordinated()
    broker.slow_ids = True
    waiting = broker.coordinator.init_producer_id(TXN, 1000, None)
    assert not isinstance(waiting, (Identity, Deferred))
    assert await waiting == (NONE, 1000, 0)


def test_an_open_transaction_is_fenced_and_aborted_first() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    assert broker.init() == Identity(CONCURRENT)
    assert broker.state == "CompleteAbort"
    assert broker.init() == (NONE, 1000, 2), "epoch 1 is for the marker"
    [(topic, index, marker)] = broker.markers.written
    assert (topic, index) == DATA
    assert (marker.producer_epoch, marker.commit) == (1, False)
    assert broker.end(producer) == Identity(FENCED)
    assert broker.add(producer) == FENCED


def test_while_markers_are_missing_the_producer_waits() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    broker.markers.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert broker.end(producer) == (NONE, *producer)
    assert broker.state == "PrepareCommit"
    assert broker.init() == Identity(CONCURRENT)
    assert broker.add(producer) == CONCURRENT
    assert broker.end(producer) == Identity(CONCURRENT)
    broker.markers.failure = None
    broker.advance(0.2)
    assert broker.state == "CompleteCommit"
    assert broker.add(producer) == NONE


# Partitions


def test_partitions_begin_a_transaction_and_join_it() -> None:
    broker = Coordinated()
    producer = broker.producer()
    assert broker.add(producer, DATA) == NONE
    assert broker.add(producer, DATA) == NONE, "known: nothing is written"
    assert broker.add(producer, MORE) == NONE
    assert broker.written_states() == ["Empty", "Ongoing", "Ongoing"]
    assert broker.metadata().partitions == {DATA, MORE}


def test_who_may_not_add() -> None:
    broker = Coordinated()
    assert broker.add((1000, 0)) == UNKNOWN_ID
    broker.producer()
    assert broker.add((999, 0)) == UNKNOWN_ID
    assert broker.add((1000, 1)) == FENCED
    assert broker.coordinator.add_partitions("", 1, 0, [DATA], 0) == ErrorCode.INVALID_REQUEST


def test_verification() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, DATA)
    verify = broker.coordinator.verify_partitions
    assert verify(TXN, *producer, [DATA, MORE]) == {
        DATA: NONE,
        MORE: ErrorCode.TRANSACTION_ABORTABLE,
    }
    assert verify(TXN, 1000, 7, [DATA]) == {DATA: FENCED}
    assert verify("other", *producer, [DATA]) == {DATA: UNKNOWN_ID}
    broker.end(producer)
    assert verify(TXN, *producer, [DATA]) == {DATA: ErrorCode.TRANSACTION_ABORTABLE}


# EndTxn of version 1


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_ends_on_every_partition(commit: bool) -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, DATA, MORE)
    assert broker.end(producer, commit=commit) == (NONE, *producer)
    name = "Commit" if commit else "Abort"
    assert broker.written_states() == ["Empty", "Ongoing", f"Prepare{name}", f"Complete{name}"]
    assert [(topic, index) for topic, index, _ in broker.markers.written] == [DATA, MORE]
    assert all(each.commit is commit for _, _, each in broker.markers.written)
    assert all(
        (each[2].producer_id, each[2].producer_epoch) == producer for each in broker.markers.written
    )
    assert broker.end(producer, commit=commit) == (NONE, *producer), "asked again"
    assert broker.end(producer, commit=not commit) == Identity(BAD_STATE)


def test_who_may_not_end() -> None:
    broker = Coordinated()
    assert broker.end((1000, 0)) == Identity(UNKNOWN_ID)
    producer = broker.producer()
    assert broker.end(producer) == Identity(BAD_STATE), "nothing is open"
    assert broker.end(producer, commit=False) == Identity(BAD_STATE)
    broker.add(producer)
    assert broker.end((999, 0)) == Identity(UNKNOWN_ID)
    assert broker.end((1000, 1)) == Identity(FENCED)
    assert broker.state == "Ongoing"


def test_a_decision_that_cannot_be_written_is_none() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    broker.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
    assert broker.end(producer) == Identity(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert broker.init() == Identity(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert broker.init() == Identity(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    broker.log.failure = None
    assert broker.metadata().producer_epoch == 0, "the epoch was not bumped in vain"
    assert broker.markers.written == []
    assert broker.end(producer) == (NONE, *producer)


def test_no_marker_is_written_before_the_decision_is_committed() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    broker.log.replicated = False
    answer = broker.coordinator.end_transaction(TXN, *producer, commit=True, client_version=0)
    assert isinstance(answer, Deferred)
    assert not answer.done
    assert broker.markers.written == []
    broker.log.replicated = True
    broker.log.commit("__transaction_state", INDEX)
    assert answer.result() == (NONE, *producer)
    assert len(broker.markers.written) == 1
    assert broker.state == "CompleteCommit"


def test_a_decision_that_is_committed_late_is_carried_out() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    broker.log.replicated = False
    answer = broker.coordinator.end_transaction(TXN, *producer, commit=True, client_version=0)
    assert isinstance(answer, Deferred)
    broker.advance(6)
    assert answer.result() == Identity(ErrorCode.COORDINATOR_NOT_AVAILABLE)
    assert broker.markers.written == []
    broker.log.replicated = True
    broker.log.commit("__transaction_state", INDEX)
    broker.advance(1)
    assert broker.state == "CompleteCommit"


def test_completion_waits_for_markers_that_replicate_slowly() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, DATA, MORE)
    broker.markers.waits = True
    broker.end(producer)
    first, second = broker.markers.open
    first.complete(None)
    broker.advance(1)
    assert broker.state == "PrepareCommit"
    assert len(broker.markers.written) == 2, "what is on its way is not written again"
    second.fail(KafkaError(ErrorCode.NOT_LEADER_OR_FOLLOWER))
    broker.markers.waits = False
    broker.advance(1)
    assert [(topic, index) for topic, index, _ in broker.markers.written] == [DATA, MORE, MORE]
    assert broker.state == "CompleteCommit"


@pytest.mark.parametrize(
    "error", [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.INVALID_PRODUCER_EPOCH]
)
def test_a_partition_that_is_gone_does_not_hold_the_transaction(error: ErrorCode) -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer)
    broker.markers.failure = KafkaError(error)
    broker.end(producer)
    assert broker.state == "CompleteCommit"


def test_many_markers_give_way() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, *(("t", index) for index in range(200)))
    broker.end(producer)
    assert broker.state == "PrepareCommit"
    assert len(broker.markers.written) == 64
    broker.advance(1)
    assert broker.state == "CompleteCommit"
    assert len({index for _, index, _ in broker.markers.written}) == 200
    assert len(broker.markers.written) == 200


# EndTxn of version 2 (KIP-890)


def test_every_end_bumps_the_epoch() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, version=2)
    assert broker.end(producer, version=2) == (NONE, 1000, 1)
    [(_, _, marker)] = broker.markers.written
    assert (marker.producer_epoch, marker.transaction_version) == (1, 2)
    assert broker.end(producer, version=2) == (NONE, 1000, 1), "the answer was lost"
    assert broker.end(producer, commit=False, version=2) == Identity(BAD_STATE)
    assert broker.add(producer, version=2) == FENCED
    assert broker.add((1000, 1), version=2) == NONE


def test_only_an_abort_may_end_nothing() -> None:
    broker = Coordinated()
    producer = broker.producer()
    assert broker.end(producer, version=2) == Identity(BAD_STATE)
    assert broker.end(producer, commit=False, version=2) == (NONE, 1000, 1)
    assert broker.state == "CompleteAbort"
    assert broker.end((1000, 1), version=2) == Identity(BAD_STATE)
    assert broker.end((1000, 1), commit=False, version=2) == (NONE, 1000, 2)
    assert broker.end((1000, 7), commit=False, version=2) == Identity(FENCED)
    assert broker.markers.written == []


def test_the_last_epoch_ends_with_another_producer_id() -> None:
    broker = Coordinated()
    producer = broker.set_epoch(32766)
    broker.add(producer, version=2)
    broker.markers.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
    assert broker.end(producer, version=2) == (NONE, 1001, 0)
    assert broker.add((1001, 0), version=2) == CONCURRENT, "the markers are on their way"
    broker.markers.failure = None
    broker.advance(1)
    [(_, _, marker)] = broker.markers.written
    assert (marker.producer_id, marker.producer_epoch) == (1000, 32767)
    assert broker.end(producer, version=2) == (NONE, 1001, 0), "the answer was lost"
    assert broker.add((1001, 0), version=2) == NONE


def test_fencing_a_transaction_of_version_2_bumps_once() -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, version=2)
    assert broker.init() == Identity(CONCURRENT)
    assert broker.metadata().producer_epoch == 1
    assert broker.init() == (NONE, 1000, 2)


def test_fencing_in_the_last_epoch_replaces_the_producer_id() -> None:
    broker = Coordinated()
    producer = broker.set_epoch(32766)
    broker.add(producer, version=2)
    assert broker.init() == Identity(CONCURRENT)
    assert broker.init() == (NONE, 1001, 1)


# Time


@pytest.mark.parametrize("version", [0, 2])
def test_a_transaction_aborts_itself_at_its_timeout(version: int) -> None:
    broker = Coordinated()
    answer = broker.init(timeout_ms=10_000)
    producer = answer.producer_id, answer.producer_epoch
    broker.add(producer, version=version)
    broker.advance(9)
    broker.add(producer, MORE, version=version)
    assert broker.state == "Ongoing"
    broker.advance(1.1)
    assert broker.state == "CompleteAbort"
    assert [marker.commit for _, _, marker in broker.markers.written] == [False, False]
    assert broker.add(producer, version=version) == FENCED
    assert broker.end(producer).error == FENCED


def test_the_next_transaction_has_its_own_timeout() -> None:
    broker = Coordinated()
    answer = broker.init(timeout_ms=10_000)
    producer = answer.producer_id, answer.producer_epoch
    broker.add(producer)
    broker.advance(8)
    broker.end(producer)
    broker.add(producer)
    broker.advance(8)
    assert broker.state == "Ongoing"
    broker.advance(2.1)
    assert broker.state == "CompleteAbort"


def test_a_timeout_that_cannot_be_written_is_tried_again() -> None:
    broker = Coordinated()
    answer = broker.init(timeout_ms=10_000)
    broker.add((answer.producer_id, answer.producer_epoch))
    broker.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
    broker.advance(11)
    assert broker.state == "Ongoing"
    assert broker.metadata().producer_epoch == 0
    broker.log.failure = None
    broker.advance(1)
    assert broker.state == "CompleteAbort"


@pytest.mark.anyio
async def test_a_timeout_in_the_last_epoch_fetches_a_producer_id() -> None:
    broker = Coordinated()
    producer = broker.set_epoch(32766)
    broker.slow_ids = True
    broker.add(producer, version=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.coordinator.run)
        broker.advance(61)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert broker.state == "CompleteAbort"
    assert (broker.metadata().producer_id, broker.metadata().producer_epoch) == (1001, 0)


@pytest.mark.anyio
async def test_a_timeout_in_the_last_epoch_that_cannot_be_written_is_tried_again() -> None:
    broker = Coordinated()
    broker.add(broker.set_epoch(32766), version=2)

    async def pass_time(seconds: float) -> str:
        broker.advance(seconds)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        return broker.state

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(broker.coordinator.run)
        broker.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
        assert await pass_time(61) == "Ongoing"
        assert await pass_time(1) == "Ongoing"
        broker.log.failure = None
        assert await pass_time(1) == "CompleteAbort"
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("open_transaction", [False, True])
def test_ids_that_nobody_uses_expire(open_transaction: bool) -> None:
    broker = Coordinated()
    answer = broker.init(timeout_ms=900_000)
    producer = answer.producer_id, answer.producer_epoch
    broker.add(producer)
    broker.end(producer)
    broker.advance(WEEK_S - 10)
    if open_transaction:
        broker.add(producer)
    broker.advance(3700)
    if open_transaction:
        assert broker.state == "CompleteAbort", "timed out, and not forgotten"
        return
    with pytest.raises(KafkaError) as raised:
        broker.metadata()
    assert raised.value.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert broker.written_states()[-1] == "-"


def test_an_id_stays_when_its_tombstone_cannot_be_written() -> None:
    broker = Coordinated()
    broker.producer()
    broker.log.fail(KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS))
    broker.advance(WEEK_S + 3700)
    broker.log.failure = None
    assert broker.state == "Empty"


# Restart


@pytest.mark.anyio
@pytest.mark.parametrize("version", [0, 2])
@pytest.mark.parametrize("commit", [True, False])
async def test_what_was_prepared_finishes_after_a_restart(commit: bool, version: int) -> None:
    broker = Coordinated()
    producer = broker.producer()
    broker.add(producer, DATA, MORE, version=version)
    broker.markers.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
    identity = broker.end(producer, commit=commit, version=version)
    broker = await restarted(broker)
    assert broker.state == ("CompleteCommit" if commit else "CompleteAbort")
    assert [each[:2] for each in broker.markers.written] == [DATA, MORE]
    assert all(marker.commit is commit for _, _, marker in broker.markers.written)
    assert broker.end(producer, commit=commit, version=version) == identity, "asked again"


@pytest.mark.anyio
async def test_an_open_transaction_lives_through_a_restart_until_its_timeout() -> None:
    broker = Coordinated()
    answer = broker.init(timeout_ms=10_000)
    producer = answer.producer_id, answer.producer_epoch
    broker.add(producer)
    broker = await restarted(broker)
    assert broker.state == "Ongoing"
    assert broker.add(producer, MORE) == NONE
    broker.advance(10.1)
    assert broker.state == "CompleteAbort"
    assert [each[:2] for each in broker.markers.written] == [DATA, MORE]


@pytest.mark.anyio
async def test_a_producer_id_that_was_to_be_replaced_is() -> None:
    broker = Coordinated()
    producer = broker.set_epoch(32766)
    broker.add(producer, version=2)
    broker.markers.failure = KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
    broker.end(producer, version=2)
    broker = await restarted(broker)
    metadata = broker.metadata()
    assert (metadata.producer_id, metadata.producer_epoch) == (1001, 0)


def test_listing() -> None:
    broker = Coordinated()
    broker.producer()
    assert [each.transactional_id for each in broker.coordinator.transactions()] == [TXN]
