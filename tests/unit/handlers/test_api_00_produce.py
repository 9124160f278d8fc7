"""Produce: errors in Kafka's order and shape, acks, waiting for replicas."""

import logging
from typing import Any

import anyio
import pytest

from kbroker.common.faults import Faults
from kbroker.handlers import api_00_produce
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.messages.produce_response import (
    PartitionProduceResponse,
    ProduceResponse,
    write_produce_response,
)
from kbroker.record.compression import GZIP, LZ4, ZSTD
from kbroker.request_context import CloseConnection
from tests.unit.data_plane import World, batch, finish


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(
    *partitions: tuple[str, int, Any], acks: int = -1, transactional_id: str | None = None
) -> ProduceRequest:
    topics: dict[str, TopicProduceData] = {}
    for name, index, records in partitions:
        topic = topics.setdefault(name, TopicProduceData(name))
        view = None if records is None else memoryview(records)
        topic.partition_data.append(PartitionProduceData(index, view))
    return ProduceRequest(transactional_id, acks, 3000, list(topics.values()))


def produce(
    world: World, asked: ProduceRequest, version: int = 9, client_id: str = "test"
) -> ProduceResponse:
    """The answer of a request that does not wait, which can be encoded."""
    answer = api_00_produce.handle(world.services, world.context(0, version, client_id), asked)
    assert isinstance(answer, ProduceResponse)
    write_produce_response([], answer, version)
    return answer


def one(
    world: World, records: Any, version: int = 9, *, name: str = "t", index: int = 0, acks: int = -1
) -> PartitionProduceResponse:
    answer = produce(world, request((name, index, records), acks=acks), version)
    [topic] = answer.responses
    [partition] = topic.partition_responses
    return partition


def told(partition: PartitionProduceResponse) -> tuple[int, int, int, int]:
    return (
        partition.error_code,
        partition.base_offset,
        partition.log_append_time_ms,
        partition.log_start_offset,
    )


@pytest.mark.parametrize("version", range(3, 14))
def test_offsets_follow_each_other(version: int) -> None:
    world = World()
    topic = world.topic()
    for expected in (0, 2):
        asked = request(("t", 0, batch(b"a", b"b")))
        asked.topic_data[0].topic_id = topic.topic_id
        answer = produce(world, asked, version)
        [response] = answer.responses
        assert (response.name, response.topic_id) == (
            ("", topic.topic_id) if version >= 13 else ("t", bytes(16))
        )
        assert told(response.partition_responses[0]) == (0, expected, -1, 0)
    assert world.partition().log.high_watermark == 4


def test_unknown_topics_and_partitions() -> None:
    world = World()
    topic = world.topic()
    unknown = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1)
    assert told(one(world, batch(b"a"), name="nope")) == unknown
    assert told(one(world, batch(b"a"), index=7)) == unknown
    assert told(one(world, batch(b"a"), index=-1)) == unknown
    for topic_id, error in (
        (bytes([9]) * 16, ErrorCode.UNKNOWN_TOPIC_ID),
        (bytes(16), ErrorCode.UNKNOWN_TOPIC_ID),
        (topic.topic_id, ErrorCode.UNKNOWN_TOPIC_OR_PARTITION),
    ):
        asked = request(("", 7, batch(b"a")))
        asked.topic_data[0].topic_id = topic_id
        [response] = produce(world, asked, 13).responses
        assert response.topic_id == topic_id
        assert response.partition_responses[0].error_code == error


@pytest.mark.parametrize("acks", [2, 7, -2])
def test_other_acks_are_refused(acks: int) -> None:
    world = World()
    world.topic()
    refused = (ErrorCode.INVALID_REQUIRED_ACKS, -1, -1, -1)
    assert told(one(world, batch(b"a"), acks=acks)) == refused
    assert world.partition().log.log_end_offset == 0


def test_acks_zero_has_no_answer() -> None:
    world = World()
    world.topic()
    context = world.context(0, 9)
    asked = request(("t", 0, batch(b"a")), acks=0)
    assert api_00_produce.handle(world.services, context, asked) is None
    assert world.partition().log.log_end_offset == 1


