"""sendfile past the transport: order, partial sends, a full socket, files that shrink."""

import asyncio
import itertools
import os
import socket

import pytest

from kbroker.network.direct_socket import DirectSocket
from tests.unit.network.peers import ECHO, PROTOCOL_KINDS, answer, request, settle, until, world
from tests.unit.network.test_output import Slice

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not hasattr(os, "sendfile"), reason="this system has no os.sendfile"),
]
CONTENT = os.urandom(256) * 12_000


@pytest.fixture(params=PROTOCOL_KINDS)
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "segment"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def descriptor(path):
    opened = os.open(path, os.O_RDONLY)
    yield opened
    os.close(opened)


@pytest.fixture
def sent_by_file(monkeypatch):
    """Sizes of what sendfile took."""
    sizes = []
    sendfile = os.sendfile

    def noting(target, source, position, size):
        sent = sendfile(target, source, position, size)
        sizes.append(sent)
        return sent

    monkeypatch.setattr(os, "sendfile", noting)
    return sizes


async def test_large_slices_go_by_file_and_small_ones_do_not(kind, descriptor, sent_by_file):
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect()
        small = Slice(CONTENT[:1000], descriptor=descriptor)
        w.dispatcher.parts = lambda body: [small]
        await client.send(request(ECHO, 1))
        assert await client.receive(1008) == answer(1, CONTENT[:1000])
        (shell,) = w.server._shells
        assert (sent_by_file, shell.direct_fileno()) == ([], -1)
        w.dispatcher.parts = lambda body: [Slice(CONTENT[:50_000], descriptor=descriptor)]
        await client.send(request(ECHO, 2))
        assert await client.receive(50_008) == answer(2, CONTENT[:50_000])
        assert sent_by_file == [50_000]
        assert shell.direct_fileno() in set(w.server.filenos())


async def test_what_fits_is_sent_at_once_and_without_a_task(kind, descriptor):
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [Slice(CONTENT[:50_000], descriptor=descriptor), b"end"]
        for number in range(20):  # of a lone connection: soon without waiting for others' answers
            await client.send(request(ECHO, number))
            assert await client.receive(50_011) == answer(number, CONTENT[:50_000] + b"end")
        (shell,) = w.server._shells
        assert not shell._has_worker


async def test_encrypted_connections_get_bytes_that_were_read(kind, descriptor, sent_by_file):
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect(security_protocol="SSL")
        w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor)]
        await client.send(request(ECHO, 1))
        # This shell has no TLS in it; what counts is that nothing went past its transport.
        assert await client.receive(len(CONTENT) + 8) == answer(1, CONTENT)
        assert sent_by_file == []


async def test_a_head_that_does_not_fit_leaves_before_its_file(kind, descriptor, monkeypatch):
    """The rest of it goes through the transport, and the file waits for that."""
    monkeypatch.setattr(DirectSocket, "send", _sending_at_most(DirectSocket.send, 100_000))
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect()
        head = os.urandom(700_000)
        w.dispatcher.parts = lambda body: [head, b"x", Slice(CONTENT, descriptor=descriptor)] * 2
        for number in range(3):
            await client.send(request(ECHO, number))
        body = (head + b"x" + CONTENT) * 2
        for number in range(3):
            assert await client.receive(len(body) + 8) == answer(number, body)
        assert w.server.counters.bytes_out == 3 * (len(body) + 8)


def _sending_at_most(send, size):
    return lambda self, buffers: send(self, [memoryview(buffers[0])[:size]])


async def test_a_file_that_is_cut_while_it_is_sent_closes_the_connection(kind, path, caplog):
    """The socket shares the file's pages: behind the cut, what is under way may become zeros.

    Only what no consumer may see is ever cut off, and a follower checks what it gets.
    """
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect()
        descriptor = os.open(path, os.O_RDWR)
        try:
            w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor)] * 4
            await client.send(request(ECHO, 1))
            await settle(50)
            os.ftruncate(descriptor, 1000)
            received = await client.receive_all()
            await until(lambda: w.server.counters.connections == 0)
        finally:
            os.close(descriptor)
        whole = answer(1, CONTENT * 4)
        assert len(received) < len(whole)
        assert received[:1008] == whole[:1008]
        assert "is shorter" in caplog.text


async def test_a_file_that_is_deleted_while_it_is_sent_is_sent_whole(kind, path):
    async with world(kind, use_sendfile=True) as w:
        client = await w.connect()
        descriptor = os.open(path, os.O_RDONLY)
        try:
            w.dispatcher.parts = lambda body: [Slice(CONTENT, descriptor=descriptor)] * 4
            await client.send(request(ECHO, 1))
            await settle(50)
            path.unlink()
            body = CONTENT * 4
            assert await client.receive(len(body) + 8) == answer(1, body)
        finally:
            os.close(descriptor)


async def test_other_connections_have_their_turn_between_pieces(kind, descriptor, sent_by_file):
    async with world(kind, use_sendfile=True, output_chunk_bytes=100_000) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [Slice(CONTENT[:50_000], descriptor=descriptor)] * 40
        turns = []
        asyncio.get_running_loop().call_soon(_count_turns, turns, sent_by_file, 40)
        await client.send(request(ECHO, 1))
        body = CONTENT[:50_000] * 40
        assert await client.receive(len(body) + 8) == answer(1, body)
        assert max(after - before for before, after in itertools.pairwise(turns)) <= 3


def _count_turns(turns, sizes, limit):
    turns.append(len(sizes))
    if len(turns) < 10_000 and len(sizes) < limit:
        asyncio.get_running_loop().call_soon(_count_turns, turns, sizes, limit)


async def test_closing_wakes_who_waits(kind):
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        direct = DirectSocket(near.fileno())
        while direct.send([bytes(100_000)]):
            pass
        waiting = asyncio.ensure_future(direct.wait_writable())
        await settle()
        assert not waiting.done()
        direct.close()
        direct.close()
        await waiting
        await direct.wait_writable()
        assert direct.fileno() == -1
