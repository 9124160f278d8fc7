"""A repeated Produce request has the answer, and leaves the log, of one that is seen first."""

import random
from typing import Any

import anyio
import pytest

from kbroker.handlers import repeated_produce
from kbroker.handlers.repeated_produce import RepeatedProduce
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.produce_response import read_produce_response
from kbroker.record.compression import GZIP, LZ4, ZSTD
from tests.sizes import size
from tests.unit.data_plane import World, batch, finish, partition_image
from tests.unit.handlers.produce_asking import PRODUCE, Client, encoded

VERSIONS = range(3, 14)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def known(client: Client) -> RepeatedProduce:
    shortcut = client.dispatcher._apis[PRODUCE].shortcut
    assert isinstance(shortcut, RepeatedProduce)
    return shortcut


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acks", [1, -1])
@pytest.mark.parametrize("size_", [1, 40, 200, 20_000])
def test_the_second_request_is_neither_decoded_nor_handled(
    version: int, acks: int, size_: int
) -> None:
    world = World()
    world.topic("a-topic")
    client = Client(world)
    for offset in range(5):
        records = batch(bytes([offset]) * (size_ + offset))
        told = client.told(version, encoded(world, version, ("a-topic", 0, records), acks=acks))
        assert (told.error_code, told.base_offset, told.index) == (0, offset, 0)
        assert told.log_start_offset == (0 if version >= 5 else -1)
    assert client.handled == 0, "the first went by before it was counted"
    log = world.partition("a-topic").log
    assert (log.log_end_offset, log.high_watermark) == (5, 5)


@pytest.mark.parametrize("codec", [LZ4, ZSTD])
def test_compressed_batches_go_the_same_way_where_they_are_allowed(codec: int) -> None:
    world = World()
    world.topic("a-topic")
    client = Client(world)
    for version in (6, 7):
        for offset in range(3):
            records = batch(bytes([offset]) * 500, compression=codec if offset else 0)
            told = client.told(version, encoded(world, version, ("a-topic", 0, records)))
            refused = codec == ZSTD and version < 7 and offset > 0
            expected = ErrorCode.UNSUPPORTED_COMPRESSION_TYPE if refused else ErrorCode.NONE
            assert told.error_code == expected
    assert client.handled == (2 if codec == ZSTD else 0) + 1, "the first of each, what is refused"


def test_topics_partitions_and_clients_are_kept_apart() -> None:
    world = World()
    for name in ("a", "b", "a-longer-name"):
        world.topic(name, 3)
    client = Client(world)
    for offset in range(3):
        for version in (7, 9, 13):
            for name in ("a", "b", "a-longer-name"):
                for index in range(3):
                    body = encoded(world, version, (name, index, batch(b"x")), acks=1)
                    told = client.told(version, body)
                    assert (told.error_code, told.index) == (0, index)
                    assert told.base_offset == offset * 3 + (7, 9, 13).index(version)
    assert client.handled == 3 * 9 - 1


def scripted(world: World, rng: random.Random) -> tuple[int, bytes]:
    """A request, mostly like others."""
    version = rng.choice([3, 7, 8, 9, 12, 13])
    name = rng.choice(["a", "a", "a", "b", "sized", "stamped", "__consumer_offsets", "nope"])
    index = rng.choice([0, 0, 0, 1, 2, -1])
    sequence = rng.randrange(3)
    records: Any = rng.choice(
        [
            batch(b"x" * rng.choice([1, 100, 130, 2000])),
            batch(b"x", b"y", b"z"),
            batch(b"x"),
            batch(b"x", producer_id=5, producer_epoch=0, base_sequence=sequence),
            batch(b"x", producer_id=5, producer_epoch=0, base_sequence=0, transactional=True),
            batch(b"x", compression=GZIP),
            batch(b"x", compression=ZSTD),
            batch(b"x" * 300, b"y", compression=rng.choice([LZ4, ZSTD])),
            batch(b"x") + batch(b"y"),
            batch(b"x", timestamp=1),
            None,
            b"",
        ]
    )
    if records and rng.random() < 0.15:
        records = bytearray(records)
        records[rng.randrange(len(records))] ^= 1 << rng.randrange(8)
    if records and rng.random() < 0.1:
        records = records[: rng.randrange(len(records))]
    partitions = [(name, index, records)]
    if rng.random() < 0.1:
        partitions.append((rng.choice(["a", "b"]), rng.choice([0, 1]), batch(b"second")))
    more: dict[str, Any] = {"acks": rng.choice([1, 1, -1, -1, -1, 0, 2])}
    if rng.random() < 0.05:
        more["transactional_id"] = "t"
    if version >= 9 and rng.random() < 0.1:
        more["unknown_tagged_fields"] = ((77, b"tagged"),)
    body = encoded(world, version, *partitions, **more)
    if rng.random() < 0.05:
        body = body[: rng.randrange(len(body))]
    if rng.random() < 0.05:
        body += b"\0" * rng.randrange(1, 4)
    return version, body


