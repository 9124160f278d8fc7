"""Fetch: limits, waits, errors, sessions, in the shape that Kafka answers them."""

from typing import Any

import anyio
import pytest

from kbroker.handlers import api_01_fetch
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.fetch_request import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ForgottenTopic,
    ReplicaState,
)
from kbroker.protocol.messages.fetch_response import (
    FetchResponse,
    PartitionData,
    write_fetch_response,
)
from kbroker.record.batch import iter_batches
from tests.unit.data_plane import World, finish

ANYTHING = 1 << 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def request(
    *partitions: tuple[str, int, int],
    max_wait_ms: int = 0,
    min_bytes: int = 1,
    max_bytes: int = ANYTHING,
    partition_max_bytes: int = ANYTHING,
    isolation_level: int = 0,
    session_id: int = 0,
    session_epoch: int = -1,
    replica_id: int = -1,
    **partition_fields: int,
) -> FetchRequest:
    """``partitions`` are (topic, index, fetch offset); neighbours of one topic share its entry."""
    topics: list[FetchTopic] = []
    for name, index, offset in partitions:
        if not topics or topics[-1].topic != name:
            topics.append(FetchTopic(name))
        topics[-1].partitions.append(
            FetchPartition(
                partition=index,
                fetch_offset=offset,
                partition_max_bytes=partition_max_bytes,
                **partition_fields,
            )
        )
    return FetchRequest(
        replica_id=replica_id,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        isolation_level=isolation_level,
        session_id=session_id,
        session_epoch=session_epoch,
        topics=topics,
    )


def handle(world: World, asked: FetchRequest, version: int = 12) -> Any:
    return api_01_fetch.handle(world.services, world.context(1, version), asked)


def fetch(world: World, asked: FetchRequest, version: int = 12) -> FetchResponse:
    """The answer of a request that does not wait, which can be encoded."""
    answer = handle(world, asked, version)
    assert isinstance(answer, FetchResponse)
    write_fetch_response([], answer, version)
    return answer


def one(world: World, asked: FetchRequest, version: int = 12) -> PartitionData:
    [topic] = fetch(world, asked, version).responses
    [partition] = topic.partitions
    return partition


def offsets(partition: PartitionData) -> list[int]:
    """Base offsets of the whole batches in the answer."""
    records = b"".join(partition.records.parts())
    assert len(records) == len(partition.records)
    return [header.base_offset for header in iter_batches(records)]


def told(partition: PartitionData) -> tuple[int, int, int, int]:
    return (
        partition.error_code,
        partition.high_watermark,
        partition.last_stable_offset,
        partition.log_start_offset,
    )


def filled(count: int = 3, partitions: int = 1) -> World:
    world = World()
    world.topic("t", partitions)
    for index in range(partitions):
        for _ in range(count):
            world.append(b"x" * 90, index=index)
    return world


@pytest.mark.parametrize("version", range(4, 19))
def test_from_the_start_the_middle_and_the_end(version: int) -> None:
    world = filled()
    topic = world.metadata.image.topics.by_name["t"]
    for offset, expected in ((0, [0, 1, 2]), (1, [1, 2]), (3, [])):
        asked = request(("t", 0, offset))
        if version >= 13:
            asked.topics[0].topic_id = topic.topic_id
        answer = fetch(world, asked, version)
        [response] = answer.responses
        [partition] = response.partitions
        assert told(partition) == (0, 3, 3, 0)
        assert partition.aborted_transactions is None
        assert offsets(partition) == expected
        assert (answer.error_code, answer.session_id) == (0, 0)


def test_records_are_never_null() -> None:
    world = filled()
    for asked in (
        request(("t", 0, 3)),
        request(("t", 0, 99)),
        request(("nope", 0, 0)),
        request(("t", 0, 0), current_leader_epoch=9),
    ):
        partition = one(world, asked)
        assert partition.records is not None
        assert len(partition.records) == 0


def test_offsets_outside_the_log() -> None:
    world = filled()
    out_of_range = (ErrorCode.OFFSET_OUT_OF_RANGE, -1, -1, -1)
    for offset in (4, -1, 2**63 - 1):
        partition = one(world, request(("t", 0, offset), max_wait_ms=1000))
        assert told(partition) == out_of_range
        assert partition.aborted_transactions is None
    world.partition().delete_records(2)
    assert told(one(world, request(("t", 0, 1)))) == out_of_range
    assert told(one(world, request(("t", 0, 2)))) == (0, 3, 3, 2)


