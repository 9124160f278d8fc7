"""A request with several batches has the answer, and leaves the logs, of one that is decoded."""

import random
from typing import Any

import anyio
import pytest

from kbroker.handlers.several_batches import MOST_BATCHES
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.produce_response import ProduceResponse, read_produce_response
from kbroker.record.compression import GZIP, LZ4
from tests.sizes import size
from tests.unit.data_plane import World, batch, finish, partition_image
from tests.unit.handlers.produce_asking import PRODUCE, Client, encoded

VERSIONS = range(9, 14)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def world_of(*names: str, partitions: int = 3) -> World:
    world = World()
    for name in names:
        world.topic(name, partitions)
    return world


def asked(world: World) -> Client:
    """A client whose requests are counted where a handler sees them."""
    client = Client(world)
    client.dispatcher._load(PRODUCE)
    return client


def outcomes(response: ProduceResponse) -> list[tuple[int, int, int]]:
    """(index, error, base offset) of every partition in the order of the answer."""
    return [
        (each.index, each.error_code, each.base_offset)
        for topic in response.responses
        for each in topic.partition_responses
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acks", [1, -1])
def test_batches_of_several_partitions_are_appended_unseen_by_the_handler(
    version: int, acks: int
) -> None:
    world = world_of("a", "longer-name")
    client = asked(world)
    sent = [
        *(("a", 2, batch(b"x")), ("a", 0, batch(b"y" * 200, b"z"))),
        *(("longer-name", 1, batch(b"w" * 20_000)), ("longer-name", 0, batch(b"v"))),
    ]
    for times in range(3):
        response = client.told_of_all(version, encoded(world, version, *sent, acks=acks))
        assert outcomes(response) == [
            *((2, 0, times), (0, 0, 2 * times), (1, 0, times), (0, 0, times)),
        ]
        if version < 13:
            assert [topic.name for topic in response.responses] == ["a", "longer-name"]
    assert client.handled == 0
    assert world.partition("a", 0).log.high_watermark == 6


def test_a_sequence_that_is_out_of_order_is_the_error_of_its_partition_alone() -> None:
    world = world_of("a")
    client = asked(world)

    def send(*sequences: int) -> list[tuple[int, int, int]]:
        batches = [
            ("a", index, batch(b"x", producer_id=9, producer_epoch=0, base_sequence=sequence))
            for index, sequence in enumerate(sequences)
        ]
        return outcomes(client.told_of_all(13, encoded(world, 13, *batches)))

    assert send(0, 0, 0) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    refused = ErrorCode.OUT_OF_ORDER_SEQUENCE_NUMBER
    assert send(1, 7, 1) == [(0, 0, 1), (1, refused, -1), (2, 0, 1)]
    assert send(1, 1, 2) == [(0, 0, 1), (1, 0, 1), (2, 0, 2)], "the first is a duplicate"
    assert [world.partition("a", index).log.log_end_offset for index in range(3)] == [2, 2, 3]
    assert client.handled == 0


def test_a_disk_that_fails_is_the_error_of_its_partition_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = world_of("a")
    client = asked(world)

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(5, "planted")

    log = world.partition("a", 1).log
    log.append_as_leader = fail  # type: ignore[assignment, method-assign]
    body = encoded(world, 9, *(("a", index, batch(b"x")) for index in range(3)))
    told = outcomes(client.told_of_all(9, body))
    assert told == [(0, 0, 0), (1, ErrorCode.KAFKA_STORAGE_ERROR, -1), (2, 0, 0)]
    assert [record.exc_info is not None for record in caplog.records] == [True]
    assert client.handled == 0


def unsound(rng: random.Random) -> Any:
    """A batch that is refused, or that needs more than a look."""
    records = rng.choice(
        [
            batch(b"x", producer_id=5, producer_epoch=0, base_sequence=0, transactional=True),
            batch(b"x", compression=rng.choice([GZIP, LZ4])),
            batch(b"x") + batch(b"y"),
            batch(b"x", timestamp=1),
            b"",
            None,
            batch(b"x"),
        ]
    )
    if records and rng.random() < 0.5:
        records = bytearray(records)
        if rng.random() < 0.5:
            records[rng.randrange(len(records))] ^= 1 << rng.randrange(8)
        else:
            records = records[: rng.randrange(len(records))]
    return records


def scripted(world: World, rng: random.Random) -> tuple[int, bytes]:
    """A request for several partitions, mostly sound."""
    version = rng.choice([8, 9, 10, 12, 13, 13])
    names = rng.sample(["a", "b", "sized", "stamped"], rng.choice([1, 1, 2]))
    if rng.random() < 0.1:
        names.append(rng.choice(["__consumer_offsets", "nope"]))
    partitions = []
    for name in names:
        for index in rng.sample(range(3), rng.choice([1, 2, 3])):
            sequence = rng.randrange(3)
            records: Any = rng.choice(
                [
                    batch(b"x" * rng.choice([1, 100, 130, 2000])),
                    batch(*[rng.randbytes(30)] * 9),
                    batch(b"x", producer_id=5, producer_epoch=0, base_sequence=sequence),
                ]
            )
            if rng.random() < 0.05:
                records = unsound(rng)
            partitions.append((name, index if rng.random() < 0.97 else 7, records))
    if rng.random() < 0.05:
        partitions.append(partitions[0])
    more: dict[str, Any] = {"acks": rng.choice([1, 1, -1, -1, -1, -1, 0, 2])}
    if rng.random() < 0.03:
        more["transactional_id"] = "t"
    if version >= 9 and rng.random() < 0.05:
        more["unknown_tagged_fields"] = ((77, b"tagged"),)
    body = encoded(world, version, *partitions, **more)
    if rng.random() < 0.05:
        body = body[: rng.randrange(len(body))]
    if rng.random() < 0.05:
        body += b"\0" * rng.randrange(1, 4)
    if rng.random() < 0.05:
        place = rng.randrange(len(body))
        body = body[:place] + bytes([rng.randrange(256)]) + body[place + 1 :]
    return version, body


def happen(world: World, rng: random.Random) -> None:
    """Something that changes how requests are answered; the same in every world."""
    what = rng.randrange(5)
    if what <= 1:
        leader = 2 - what
        replicas = (1, 2) if leader == 2 else (1,)
        world.change_partition(
            "a", 0, leader=leader, replicas=replicas, leader_epoch=world._revision
        )
    elif what == 2:
        world.configure("sized", max_message_bytes=str(rng.choice([80, 1000])))
    elif what == 3:
        world.configure("b", flush_messages=rng.choice(["1", str((1 << 63) - 1)]))
    else:
        world.partition("b", 1).delete_records(-1)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(size(ci=12, full=300)))
