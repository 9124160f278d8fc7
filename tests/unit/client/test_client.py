"""What the client does about errors: what it repeats, until when, and what it does not."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest
from trio.testing import MockClock

from kbroker.client.client import BootstrapError, KafkaClient, parse_bootstrap
from kbroker.client.connection import ConnectionLostError
from kbroker.client.producer import BATCH_BYTES, Producer
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.find_coordinator_response import (
    Coordinator,
    FindCoordinatorResponse,
)
from kbroker.protocol.messages.init_producer_id_response import InitProducerIdResponse
from kbroker.protocol.messages.produce_response import (
    PartitionProduceResponse,
    ProduceResponse,
    TopicProduceResponse,
)
from kbroker.record.batch import RecordBatchHeader
from kbroker.record.record import Record, iter_records
from tests.unit.client.scripted import HANG_UP, NODE, SILENCE, ScriptedBroker, metadata

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, dict]:
    """Minutes pass in these tests, and cost nothing."""
    return "trio", {"clock": MockClock(autojump_threshold=0)}


def produced(errors: dict[int, ErrorCode]):
    def answer(request):
        (topic,) = request.topic_data
        partitions = [
            PartitionProduceResponse(
                each.index, errors.get(each.index, ErrorCode.NONE), base_offset=10 + each.index
            )
            for each in topic.partition_data
        ]
        return ProduceResponse([TopicProduceResponse(topic.name, partition_responses=partitions)])

    return answer


async def test_leaders_are_waited_for():
    script = [
        metadata({"t": 2}, error_code=ErrorCode.LEADER_NOT_AVAILABLE),
        metadata({"t": 2}, leader=-1),
        HANG_UP,
        metadata({"t": 2}),
    ]
    async with ScriptedBroker({ApiKey.METADATA: script}, topics={}) as broker:
        async with broker.client() as client:
            assert await client.leaders("t") == {0: NODE, 1: NODE}
            assert await client.leaders("t") == {0: NODE, 1: NODE}
        assert len(broker.requests(ApiKey.METADATA)) == 4
        assert broker.connections == 2


async def test_only_the_partitions_asked_for_need_a_leader():
    def partly_led(request):
        answer = metadata({"t": 3})(request)
        answer.topics[0].partitions[1].leader_id = -1
        return answer

    script = {ApiKey.METADATA: [partly_led]}
    async with ScriptedBroker(script, topics={}) as broker, broker.client(timeout_s=3) as client:
        assert await client.leaders("t", of=()) == {0: NODE, 1: -1, 2: NODE}
        assert await client.by_leader("t", [0, 2]) == {NODE: [0, 2]}
        assert len(broker.requests(ApiKey.METADATA)) == 1
        with pytest.raises(KafkaError, match="LEADER_NOT_AVAILABLE: topic t, partition 1 has"):
            await client.by_leader("t", [0, 1])
        with pytest.raises(KafkaError, match="partitions 0 to 2, not 3"):
            await client.by_leader("t", [3])


async def test_a_missing_topic_is_told_at_once():
    script = [metadata({"t": 0}, error_code=ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)]
    async with ScriptedBroker({ApiKey.METADATA: script}, topics={}) as broker:
        async with broker.client() as client:
            with pytest.raises(KafkaError, match="UNKNOWN_TOPIC_OR_PARTITION: topic t"):
                await client.leaders("t")
        assert len(broker.requests(ApiKey.METADATA)) == 1


async def test_errors_that_will_not_pass_and_those_that_do_not_in_time():
    began = anyio.current_time()
    client = KafkaClient("nowhere:1", timeout_s=10)
    attempts: list[float] = []

    def failing(error: Exception):
        async def attempt() -> None:
            attempts.append(anyio.current_time() - began)
            raise error

        return attempt

    for error in (KafkaError(ErrorCode.TOPIC_ALREADY_EXISTS), BootstrapError("x")):
        with pytest.raises(type(error)):
            await client.retrying(failing(error))
    final = frozenset({ErrorCode.NOT_CONTROLLER})
    with pytest.raises(KafkaError):
        await client.retrying(failing(KafkaError(ErrorCode.NOT_CONTROLLER)), final=final)
    assert attempts == [0, 0, 0]
    attempts.clear()
    for error in (KafkaError(ErrorCode.NOT_CONTROLLER), ConnectionLostError("gone")):
        with pytest.raises(type(error)):
            await client.retrying(failing(error))
    pauses = [round(later - earlier, 3) for earlier, later in pairwise(attempts)]
    assert pauses[:6] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0]
    assert 8 < anyio.current_time() - began <= 20


async def test_a_silent_broker_is_given_up():
    script = {ApiKey.METADATA: [SILENCE]}
    async with ScriptedBroker(script, topics={}) as broker, broker.client(timeout_s=7) as client:
        began = anyio.current_time()
        with pytest.raises(KafkaError, match="did not answer in time"):
            await client.leaders("t")
        assert anyio.current_time() - began == pytest.approx(7)


async def test_an_address_that_says_nothing_is_named():
    async def connect(host: str, port: int):
        await anyio.sleep_forever()

    async with KafkaClient("silent:1,[::1]:2", timeout_s=3, connect=connect) as client:
        with pytest.raises(BootstrapError, match=r"silent:1, \[::1\]:2: no answer in 3 s"):
            await client.leaders("t")
    async with KafkaClient("silent:1", timeout_s=30, connect=connect) as client:
        with pytest.raises(BootstrapError, match="no answer in 5 s"):
            await client.leaders("t", create=True)


async def test_only_what_failed_is_sent_again_with_its_sequence():
    script = {
        ApiKey.INIT_PRODUCER_ID: [InitProducerIdResponse(producer_id=7, producer_epoch=0)],
        ApiKey.PRODUCE: [
            produced({1: ErrorCode.NOT_LEADER_OR_FOLLOWER}),
            HANG_UP,
            produced({}),
        ],
    }
    async with ScriptedBroker(script, topics={"t": 2}) as broker:
        async with broker.client() as client:
            producer = Producer(client, "t")
            records = [Record(key=b"%d" % n, value=b"v", timestamp=1) for n in range(20)]
            assert await producer.send(records) == {0: 10, 1: 11}
            assert await producer.send(records) == {0: 10, 1: 11}
        sent = [
            {
                each.index: RecordBatchHeader(memoryview(each.records)).base_sequence
                for each in request.topic_data[0].partition_data
            }
            for request in broker.requests(ApiKey.PRODUCE)
        ]
        assert sent[:3] == [{0: 0, 1: 0}, {1: 0}, {1: 0}]
        assert sent[3].keys() == {0, 1}
        assert sum(sent[3].values()) == 20


async def test_a_refused_record_is_not_sent_again():
    script = {
        ApiKey.INIT_PRODUCER_ID: [InitProducerIdResponse(producer_id=7, producer_epoch=0)],
        ApiKey.PRODUCE: [produced({0: ErrorCode.MESSAGE_TOO_LARGE})],
    }
    async with ScriptedBroker(script, topics={"t": 1}) as broker:
        async with broker.client() as client:
            with pytest.raises(KafkaError, match="MESSAGE_TOO_LARGE"):
                await Producer(client, "t").send([Record(value=b"v", timestamp=1)])
        assert len(broker.requests(ApiKey.PRODUCE)) == 1


async def test_batches_that_are_too_large_are_halved_and_keep_their_order():
    """A topic that takes no more than three records at once."""
    taken: list[bytes] = []
    sequences: list[int] = []

    def append(request):
        (data,) = request.topic_data[0].partition_data
        view = memoryview(bytes(data.records))
        header = RecordBatchHeader(view)
        if header.record_count > 3:
            return produced({0: ErrorCode.MESSAGE_TOO_LARGE})(request)
        sequences.append(header.base_sequence)
        partition = PartitionProduceResponse(0, base_offset=len(taken))
        taken.extend(record.value for record in iter_records(view, header))
        return ProduceResponse([TopicProduceResponse("t", partition_responses=[partition])])

    script = {
        ApiKey.INIT_PRODUCER_ID: [InitProducerIdResponse(producer_id=7, producer_epoch=0)],
        ApiKey.PRODUCE: [append],
    }
    values = [b"%02d" % number for number in range(17)]
    records = [Record(value=value, timestamp=1) for value in values]
    async with ScriptedBroker(script, topics={"t": 1}) as broker, broker.client() as client:
        producer = Producer(client, "t")
        assert await producer.send(records) == {0: 0}
        asked = len(broker.requests(ApiKey.PRODUCE))
        assert await producer.send(records) == {0: 17}
        assert taken == values * 2
        assert sequences[0] == 0
        assert sequences[-1] < 34
        assert all(earlier < later for earlier, later in pairwise(sequences))
        again = len(broker.requests(ApiKey.PRODUCE)) - asked
        assert again < asked, "it remembers what was too large"


async def test_short_records_fill_several_batches():
    """Each takes more in a batch than it has bytes, and its headers are in every one of them."""
    script = {
        ApiKey.INIT_PRODUCER_ID: [InitProducerIdResponse(producer_id=7, producer_epoch=0)],
        ApiKey.PRODUCE: [produced({})],
    }
    headers = [("h", bytes(500))]
    records = [Record(value=b"", headers=headers, timestamp=1) for _ in range(3000)]
    async with ScriptedBroker(script, topics={"t": 1}) as broker, broker.client() as client:
        await Producer(client, "t").send(records)
        sizes = [
            len(request.topic_data[0].partition_data[0].records)
            for request in broker.requests(ApiKey.PRODUCE)
        ]
        assert len(sizes) == 4
        assert max(sizes) <= BATCH_BYTES


async def test_the_coordinator_is_looked_for_again():
    def found(request):
        return FindCoordinatorResponse(
            coordinators=[Coordinator(key, NODE, "scripted", 1) for key in request.coordinator_keys]
        )

    not_yet = FindCoordinatorResponse(
        coordinators=[Coordinator("g", error_code=ErrorCode.COORDINATOR_NOT_AVAILABLE)]
    )
    script = {ApiKey.FIND_COORDINATOR: [not_yet, found]}
    async with ScriptedBroker(script, topics={}) as broker, broker.client() as client:
        answers = [ErrorCode.NOT_COORDINATOR, None]

        async def attempt() -> str:
            await client.group_connection("g")
            error = answers.pop(0)
            if error is not None:
                raise KafkaError(error)
            return "done"

        assert await client.retrying(attempt) == "done"
        assert len(broker.requests(ApiKey.FIND_COORDINATOR)) == 3
        await client.group_connection("g")
        assert len(broker.requests(ApiKey.FIND_COORDINATOR)) == 3


def test_bootstrap_addresses():
    assert parse_bootstrap("a:1, [::1]:2,") == [("a", 1), ("::1", 2)]
    assert parse_bootstrap("PLAINTEXT://a:1,plaintext://[::1]:2") == [("a", 1), ("::1", 2)]
    for wrong in ("", "a", ":1", "a:b", "a:0", "a:65536", "PLAINTEXT://a"):
        with pytest.raises(ValueError, match="HOST:PORT"):
            parse_bootstrap(wrong)
    with pytest.raises(ValueError, match="only PLAINTEXT is spoken here, not SASL_SSL"):
        parse_bootstrap("SASL_SSL://a:1")
