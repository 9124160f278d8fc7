"""Requests of transactions on a real data plane: errors by version, markers, what is listed."""

from typing import Any

import anyio
import pytest

from kbroker.broker.transaction_markers import LocalMarkerWriter
from kbroker.handlers import (
    api_00_produce,
    api_22_init_producer_id,
    api_24_add_partitions_to_txn,
    api_25_add_offsets_to_txn,
    api_26_end_txn,
    api_27_write_txn_markers,
    api_65_describe_transactions,
    api_66_list_transactions,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.add_offsets_to_txn_request import AddOffsetsToTxnRequest
from kbroker.protocol.messages.add_partitions_to_txn_request import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kbroker.protocol.messages.describe_transactions_request import DescribeTransactionsRequest
from kbroker.protocol.messages.end_txn_request import EndTxnRequest
from kbroker.protocol.messages.init_producer_id_request import InitProducerIdRequest
from kbroker.protocol.messages.list_transactions_request import ListTransactionsRequest
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.messages.write_txn_markers_request import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
)
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.data_plane import NOW_MS, World

TXN = "tx"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def world() -> World:
    """Topic t of two partitions, and producer 1000 of ``tx`` at epoch 0."""
    world = World()
    world.topic("__transaction_state", 3)
    world.topic("__consumer_offsets", 50)
    world.topic("t", 2)
    request = InitProducerIdRequest(TXN, 60_000)
    answer: Any = api_22_init_producer_id.handle(world.services, world.context(22, 5), request)
    assert (answer.error_code, answer.producer_id, answer.producer_epoch) == (0, 1000, 0)
    return world


def send(world: World, version: int, *, epoch: int = 0, sequence: int = 0, txn: str = TXN) -> Any:
    """Send one transactional batch to t-0."""
    batch = build_batch(
        [Record(key=None, value=b"v", timestamp=NOW_MS)],
        producer_id=1000,
        producer_epoch=epoch,
        base_sequence=sequence,
        transactional=True,
    )
    data = TopicProduceData("t", partition_data=[PartitionProduceData(0, memoryview(batch))])
    request = ProduceRequest(txn, -1, 1000, [data])
    return api_00_produce.handle(world.services, world.context(0, version), request)


def produce(
    world: World, version: int, *, epoch: int = 0, sequence: int = 0, txn: str = TXN
) -> Any:
    """Error and message of one transactional batch for t-0."""
    answer = send(world, version, epoch=epoch, sequence=sequence, txn=txn)
    return answer.responses[0].partition_responses[0]


def add(world: World, version: int, *topics: tuple[str, list[int]], epoch: int = 0) -> list[int]:
    """The errors of a client's AddPartitionsToTxn."""
    request = AddPartitionsToTxnRequest(
        v3_and_below_transactional_id=TXN,
        v3_and_below_producer_id=1000,
        v3_and_below_producer_epoch=epoch,
        v3_and_below_topics=[AddPartitionsToTxnTopic(*topic) for topic in topics],
    )
    context = world.context(24, version)
    answer: Any = api_24_add_partitions_to_txn.handle(world.services, context, request)
    return [
        partition.partition_error_code
        for topic in answer.results_by_topic_v3_and_below
        for partition in topic.results_by_partition
    ]


def end(world: World, version: int, *, commit: bool = True, epoch: int = 0) -> tuple[int, int, int]:
    request = EndTxnRequest(TXN, 1000, epoch, commit)
    answer: Any = api_26_end_txn.handle(world.services, world.context(26, version), request)
    return answer.error_code, answer.producer_id, answer.producer_epoch


@pytest.mark.parametrize(
    ("version", "error"),
    [
        (10, ErrorCode.INVALID_TXN_STATE),
        (11, ErrorCode.TRANSACTION_ABORTABLE),
        (12, ErrorCode.NONE),
    ],
)
def test_a_partition_that_was_not_added(world: World, version: int, error: ErrorCode) -> None:
    assert produce(world, version).error_code == error
    assert world.partition("t").log.log_end_offset == (0 if error else 1)


@pytest.mark.parametrize("version", [9, 11, 12])
def test_who_may_not_produce(world: World, version: int) -> None:
    assert produce(world, version, txn="?").error_code == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert produce(world, version, epoch=3).error_code == ErrorCode.INVALID_PRODUCER_EPOCH


def test_a_new_producer_of_version_2_begins_at_0(world: World) -> None:
    refused = produce(world, 12, sequence=4)
    assert refused.error_code == ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER


@pytest.mark.parametrize("commit", [True, False])
def test_a_transaction_moves_the_last_stable_offset_when_it_ends(
    world: World, commit: bool
) -> None:
    assert add(world, 3, ("t", [0])) == [0]
    assert produce(world, 9).error_code == 0
    log = world.partition("t").log
    assert (log.last_stable_offset, log.high_watermark) == (0, 1)
    assert end(world, 3, commit=commit) == (0, -1, -1)
    assert (log.last_stable_offset, log.high_watermark) == (2, 2)
    aborted = [each for segment in log.segments for each in segment.transaction_index]
    assert [(each.producer_id, each.first_offset) for each in aborted] == (
        [] if commit else [(1000, 0)]
    )
    assert end(world, 3, commit=commit) == (0, -1, -1), "asked again"