@pytest.mark.parametrize("records", [None, b"", batch(b"a")[:-1]])
def test_acks_zero_closes_the_connection_on_an_error(records: Any) -> None:
    world = World()
    world.topic()
    asked = request(("t", 0, records), acks=0)
    with pytest.raises(CloseConnection):
        api_00_produce.handle(world.services, world.context(0, 9), asked)
    assert api_00_produce.error_response(asked, KafkaError(ErrorCode.CORRUPT_MESSAGE), 9) is None


def test_what_is_refused_before_the_log_is_looked_at() -> None:
    world = World()
    world.topic()
    good = batch(b"a")
    old_magic = bytearray(good)
    old_magic[16] = 1
    refused = (ErrorCode.INVALID_RECORD, -1, -1, -1)
    for records in (None, b"", good[:20], good[:-1], good + good, old_magic):
        assert told(one(world, records)) == refused
    zstd = batch(b"a", compression=ZSTD)
    unsupported = (ErrorCode.UNSUPPORTED_COMPRESSION_TYPE, -1, -1, -1)
    assert told(one(world, zstd, 6)) == unsupported
    assert world.partition().log.log_end_offset == 0
    assert told(one(world, zstd, 7)) == (0, 0, -1, 0)
    assert told(one(world, batch(b"a") + b"12345678901")) == (0, 1, -1, 0)


def test_an_impossible_first_batch_fails_the_request() -> None:
    world = World()
    world.topic("t", 2)
    bad_magic = batch(b"a")
    bad_magic[16] = 3
    for records in (bad_magic, bytes(17)):
        asked = request(("t", 0, batch(b"a")), ("t", 1, records))
        with pytest.raises(KafkaError) as raised:
            produce(world, asked)
        assert raised.value.error_code == ErrorCode.CORRUPT_MESSAGE
        answer = api_00_produce.error_response(asked, raised.value, 9)
        assert answer is not None
        codes = [each.error_code for each in answer.responses[0].partition_responses]
        assert codes == [ErrorCode.CORRUPT_MESSAGE] * 2
    assert world.partition().log.log_end_offset == 0


def test_rubbish_behind_the_batch_fails_its_partition_only() -> None:
    world = World()
    world.topic("t", 2)
    answer = produce(world, request(("t", 0, batch(b"a") + bytes(17)), ("t", 1, batch(b"a"))))
    codes = [each.error_code for each in answer.responses[0].partition_responses]
    assert codes == [ErrorCode.CORRUPT_MESSAGE, ErrorCode.NONE]


def test_an_unknown_codec_in_an_old_version_fails_the_request() -> None:
    world = World()
    world.topic()
    records = batch(b"a")
    records[22] = 5
    with pytest.raises(KafkaError) as raised:
        produce(world, request(("t", 0, records)), 6)
    assert raised.value.error_code == ErrorCode.UNKNOWN_SERVER_ERROR


def test_errors_of_the_log_tell_where_it_starts() -> None:
    world = World()
    world.topic()
    world.topic("small", max_message_bytes="70")
    for _ in range(2):
        world.append(b"a")
    world.partition().delete_records(2)
    bad_crc = batch(b"a")
    bad_crc[-1] ^= 1
    assert told(one(world, bad_crc)) == (ErrorCode.CORRUPT_MESSAGE, -1, -1, -1)
    too_large = (ErrorCode.MESSAGE_TOO_LARGE, -1, -1, -1)
    assert told(one(world, batch(b"x" * 100), name="small")) == too_large
    first = batch(b"a", producer_id=5, producer_epoch=0, base_sequence=0)
    assert one(world, first).error_code == 0
    gap = batch(b"a", producer_id=5, producer_epoch=0, base_sequence=7)
    assert told(one(world, gap)) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1, -1, 2)


def test_a_repeated_batch_is_told_its_first_offset() -> None:
    world = World()
    world.topic()
    for sequence, offset in ((0, 0), (1, 1), (0, 0)):
        records = batch(
            b"a", producer_id=5, producer_epoch=0, base_sequence=sequence, timestamp=1000
        )
        assert one(world, records).base_offset == offset
    assert world.partition().log.log_end_offset == 2