async def test_any_sequence_is_answered_as_by_a_broker_without_shortcuts(seed: int) -> None:
    worlds = []
    for _ in range(2):
        world = world_of("a", "b", "__consumer_offsets")
        world.topic("sized", 3, max_message_bytes="100")
        world.topic("stamped", 3, message_timestamp_type="LogAppendTime")
        worlds.append(world)
    ours, theirs = asked(worlds[0]), Client(worlds[1], thorough=True)
    rng = random.Random(seed)
    for _ in range(200):
        if rng.random() < 0.03:
            state = rng.getstate()
            for world in worlds:
                rng.setstate(state)
                happen(world, rng)
        version, body = scripted(worlds[0], rng)
        assert await ours.answer(version, body) == await theirs.answer(version, body)
    ends = [
        {key: (log.log_end_offset, log.high_watermark) for key, log in w.logs.by_partition.items()}
        for w in worlds
    ]
    assert ends[0] == ends[1]
    assert 0 < ours.handled < 190


@pytest.mark.anyio
async def test_acks_of_all_wait_for_the_partitions_that_have_followers() -> None:
    world = world_of("a")
    partition = world.partition("a", 1)
    partition.update(partition_image(1, (1, 2), (1, 2), 0, world._revision))
    client = asked(world)
    answers: list[Any] = []

    async def wait() -> None:
        body = encoded(world, 13, *(("a", index, batch(b"x")) for index in range(3)))
        answers.append(await finish(client.send(13, body)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        follower = partition.follower(2, knows_leader_epoch=True)
        partition.update_follower(follower, log_end_offset=1, log_start_offset=0)
    response, _ = read_produce_response(b"".join(answers[0]), 5, 13)
    assert outcomes(response) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]
    assert client.handled == 0


@pytest.mark.anyio
async def test_too_many_batches_for_one_turn_are_left_to_the_handler() -> None:
    world = world_of("a", partitions=MOST_BATCHES + 1)
    client = asked(world)
    for count, handled in ((MOST_BATCHES, 0), (MOST_BATCHES + 1, 1)):
        body = encoded(world, 13, *(("a", index, batch(b"x")) for index in range(count)))
        assert len(await client.answer(13, body)) > 30 * count
        assert client.handled == handled