def test_unknown_partitions_have_empty_aborted_transactions() -> None:
    world = filled()
    for asked in (request(("nope", 0, 0)), request(("t", 5, 0)), request(("t", -1, 0))):
        partition = one(world, asked)
        assert told(partition) == (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1, -1, -1)
        assert partition.aborted_transactions == []


def test_unknown_topic_ids() -> None:
    world = filled()
    for topic_id in (bytes([7]) * 16, bytes(16)):
        asked = request(("", 0, 0))
        asked.topics[0].topic_id = topic_id
        [topic] = fetch(world, asked, 13).responses
        assert topic.topic_id == topic_id
        assert topic.partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID


def test_limits_of_a_partition() -> None:
    world = filled(4)
    size = len(one(world, request(("t", 0, 3))).records)
    for limit, expected in ((0, size), (1, size), (size, size), (size + 1, size + 1)):
        partition = one(world, request(("t", 0, 0), partition_max_bytes=limit))
        assert len(partition.records) == expected
    for limit in (-1, -(2**31)):
        partition = one(world, request(("t", 0, 0), partition_max_bytes=limit))
        assert told(partition) == (ErrorCode.UNKNOWN_SERVER_ERROR, -1, -1, -1)


def test_limits_of_the_request() -> None:
    world = filled(2, partitions=2)
    size = len(one(world, request(("t", 0, 1))).records)
    for limit, first, second in (
        (0, size, 0),
        (size, size, 0),
        (size * 2, size * 2, 0),
        (size * 2 + 10, size * 2, 0),
        (size * 3, size * 2, size),
        (size * 4, size * 2, size * 2),
    ):
        answer = fetch(world, request(("t", 1, 0), ("t", 0, 0), max_bytes=limit))
        partitions = answer.responses[0].partitions
        assert [each.partition_index for each in partitions] == [1, 0]
        assert [len(each.records) for each in partitions] == [first, second]
    answer = fetch(world, request(("t", 1, 0), ("t", 0, 0), max_bytes=-1))
    first_one, second_one = answer.responses[0].partitions
    assert first_one.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert len(second_one.records) == size


def test_the_broker_has_a_limit_too() -> None:
    world = World(fetch_max_bytes="1024")
    world.topic()
    for _ in range(20):
        world.append(b"x" * 90)
    assert len(one(world, request(("t", 0, 0))).records) == 1024


def test_a_partition_named_twice_counts_once_with_its_later_offset() -> None:
    world = filled()
    [topic] = fetch(world, request(("t", 0, 0), ("t", 0, 2))).responses
    assert [offsets(each) for each in topic.partitions] == [[2]]


def test_refused_partitions_come_last_and_topics_are_grouped() -> None:
    world = filled(1, partitions=3)
    asked = request(("t", 2, 0), ("t", 9, 0), ("nope", 0, 0), ("t", 1, 77), max_wait_ms=2000)
    answer = fetch(world, asked)
    assert [
        (topic.topic, [each.partition_index for each in topic.partitions])
        for topic in answer.responses
    ] == [("t", [2, 1, 9]), ("nope", [0])]


@pytest.mark.parametrize(("replica_id", "order"), [(-1, [7, 5, 6]), (2, [5, 6, 7])])
def test_consumers_are_told_of_unknown_ids_first(replica_id: int, order: list[int]) -> None:
    world = filled()
    topic_id = world.metadata.image.topics.by_name["t"].topic_id
    asked = request(("t", 5, 0), ("t", 6, 0), ("x", 7, 0), replica_id=replica_id)
    asked.topics[0].topic_id = topic_id
    asked.topics[1].topic_id = bytes([9]) * 16
    answer = fetch(world, asked, 14)
    assert [
        each.partition_index for topic in answer.responses for each in topic.partitions
    ] == order


@pytest.mark.parametrize("level", [2, -1])
def test_an_unknown_isolation_level_fails_the_request(level: int) -> None:
    world = filled()
    asked = request(("t", 0, 0), isolation_level=level)
    with pytest.raises(KafkaError) as raised:
        fetch(world, asked)
    answer = api_01_fetch.error_response(asked, raised.value, 12)
    assert answer.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    [partition] = answer.responses[0].partitions
    assert told(partition) == (ErrorCode.UNKNOWN_SERVER_ERROR, -1, -1, -1)
    assert partition.aborted_transactions == []
    assert api_01_fetch.error_response(asked, raised.value, 13).responses == []
    unknown = one(world, request(("nope", 0, 0), isolation_level=level))
    assert unknown.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION  # nothing was read