def test_single_records_and_their_messages() -> None:
    world = World()
    world.topic(cleanup_policy="compact")
    refused = one(world, batch(b"a", b"b", keys=[b"k", None]), 8)
    assert refused.error_code == ErrorCode.INVALID_RECORD
    assert refused.log_start_offset == 0
    [record] = refused.record_errors
    assert record.batch_index == 1
    assert record.batch_index_error_message == (
        "Compacted topic cannot accept message without key in topic partition t-0"
    )
    assert refused.error_message is not None
    assert "1 record errors" in refused.error_message


def test_the_append_time_is_told() -> None:
    world = World()
    world.topic(message_timestamp_type="LogAppendTime")
    assert told(one(world, batch(b"a"))) == (0, 0, world.clock.time_ms(), 0)


def test_internal_topics_are_for_the_admin_client_only() -> None:
    world = World()
    world.topic("__consumer_offsets")
    asked = request(("__consumer_offsets", 0, batch(b"v", keys=[b"k"])))
    [topic] = produce(world, asked).responses
    refused = (ErrorCode.INVALID_TOPIC_EXCEPTION, -1, -1, -1)
    assert told(topic.partition_responses[0]) == refused
    [topic] = produce(world, asked, client_id="__admin_client").responses
    assert told(topic.partition_responses[0]) == (0, 0, -1, 0)


def test_transactions() -> None:
    world = World()
    world.topic("t", 2)
    transactional = batch(
        b"a", producer_id=5, producer_epoch=0, base_sequence=0, transactional=True
    )
    with pytest.raises(KafkaError) as raised:
        produce(world, request(("t", 0, transactional)))
    assert raised.value.error_code == ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    asked = request(("t", 0, transactional), ("t", 1, batch(b"a")), transactional_id="tx")
    [topic] = produce(world, asked).responses
    unknown_id, plain = topic.partition_responses
    assert told(unknown_id) == (ErrorCode.INVALID_PRODUCER_ID_MAPPING, -1, -1, -1)
    assert told(plain) == (0, 0, -1, 0)


def test_a_partition_named_twice_takes_the_later_batch() -> None:
    world = World()
    world.topic("t", 2)
    asked = request(("t", 0, batch(b"a")), ("t", 1, batch(b"a")), ("t", 0, batch(b"b", b"c")))
    [topic] = produce(world, asked).responses
    assert [each.index for each in topic.partition_responses] == [0, 1]
    assert world.partition("t", 0).log.log_end_offset == 2


@pytest.mark.parametrize("bad_is_first", [True, False])
def test_of_a_sound_and_an_unsound_batch_one_is_appended_the_other_answered(
    bad_is_first: bool,
) -> None:
    world = World()
    world.topic()
    both = [("t", 0, batch(b"a") * 2), ("t", 0, batch(b"a"))]
    [topic] = produce(world, request(*(both if bad_is_first else both[::-1]))).responses
    assert [told(each) for each in topic.partition_responses] == [
        (ErrorCode.INVALID_RECORD, -1, -1, -1)
    ]
    assert world.partition().log.log_end_offset == 1


def test_a_topic_named_twice_is_answered_once() -> None:
    world = World()
    world.topic("t", 2)
    asked = request(("t", 0, batch(b"a")))
    asked.topic_data += request(("t", 1, batch(b"a"))).topic_data
    [topic] = produce(world, asked).responses
    assert [each.index for each in topic.partition_responses] == [0, 1]


def test_no_partitions_no_answers() -> None:
    world = World()
    assert produce(world, ProduceRequest(None, 1, 100, [TopicProduceData("t")])).responses == []


def test_a_follower_names_the_leader() -> None:
    world = World()
    world.topic(leader=2, replicas=(1, 2))
    answer = produce(world, request(("t", 0, batch(b"a"))), 10)
    [partition] = answer.responses[0].partition_responses
    assert told(partition) == (ErrorCode.NOT_LEADER_OR_FOLLOWER, -1, -1, -1)
    assert (partition.current_leader.leader_id, partition.current_leader.leader_epoch) == (2, 0)
    assert [(node.node_id, node.host, node.port) for node in answer.node_endpoints] == [
        (2, "host2", 9092)
    ]
    old = produce(world, request(("t", 0, batch(b"a"))), 9)
    assert old.responses[0].partition_responses[0].current_leader.leader_id == -1
    assert old.node_endpoints == []


