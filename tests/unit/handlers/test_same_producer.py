"""A producer that dispatch is spared has the answers, and the log, of one that is not."""

import random
from typing import Any

import anyio
import pytest

from kbroker.handlers.same_producer import SameProducer
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.produce_response import (
    PartitionProduceResponse,
    read_produce_response,
)
from kbroker.record.compression import GZIP
from tests.sizes import size
from tests.unit.data_plane import World, batch, partition_image
from tests.unit.handlers.produce_asking import PRODUCE, encoded
from tests.unit.handlers.wire_peer import WirePeer

pytestmark = pytest.mark.anyio
VERSIONS = range(3, 14)


def peer(world: World, *, lets_repeat: bool = True) -> WirePeer:
    return WirePeer(world.services, lets_repeat=lets_repeat)


async def told(
    client: WirePeer, world: World, version: int, records: Any, *, acks: int = -1
) -> PartitionProduceResponse:
    body = encoded(world, version, ("t", 0, records), acks=acks)
    return read(await client.ask(PRODUCE, version, body), version)


def read(answer: bytes, version: int) -> PartitionProduceResponse:
    assert int.from_bytes(answer[:4], "big") == len(answer) - 4
    response, end = read_produce_response(answer, 9 if version >= 9 else 8, version)
    assert end == len(answer)
    return response.responses[0].partition_responses[0]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("acks", [1, -1])
async def test_the_fourth_request_is_not_dispatched(version: int, acks: int) -> None:
    world = World()
    world.topic()
    client = peer(world)
    for offset in range(8):
        records = batch(bytes([offset]) * (1 + 50 * offset))
        answer = await told(client, world, version, records, acks=acks)
        assert (answer.error_code, answer.base_offset, answer.index) == (0, offset, 0)
    # Seen, known, known again; before v5 the answers are shorter, and dispatch is asked each time.
    assert client.dispatched == (3 if version >= 5 else 8)
    log = world.partition().log
    assert (log.log_end_offset, log.high_watermark) == (8, 8)


async def test_nobody_is_spared_where_requests_are_looked_at() -> None:
    world = World()
    world.topic()
    client = peer(world, lets_repeat=False)
    for offset in range(6):
        assert (await told(client, world, 9, batch(b"x"))).base_offset == offset
    assert client.dispatched == 6
    assert client.context.repeated is None


async def test_partitions_in_turn_are_dispatched() -> None:
    world = World()
    world.topic("t", 2)
    client = peer(world)
    for number in range(12):
        body = encoded(world, 9, ("t", number % 2, batch(b"x")))
        assert read(await client.ask(PRODUCE, 9, body), 9).base_offset == number // 2
    assert client.dispatched == 12
    assert client.context.repeated is None


async def test_requests_that_arrive_together() -> None:
    world = World()
    world.topic()
    client = peer(world)
    body = encoded(world, 9, ("t", 0, batch(b"x")))
    for _ in range(3):
        await client.ask(PRODUCE, 9, body)
    answers = await client.send(*(client.frame(PRODUCE, 9, body) for _ in range(5)))
    one = len(answers) // 5
    offsets = [read(answers[n * one : n * one + one], 9).base_offset for n in range(5)]
    assert offsets == [3, 4, 5, 6, 7]
    numbers = [int.from_bytes(answers[n * one + 4 : n * one + 8], "big") for n in range(5)]
    assert numbers == [4, 5, 6, 7, 8]
    assert client.dispatched == 3


def happen(world: World, rng: random.Random) -> None:
    """Something that answers depend on changes."""
    what = rng.randrange(4)
    if what == 0:
        world.topic(f"new-{world._revision}", 1)
    elif what == 1:
        world.partition("t", rng.randrange(2)).delete_records(-1)
    else:
        world.advance(rng.random())


