"""A repeated Fetch request has the answer of one that is seen first, at whatever offset."""

import random
from typing import Any

import anyio
import pytest

from kbroker.broker.request_meter import MeteredDispatcher
from kbroker.common.parts import gather
from kbroker.config.broker_config import BrokerConfig
from kbroker.handlers import repeated_fetch
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.repeated_fetch import RepeatedFetch
from kbroker.protocol import registry
from kbroker.protocol.messages.fetch_request import (
    FetchPartition,
    FetchRequest,
    FetchTopic,
    ReplicaState,
)
from kbroker.protocol.messages.fetch_response import PartitionData, read_fetch_response
from kbroker.request_context import CloseConnection
from kbroker.storage.fetch_info import AbortedTransaction
from tests.sizes import size
from tests.unit.data_plane import World, finish

FETCH = 1
VERSIONS = range(5, 19)
ANYTHING = 1 << 20


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def encoded(world: World, version: int, *partitions: tuple[str, int, int], **more: Any) -> bytes:
    """The body of a request; ``partitions`` are (topic, index, fetch offset)."""
    fields = {"partition_max_bytes": ANYTHING, "current_leader_epoch": -1}
    fields.update((name, more.pop(name)) for name in list(more) if name in FetchPartition.FIELDS)
    topics: list[FetchTopic] = []
    for name, index, offset in partitions:
        asked = FetchPartition(partition=index, fetch_offset=offset, **fields)
        if version < 13:
            topics.append(FetchTopic(name, partitions=[asked]))
        else:
            known = world.metadata.image.topics.get(name)
            topic_id = bytes(15) + b"?" if known is None else known.topic_id
            topics.append(FetchTopic("", topic_id, [asked]))
    request = FetchRequest(
        max_wait_ms=0, min_bytes=1, max_bytes=ANYTHING, session_epoch=-1, topics=topics
    )
    for name, value in more.items():
        setattr(request, name, value)
    parts: list[Any] = []
    registry.request_writer(FETCH)(parts, request, version)
    return b"".join(gather(parts))


class Client:
    """Sends bodies to one dispatcher; ``forgets`` makes it a new one for each."""

    def __init__(
        self, world: World, *, forgets: bool = False, kind: type[Dispatcher] = Dispatcher
    ) -> None:
        self.world = world
        self._kind = kind
        self._forgets = forgets
        self.dispatcher = kind(world.services)
        self.number = 0
        self.handled = 0

    def send(self, version: int, body: bytes) -> Any:
        """What dispatch gives: the answer, or a coroutine."""
        if self._forgets:
            self.dispatcher = self._kind(self.world.services)
        self.number += 1
        context = self.world.context(FETCH, version)
        context.correlation_id = self.number
        api = self.dispatcher._apis.get(FETCH)
        if api is not None and not hasattr(api.handle, "counts"):
            handle = api.handle

            def counted(*arguments: Any) -> Any:
                self.handled += 1
                return handle(*arguments)

            counted.counts = True  # type: ignore[attr-defined]
            api.handle = counted
        return self.dispatcher.dispatch(context, memoryview(bytearray(b"header" + body)), 6)

    async def answer(self, version: int, body: bytes) -> bytes:
        """The bytes of the answer, or what the connection is closed with."""
        try:
            return b"".join(gather(await finish(self.send(version, body))))
        except CloseConnection as error:
            return repr(error).encode()

    def told(self, version: int, body: bytes) -> PartitionData:
        """An answer that comes at once."""
        answer = b"".join(gather(self.send(version, body)))
        response, end = read_fetch_response(answer, 5 if version >= 12 else 4, version)
        assert end == len(answer)
        return response.responses[0].partitions[0]


def known(client: Client) -> RepeatedFetch:
    shortcut = client.dispatcher._apis[FETCH].shortcut
    assert isinstance(shortcut, RepeatedFetch)
    return shortcut


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("isolation", [0, 1])
def test_the_second_request_is_neither_decoded_nor_handled(version: int, isolation: int) -> None:
    world = World()
    world.topic("a-topic")
    for number in range(5):
        world.append(b"x" * 10 ** (number % 4), name="a-topic")
    client, other = Client(world), Client(world, forgets=True)
    for offset in range(5):
        body = encoded(world, version, ("a-topic", 0, offset), isolation_level=isolation)
        told = client.told(version, body)
        assert (told.error_code, told.high_watermark) == (0, 5)
        assert told == other.told(version, body)
        assert bytes(told.records or b"")[:8] == offset.to_bytes(8, "big")
    assert client.handled == 0, "the first went by before it was counted"


def test_topics_partitions_and_epochs_are_kept_apart() -> None:
    world = World()
    for name in ("a", "b", "c-longer"):
        world.topic(name, 2)
        for index in range(2):
            for number in range(3):
                world.append(f"{name}{index}{number}".encode(), name=name, index=index)
    client = Client(world)
    for offset in range(3):
        for name in ("a", "b", "c-longer"):
            for index in range(2):
                for epoch in (-1, 0):
                    body = encoded(world, 11, (name, index, offset), current_leader_epoch=epoch)
                    records = bytes(client.told(11, body).records or b"")
                    assert f"{name}{index}{offset}".encode() in records
    assert client.handled == 3 * 2 * 2 - 1


