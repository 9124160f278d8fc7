"""What the metering dispatcher counts, through the real handlers over a data plane in memory."""

from collections.abc import Coroutine
from typing import Any

import pytest

from kbroker.broker.request_meter import UNKNOWN_VERSION, MeteredDispatcher
from kbroker.common.parts import gather
from kbroker.protocol.messages.fetch_request import FetchPartition, FetchRequest, FetchTopic
from kbroker.protocol.messages.produce_request import (
    PartitionProduceData,
    ProduceRequest,
    TopicProduceData,
)
from kbroker.protocol.registry import write_request
from kbroker.request_context import CloseConnection
from tests.unit.data_plane import World, batch

PRODUCE, FETCH, API_VERSIONS = 0, 1, 18
SIZE = len(batch(b"a", b"b"))


class Metered:
    """A world behind a metering dispatcher."""

    def __init__(self) -> None:
        self.world = World()
        self.dispatcher = MeteredDispatcher(self.world.services)

    def ask(self, key: int, version: int, request: Any, *, late_s: float = 0.0) -> Any:
        parts: list[Any] = []
        write_request(key, version, request, parts)
        context = self.world.context(key, version)
        self.world.clock.advance(late_s)
        frame = memoryview(bytearray(b"".join(gather(parts))))
        return self.dispatcher.dispatch(context, frame, 0)

    def produce(self, *records: Any, version: int = 12, acks: int = 1, **topic: Any) -> Any:
        data = [PartitionProduceData(index, one) for index, one in enumerate(records)]
        topics = [TopicProduceData(partition_data=data, **(topic or {"name": "t"}))]
        return self.ask(PRODUCE, version, ProduceRequest(acks=acks, topic_data=topics))

    def fetch(self, version: int = 12, offset: int = 0, **topic: Any) -> Any:
        partition = FetchPartition(partition=0, fetch_offset=offset, partition_max_bytes=1 << 20)
        topics = [FetchTopic(partitions=[partition], **(topic or {"topic": "t"}))]
        request = FetchRequest(max_wait_ms=500, min_bytes=1, max_bytes=1 << 20, topics=topics)
        return self.ask(FETCH, version, request)

    def topic(self, name: str = "t") -> Any:
        return self.dispatcher.topic_counts()[name]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def metered() -> Metered:
    made = Metered()
    made.world.topic("t", partitions=2)
    return made


@pytest.mark.parametrize("acks", [0, 1, -1])
def test_records_and_bytes_that_were_written(metered: Metered, acks: int) -> None:
    for _ in range(3):
        metered.produce(batch(b"a", b"b"), batch(b"c"), acks=acks)
    counts = metered.topic()
    assert counts.messages_in == 9
    assert counts.bytes_in == 3 * (SIZE + len(batch(b"c")))
    assert counts.produces == 6
    assert (counts.failed_produces, counts.bytes_rejected) == (0, 0)


def test_by_topic_id_too(metered: Metered) -> None:
    topic_id = metered.world.metadata.image.topics.by_name["t"].topic_id
    metered.produce(batch(b"a", b"b"), version=13, topic_id=topic_id)
    metered.fetch(version=13, topic_id=topic_id)
    counts = metered.topic()
    assert (counts.messages_in, counts.bytes_in, counts.bytes_out) == (2, SIZE, SIZE)


def test_what_was_refused_is_counted_apart(metered: Metered) -> None:
    bad = batch(b"a", b"b")
    bad[-1] ^= 1
    metered.produce(bad, batch(b"c"))
    counts = metered.topic()
    assert (counts.failed_produces, counts.bytes_rejected) == (1, SIZE)
    assert (counts.messages_in, counts.produces) == (1, 2)


@pytest.mark.parametrize("by_id", [False, True])
def test_what_was_refused_without_an_answer_is_counted_too(metered: Metered, by_id: bool) -> None:
    topic_id = metered.world.metadata.image.topics.by_name["t"].topic_id
    bad = batch(b"a", b"b")
    bad[-1] ^= 1
    which: dict[str, Any] = {"version": 13, "topic_id": topic_id} if by_id else {}
    with pytest.raises(CloseConnection, match="acks=0 failed: CORRUPT_MESSAGE"):
        metered.produce(bad, batch(b"c"), acks=0, **which)
    counts = metered.topic()
    assert (counts.failed_produces, counts.bytes_rejected) == (1, SIZE)
    assert (counts.messages_in, counts.produces) == (1, 2)
    assert metered.dispatcher.refused == 1


def test_what_does_not_exist_gets_no_counter(metered: Metered) -> None:
    metered.produce(batch(b"a"), name="nowhere")
    metered.produce(batch(b"a"), version=13, topic_id=b"x" * 16)
    metered.fetch(topic="nowhere")
    assert metered.dispatcher.topic_counts() == {}


def test_bytes_that_were_read(metered: Metered) -> None:
    metered.produce(batch(b"a", b"b"))
    metered.fetch()
    metered.fetch(offset=99)  # out of range
    counts = metered.topic()
    assert (counts.bytes_out, counts.fetches, counts.failed_fetches) == (SIZE, 2, 1)


@pytest.mark.anyio
async def test_answers_that_wait_are_counted_when_they_come(metered: Metered) -> None:
    waiting = metered.fetch()
    assert isinstance(waiting, Coroutine)
    assert metered.dispatcher.api_counts() == {}
    metered.world.append(b"a", b"b")
    # the append came before the wait began, so nobody sleeps here
    assert await waiting
    assert metered.topic().bytes_out == SIZE
    assert metered.dispatcher.api_counts()[FETCH, 12].requests == 1


def test_a_deleted_topic_stays_in_the_sum(metered: Metered) -> None:
    metered.world.topic("u")
    metered.produce(batch(b"a"))
    metered.produce(batch(b"a", b"b"), name="u")
    metered.world.delete_topic("u")
    assert metered.dispatcher.topic_counts().keys() == {"t"}
    assert metered.dispatcher.topic_counts().keys() == {"t"}
    assert metered.dispatcher.all_topics().messages_in == 3


def test_requests_sizes_and_durations(metered: Metered) -> None:
    answer = metered.produce(batch(b"a", b"b"))
    counts = metered.dispatcher.api_counts()[PRODUCE, 12]
    assert counts.requests == 1
    assert counts.request_bytes > SIZE
    assert counts.response_bytes == len(b"".join(gather(answer)))
    assert counts.durations[0] == 1
    metered.ask(PRODUCE, 12, ProduceRequest(acks=1), late_s=0.003)  # 3000 us: less than 2^12
    counts = metered.dispatcher.api_counts()[PRODUCE, 12]
    assert counts.durations[12] == 1
    assert counts.seconds == pytest.approx(0.003)
    metered.ask(PRODUCE, 12, ProduceRequest(acks=1), late_s=1e9)
    assert counts.durations[-1] == 1


def test_refusals_are_counted(metered: Metered) -> None:
    context = metered.world.context(PRODUCE, 99)
    with pytest.raises(CloseConnection):
        metered.dispatcher.dispatch(context, b"", 0)
    assert metered.dispatcher.refused == 1
    assert metered.dispatcher.api_counts() == {}


def test_a_peer_makes_up_no_counters(metered: Metered) -> None:
    for version in range(100, 200):
        metered.dispatcher.dispatch(metered.world.context(API_VERSIONS, version), b"", 0)
    counts = metered.dispatcher.api_counts()
    assert counts.keys() == {(API_VERSIONS, UNKNOWN_VERSION)}
    assert counts[API_VERSIONS, UNKNOWN_VERSION].requests == 100