def scripted(world: World, rng: random.Random, kind: int) -> tuple[int, bytes]:
    version = (9, 7, 13, 5)[kind % 4]
    place = "t" if kind < 6 else "none", kind % 2
    chance = rng.random()
    records = batch(bytes(rng.randrange(200)), timestamp=world.clock.time_ms())
    if chance < 0.04:
        records = records[:-1] + bytes([records[-1] ^ 1])
    elif chance < 0.08:
        records = batch(b"x", compression=GZIP)
    elif chance < 0.1:
        records = records + records
    body = encoded(world, version, (*place, records), acks=(-1, 1)[kind % 3 == 0])
    if 0.1 < chance < 0.13:
        body = body[: rng.randrange(len(body))] if rng.random() < 0.1 else body + b"\0"
    return version, body


@pytest.mark.parametrize("seed", range(size(ci=10, full=300)))
async def test_any_sequence_is_answered_as_by_dispatch(seed: int) -> None:
    worlds = [World(), World()]
    for world in worlds:
        world.topic("t", 2)
    ours, theirs = peer(worlds[0]), peer(worlds[1], lets_repeat=False)
    rng = random.Random(seed)
    for _ in range(60):
        if rng.random() < 0.1:
            state = rng.getstate()
            for world in worlds:
                rng.setstate(state)
                happen(world, rng)
        kind = rng.randrange(8)
        client_id = rng.choice(["one", "two"])
        for _ in range(rng.randrange(1, 8)):
            version, body = scripted(worlds[0], rng, kind)
            answer = await ours.ask(PRODUCE, version, body, client_id)
            assert answer == await theirs.ask(PRODUCE, version, body, client_id)
            if ours.connection.close_reason is not None:
                assert theirs.connection.close_reason == ours.connection.close_reason
                break
        if ours.connection.close_reason is not None:
            break
    else:
        assert ours.dispatched < theirs.dispatched
    ends = [
        {key: (log.log_end_offset, log.high_watermark) for key, log in w.logs.by_partition.items()}
        for w in worlds
    ]
    assert ends[0] == ends[1]


async def warmed(world: World) -> WirePeer:
    """A connection that is spared dispatch from now on."""
    client = peer(world)
    for _ in range(3):
        assert (await told(client, world, 9, batch(b"x"))).error_code == 0
    assert isinstance(client.context.repeated, SameProducer)
    return client


async def test_an_append_that_fails_is_answered_as_ever(caplog: pytest.LogCaptureFixture) -> None:
    world = World()
    world.topic()
    client = await warmed(world)

    def fail(*arguments: object, **named: object) -> None:
        raise OSError(5, "planted")

    log = world.partition().log
    append, log.append_as_leader = log.append_as_leader, fail  # type: ignore[assignment, method-assign]
    answer = await told(client, world, 9, batch(b"x"))
    assert (answer.error_code, answer.base_offset) == (ErrorCode.KAFKA_STORAGE_ERROR, -1)
    assert [record.exc_info is not None for record in caplog.records] == [True]
    log.append_as_leader = append  # type: ignore[method-assign]
    assert (await told(client, world, 9, batch(b"x"))).base_offset == 3
    assert client.dispatched == 3


async def test_replicas_that_join_before_the_image_is_published_are_waited_for() -> None:
    world = World()
    world.topic(replicas=(1, 2), isr=(1,))
    client = await warmed(world)
    partition = world.partition()
    partition.update(partition_image(1, (1, 2), (1, 2), 0, world._revision))
    answers: list[PartitionProduceResponse] = []

    async def wait() -> None:
        answers.append(await told(client, world, 9, batch(b"x")))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert answers == []
        follower = partition.follower(2, knows_leader_epoch=True)
        partition.update_follower(follower, log_end_offset=4, log_start_offset=0)
    assert (answers[0].error_code, answers[0].base_offset) == (0, 3)
    assert client.dispatched == 3


async def test_a_batch_that_is_not_plain_ends_it() -> None:
    world = World()
    world.topic()
    client = await warmed(world)
    assert (await told(client, world, 9, batch(b"x", compression=GZIP))).base_offset == 3
    assert client.dispatched == 4
    assert client.context.repeated is None
