"""A repeated OffsetCommit has the answer, and leaves the log, of one that is seen first."""

import random
from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from kbroker.common.parts import gather
from kbroker.config.broker_config import BrokerConfig
from kbroker.handlers import repeated_commit
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.repeated_commit import RepeatedCommits
from kbroker.protocol import registry
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.messages.consumer_group_heartbeat_request import (
    ConsumerGroupHeartbeatRequest,
)
from kbroker.protocol.messages.offset_commit_request import (
    OffsetCommitRequest,
    OffsetCommitRequestPartition,
    OffsetCommitRequestTopic,
)
from kbroker.protocol.messages.offset_fetch_request import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopics,
)
from kbroker.record.batch import verify_crc
from kbroker.request_context import RequestContext
from tests.sizes import size
from tests.unit.handlers.group_asking import GroupAsker, group_asking
from tests.unit.handlers.wire_peer import WirePeer

pytestmark = pytest.mark.anyio
COMMIT = 8
VERSIONS = range(6, 11)
Offsets = dict[tuple[str, int], tuple[int, int]]
"""(topic, partition) -> (offset, leader epoch)"""


class Committer:
    """Sends commits to one dispatcher, and counts what reaches the handler."""

    def __init__(self, client: GroupAsker, *, forgets: bool = False) -> None:
        self.client = client
        self.dispatcher = Dispatcher(client.services)
        self._forgets = forgets
        self.handled = 0
        self.number = 0

    def body(self, version: int, offsets: Offsets, **fields: Any) -> bytes:
        topics: dict[str, OffsetCommitRequestTopic] = {}
        for (name, index), (offset, epoch) in offsets.items():
            known = self.client.services.metadata.image.topics.get(name)
            topic_id = bytes(15) + b"?" if known is None else known.topic_id
            topic = topics.setdefault(name, OffsetCommitRequestTopic(name, topic_id))
            topic.partitions.append(OffsetCommitRequestPartition(index, offset, epoch))
        request = OffsetCommitRequest(topics=list(topics.values()))
        for field, value in {"group_id": "a-group", **fields}.items():
            setattr(request, field, value)
        parts: list[Any] = []
        registry.request_writer(COMMIT)(parts, request, version)
        return b"".join(gather(parts))

    def dispatch(self, version: int, body: bytes) -> Any:
        """What dispatch gives: the answer, or a coroutine."""
        if self._forgets:
            self.dispatcher = Dispatcher(self.client.services)
        self.number += 1
        connection = self.client.asker.connection
        context = RequestContext(connection, COMMIT, version, self.number, "me", 0.0)
        self._count_handled()
        return self.dispatcher.dispatch(context, memoryview(bytearray(b"head" + body)), 4)

    def _count_handled(self) -> None:
        api = self.dispatcher._apis.get(COMMIT) or self.dispatcher._load(COMMIT)
        if hasattr(api.handle, "counts"):
            return
        handle = api.handle

        def counted(*arguments: Any) -> Any:
            self.handled += 1
            return handle(*arguments)

        counted.counts = True  # type: ignore[attr-defined]
        api.handle = counted

    async def answer(self, version: int, body: bytes) -> bytes:
        answer = self.dispatch(version, body)
        if not isinstance(answer, list):
            answer = await answer
        return b"".join(gather(answer))

    async def errors(self, version: int, offsets: Offsets, **fields: Any) -> list[int]:
        """The error of each partition, in order."""
        data = await self.answer(version, self.body(version, offsets, **fields))
        start = 5 if version >= 8 else 4
        response, end = registry.response_reader(COMMIT)(data, start, version)
        assert end == len(data)
        return [p.error_code for topic in response.topics for p in topic.partitions]

    async def committed(self, topic: str, *indexes: int, group: str = "a-group") -> list[int]:
        """What OffsetFetch says."""
        topics = [OffsetFetchRequestTopics(topic, partition_indexes=list(indexes))]
        asked = OffsetFetchRequestGroup(group, topics=topics)
        response = await self.client.ask(9, 8, OffsetFetchRequest(groups=[asked]))
        [told] = response.groups[0].topics
        return [partition.committed_offset for partition in told.partitions]


def kept(committer: Committer) -> RepeatedCommits:
    shortcut = committer.dispatcher._apis[COMMIT].shortcut
    assert isinstance(shortcut, RepeatedCommits)
    return shortcut


