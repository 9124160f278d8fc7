"""What only the asyncio shell has: log slices by gather and by sendfile, on both loops."""

import os

import anyio
import pytest

from kbroker.network.connection import CLOSED_BY_PEER
from kbroker.network.protocol_shell import WriteBatch
from tests.unit.network.peers import (
    ECHO,
    PROTOCOL_KINDS,
    WAIT,
    answer,
    request,
    settle,
    until,
    world,
)
from tests.unit.network.test_output import Slice

pytestmark = pytest.mark.anyio
CONTENT = bytes(range(256)) * 12_000


@pytest.fixture(params=PROTOCOL_KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=[False, True], ids=["gather", "sendfile"])
def use_sendfile(request):
    if request.param and not hasattr(os, "sendfile"):
        pytest.skip("this system has no os.sendfile")
    return request.param


@pytest.fixture
def descriptor(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(CONTENT)
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


async def test_slices_of_files(kind, use_sendfile, descriptor):
    """Several slices in one answer, small parts between them, several answers in a row."""
    async with world(kind, use_sendfile=use_sendfile) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [
            b"head",
            Slice(CONTENT, descriptor=descriptor),
            b"middle",
            Slice(b"memory"),
            Slice(b""),
            Slice(CONTENT[:5000], descriptor=descriptor),
            body,
        ]
        await client.send(b"".join(request(ECHO, n, b"tail") for n in range(3)))
        body = b"head" + CONTENT + b"middle" + b"memory" + CONTENT[:5000] + b"tail"
        for number in range(3):
            assert await client.receive(len(body) + 8) == answer(number, body)
        assert w.server.counters.bytes_out == 3 * (len(body) + 8)


async def test_memory_for_a_peer_that_does_not_read_is_bounded(kind, use_sendfile, descriptor):
    async with world(kind, use_sendfile=use_sendfile, output_chunk_bytes=100_000) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor)] * 5
        await client.send(request(ECHO, 1))
        await settle(100)
        (shell,) = w.server._shells
        unsent = shell.connection.output.size
        assert unsent > 4 * len(CONTENT), "nearly everything has not even been read"
        assert shell._transport.get_write_buffer_size() <= 400_000
        assert await client.receive(len(CONTENT) * 5 + 8) == answer(1, CONTENT * 5)


@pytest.mark.parametrize("claims", [len(CONTENT) + 1, len(CONTENT) + 5_000_000])
async def test_a_slice_shorter_than_announced_closes(
    kind, use_sendfile, descriptor, claims, caplog
):
    async with world(kind, use_sendfile=use_sendfile) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor, claims=claims)]
        await client.send(request(ECHO, 1))
        assert len(await client.receive_all()) <= 8 + len(CONTENT)
        assert any(record.exc_info for record in caplog.records)


async def test_a_peer_that_goes_away_while_a_file_is_sent(kind, use_sendfile, descriptor, caplog):
    async with world(kind, use_sendfile=use_sendfile) as w:
        w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor)] * 3
        open_files = []
        for number in range(1, 4):
            client = await w.connect()
            await client.send(request(ECHO, 1) + request(ECHO, 2))
            await settle(50)
            await client.close()
            await until(lambda: w.server.counters.connections == 0)
            assert len(w.dispatcher.requests) == number, "the second is not begun"
            await settle()
            if os.path.isdir("/proc/self/fd"):
                open_files.append(len(os.listdir("/proc/self/fd")))
        assert len(set(open_files)) <= 1
        assert "Traceback" not in caplog.text


async def test_connections_that_never_waited_have_no_task(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(ECHO, 1))
        await client.receive(8)
        await client.send(request(ECHO, 1, bytes(100_000)))
        await client.receive(100_008)
        (shell,) = w.server._shells
        assert not shell._has_worker
        await client.send(request(WAIT, 1))
        await until(lambda: len(w.dispatcher.requests) == 3)
        assert shell._has_worker
        w.dispatcher.release()
        await client.receive(8)
        await client.close()
        await until(lambda: w.server.counters.connections == 0)
        assert w.server.counters.connections_closed_by_reason == {CLOSED_BY_PEER: 1}


async def test_an_answer_that_comes_after_the_peer_has_gone_is_dropped(kind):
    """uvloop raises when a closed transport is written to."""
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1))
        await until(lambda: w.dispatcher.requests)
        (shell,) = w.server._shells
        shell.abort("test")
        await settle()
        assert (w.server.counters.connections, len(w.server._shells)) == (1, 0)
        w.dispatcher.release()
        await until(lambda: w.server.counters.connections == 0)
        assert w.server.counters.bytes_out == 0


async def test_a_waiting_request_is_begun_in_the_servers_task_group(kind):
    """So anyio's cancel scopes work in it, and its end is waited for."""
    async with world(kind) as w:
        client = await w.connect()
        seen = []

        async def scoped():
            with anyio.move_on_after(0.001) as scope:
                await anyio.sleep_forever()
            seen.append(scope.cancelled_caught)
            return [b"done"]

        w.server.settings.dispatch = lambda context, frame, position: scoped()
        await client.send(request(ECHO, 1))
        assert await client.receive(8) == b"\0\0\0\4done"
        assert seen == [True]


class FakeShell:
    def __init__(self):
        self.flushed = 0

    def flush(self):
        self.flushed += 1


async def test_a_lone_connection_writes_at_once_but_for_a_probe_now_and_then(kind):
    batch, shell = WriteBatch(), FakeShell()
    taken = []
    for _ in range(200):
        before = shell.flushed
        taken.append(batch.take(shell))
        assert shell.flushed == before
        await settle(2)
        assert shell.flushed == before + taken[-1]
    assert taken[:8] == [True] * 8
    assert taken[8:].count(True) == 3


async def test_answers_of_many_connections_are_written_together(kind):
    batch, shells = WriteBatch(), [FakeShell() for _ in range(5)]
    lone = shells[0]
    for _ in range(100):
        batch.take(lone)
        await settle(2)
    turns = 0
    while sum(batch.take(shell) for shell in shells) < len(shells):
        await settle(2)
        turns += 1
        assert turns < 64, "many are noticed soon"
    for shell in shells:
        shell.flushed = 0
    await settle(2)
    for _ in range(20):
        assert all(batch.take(shell) for shell in shells)
        await settle(2)
    assert [shell.flushed for shell in shells] == [21] * 5


async def test_the_buffer_of_a_large_request_serves_the_next_one(kind):
    """Also of one that was answered in the read event, in which the transport still sees it."""
    reused = []
    body = bytes(300_000)
    async with world(kind) as w:
        w.server.settings.pool.on_reuse = lambda buffer: reused.append(id(buffer))
        client = await w.connect()

        def take(_):
            w.dispatcher.frames.clear()
            return [b"taken"]

        w.dispatcher.parts = take
        for number in range(10):
            await client.send(request(ECHO, number, body))
            assert await client.receive(13) == answer(number, b"taken")
    assert len(reused) >= 9
    assert len(set(reused)) == 1