def test_read_committed_lists_aborted_transactions() -> None:
    world = filled()
    for offset in (0, 3):
        partition = one(world, request(("t", 0, offset), isolation_level=1))
        assert partition.aborted_transactions == []
    assert one(world, request(("t", 0, 9), isolation_level=1)).aborted_transactions is None


@pytest.mark.parametrize(
    ("epoch", "error"),
    [
        (0, ErrorCode.FENCED_LEADER_EPOCH),
        (3, ErrorCode.NONE),
        (5, ErrorCode.UNKNOWN_LEADER_EPOCH),
        (-1, ErrorCode.NONE),
        (-2, ErrorCode.NONE),
    ],
)
def test_the_current_leader_epoch(epoch: int, error: ErrorCode) -> None:
    world = World()
    world.topic(leader_epoch=3)
    world.append(b"x")
    partition = one(world, request(("t", 0, 0), current_leader_epoch=epoch))
    assert partition.error_code == error


def test_the_last_fetched_epoch() -> None:
    world = filled(2)
    world.change_partition(leader_epoch=4)
    world.append(b"y")
    for offset, epoch, error, diverging in (
        (0, 0, 0, (-1, -1)),
        (3, 4, 0, (-1, -1)),
        (3, 0, 0, (0, 2)),  # epoch 0 ended at 2
        (3, 3, 0, (0, 2)),  # epoch 3 never was: the one before it ended at 2
        (2, 5, ErrorCode.OFFSET_OUT_OF_RANGE, (-1, -1)),
        (9, 4, 0, (4, 3)),
        (9, -1, ErrorCode.OFFSET_OUT_OF_RANGE, (-1, -1)),
        (1, -2, 0, (-1, -1)),
    ):
        partition = one(world, request(("t", 0, offset), last_fetched_epoch=epoch))
        assert partition.error_code == error, (offset, epoch)
        answered = partition.diverging_epoch
        assert (answered.epoch, answered.end_offset) == diverging, (offset, epoch)
        if diverging != (-1, -1):
            assert len(partition.records) == 0
    world.partition().delete_records(2)
    below = one(world, request(("t", 0, 1), last_fetched_epoch=0))
    assert below.error_code == ErrorCode.OFFSET_OUT_OF_RANGE


@pytest.mark.parametrize("version", [12, 15])
def test_replicas_that_are_none(version: int) -> None:
    world = filled(2)
    for replica_id, error in ((-2, 0), (-3, 0), (99, 6), (1, 6)):
        asked = request(("t", 0, 0), replica_id=replica_id)
        if version >= 15:
            asked.replica_id = -1
            asked.replica_state = ReplicaState(replica_id)
            asked.topics[0].topic_id = world.metadata.image.topics.by_name["t"].topic_id
        assert one(world, asked, version).error_code == error


def test_a_followers_fetch_moves_the_high_watermark() -> None:
    world = World()
    world.topic(replicas=(1, 2))
    world.append(b"x")
    assert offsets(one(world, request(("t", 0, 0)))) == []
    assert offsets(one(world, request(("t", 0, 0), replica_id=2))) == [0]
    assert world.partition().log.high_watermark == 0
    answer = one(world, request(("t", 0, 1), replica_id=2, log_start_offset=0))
    assert answer.high_watermark == 0  # as it was before this fetch
    assert world.partition().log.high_watermark == 1
    assert offsets(one(world, request(("t", 0, 0)))) == [0]


def test_a_follower_names_the_leader() -> None:
    world = World()
    world.topic(leader=2, replicas=(1, 2))
    topic_id = world.metadata.image.topics.by_name["t"].topic_id
    asked = request(("t", 0, 0), current_leader_epoch=-1)
    asked.topics[0].topic_id = topic_id
    answer = fetch(world, asked, 16)
    [partition] = answer.responses[0].partitions
    assert partition.error_code == 0  # consumers of v11 and later may read from a follower
    asked.replica_id, asked.replica_state = -1, ReplicaState(3)
    answer = fetch(world, asked, 16)
    [partition] = answer.responses[0].partitions
    assert partition.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert (partition.current_leader.leader_id, partition.current_leader.leader_epoch) == (2, 0)
    assert answer.node_endpoints == []  # a follower knows the brokers itself
    world.change_partition(leader=2, replicas=(2,), leader_epoch=1)
    asked.replica_state = ReplicaState()
    answer = fetch(world, asked, 16)
    assert answer.responses[0].partitions[0].current_leader.leader_epoch == 1
    assert [(node.node_id, node.host) for node in answer.node_endpoints] == [(2, "host2")]