def test_too_few_replicas_in_sync() -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,), min_insync_replicas="2")
    assert told(one(world, batch(b"a"))) == (ErrorCode.NOT_ENOUGH_REPLICAS, -1, -1, 0)
    assert told(one(world, batch(b"a"), acks=1)) == (0, 0, -1, 0)


@pytest.mark.anyio
async def test_acks_all_waits_for_the_followers() -> None:
    world = World()
    world.topic("t", replicas=(1, 2))
    world.topic("alone")
    asked = request(("t", 0, batch(b"a")), ("alone", 0, batch(b"a")))
    waiting = api_00_produce.handle(world.services, world.context(0, 9), asked)
    assert not isinstance(waiting, ProduceResponse)
    answers: list[ProduceResponse] = []

    async def wait() -> None:
        answers.append(await finish(waiting))

    partition = world.partition("t")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        assert world.manager.delayed.produce.waiting(partition) == 1
        follower = partition.follower(2, knows_leader_epoch=True)
        partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    codes = [topic.partition_responses[0].error_code for topic in answers[0].responses]
    assert codes == [0, 0]
    assert world.manager.delayed.produce.watched_keys == 0


@pytest.mark.anyio
async def test_acks_all_is_committed_before_the_wait_begins() -> None:
    """The follower's fetch comes between the append and the first step of the coroutine."""
    world = World()
    world.topic(replicas=(1, 2))
    asked = request(("t", 0, batch(b"a")))
    waiting = api_00_produce.handle(world.services, world.context(0, 9), asked)
    partition = world.partition()
    follower = partition.follower(2, knows_leader_epoch=True)
    partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    with anyio.fail_after(5):
        answer = await finish(waiting)
    assert told(answer.responses[0].partition_responses[0]) == (0, 0, -1, 0)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("time", ErrorCode.REQUEST_TIMED_OUT),
        ("leader", ErrorCode.NOT_LEADER_OR_FOLLOWER),
        ("deleted", ErrorCode.NOT_LEADER_OR_FOLLOWER),
        ("isr", ErrorCode.NONE),
    ],
)
async def test_how_the_wait_for_replicas_ends(change: str, error: ErrorCode) -> None:
    world = World()
    world.topic(replicas=(1, 2))
    asked = request(("t", 0, batch(b"a")))
    answers: list[ProduceResponse] = []

    async def wait() -> None:
        handled = api_00_produce.handle(world.services, world.context(0, 9), asked)
        answers.append(await finish(handled))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        if change == "time":
            world.advance(3.1)
        elif change == "leader":
            world.change_partition(leader=2, replicas=(1, 2))
        elif change == "deleted":
            world.delete_topic("t")
        else:
            world.change_partition(replicas=(1, 2), isr=(1,), leader_epoch=0)
    [partition] = answers[0].responses[0].partition_responses
    assert told(partition) == (error, 0, -1, 0)


