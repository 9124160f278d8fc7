"""One small request at a time: answered without a queue, in the same order and bounds."""

import pytest

from kbroker.network.connection import CLOSED_BY_DISPATCH, CLOSED_BY_FAILURE
from tests.unit.network.peers import (
    CLOSE,
    ECHO,
    FAIL,
    PROTOCOL_KINDS,
    SILENT,
    WAIT,
    answer,
    request,
    settle,
    until,
    world,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=PROTOCOL_KINDS)
def kind(request):
    return request.param


@pytest.mark.parametrize("turns", [1, 20], ids=["deferred", "lonely"])
async def test_requests_and_bytes_are_counted(kind, turns):
    async with world(kind) as w:
        client = await w.connect()
        sent = received = 0
        for number in range(turns):
            data, expected = request(ECHO, number, b"hello"), answer(number, b"hello")
            await client.send(data)
            assert await client.receive(len(expected)) == expected
            sent += len(data)
            received += len(expected)
        counters = w.server.counters
        assert (counters.requests, counters.bytes_in, counters.bytes_out) == (turns, sent, received)
        (shell,) = w.server._shells
        assert shell.connection.bytes_in == sent
        assert shell.bytes_out == received
        assert shell.connection.cutter.frames_cut == turns


async def test_what_must_wait_counts_against_the_budget(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1, bytes(500)))
        await until(lambda: w.dispatcher.requests)
        (shell,) = w.server._shells
        assert shell.connection.has_work
        held = w.server.settings.budget.used
        assert held == len(request(WAIT, 1, bytes(500)))
        await client.send(request(ECHO, 2))
        await settle()
        assert len(w.dispatcher.requests) == 1, "answers leave in the order of the requests"
        w.dispatcher.release()
        assert await client.receive(8 + 500 + 8) == answer(1, bytes(500)) + answer(2)
        await until(lambda: w.server.settings.budget.used == 0)


async def test_a_peer_that_does_not_read_is_not_answered_further(kind):
    """Each request comes alone; small answers fill the write buffer all the same."""
    async with world(kind, write_buffer_bytes=20_000) as w:
        client = await w.connect()
        body = bytes(8_000)
        w.dispatcher.parts = lambda _: [body]
        count = 400
        sent = 0
        while sent < count and len(w.dispatcher.requests) == sent:
            await client.send(request(ECHO, sent))
            sent += 1
            await settle(40)
        assert sent < count
        (shell,) = w.server._shells
        assert shell._transport.get_write_buffer_size() < 20_000 + 2 * len(body)
        for number in range(sent):
            assert await client.receive(8 + len(body)) == answer(number, body)
        await client.send(request(ECHO, -1))
        assert await client.receive(8 + len(body)) == answer(-1, body)


@pytest.mark.parametrize("before", [0, 20], ids=["deferred", "lonely"])
@pytest.mark.parametrize(
    "api_key, reason", [(FAIL, CLOSED_BY_FAILURE), (CLOSE, CLOSED_BY_DISPATCH)]
)
async def test_a_request_that_ends_its_connection(kind, before, api_key, reason):
    async with world(kind) as w:
        client = await w.connect()
        for number in range(before):
            await client.send(request(ECHO, number))
            assert await client.receive(8) == answer(number)
        (shell,) = w.server._shells
        await client.send(request(api_key, -1))
        assert await client.receive_all() == b""
        assert shell.connection.close_reason == reason


async def test_a_request_without_an_answer_and_one_after_it(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(SILENT, 1))
        await until(lambda: w.dispatcher.requests)
        await client.send(request(ECHO, 2, b"x"))
        assert await client.receive(9) == answer(2, b"x")


async def test_an_answer_in_many_parts(kind):
    async with world(kind) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [b"a", memoryview(b"b"), body]
        await client.send(request(ECHO, 1, b"c"))
        assert await client.receive(11) == answer(1, b"abc")


async def test_the_rest_of_a_split_request_is_no_request(kind):
    """What looks like a frame may be the end of one that has begun."""
    async with world(kind) as w:
        client = await w.connect()
        inner = request(ECHO, 7, b"inner")
        outer = request(ECHO, 1, inner)
        await client.send(outer[: -len(inner)])
        await settle()
        await client.send(inner)
        assert await client.receive(8 + len(inner)) == answer(1, inner)
        assert [number for _, number, _ in w.dispatcher.requests] == [1]


async def test_the_server_stops_while_an_answer_waits_for_the_end_of_the_turn(kind):
    async with world(kind) as w:
        client = await w.connect()
        (shell,) = w.server._shells
        w.dispatcher.on_dispatch = lambda: shell.connection.end_input("stops")
        await client.send(request(ECHO, 1))
        assert await client.receive_all() == answer(1)


async def test_frames_own_their_memory(kind):
    async with world(kind) as w:
        client = await w.connect()
        for number, body in enumerate((b"first", b"other")):
            await client.send(request(ECHO, number, body))
            assert await client.receive(13) == answer(number, body)
        first, second = w.dispatcher.frames
        assert not first.readonly
        assert (bytes(first[-5:]), bytes(second[-5:])) == (b"first", b"other")