def test_old_consumers_do_not_read_from_a_follower() -> None:
    world = World()
    world.topic(leader=2, replicas=(1, 2))
    assert one(world, request(("t", 0, 0)), 10).error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
    assert one(world, request(("t", 0, 0)), 11).error_code == ErrorCode.NONE


@pytest.mark.parametrize(
    ("offset", "max_wait_ms", "min_bytes"), [(3, 0, 1), (3, -1, 1), (3, 5000, 0), (0, 5000, 1)]
)
def test_answers_that_do_not_wait(offset: int, max_wait_ms: int, min_bytes: int) -> None:
    fetch(filled(), request(("t", 0, offset), max_wait_ms=max_wait_ms, min_bytes=min_bytes))


class Waiting:
    """A fetch in a task of its own."""

    def __init__(self, world: World, asked: FetchRequest, version: int = 12) -> None:
        self.world = world
        self.answer: FetchResponse | None = None
        self.handled = handle(world, asked, version)
        assert not isinstance(self.handled, FetchResponse)

    async def run(self) -> None:
        self.answer = await finish(self.handled)

    def partition(self) -> PartitionData:
        assert self.answer is not None
        return self.answer.responses[0].partitions[0]


@pytest.mark.anyio
async def test_new_data_wakes_the_fetch() -> None:
    world = filled(partitions=2)
    waiting = Waiting(world, request(("t", 0, 3), ("t", 1, 3), max_wait_ms=5000))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        await anyio.wait_all_tasks_blocked()
        assert waiting.answer is None
        world.append(b"new", index=1)
    assert waiting.answer is not None
    first, second = waiting.answer.responses[0].partitions
    assert (offsets(first), offsets(second)) == ([], [3])
    assert world.manager.delayed.fetch.watched_keys == 0
    assert world.timer.pending == 0


@pytest.mark.anyio
async def test_data_that_came_before_the_wait_began_is_not_missed() -> None:
    world = filled()
    waiting = Waiting(world, request(("t", 0, 3), max_wait_ms=5000))
    world.append(b"new")  # nobody waits yet: the coroutine has not run
    with anyio.fail_after(5):
        await waiting.run()
    assert offsets(waiting.partition()) == [3]


@pytest.mark.anyio
async def test_the_wait_ends_with_what_there_is() -> None:
    world = filled(2)
    waiting = Waiting(world, request(("t", 0, 0), max_wait_ms=500, min_bytes=100_000))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        await anyio.wait_all_tasks_blocked()
        world.append(b"x")
        world.advance(0.4)
        await anyio.wait_all_tasks_blocked()
        assert waiting.answer is None
        world.advance(0.2)
    assert offsets(waiting.partition()) == [0, 1, 2]