def log_bytes(client: GroupAsker) -> dict[int, list[bytes]]:
    for batches in client.log.batches.values():
        assert all(verify_crc(batch, 0, len(batch)) for batch in batches)
    return {index: list(map(bytes, found)) for index, found in client.log.batches.items() if found}


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_second_request_is_neither_decoded_nor_handled(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a", 3)
        await client.create("b", 1)
        committer = Committer(client)
        for offset in range(4):
            offsets = {("a", 0): (offset, 7), ("b", 0): (-offset, -1), ("a", 2): (1 << 62, 0)}
            assert await committer.errors(version, offsets) == [0, 0, 0]
        assert committer.handled == 1
        assert await committer.committed("a", 0, 1, 2) == [3, -1, 1 << 62]
        assert await committer.committed("b", 0) == [-3]
        [batches] = log_bytes(client).values()
        assert len(batches) == 4


@pytest.mark.parametrize("version", [2, 5])
async def test_older_versions_go_the_ordinary_way(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        for offset in range(3):
            assert await committer.errors(version, {("a", 0): (offset, -1)}) == [0]
        assert committer.handled == 3
        assert await committer.committed("a", 0) == [2]


def random_requests(seed: int, count: int) -> Sequence[tuple[int, Offsets, dict[str, Any]]]:
    """Few kinds, so that most are repeated; some are refused, in part or as a whole."""
    rng = random.Random(seed)
    places = [("a", 0), ("a", 1), ("bb", 0)]
    bad = [("bb", 5), ("none", 0)]
    kinds: list[tuple[int, list[tuple[str, int]], dict[str, Any]]] = [(9, places, {})]
    for _ in range(8):
        chosen = rng.sample(places, rng.randint(0, 3))
        if rng.random() < 0.2:
            chosen.append(rng.choice(bad))
        fields: dict[str, Any] = {"group_id": rng.choice(["g", "a-group", "x" * 40, "\xe4" * 9])}
        if rng.random() < 0.2:
            fields["generation_id_or_member_epoch"] = 3
        if rng.random() < 0.3:
            fields["member_id"] = "somebody"
        kinds.append((rng.choice(VERSIONS), chosen, fields))
    requests = []
    for _ in range(count):
        version, chosen, fields = rng.choice(kinds)
        numbers = {
            place: (rng.choice([0, 5, -1, rng.getrandbits(62)]), rng.choice([-7, -1, 0, 9]))
            for place in chosen
        }
        requests.append((version, numbers, fields))
    return requests


@pytest.mark.parametrize("seed", range(size(ci=10, full=300)))
async def test_answers_and_log_are_those_of_requests_that_are_seen_first(seed: int) -> None:
    seen = []
    for forgets in (False, True):
        async with group_asking() as client:
            await client.ready()
            await client.create("a", 2)
            await client.create("bb", 1)
            committer = Committer(client, forgets=forgets)
            answers = []
            for version, numbers, fields in random_requests(seed, 40):
                client.clock.advance(0.25)
                body = committer.body(version, numbers, **fields)
                answers.append(await committer.answer(version, body))
            offsets = {
                group: await committer.committed("a", 0, 1, group=group)
                for group in ("g", "a-group", "x" * 40)
            }
            images = [client.services.metadata.image.topics.get(name) for name in ("a", "bb")]
            ids = [topic.topic_id for topic in images if topic is not None]
            log = {
                index: [
                    batch.replace(ids[0], b"A" * 16).replace(ids[1], b"B" * 16)[21:]
                    for batch in found
                ]
                for index, found in log_bytes(client).items()
            }
            named = [answer.replace(ids[0], b"A" * 16).replace(ids[1], b"B") for answer in answers]
            seen.append((named, offsets, log))
            if not forgets:
                assert committer.handled < 40
    assert seen[0] == seen[1]


async def test_a_member_s_right_to_commit_is_looked_at_each_time() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a", 2)
        beat = ConsumerGroupHeartbeatRequest(
            group_id="a-group",
            member_id="me",
            rebalance_timeout_ms=5_000,
            subscribed_topic_names=["a"],
            topic_partitions=[],
        )
        joined = await client.ask(68, 1, beat)
        assert (joined.error_code, joined.member_epoch) == (0, 2)
        committer = Committer(client)
        fields = {"member_id": "me", "generation_id_or_member_epoch": 2}
        for offset in (1, 2):
            assert await committer.errors(9, {("a", 1): (offset, 0)}, **fields) == [0]
        assert committer.handled == 1
        leaving = ConsumerGroupHeartbeatRequest(group_id="a-group", member_id="me", member_epoch=-1)
        assert (await client.ask(68, 1, leaving)).error_code == 0
        unknown = ErrorCode.UNKNOWN_MEMBER_ID
        assert await committer.errors(9, {("a", 1): (3, 0)}, **fields) == [unknown]
        assert committer.handled == 1, "the short way knows the answer too"
        assert await committer.committed("a", 1) == [2]


async def test_a_topic_that_is_gone() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        for offset in (1, 2):
            assert await committer.errors(9, {("a", 0): (offset, 0)}) == [0]
        topics = client.services.metadata.image.topics
        await client.services.controller.delete_topics([topics.by_name["a"]])
        gone = ErrorCode.UNKNOWN_TOPIC_OR_PARTITION
        assert await committer.errors(9, {("a", 0): (3, 0)}) == [gone]
        assert committer.handled == 2


async def test_a_commit_is_answered_when_it_is_replicated() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        assert await committer.errors(9, {("a", 0): (1, 0)}) == [0]
        client.log.replicated = False
        waiting = committer.dispatch(9, committer.body(9, {("a", 0): (2, 0)}))
        assert committer.handled == 1 and not isinstance(waiting, list)
        answers: list[Any] = []

        async def wait() -> None:
            answers.append(await waiting)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not answers
            [partition] = log_bytes(client)
            client.log.commit("__consumer_offsets", partition)
        response, _ = registry.response_reader(COMMIT)(b"".join(gather(answers[0])), 5, 9)
        assert response.topics[0].partitions[0].error_code == 0


async def test_a_commit_that_is_not_replicated_in_time() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        assert await committer.errors(9, {("a", 0): (1, 0)}) == [0]
        client.log.replicated = False
        waiting = committer.dispatch(9, committer.body(9, {("a", 0): (2, 0)}))
        client.clock.advance(60)
        client.timer.run_due()
        response, _ = registry.response_reader(COMMIT)(b"".join(gather(await waiting)), 5, 9)
        late = ErrorCode.COORDINATOR_NOT_AVAILABLE
        assert response.topics[0].partitions[0].error_code == late


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS), ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (KafkaError(ErrorCode.MESSAGE_TOO_LARGE), ErrorCode.UNKNOWN_SERVER_ERROR),
        (RuntimeError("a bug"), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
async def test_a_write_that_fails_has_changed_nothing(failure: Exception, error: ErrorCode) -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        assert await committer.errors(9, {("a", 0): (1, 0)}) == [0]
        client.log.fail(failure)
        assert await committer.errors(9, {("a", 0): (2, 0)}) == [error]
        assert await committer.committed("a", 0) == [1]
        client.log.failure = None
        client.log.size_limit = 100
        too_large = ErrorCode.UNKNOWN_SERVER_ERROR
        assert await committer.errors(9, {("a", 0): (2, 0)}) == [too_large]
        assert await committer.committed("a", 0) == [1]
        assert committer.handled == 1


async def test_compressed_offsets_go_the_ordinary_way() -> None:
    async with group_asking({"offsets.topic.compression.codec": "1"}) as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        for offset in range(3):
            assert await committer.errors(9, {("a", 0): (offset, 0)}) == [0]
        assert committer.handled == 3
        assert await committer.committed("a", 0) == [2]


async def test_metadata_goes_the_ordinary_way() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        partition = OffsetCommitRequestPartition(0, 5, -1, "note")
        topics = [OffsetCommitRequestTopic("a", partitions=[partition])]
        for _ in range(3):
            assert await committer.errors(9, {}, topics=topics) == [0]
        assert committer.handled == 3


async def test_cut_and_longer_requests_are_no_repeated_ones() -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        body = committer.body(9, {("a", 0): (1, 0)})
        for _ in range(2):
            await committer.answer(9, body)
        assert committer.handled == 1
        written = log_bytes(client)
        for end in range(len(body)):
            with pytest.raises(Exception, match="undecodable request"):
                committer.dispatch(9, body[:end])
        assert log_bytes(client) == written
        await committer.answer(9, body + b"\0")
        assert committer.handled == 2


async def test_what_never_comes_again_is_seldom_remembered(monkeypatch: Any) -> None:
    monkeypatch.setattr(repeated_commit, "_SAVED", 40)
    async with group_asking() as client:
        await client.ready()
        await client.create("a")
        committer = Committer(client)
        for number in range(100):
            fields = {"group_id": f"group-{number}"}
            assert await committer.errors(9, {("a", 0): (number, 0)}, **fields) == [0]
        known = len(kept(committer)._known)
        assert 100 // 8 < known < 100 // 4
        monkeypatch.setattr(repeated_commit, "_MOST", known)
        for number in range(8):
            await committer.errors(9, {("a", 0): (number, 0)}, group_id=f"new-{number}")
        assert len(kept(committer)._known) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_the_fourth_request_of_a_connection_is_not_dispatched(version: int) -> None:
    async with group_asking() as client:
        await client.ready()
        await client.create("a", 2)
        committer = Committer(client)
        ours = WirePeer(client.services, lets_repeat=True)
        theirs = WirePeer(client.services, lets_repeat=False)
        for offset in range(6):
            numbers = {("a", 1): (offset, -offset), ("a", 0): (-1, 5)}
            body = committer.body(version, numbers)
            answer = await ours.ask(COMMIT, version, body)
            assert answer == await theirs.ask(COMMIT, version, body) != b""
            assert await committer.committed("a", 1, 0) == [offset, -1]
        assert (ours.dispatched, theirs.dispatched) == (3, 6)
        body = committer.body(version, {("a", 1): (9, 0)})
        assert await ours.ask(COMMIT, version, body) == await theirs.ask(COMMIT, version, body)
        assert await committer.committed("a", 1, 0) == [9, -1]
        await client.create("another")
        body = committer.body(version, {("a", 1): (10, -1), ("a", 0): (11, 5)})
        assert await ours.ask(COMMIT, version, body)
        assert ours.dispatched == 5
        assert await committer.committed("a", 1, 0) == [10, 11]


async def repeating(client: GroupAsker) -> tuple[WirePeer, Committer]:
    """A connection that is spared dispatch from now on."""
    await client.ready()
    await client.create("a")
    ours, committer = WirePeer(client.services, lets_repeat=True), Committer(client)
    for offset in range(4):
        await ours.ask(COMMIT, 9, committer.body(9, {("a", 0): (offset, 0)}))
    assert ours.dispatched == 3
    return ours, committer


def error_in(answer: bytes) -> int:
    response, end = registry.response_reader(COMMIT)(answer, 9, 9)
    assert end == len(answer)
    return int(response.topics[0].partitions[0].error_code)


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS), ErrorCode.COORDINATOR_NOT_AVAILABLE),
        (RuntimeError("a bug"), ErrorCode.UNKNOWN_SERVER_ERROR),
    ],
)
async def test_a_repeated_write_that_fails(failure: Exception, error: ErrorCode) -> None:
    async with group_asking() as client:
        ours, committer = await repeating(client)
        body = committer.body(9, {("a", 0): (7, 0)})
        client.log.fail(failure)
        assert error_in(await ours.ask(COMMIT, 9, body)) == error
        client.log.failure = None
        assert await committer.committed("a", 0) == [3]
        assert error_in(await ours.ask(COMMIT, 9, body)) == 0
        assert await committer.committed("a", 0) == [7]
        assert ours.dispatched == 3


async def test_a_repeated_commit_is_answered_when_it_is_replicated() -> None:
    async with group_asking() as client:
        ours, committer = await repeating(client)
        client.log.replicated = False
        answers: list[bytes] = []

        async def wait() -> None:
            body = committer.body(9, {("a", 0): (7, 0)})
            answers.append(await ours.ask(COMMIT, 9, body))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            assert not answers
            [partition] = log_bytes(client)
            client.log.commit("__consumer_offsets", partition)
        assert error_in(answers[0]) == 0
        assert ours.dispatched == 3


async def test_compression_that_is_switched_on_ends_it() -> None:
    async with group_asking() as client:
        ours, committer = await repeating(client)
        compressed = BrokerConfig.from_properties({"offsets.topic.compression.codec": "1"})
        client.services.config.replace(compressed)
        assert error_in(await ours.ask(COMMIT, 9, committer.body(9, {("a", 0): (7, 0)}))) == 0
        assert ours.dispatched == 4
        assert ours.context.repeated is None
        assert await committer.committed("a", 0) == [7]