def test_an_end_of_version_2_tells_the_next_epoch(world: World) -> None:
    assert produce(world, 12).error_code == 0
    assert end(world, 5) == (0, 1000, 1)
    assert produce(world, 12).error_code == ErrorCode.INVALID_PRODUCER_EPOCH
    assert produce(world, 12, epoch=1).error_code == 0
    assert end(world, 5, commit=False, epoch=1) == (0, 1000, 2)


class Held:
    """The markers of ``tx`` are refused while this is in force."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_on = True
        through = LocalMarkerWriter.write

        def write(writer: LocalMarkerWriter, topic: str, index: int, marker: Any) -> Any:
            if self.is_on:
                raise KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS)
            return through(writer, topic, index, marker)

        monkeypatch.setattr(LocalMarkerWriter, "write", write)


async def _finish(world: World, answer: Any, seconds: float) -> Any:
    """Let time pass in steps of 10 ms until the request is answered."""
    found: list[Any] = []

    async def wait() -> None:
        found.append(await answer)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        for _ in range(round(seconds * 100)):
            await anyio.wait_all_tasks_blocked()
            world.clock.advance(0.01)
            world.timer.run_due()
    return found[0].responses[0].partition_responses[0]


@pytest.mark.anyio
@pytest.mark.parametrize("lasts", [True, False])
async def test_the_next_transaction_waits_for_the_last_ones_markers(
    world: World, monkeypatch: pytest.MonkeyPatch, lasts: bool
) -> None:
    """add.partitions.to.txn.retry.backoff.ms: 20 ms again and again, for 100 ms."""
    assert produce(world, 12).error_code == 0
    held = Held(world, monkeypatch)
    assert end(world, 5) == (0, 1000, 1)
    waiting = send(world, 12, epoch=1)
    if not lasts:
        held.is_on = False
    answered = await _finish(world, waiting, 0.2)
    assert answered.error_code == (ErrorCode.CONCURRENT_TRANSACTIONS if lasts else 0)


def test_older_requests_do_not_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are told something that they try again after without asking for metadata."""
    assert add(world, 3, ("t", [0])) == [0]
    Held(world, monkeypatch)
    assert end(world, 3) == (0, -1, -1)
    assert add(world, 3, ("t", [0])) == [ErrorCode.CONCURRENT_TRANSACTIONS]
    assert produce(world, 11).error_code == ErrorCode.NOT_ENOUGH_REPLICAS


def test_all_partitions_are_added_or_none(world: World) -> None:
    assert add(world, 3, ("t", [0, 7]), ("?", [0]), ("__consumer_offsets", [0])) == [
        ErrorCode.OPERATION_NOT_ATTEMPTED,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        ErrorCode.TOPIC_AUTHORIZATION_FAILED,
    ]
    assert add(world, 1, ("t", [0]), epoch=5) == [ErrorCode.INVALID_PRODUCER_EPOCH]
    assert add(world, 2, ("t", [0]), epoch=5) == [ErrorCode.PRODUCER_FENCED]


@pytest.mark.parametrize("version", [4, 5])
def test_brokers_verify_and_add(world: World, version: int) -> None:
    def ask(*, verify_only: bool) -> list[int]:
        topics = [AddPartitionsToTxnTopic("t", [0])]
        transaction = AddPartitionsToTxnTransaction(TXN, 1000, 0, verify_only, topics)
        request = AddPartitionsToTxnRequest(transactions=[transaction])
        context = world.context(24, version)
        answer: Any = api_24_add_partitions_to_txn.handle(world.services, context, request)
        [result] = answer.results_by_transaction
        assert result.transactional_id == TXN
        partitions = result.topic_results[0].results_by_partition
        return [each.partition_error_code for each in partitions]

    assert ask(verify_only=True) == [ErrorCode.TRANSACTION_ABORTABLE]
    assert ask(verify_only=False) == [0]
    assert ask(verify_only=True) == [0]


def test_offsets_join_by_their_partition(world: World) -> None:
    def ask(txn: str, epoch: int) -> int:
        request = AddOffsetsToTxnRequest(txn, 1000, epoch, "")
        answer: Any = api_25_add_offsets_to_txn.handle(
            world.services, world.context(25, 4), request
        )
        return int(answer.error_code)

    assert ask("", 0) == ErrorCode.INVALID_REQUEST
    assert ask("?", 0) == ErrorCode.INVALID_PRODUCER_ID_MAPPING
    assert ask(TXN, 1) == ErrorCode.PRODUCER_FENCED
    assert ask(TXN, 0) == 0
    assert end(world, 3) == (0, -1, -1)
    assert world.partition("__consumer_offsets", 0).log.log_end_offset == 1, "the marker"