@pytest.mark.anyio
async def test_min_bytes_counts_over_all_partitions() -> None:
    world = filled(1, partitions=3)
    size = len(one(world, request(("t", 0, 0))).records)
    waiting = Waiting(
        world,
        request(*(("t", index, 1) for index in range(3)), max_wait_ms=5000, min_bytes=3 * size),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        for index in (0, 0, 1):
            await anyio.wait_all_tasks_blocked()
            assert waiting.answer is None
            world.append(b"x" * 90, index=index)
    assert waiting.answer is not None


@pytest.mark.anyio
async def test_a_partitions_limit_bounds_what_it_adds_to_min_bytes() -> None:
    world = filled(1, partitions=2)
    asked = request(
        ("t", 0, 1), ("t", 1, 1), max_wait_ms=5000, min_bytes=20, partition_max_bytes=15
    )
    waiting = Waiting(world, asked)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        for _ in range(5):
            await anyio.wait_all_tasks_blocked()
            assert waiting.answer is None
            world.append(b"x" * 90, index=0)  # at most 15 bytes count
        await anyio.wait_all_tasks_blocked()
        world.append(b"x" * 90, index=1)
    assert waiting.answer is not None


@pytest.mark.anyio
@pytest.mark.parametrize("change", ["leader", "epoch", "deleted", "truncated"])
async def test_changes_of_a_partition_end_the_wait(change: str) -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,))
    world.append(b"x")
    waiting = Waiting(world, request(("t", 0, 1), max_wait_ms=5000, current_leader_epoch=0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        await anyio.wait_all_tasks_blocked()
        if change == "leader":
            world.change_partition(leader=2, replicas=(1, 2))
        elif change == "epoch":
            world.change_partition(replicas=(1, 2))
        elif change == "deleted":
            world.delete_topic("t")
        else:
            world.partition().log.truncate_to(0)
            world.manager.delayed.check_all(world.partition())
    expected = {
        "leader": ErrorCode.FENCED_LEADER_EPOCH,
        "epoch": ErrorCode.FENCED_LEADER_EPOCH,
        "deleted": ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        "truncated": ErrorCode.OFFSET_OUT_OF_RANGE,
    }
    assert waiting.partition().error_code == expected[change]


@pytest.mark.anyio
async def test_an_error_of_one_partition_answers_for_all() -> None:
    world = filled(1, partitions=2)
    fetch(world, request(("t", 0, 1), ("t", 1, 9), max_wait_ms=5000))


@pytest.mark.anyio
async def test_a_cancelled_fetch_leaves_nothing_behind() -> None:
    world = filled()
    waiting = Waiting(world, request(("t", 0, 3), max_wait_ms=5000))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(waiting.run)
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert world.manager.delayed.fetch.watched_keys == 0
    assert world.timer.pending == 0


@pytest.mark.anyio
async def test_many_partitions_give_way() -> None:
    world = filled(1, partitions=150)
    asked = request(*(("t", index, 0) for index in range(150)))
    answer = await finish(handle(world, asked))
    [topic] = answer.responses
    assert [each.partition_index for each in topic.partitions] == list(range(150))
    assert all(offsets(each) == [0] for each in topic.partitions)


def test_a_session_over_the_wire_format() -> None:
    world = filled(1, partitions=2)
    opened = fetch(world, request(("t", 0, 0), ("t", 1, 0), session_epoch=0))
    session_id = opened.session_id
    assert session_id > 0
    asked = request(("t", 0, 1), ("t", 1, 1), session_id=session_id, session_epoch=1)
    assert fetch(world, asked).responses == []
    world.append(b"x", index=1)
    answer = fetch(world, request(session_id=session_id, session_epoch=2))
    assert answer.session_id == session_id
    assert [offsets(each) for each in answer.responses[0].partitions] == [[1]]
    forget = request(session_id=session_id, session_epoch=3)
    forget.forgotten_topics_data = [ForgottenTopic("t", partitions=[0, 1])]
    assert fetch(world, forget).session_id == 0
    gone = fetch(world, request(session_id=session_id, session_epoch=4))
    assert gone.error_code == ErrorCode.FETCH_SESSION_ID_NOT_FOUND
    assert (gone.session_id, gone.responses) == (0, [])


def test_a_session_of_ids_knows_a_deleted_topic_by_its_name() -> None:
    world = filled()
    topic_id = world.metadata.image.topics.by_name["t"].topic_id
    asked = request(("t", 0, 3), session_epoch=0)
    asked.topics[0].topic_id = topic_id
    session_id = fetch(world, asked, 13).session_id
    world.delete_topic("t")
    answer = fetch(world, request(session_id=session_id, session_epoch=1), 13)
    [partition] = answer.responses[0].partitions
    assert partition.error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
    world.topic("t")
    answer = fetch(world, request(session_id=session_id, session_epoch=2), 13)
    [partition] = answer.responses[0].partitions
    assert partition.error_code == ErrorCode.INCONSISTENT_TOPIC_ID


def test_a_session_learns_the_name_of_an_id_that_came_late() -> None:
    world = World()
    late = (1).to_bytes(16, "big")  # the id that the world gives to its first topic
    asked = request(("", 0, 0), session_epoch=0)
    asked.topics[0].topic_id = late
    opened = fetch(world, asked, 13)
    assert opened.responses[0].partitions[0].error_code == ErrorCode.UNKNOWN_TOPIC_ID
    assert world.topic("t").topic_id == late
    world.append(b"x")
    answer = fetch(world, request(session_id=opened.session_id, session_epoch=1), 13)
    assert offsets(answer.responses[0].partitions[0]) == [0]


def test_a_failing_disk_is_told_as_old_clients_understand_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = filled()

    def fail(*arguments: object, **named: object) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(world.partition().log, "read", fail)
    for version, error in (
        (5, ErrorCode.NOT_LEADER_OR_FOLLOWER),
        (6, ErrorCode.KAFKA_STORAGE_ERROR),
    ):
        assert told(one(world, request(("t", 0, 0)), version)) == (error, -1, -1, -1)


def test_a_bug_costs_one_partition_only(monkeypatch: pytest.MonkeyPatch) -> None:
    world = filled(1, partitions=2)

    def fail(*arguments: object, **named: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.partition("t", 0).log, "read", fail)
    first, second = fetch(world, request(("t", 0, 0), ("t", 1, 0))).responses[0].partitions
    assert first.error_code == ErrorCode.UNKNOWN_SERVER_ERROR
    assert offsets(second) == [0]