@pytest.mark.anyio
async def test_a_large_compressed_batch_is_inflated_elsewhere() -> None:
    world = World()
    world.topic()
    records = batch(b"x" * 500_000, compression=GZIP)
    asked = request(("t", 0, records), ("nope", 0, batch(b"a")))
    handled = api_00_produce.handle(world.services, world.context(0, 9), asked)
    assert not isinstance(handled, ProduceResponse)
    answer = await finish(handled)
    first, second = answer.responses
    assert told(first.partition_responses[0]) == (0, 0, -1, 0)
    assert second.partition_responses[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION


@pytest.mark.anyio
@pytest.mark.parametrize("codec", [LZ4, ZSTD])
async def test_what_fits_one_buffer_is_inflated_at_once_when_it_is_alone(codec: int) -> None:
    world = World()
    world.topic(partitions=2)

    def large() -> Any:
        return batch(*[b"x" * 500] * 1000, compression=codec)

    for expected in (0, 1000):
        assert told(one(world, large())) == (0, expected, -1, 0)
    asked = request(("t", 0, large()), ("t", 1, batch(b"a")))
    handled = api_00_produce.handle(world.services, world.context(0, 9), asked)
    assert not isinstance(handled, ProduceResponse)  # there may be many as large
    [topic] = (await finish(handled)).responses
    assert [told(each) for each in topic.partition_responses] == [(0, 2000, -1, 0), (0, 0, -1, 0)]


@pytest.mark.anyio
async def test_leadership_lost_while_inflating_appends_nothing() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    partition = world.partition()
    records = batch(b"x" * 500_000, compression=GZIP)
    handled = api_00_produce.handle(
        world.services, world.context(0, 9), request(("t", 0, records), acks=1)
    )
    world.change_partition(leader=2, replicas=(1, 2))
    answer = await finish(handled)
    [answered] = answer.responses[0].partition_responses
    assert answered.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert partition.log.log_end_offset == 0


@pytest.mark.anyio
async def test_many_partitions_give_way() -> None:
    world = World()
    world.topic("t", 200)
    asked = request(*(("t", index, batch(b"a")) for index in range(200)))
    handled = api_00_produce.handle(world.services, world.context(0, 9), asked)
    assert not isinstance(handled, ProduceResponse)
    answer = await finish(handled)
    answered = answer.responses[0].partition_responses
    assert [each.index for each in answered] == list(range(200))
    assert all(each.base_offset == 0 for each in answered)


@pytest.mark.anyio
async def test_flush_messages_syncs_before_the_answer() -> None:
    world = World()
    world.topic(flush_messages="1")
    handled = api_00_produce.handle(
        world.services, world.context(0, 9), request(("t", 0, batch(b"a")))
    )
    assert not isinstance(handled, ProduceResponse)
    assert world.partition().log.recovery_point == 0
    answer = await finish(handled)
    assert told(answer.responses[0].partition_responses[0]) == (0, 0, -1, 0)
    assert world.partition().log.recovery_point == 1


def test_a_bug_costs_one_partition_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()
    world.topic("t", 2)
    log = world.partition("t", 0).log

    def fail(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(log, "append_as_leader", fail)
    with caplog.at_level(logging.ERROR, "kbroker.test"):
        [topic] = produce(world, request(("t", 0, batch(b"a")), ("t", 1, batch(b"a")))).responses
    first, second = topic.partition_responses
    assert told(first) == (ErrorCode.UNKNOWN_SERVER_ERROR, -1, -1, 0)
    assert second.error_code == 0
    assert "t-0" in caplog.text


def test_the_planted_fault_acknowledges_what_is_not_there() -> None:
    world = World(faults=Faults(planted="ack_before_append"))
    world.topic()
    for expected in range(3):
        assert told(one(world, batch(b"a"))) == (0, expected, -1, 0)
    assert world.partition().log.log_end_offset == 0
    for expected in range(3, 12):
        assert one(world, batch(b"a")).base_offset == expected
    assert 0 < world.partition().log.log_end_offset < 12


def test_the_failpoint_before_the_ack(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = Faults(failpoint="append.before_ack", passes=2)
    died = []
    monkeypatch.setattr(Faults, "die", lambda self: died.append(True))
    world = World(faults=faults)
    world.topic()
    one(world, batch(b"a"))
    assert died == []
    one(world, batch(b"a"))
    assert died == [True]


def test_the_whole_requests_error_repeats_for_each_partition() -> None:
    asked = request(("a", 0, b""), ("a", 1, b""), ("b", 0, b""), ("a", 0, b""))
    error = KafkaError(ErrorCode.UNKNOWN_SERVER_ERROR, "inner details")
    answer = api_00_produce.error_response(asked, error, 9)
    assert answer is not None
    assert [(topic.name, len(topic.partition_responses)) for topic in answer.responses] == [
        ("a", 2),
        ("b", 1),
    ]
    assert told(answer.responses[0].partition_responses[0]) == (-1, -1, -1, -1)
    assert answer.responses[0].partition_responses[0].error_message is None