def test_markers_of_others(world: World) -> None:
    def ask(epoch: int, topic: str, coordinator_epoch: int = 0) -> int:
        marker = WritableTxnMarker(
            1000, epoch, False, [WritableTxnMarkerTopic(topic, [0])], coordinator_epoch
        )
        request = WriteTxnMarkersRequest([marker])
        answer: Any = api_27_write_txn_markers.handle(world.services, world.context(27, 1), request)
        return int(answer.markers[0].topics[0].partitions[0].error_code)

    assert produce(world, 12).error_code == 0
    assert ask(0, "?") == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    assert ask(3, "t", coordinator_epoch=5) == 0
    assert world.partition("t").log.last_stable_offset == 2
    assert ask(2, "t", coordinator_epoch=5) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert ask(-1, "t", coordinator_epoch=5) == ErrorCode.UNKNOWN_SERVER_ERROR
    assert ask(3, "t") == ErrorCode.TRANSACTION_COORDINATOR_FENCED


@pytest.mark.parametrize(
    "refusal", [ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, ErrorCode.NOT_COORDINATOR]
)
def test_markers_for_groups_that_are_not_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch, refusal: ErrorCode
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise KafkaError(refusal)

    requests = world.services.group_coordinator.requests
    monkeypatch.setattr(type(requests), "end_transaction", refuse)
    topic = WritableTxnMarkerTopic("__consumer_offsets", [0])
    request = WriteTxnMarkersRequest([WritableTxnMarker(1000, 1, True, [topic], 0)])
    answer: Any = api_27_write_txn_markers.handle(world.services, world.context(27, 2), request)
    [partition] = answer.markers[0].topics[0].partitions
    assert partition.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER


def test_a_marker_of_level_2_must_be_above_the_records(world: World) -> None:
    def ask(epoch: int, transaction_version: int) -> int:
        topic = WritableTxnMarkerTopic("t", [0])
        marker = WritableTxnMarker(1000, epoch, False, [topic], 0, transaction_version)
        request = WriteTxnMarkersRequest([marker])
        answer: Any = api_27_write_txn_markers.handle(world.services, world.context(27, 2), request)
        return int(answer.markers[0].topics[0].partitions[0].error_code)

    assert produce(world, 12).error_code == 0
    assert ask(0, 2) == ErrorCode.INVALID_PRODUCER_EPOCH
    assert world.partition("t").log.last_stable_offset == 0
    assert ask(1, 2) == 0
    assert ask(1, 2) == 0, "asked again"
    assert world.partition("t").log.last_stable_offset == 3


def test_descriptions(world: World) -> None:
    add(world, 3, ("t", [1, 0]))
    request = DescribeTransactionsRequest([TXN, "?", ""])
    answer = api_65_describe_transactions.handle(world.services, world.context(65, 0), request)
    known, unknown, empty = answer.transaction_states  # type: ignore[union-attr]
    assert (known.error_code, known.transaction_state) == (0, "Ongoing")
    assert (known.producer_id, known.transaction_timeout_ms) == (1000, 60_000)
    assert [(each.topic, each.partitions) for each in known.topics] == [("t", [0, 1])]
    assert unknown.error_code == ErrorCode.TRANSACTIONAL_ID_NOT_FOUND
    assert empty.error_code == ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    ("filters", "is_listed"),
    [
        ({}, True),
        ({"state_filters": ["Ongoing"]}, True),
        ({"state_filters": ["Empty"]}, False),
        ({"producer_id_filters": [1000]}, True),
        ({"producer_id_filters": [7]}, False),
        ({"duration_filter": 1000}, True),
        ({"duration_filter": 9000}, False),
        ({"transactional_id_pattern": "t."}, True),
        ({"transactional_id_pattern": "t"}, False),
    ],
)
def test_listing(world: World, filters: dict[str, Any], is_listed: bool) -> None:
    add(world, 3, ("t", [0]))
    world.clock.advance(5)
    request = ListTransactionsRequest(**filters)
    answer = api_66_list_transactions.handle(world.services, world.context(66, 2), request)
    found = [(each.transactional_id, each.transaction_state) for each in answer.transaction_states]
    assert found == ([(TXN, "Ongoing")] if is_listed else [])


def test_ids_that_never_had_a_transaction_are_as_old_as_can_be(world: World) -> None:
    request = ListTransactionsRequest(duration_filter=900_000_000)
    answer = api_66_list_transactions.handle(world.services, world.context(66, 1), request)
    assert [each.transactional_id for each in answer.transaction_states] == [TXN]


def test_filters_that_nobody_knows(world: World) -> None:
    request = ListTransactionsRequest(["Strange"])
    answer = api_66_list_transactions.handle(world.services, world.context(66, 2), request)
    assert (answer.unknown_state_filters, answer.transaction_states) == (["Strange"], [])
    request = ListTransactionsRequest(transactional_id_pattern="(")
    answer = api_66_list_transactions.handle(world.services, world.context(66, 2), request)
    assert answer.error_code == ErrorCode.INVALID_REGULAR_EXPRESSION