def scripted(world: World, rng: random.Random) -> tuple[int, bytes]:
    """A request, mostly like others."""
    if rng.random() < 0.5:
        return 12, encoded(world, 12, ("a", 0, rng.randrange(-1, 12)), current_leader_epoch=0)
    version = rng.choice([4, 5, 10, 11, 11, 12, 12, 16, 18])
    name = rng.choice(["a", "a", "a", "b", "nope"])
    partitions = [(name, rng.choice([0, 0, 0, 1, 2]), rng.choice([0, 1, 2, 3, 5, 9, 40, -1]))]
    if rng.random() < 0.1:
        partitions.append(("b", rng.choice([0, 1]), 0))
    more: dict[str, Any] = {
        "isolation_level": rng.choice([0, 0, 1, 1, 1, 2]) if rng.random() < 0.3 else 1,
        "partition_max_bytes": rng.choice([ANYTHING, ANYTHING, 0, 100, 300]),
        "max_bytes": rng.choice([ANYTHING, ANYTHING, 150]),
        "min_bytes": rng.choice([0, 1, 1, 200]),
    }
    if version >= 9:
        more["current_leader_epoch"] = rng.choice([-1, -1, 0, 1, 7])
    if version >= 12:
        more["last_fetched_epoch"] = rng.choice([-1, -1, -1, 0, 3])
        if rng.random() < 0.1:
            more["unknown_tagged_fields"] = ((77, b"tagged"),)
    if rng.random() < 0.05:
        if version < 15:
            more["replica_id"] = 2
        else:
            more["replica_state"] = ReplicaState(replica_id=2, replica_epoch=2)
    body = encoded(world, version, *partitions, **more)
    if rng.random() < 0.05:
        body = body[: rng.randrange(len(body))]
    if rng.random() < 0.03:
        body += b"\0" * rng.randrange(1, 4)
    return version, body


def happen(world: World, rng: random.Random) -> None:
    """Something that changes how requests are answered."""
    what = rng.randrange(9)
    here = world.partition("a").is_leader
    if what == 0:
        world.change_partition("a", 0, leader=2, replicas=(1, 2), leader_epoch=world._revision)
    elif what <= 2:
        world.change_partition("a", 0, leader=1, replicas=(1,), leader_epoch=world._revision)
    elif what == 3:
        world.delete_topic("b")
        world.topic("b", 2)
    elif what == 4:
        settings = {"fetch.max.bytes": str(rng.choice([1024, 2000, ANYTHING]))}
        world.config.current = BrokerConfig.from_properties(settings)
    elif what == 5 and here:
        log = world.partition("a").log
        log.maybe_increment_log_start_offset(min(log.log_start_offset + 1, log.high_watermark))
    elif what == 6 and here:
        world.partition("a").log.roll()
    elif here:
        world.append(*[b"v" * rng.choice([1, 100, 5000])] * rng.choice([1, 2]), name="a")


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(size(ci=12, full=300)))
async def test_any_sequence_is_answered_as_by_a_broker_without_memory(seed: int) -> None:
    world = World()
    world.topic("a", 2)
    world.topic("b", 2)
    rng = random.Random(seed)
    for number in range(12):
        world.append(b"%d" % number * rng.choice([1, 50]), name="a", index=number // 9)
    ours, theirs = Client(world), Client(world, forgets=True)
    answers = set()
    for _ in range(300):
        if rng.random() < 0.03:
            happen(world, rng)
        version, body = scripted(world, rng)
        answer = await ours.answer(version, body)
        assert answer == await theirs.answer(version, body)
        answers.add(answer[5:])
    assert len(answers) > 50
    assert 0 < ours.handled < 299  # some went by


def test_aborted_transactions_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.topic()
    for _ in range(3):
        world.append(b"x")
    client = Client(world)
    told = [client.told(11, encoded(world, 11, ("t", 0, 0), isolation_level=1))]
    log = world.partition().log
    monkeypatch.setattr(
        log, "_aborted_transactions", lambda *_: [AbortedTransaction(5, 1)], raising=True
    )
    told.append(client.told(11, encoded(world, 11, ("t", 0, 1), isolation_level=1)))
    found = [[(a.producer_id, a.first_offset) for a in t.aborted_transactions or ()] for t in told]
    assert found == [[], [(5, 1)]]


@pytest.mark.anyio
async def test_a_request_that_has_to_wait_is_answered_when_records_come() -> None:
    world = World()
    world.topic()
    world.append(b"x")
    client = Client(world)
    ask = {"max_wait_ms": 500}
    assert client.told(12, encoded(world, 12, ("t", 0, 0), **ask)).error_code == 0
    answers: list[bytes] = []

    async def wait() -> None:
        answers.append(await client.answer(12, encoded(world, 12, ("t", 0, 1), **ask)))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        await anyio.wait_all_tasks_blocked()
        assert not answers
        world.append(b"second")
    assert b"second" in answers[0]


@pytest.mark.parametrize("what", [{"session_epoch": 0}, {"session_id": 7}])
def test_what_belongs_to_a_session_is_not_remembered(what: dict[str, int]) -> None:
    world = World()
    world.topic()
    world.append(b"x")
    client = Client(world)
    for _ in range(3):
        client.told(12, encoded(world, 12, ("t", 0, 0), **what))
    assert client.handled == 2
    assert not known(client)._requests


def test_a_broker_with_metrics_counts_what_is_read() -> None:
    world = World()
    world.topic()
    world.append(b"x")
    client = Client(world, kind=MeteredDispatcher)
    sent = [len(client.told(12, encoded(world, 12, ("t", 0, 0))).records or b"") for _ in range(4)]
    assert isinstance(client.dispatcher, MeteredDispatcher)
    assert client.dispatcher.topic_counts()["t"].bytes_out == sum(sent) > 0


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_fetch, "_MOST", 10)
    world = World()
    world.topic("t", 50)
    client = Client(world)
    for index in range(50):
        world.append(b"x", index=index)
        assert client.told(12, encoded(world, 12, ("t", index, 0))).error_code == 0
        assert len(known(client)._requests) <= 10
