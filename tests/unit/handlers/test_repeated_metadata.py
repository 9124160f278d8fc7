"""A repeated Metadata request gets the answer that a broker without memory would give now."""

from typing import Any

import pytest

from kbroker.common.parts import gather
from kbroker.handlers import repeated_metadata
from kbroker.handlers.dispatch import Dispatcher
from kbroker.handlers.repeated_metadata import RepeatedMetadata
from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol import registry
from kbroker.protocol.messages.metadata_request import MetadataRequest, MetadataRequestTopic
from kbroker.request_context import RequestContext
from tests.unit.handlers.asking import Asker, asking
from tests.unit.handlers.wire_peer import WirePeer

pytestmark = pytest.mark.anyio
KEY = 3
LATEST = 13


def named(*names: str, version: int) -> bytes:
    request = MetadataRequest(
        [MetadataRequestTopic(name=name) for name in names], allow_auto_topic_creation=True
    )
    return encoded(request, version)


def encoded(request: MetadataRequest, version: int) -> bytes:
    parts: list[Any] = []
    registry.request_writer(KEY)(parts, request, version)
    return b"".join(parts)


async def create(client: Asker, name: str) -> None:
    (result,) = await client.node.controller.create_topics([NewTopic(name=name, num_partitions=2)])
    assert result.error is None


async def delete(client: Asker, name: str) -> None:
    topic = client.node.image.topics.get(name)
    assert topic is not None
    await client.node.controller.delete_topics([topic])


def handled(client: Asker) -> list[int]:
    """Of which every request that reaches the handler becomes an element."""
    api = client.dispatcher._apis[KEY]
    handle, reached = api.handle, []

    def counted(services: Any, context: RequestContext, request: Any) -> Any:
        reached.append(context.api_version)
        return handle(services, context, request)

    api.handle = counted
    return reached


class Pair:
    """One client of two dispatchers of the same services, of which one remembers nothing."""

    def __init__(self, client: Asker) -> None:
        self.client = client

    async def ask(self, version: int, body: bytes) -> bytes:
        answer = await self.client.ask_bytes(KEY, version, body)
        remembering = self.client.dispatcher
        self.client.dispatcher = Dispatcher(self.client.services)
        try:
            assert answer == await self.client.ask_bytes(KEY, version, body)
        finally:
            self.client.dispatcher = remembering
        return answer


@pytest.mark.parametrize("version", range(LATEST + 1))
async def test_answers_follow_what_happens_to_the_cluster(version: int) -> None:
    async with asking({"auto.create.topics.enable": "false"}) as client:
        pair = Pair(client)
        bodies = [
            named("a", version=version),
            named("b", version=version),
            named("a", "b", version=version),
            encoded(MetadataRequest(None if version else []), version),
        ]

        async def ask_all() -> list[bytes]:
            return [await pair.ask(version, body) for body in bodies * 2]

        seen = []
        await create(client, "a")
        seen.append(await ask_all())
        await create(client, "b")
        seen.append(await ask_all())
        await delete(client, "a")
        seen.append(await ask_all())
        await create(client, "a")
        seen.append(await ask_all())
        assert seen[0] != seen[1] != seen[2] != seen[3]
        for answers in seen:
            assert answers[:4] == answers[4:]


async def test_a_repeated_request_is_not_handled_again() -> None:
    async with asking() as client:
        await create(client, "a")
        first = await client.ask_bytes(KEY, 12, named("a", version=12))
        reached = handled(client)
        assert await client.ask_bytes(KEY, 12, named("a", version=12)) == first
        assert reached == []
        assert await client.ask_bytes(KEY, 13, named("a", version=13))
        assert reached == [13]
        await create(client, "b")
        await client.ask_bytes(KEY, 12, named("a", version=12))
        assert reached == [13, 12]


async def test_the_address_and_the_listener_belong_to_the_question() -> None:
    async with asking() as client:
        await create(client, "a")
        pair, body = Pair(client), named("a", version=9)
        near = await pair.ask(9, body)
        connection = client.connection
        connection.local_host = "10.9.9.9"
        assert await pair.ask(9, body) != near
        connection.advertised_host, connection.advertised_port = "public.example", 9
        advertised = await pair.ask(9, body)
        assert b"public.example" in advertised
        connection.listener_name = "OTHER"
        assert await pair.ask(9, body) not in (near, advertised)


