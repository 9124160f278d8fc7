"""A connection of the client against a peer that is nothing but the other end of two pipes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from struct import pack, unpack_from
from typing import Any

import anyio
import pytest
from anyio.streams.stapled import StapledObjectStream

from kbroker.client.connection import Connection, ConnectionLostError
from kbroker.protocol import registry
from kbroker.protocol.api_keys import ApiKey
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.protocol.headers import read_request_header
from kbroker.protocol.messages.api_versions_response import ApiVersion, ApiVersionsResponse
from kbroker.protocol.messages.create_partitions_request import (
    CreatePartitionsRequest,
    CreatePartitionsTopic,
)
from kbroker.protocol.messages.find_coordinator_request import FindCoordinatorRequest
from kbroker.protocol.messages.find_coordinator_response import FindCoordinatorResponse
from kbroker.protocol.messages.list_groups_request import ListGroupsRequest

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    return request.param


class ClientEnd:
    """Two pipes as the byte stream that a connection takes."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self._incoming = incoming
        self.send = outgoing.send

    async def receive(self, max_bytes: int) -> bytes:
        return await self._incoming.receive()

    async def aclose(self) -> None:
        """The pipes belong to the test."""


class Peer:
    """The broker's end: takes requests one by one, answers what the test tells it."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    async def take(self) -> tuple[int, int, int]:
        """(API key, version, correlation id) of the next request; each comes in one piece."""
        header, _ = read_request_header(await self.stream.receive(), 4)
        return header.request_api_key, header.request_api_version, header.correlation_id

    async def answer(self, correlation_id: int, api_key: int, version: int, body: Any) -> None:
        parts: list[Any] = [pack(">i", correlation_id)]
        registry.write_response(api_key, version, body, parts)
        frame = b"".join(parts)
        await self.stream.send(pack(">i", len(frame)) + frame)

    async def answer_versions(self, *versions: tuple[int, int, int]) -> None:
        key, version, correlation_id = await self.take()
        body = ApiVersionsResponse(api_keys=[ApiVersion(*each) for each in versions])
        await self.answer(correlation_id, key, version, body)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, Peer]]:
    to_peer, from_client = anyio.create_memory_object_stream[bytes](10)
    to_client, from_peer = anyio.create_memory_object_stream[bytes](10)
    peer = Peer(StapledObjectStream(to_client, from_client))
    connection = Connection(
        ClientEnd(from_peer, to_peer),  # type: ignore[arg-type]
        client_id="me",
        name="peer",
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(connection.run)
        yield connection, peer
        connection.close()
    for stream in (to_peer, from_client, to_client, from_peer):
        stream.close()


async def test_the_highest_common_version():
    async with connected() as (connection, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(peer.answer_versions, (10, 0, 2), (3, 0, 99), (0, 0, 2))
        await connection.negotiate()
        assert connection.version(ApiKey.FIND_COORDINATOR) == 2
        assert connection.version(ApiKey.METADATA) == 12
        assert not connection.knows(ApiKey.FETCH)
        for api_key in (ApiKey.PRODUCE, ApiKey.FETCH):
            with pytest.raises(KafkaError) as caught:
                connection.version(api_key)
            assert caught.value.error_code == ErrorCode.UNSUPPORTED_VERSION


async def test_an_old_broker_is_asked_again_in_version_0():
    async def old(peer: Peer) -> None:
        key, version, correlation_id = await peer.take()
        assert (key, version) == (18, 3)
        body = ApiVersionsResponse(error_code=ErrorCode.UNSUPPORTED_VERSION)
        await peer.answer(correlation_id, key, 0, body)
        key, version, correlation_id = await peer.take()
        assert (key, version) == (18, 0)
        body = ApiVersionsResponse(api_keys=[ApiVersion(10, 0, 1)])
        await peer.answer(correlation_id, key, 0, body)

    async with connected() as (connection, peer), anyio.create_task_group() as tasks:
        tasks.start_soon(old, peer)
        await connection.negotiate()
        assert connection.version(ApiKey.FIND_COORDINATOR) == 1


async def negotiated(connection: Connection, peer: Peer) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.answer_versions, (10, 0, 2))
        await connection.negotiate()


async def test_requests_are_pipelined_and_answers_find_theirs():
    answers: dict[str, str] = {}

    async def ask(connection: Connection, key: str) -> None:
        response = await connection.call(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest(key))
        answers[key] = response.host

    async with connected() as (connection, peer):
        await negotiated(connection, peer)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask, connection, "a")
            first = (await peer.take())[2]
            tasks.start_soon(ask, connection, "b")
            second = (await peer.take())[2]  # it comes before the first one is answered
            await peer.answer(second, 10, 2, FindCoordinatorResponse(host="of b"))
            await peer.answer(first, 10, 2, FindCoordinatorResponse(host="of a"))
    assert answers == {"a": "of a", "b": "of b"}


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"HTTP/1.1 400 Bad Request", "an HTTP server answers, not Kafka"),
        (b"\x15\x03\x03\x00\x02\x02\x46", "it speaks TLS"),
        (pack(">i", 0x7FFFFFFF), "is this a Kafka port"),
        (pack(">i", -1), "is this a Kafka port"),
        (pack(">ii", 4, 12345), "nobody had asked for"),
        (None, "closed the connection"),
    ],
)
async def test_a_peer_that_talks_nonsense_or_leaves(sent: bytes | None, told: str):
    async with connected() as (connection, peer):
        await negotiated(connection, peer)

        async def misbehave() -> None:
            await peer.take()
            if sent is None:
                await peer.stream.aclose()
            else:
                await peer.stream.send(sent)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(misbehave)
            with pytest.raises(ConnectionLostError, match=told):
                await connection.call(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest("a"))
        assert connection.is_closed


async def test_a_peer_whose_versions_cannot_be_read():
    async with connected() as (connection, peer):

        async def misbehave() -> None:
            correlation_id = (await peer.take())[2]
            await peer.stream.send(pack(">iii", 8, correlation_id, 99))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(misbehave)
            with pytest.raises(ConnectionLostError, match="answers unreadably"):
                await connection.negotiate()
        assert connection.is_closed


async def test_what_no_version_can_say_is_not_blamed_on_the_broker():
    async with connected() as (connection, peer):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(peer.answer_versions, (10, 0, 2), (37, 0, 1), (16, 0, 2))
            await connection.negotiate()
        too_many = CreatePartitionsRequest([CreatePartitionsTopic("t", 2**40, None)])
        with pytest.raises(KafkaError, match="INVALID_REQUEST: it cannot be sent"):
            await connection.call(ApiKey.CREATE_PARTITIONS, too_many)
        filtered = ListGroupsRequest(states_filter=["Stable"])
        with pytest.raises(KafkaError, match="UNSUPPORTED_VERSION: the broker peer is too old"):
            await connection.call(ApiKey.LIST_GROUPS, filtered)
        assert not connection.is_closed


async def test_a_cancelled_request_ends_the_connection():
    async with connected() as (connection, peer):
        await negotiated(connection, peer)
        with anyio.move_on_after(0):
            await connection.call(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest("a"))
        with pytest.raises(ConnectionLostError):
            await connection.call(ApiKey.FIND_COORDINATOR, FindCoordinatorRequest("b"))


async def test_acks_0_waits_for_nothing():
    async with connected() as (connection, peer):
        await negotiated(connection, peer)
        request = FindCoordinatorRequest("a")
        assert await connection.call(ApiKey.FIND_COORDINATOR, request, answered=False) is None
        frame = await peer.stream.receive()
        assert unpack_from(">ihh", frame) == (len(frame) - 4, 10, 2)