def happen(world: World, rng: random.Random) -> None:
    """Something that changes how requests are answered; the same in every world."""
    what = rng.randrange(8)
    if what == 0:
        world.change_partition("a", 0, leader=2, replicas=(1, 2), leader_epoch=world._revision)
    elif what <= 2:
        world.change_partition("a", 0, leader=1, replicas=(1,), leader_epoch=world._revision)
    elif what == 3:
        world.configure("sized", max_message_bytes=str(rng.choice([80, 1000])))
    elif what == 4:
        world.configure("b", flush_messages=rng.choice(["1", str((1 << 63) - 1)]))
    elif what == 5:
        world.delete_topic("b")
        world.topic("b", 2)
    elif what == 6:
        world.partition("a", 1).delete_records(-1)
    else:
        world.advance(rng.random())


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(size(ci=12, full=300)))
async def test_any_sequence_is_answered_as_by_a_broker_without_shortcuts(seed: int) -> None:
    worlds = []
    for _ in range(2):
        world = World()
        world.topic("a", 2)
        world.topic("b", 2)
        world.topic("sized", 2, max_message_bytes="100")
        world.topic("stamped", 2, message_timestamp_type="LogAppendTime")
        world.topic("__consumer_offsets", 2)
        worlds.append(world)
    ours, theirs = Client(worlds[0]), Client(worlds[1], thorough=True)
    rng = random.Random(seed)
    answers = set()
    for _ in range(250):
        if rng.random() < 0.03:
            state = rng.getstate()
            for world in worlds:
                rng.setstate(state)
                happen(world, rng)
        version, body = scripted(worlds[0], rng)
        client_id = "__admin_client" if rng.random() < 0.05 else "test"
        answer = await ours.answer(version, body, client_id)
        assert answer == await theirs.answer(version, body, client_id)
        answers.add(answer[5:])
    assert len(answers) > 50
    ends = [
        {key: (log.log_end_offset, log.high_watermark) for key, log in w.logs.by_partition.items()}
        for w in worlds
    ]
    assert ends[0] == ends[1]
    assert 0 < ours.handled < 249


def test_an_append_that_fails_is_answered_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.topic()
    ours = Client(world)
    assert ours.told(9, encoded(world, 9, ("t", 0, batch(b"x")))).error_code == 0

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(5, "planted")

    partition = world.partition()
    append, partition.log.append_as_leader = partition.log.append_as_leader, fail  # type: ignore[assignment, method-assign]
    told = ours.told(9, encoded(world, 9, ("t", 0, batch(b"x"))))
    assert told.error_code == ErrorCode.KAFKA_STORAGE_ERROR
    assert (told.base_offset, told.log_start_offset) == (-1, -1)
    assert [record.exc_info is not None for record in caplog.records] == [True]
    partition.log.append_as_leader = append  # type: ignore[method-assign]
    assert ours.told(9, encoded(world, 9, ("t", 0, batch(b"x")))).base_offset == 1
    assert ours.handled == 0


def test_sequences_of_idempotent_producers() -> None:
    world = World()
    world.topic()
    client = Client(world)

    def send(sequence: int) -> tuple[int, int]:
        records = batch(b"x", producer_id=9, producer_epoch=0, base_sequence=sequence)
        told = client.told(9, encoded(world, 9, ("t", 0, records)))
        return told.error_code, told.base_offset

    assert [send(0), send(1), send(1), send(0)] == [(0, 0), (0, 1), (0, 1), (0, 0)]
    assert send(5) == (ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
    assert send(2) == (0, 2)
    assert client.handled == 0


@pytest.mark.anyio
async def test_replicas_that_join_before_the_image_is_published_are_waited_for() -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,))
    client = Client(world)
    assert client.told(9, encoded(world, 9, ("t", 0, batch(b"x")))).error_code == 0
    partition = world.partition()
    partition.update(partition_image(1, (1, 2), (1, 2), 0, world._revision))
    answers: list[Any] = []

    async def wait() -> None:
        answers.append(await finish(client.send(9, encoded(world, 9, ("t", 0, batch(b"x"))))))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        assert client.handled == 0
        follower = partition.follower(2, knows_leader_epoch=True)
        partition.update_follower(follower, log_end_offset=2, log_start_offset=0)
    response, _ = read_produce_response(b"".join(answers[0]), 5, 9)
    told = response.responses[0].partition_responses[0]
    assert (told.error_code, told.base_offset) == (0, 1)


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_produce, "_MOST", 10)
    world = World()
    world.topic("t", 50)
    client = Client(world)
    for index in range(50):
        assert client.told(9, encoded(world, 9, ("t", index, batch(b"x")))).error_code == 0
        kept = known(client)._versions[9]
        assert len(kept.requests) <= 10
        assert len(kept.before) <= 10