async def test_a_missing_topic_is_asked_for_each_time() -> None:
    """Its answer may create it, as the settings are at that moment."""
    async with asking({"auto.create.topics.enable": "false"}) as client:
        await create(client, "a")
        await client.ask_bytes(KEY, 9, named("a", "new", version=9))
        reached = handled(client)
        await client.ask_bytes(KEY, 9, named("a", "new", version=9))
        await client.ask_bytes(KEY, 9, named("a", "new", version=9))
        assert reached == [9, 9]


async def test_correlation_ids_are_the_requests_own() -> None:
    async with asking() as client:
        await create(client, "a")
        body = named("a", version=9)
        for number in (1, 2, -1):
            context = RequestContext(client.connection, KEY, 9, number, "me", 0.0)
            answer = client.dispatcher.dispatch(context, b"head" + body, 4)
            assert isinstance(answer, list)
            assert b"".join(gather(answer))[:4] == number.to_bytes(4, "big", signed=True)


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeated_metadata, "_KEPT_BYTES", 3_000)
    async with asking() as client:
        for number in range(4):
            await create(client, f"topic-{number}")
        pair = Pair(client)
        for number in range(200):
            names = [f"topic-{number % 4}", f"topic-{number // 4 % 4}", *["topic-0"] * number]
            await pair.ask(9, named(*names, version=9))
            shortcut = client.dispatcher._apis[KEY].shortcut
            assert isinstance(shortcut, RepeatedMetadata)
            kept = sum(len(q[0]) + len(a) for q, a in shortcut._answers.items())
            assert kept <= 3_000


async def test_large_questions_and_answers_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async with asking() as client:
        await create(client, "a")
        await client.ask_bytes(KEY, 9, named(*["a"] * 1000, version=9))
        shortcut = client.dispatcher._apis[KEY].shortcut
        assert isinstance(shortcut, RepeatedMetadata)
        assert not shortcut._answers
        monkeypatch.setattr(repeated_metadata, "_LARGEST_ANSWER", 20)
        await client.ask_bytes(KEY, 9, named("a", version=9))
        assert not shortcut._answers


async def test_a_connection_that_asks_the_same_is_not_dispatched() -> None:
    async with asking() as client:
        await create(client, "a")
        ours = WirePeer(client.services, lets_repeat=True)
        theirs = WirePeer(client.services, lets_repeat=False)

        async def ask(version: int, body: bytes) -> None:
            assert await ours.ask(KEY, version, body) == await theirs.ask(KEY, version, body) != b""

        for version in (1, 8, 9, LATEST):
            before = ours.dispatched
            for _ in range(6):
                await ask(version, named("a", version=version))
            assert ours.dispatched == before + 3  # asked, known, known again
        await create(client, "b")
        before = ours.dispatched
        for _ in range(6):
            await ask(LATEST, named("a", version=LATEST))
        assert ours.dispatched == before + 3
        before = ours.dispatched
        for number in range(6):  # in turn
            await ask(LATEST, named("ab"[number % 2], version=LATEST))
        assert ours.dispatched == before + 4  # the first two of "a" were as before
        assert theirs.dispatched == 36


@pytest.mark.parametrize("body", [b"", b"\0", b"\2\0"])
async def test_another_request_after_the_same_ones(body: bytes) -> None:
    async with asking() as client:
        await create(client, "a")
        ours = WirePeer(client.services, lets_repeat=True)
        theirs = WirePeer(client.services, lets_repeat=False)
        for _ in range(4):
            await ours.ask(KEY, 9, named("a", version=9))
            await theirs.ask(KEY, 9, named("a", version=9))
        assert ours.context.repeated is not None
        assert await ours.ask(KEY, 9, body) == await theirs.ask(KEY, 9, body)
        assert ours.connection.close_reason == theirs.connection.close_reason
