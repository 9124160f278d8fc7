"""What a client sees, the same through every shell."""

import logging
import struct

import anyio
import pytest

from kbroker.network.connection import (
    CLOSED_BY_DISPATCH,
    CLOSED_IDLE,
    CLOSED_SLOW_FRAME,
    CLOSED_UNREAD_ANSWER,
)
from tests.unit.network.peers import (
    CLOSE,
    ECHO,
    FAIL,
    SILENT,
    WAIT,
    answer,
    request,
    settle,
    until,
    world,
)

pytestmark = pytest.mark.anyio


async def test_answers_come_in_the_order_of_requests(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1, b"a") + request(ECHO, 2, b"b") + request(WAIT, 3, b"c"))
        await until(lambda: w.dispatcher.requests)
        await settle()
        assert [r[1] for r in w.dispatcher.requests] == [1], "the second waits for the first"
        w.dispatcher.release()
        expected = answer(1, b"a") + answer(2, b"b") + answer(3, b"c")
        assert await client.receive(len(expected)) == expected


async def test_a_request_sent_byte_by_byte(kind):
    async with world(kind) as w:
        client = await w.connect()
        for byte in request(ECHO, 7, b"slowly"):
            await client.send(bytes([byte]))
            await settle(2)
        assert await client.receive(14) == answer(7, b"slowly")


async def test_the_context_of_a_request(kind):
    async with world(kind) as w:
        client = await w.connect(host="192.0.2.77")
        await client.send(request(ECHO, -5, b"x", version=4))
        await client.receive(9)
        (context,) = w.dispatcher.contexts
        assert (context.api_key, context.api_version) == (ECHO, 4)
        assert (context.correlation_id, context.client_id) == (-5, "me")
        assert context.received_at == 1000.0
        assert context.connection.client_host == "192.0.2.77"
        assert context.connection.advertised_address() == ("192.0.2.9", 9092)


async def test_frames_own_their_memory_and_can_be_patched(kind):
    """Frames are kept here while thousands of bytes of others arrive on two connections."""
    async with world(kind, queued_frames_per_connection=1000) as w:
        first, second = await w.connect(), await w.connect()
        await first.send(request(WAIT, 0, b"first" * 50))
        for number in range(1, 100):
            await first.send(request(ECHO, number, b"%05d" % number * 50))
            await second.send(request(ECHO, number, b"other" * 60))
            await settle(1)
        w.dispatcher.release()
        await first.receive(258 * 100)
        await second.receive(308 * 99)
        for frame, (_, _, body) in zip(w.dispatcher.frames, w.dispatcher.requests, strict=True):
            assert bytes(frame[12:]) == body
            frame[0:2] = b"\xff\xff"


async def test_large_frames_arrive_whole(kind):
    sizes = (8_000, 8_192, 65_523, 65_536, 131_072, 1_048_576, 3_000_001)
    async with world(kind) as w:
        client = await w.connect()
        for number, size in enumerate(sizes):
            body = bytes(range(256)) * (size // 256) + b"e" * (size % 256)
            await client.send(request(ECHO, number, body) + request(ECHO, 99, b"small"))
            assert await client.receive(size + 8) == answer(number, body)
            assert await client.receive(13) == answer(99, b"small")


async def test_no_answer_where_none_is_due(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(SILENT, 1) + request(SILENT, 2) + request(ECHO, 3))
        assert await client.receive(8) == answer(3)
        assert len(w.dispatcher.requests) == 3


async def test_half_close_still_gets_its_answers(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1, b"a") + request(ECHO, 2, b"b"))
        await client.half_close()
        await until(lambda: w.dispatcher.requests)
        await settle()
        w.dispatcher.release()
        assert await client.receive_all() == answer(1, b"a") + answer(2, b"b")


async def test_end_of_input_without_a_request_closes(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(ECHO, 1)[:9])
        await client.half_close()
        assert await client.receive_all() == b""
        await until(lambda: w.server.counters.connections == 0)


BAD = {
    "negative size": b"\xff\xff\xff\xff",
    "smallest size": b"\x80\0\0\0",
    "over the limit": struct.pack(">i", 104857601),
    "largest size": b"\x7f\xff\xff\xff",
    "size zero": b"\0\0\0\0",
    "one byte": b"\0\0\0\1\0",
    "header cut at 4": b"\0\0\0\4\0\x12\0\0",
    "header cut at 8": b"\0\0\0\x08\0\x12\0\0\0\0\0\1",
    "client id cut": b"\0\0\0\x0c\0\x12\0\0\0\0\0\1\0\7di",
    "client id too long": b"\0\0\0\x0a\0\x12\0\0\0\0\0\1\x7f\xff",
    "flexible header without tags": b"\0\0\0\x0b\0\x12\0\3\0\0\0\1\0\1d",
    "tag size too large": b"\0\0\0\x0f\0\x12\0\3\0\0\0\1\0\1d\1\0\xff\x7f",
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_frame_closes_its_connection_after_the_answers_before_it(kind, name):
    async with world(kind) as w:
        other = await w.connect()
        client = await w.connect()
        await client.send(request(WAIT, 1, b"a") + request(ECHO, 2) + BAD[name] + request(ECHO, 3))
        await until(lambda: w.dispatcher.requests)
        await settle()
        w.dispatcher.release()
        assert await client.receive_all() == answer(1, b"a") + answer(2)
        assert w.server.counters.bad_frames == 1
        assert len(w.dispatcher.requests) == 2
        await other.send(request(ECHO, 4))
        assert await other.receive(8) == answer(4)


@pytest.mark.parametrize(("name", "hint"), [("TLS", "TLS"), ("HTTP", "HTTP")])
async def test_a_peer_of_another_protocol_is_named_in_the_log_once(kind, name, hint, caplog):
    caplog.set_level(logging.WARNING)
    async with world(kind) as w:
        for _ in range(5):
            client = await w.connect()
            await client.send(BAD[name])
            assert await client.receive_all() == b""
        assert [r.getMessage().endswith(f"look like {hint}") for r in caplog.records] == [True]
        w.clock.advance(60)
        client = await w.connect()
        await client.send(BAD[name])
        assert await client.receive_all() == b""
        assert "4 similar" in caplog.records[1].getMessage()


@pytest.mark.parametrize("when", [b"now", b"later"])
async def test_dispatch_may_close_the_connection(kind, when):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(ECHO, 1) + request(CLOSE, 2, when) + request(ECHO, 3))
        assert await client.receive_all() == answer(1)
        assert [r[1] for r in w.dispatcher.requests] == [1, 2]
        await until(lambda: w.server.counters.connections == 0)
        assert w.server.counters.connections_closed_by_reason == {CLOSED_BY_DISPATCH: 1}


@pytest.mark.parametrize("when", [b"now", b"later"])
async def test_a_failing_request_closes_its_connection_only(kind, when, caplog):
    async with world(kind) as w:
        client, other = await w.connect(), await w.connect()
        await client.send(request(ECHO, 1) + request(FAIL, 2, when) + request(ECHO, 3))
        assert await client.receive_all() == answer(1)
        assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ZeroDivisionError]
        await other.send(request(ECHO, 4))
        assert await other.receive(8) == answer(4)
        assert w.server.counters.dispatch_failures == 1


async def test_a_client_that_only_writes_is_stopped(kind):
    """With a request that waits, only so much is read; all is answered when it ends."""
    body = bytes(10_000)
    count = 1_000
    async with world(kind, queued_bytes_per_connection=200_000) as w:
        client = await w.connect()

        async def send() -> None:
            for number in range(count):
                await client.send(request(ECHO, number, body))

        await client.send(request(WAIT, -1))
        w.tasks.start_soon(send)
        await settle(600)
        taken = w.server.counters.bytes_in
        await settle(100)
        assert w.server.counters.bytes_in == taken < 10_000 * count / 2
        assert w.server.settings.budget.used < 200_000 + 200_000
        w.dispatcher.release()
        assert await client.receive(8) == answer(-1)
        for number in range(count):
            assert (await client.receive(10_008))[4:8] == struct.pack(">i", number)


async def test_a_client_that_does_not_read_is_not_answered_further(kind):
    async with world(kind, write_buffer_bytes=10_000, output_chunk_bytes=65_536) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [bytes(300_000)]
        count = 40

        async def send() -> None:
            for number in range(count):
                await client.send(request(ECHO, number))

        w.tasks.start_soon(send)
        await settle(300)
        begun = len(w.dispatcher.requests)
        await settle(100)
        assert len(w.dispatcher.requests) == begun < count
        for number in range(count):
            assert (await client.receive(300_008))[4:8] == struct.pack(">i", number)


async def test_what_comes_while_an_answer_is_being_sent_is_answered_too(kind):
    """Requests, and the end of input, that arrive while the last answer waits for the peer."""
    async with world(kind, write_buffer_bytes=1) as w:
        client = await w.connect()
        body = bytes(60_000)
        w.dispatcher.parts = lambda _: [body]
        for number in range(20):
            await client.send(request(ECHO, number))
            await settle(4)
        await client.half_close()
        await settle(4)
        if kind.startswith("protocol"):
            assert len(w.dispatcher.requests) < 20
        assert await client.receive_all() == b"".join(answer(n, body) for n in range(20))


async def test_other_connections_have_their_turn_after_so_many_requests(kind):
    async with world(kind, turn_frames=4, queued_frames_per_connection=10_000) as w:
        greedy, modest = await w.connect(), await w.connect()
        await greedy.send(b"".join(request(ECHO, number) for number in range(1000)))
        await modest.send(request(ECHO, 5000))
        assert await modest.receive(8) == answer(5000)
        place = [r[1] for r in w.dispatcher.requests].index(5000)
        assert place < 500, "the modest one waited for most of the greedy one's requests"
        assert len(await greedy.receive(8000)) == 8000


async def test_other_connections_have_their_turn_after_so_much_time(kind):
    async with world(kind, turn_time=0.002) as w:
        client = await w.connect()
        w.dispatcher.on_dispatch = lambda: w.clock.advance(0.0015)
        await client.send(b"".join(request(ECHO, number) for number in range(10)))
        assert len(await client.receive(80)) == 80
        assert w.server.counters.longest_turn_ms == pytest.approx(3.0)


async def test_announced_sizes_cost_nothing(kind):
    async with world(kind) as w:
        liars = [await w.connect() for _ in range(50)]
        for liar in liars:
            await liar.send(struct.pack(">i", 100_000_000))
        honest = await w.connect()
        await honest.send(request(ECHO, 1))
        assert await honest.receive(8) == answer(1)
        assert w.server.settings.budget.used <= 50 * 4


async def test_large_frames_wait_for_the_budget_and_small_ones_do_not(kind):
    """One large frame may overdraw the budget; the next waits until it is done."""
    async with world(kind, queued_bytes=100_000) as w:
        clients = [await w.connect() for _ in range(3)]
        body = bytes(400_000)
        for number, client in enumerate(clients[:2]):
            w.tasks.start_soon(client.send, request(WAIT, number, body))
        await until(lambda: w.dispatcher.requests)
        await settle(100)
        assert len(w.dispatcher.requests) == 1
        assert w.server.settings.budget.is_crowded
        await clients[2].send(request(ECHO, 9))
        assert await clients[2].receive(8) == answer(9)
        w.dispatcher.release()
        for number, client in enumerate(clients[:2]):
            assert await client.receive(400_008) == answer(number, body)
        assert not w.server.settings.budget.is_crowded


async def test_a_client_that_goes_away_leaves_the_budget_to_others(kind):
    async with world(kind, queued_bytes=100_000) as w:
        first, second = await w.connect(), await w.connect()
        await first.send(request(ECHO, 1, bytes(900_000))[:300_000])
        await settle(50)
        w.tasks.start_soon(second.send, request(ECHO, 2, bytes(300_000)))
        await settle(50)
        assert not w.dispatcher.requests
        await first.close()
        assert await second.receive(300_008) == answer(2, bytes(300_000))


async def test_idle_connections_are_closed(kind):
    async with world(kind, idle_close=60.0) as w:
        idle, busy = await w.connect(), await w.connect()
        await busy.send(request(WAIT, 1))
        await settle()
        await w.pass_time(30.0)
        assert w.server.counters.connections == 2
        await w.pass_time(50.0, step=5.0)
        assert await idle.receive_all() == b""
        assert w.server.counters.connections_closed_by_reason == {CLOSED_IDLE: 1}
        w.dispatcher.release()
        assert await busy.receive(8) == answer(1)
        await w.pass_time(100.0, step=5.0)
        assert await busy.receive_all() == b""


async def test_idle_connections_stay_where_no_limit_is_set(kind):
    async with world(kind, idle_close=-0.001) as w:
        client = await w.connect()
        await w.pass_time(2000.0, step=100.0)
        await client.send(request(ECHO, 1))
        assert await client.receive(8) == answer(1)


async def test_a_frame_that_never_ends_is_closed(kind):
    async with world(kind, slow_frame_grace=10.0, slow_frame_rate=1000) as w:
        slow, fast = await w.connect(), await w.connect()
        await slow.send(request(ECHO, 1, bytes(1_000_000))[:100])
        steady = request(ECHO, 2, bytes(50_000))
        for second in range(20):
            await slow.send(b"x")
            await fast.send(steady[second * 2000 : second * 2000 + 2000])
            await settle()
            await w.pass_time(1.0)
            if second == 5:
                assert w.server.counters.connections == 2
        assert await slow.receive_all() == b""
        assert w.server.counters.connections_closed_by_reason == {CLOSED_SLOW_FRAME: 1}
        await fast.send(steady[40_000:])
        assert (await fast.receive(50_008))[4:8] == b"\0\0\0\2"


async def test_a_slow_large_frame_is_closed_sooner_when_others_wait(kind):
    limits = {"queued_bytes": 100_000, "slow_frame_grace": 60.0, "crowded_frame_rate": 50_000}
    async with world(kind, **limits) as w:
        slow, waiting = await w.connect(), await w.connect()
        await slow.send(request(ECHO, 1, bytes(900_000))[:300_000])
        await settle(50)
        w.tasks.start_soon(waiting.send, request(ECHO, 2, bytes(300_000)))
        await settle(50)
        for _ in range(15):
            await slow.send(bytes(5000))
            await w.pass_time(1.0)
        assert await waiting.receive(300_008) == answer(2, bytes(300_000))
        assert w.server.counters.connections_closed_by_reason == {CLOSED_SLOW_FRAME: 1}


async def test_a_peer_that_never_reads_is_cut_off(kind):
    async with world(kind, unread_answer_grace=30.0, idle_close=1000.0) as w:
        client = await w.connect()
        w.dispatcher.parts = lambda body: [bytes(3_000_000)] * 3
        await client.send(request(ECHO, 1) + request(ECHO, 2))
        await settle(50)
        await w.pass_time(20.0)
        assert w.server.counters.connections == 1
        await w.pass_time(30.0)
        await until(lambda: w.server.counters.connections == 0)
        assert w.server.counters.connections_closed_by_reason == {CLOSED_UNREAD_ANSWER: 1}


async def test_a_lost_client_does_not_stop_what_it_began(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1) + request(ECHO, 2))
        await until(lambda: w.dispatcher.requests)
        await client.close()
        await settle(20)
        assert w.dispatcher.finished == 0
        w.dispatcher.release()
        await until(lambda: w.server.counters.connections == 0)
        assert (w.dispatcher.finished, w.dispatcher.cancelled) == (1, 0)


async def test_drain_answers_what_was_received(kind):
    async with world(kind) as w:
        busy, idle = await w.connect(), await w.connect()
        await busy.send(request(WAIT, 1, b"a") + request(ECHO, 2, b"b"))
        await until(lambda: w.dispatcher.requests)
        await settle()
        ended = anyio.Event()

        async def drain() -> None:
            await w.server.drain(30.0)
            ended.set()

        w.tasks.start_soon(drain)
        assert await idle.receive_all() == b""
        assert not ended.is_set()
        w.dispatcher.release()
        assert await busy.receive_all() == answer(1, b"a") + answer(2, b"b")
        with anyio.fail_after(5):
            await ended.wait()


async def test_drain_ends_at_its_time_limit(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1))
        await until(lambda: w.dispatcher.requests)
        w.tasks.start_soon(w.server.drain, 3.0)
        await settle()
        await w.pass_time(2.0)
        assert w.server.counters.connections == 1
        await w.pass_time(2.0)
        assert await client.receive_all() == b""


async def test_a_second_drain_forces(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1))
        await until(lambda: w.dispatcher.requests)
        ended = []

        async def drain() -> None:
            await w.server.drain(1e6)
            ended.append(True)

        w.tasks.start_soon(drain)
        await settle()
        assert ended == []
        await drain()
        await until(lambda: len(ended) == 2)
        assert await client.receive_all() == b""


async def test_cancelling_serve_ends_waits_and_connections(kind):
    async with world(kind) as w:
        client = await w.connect()
        await client.send(request(WAIT, 1))
        await until(lambda: w.dispatcher.requests)
        await settle()
        w.tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            assert await client.receive_all() == b""
            assert w.dispatcher.cancelled == 1


async def test_many_connections_from_one_address(kind):
    async with world(kind, max_connections_per_ip=2) as w:
        first, _ = await w.connect(), await w.connect()
        assert not w.server.admit("192.0.2.1")
        assert w.server.admit("192.0.2.2")
        w.server.leave("192.0.2.2")
        await first.close()
        await until(lambda: w.server.counters.connections == 1)
        await w.connect()
        assert w.server.counters.connections_refused == 1


async def test_requests_and_bytes_are_counted(kind):
    async with world(kind) as w:
        client = await w.connect()
        sent = request(ECHO, 1, b"abc") + request(SILENT, 2)
        await client.send(sent)
        await client.receive(11)
        counters = w.server.counters
        assert (counters.requests, counters.bytes_in, counters.bytes_out) == (2, len(sent), 11)
        assert (counters.connections, counters.connections_accepted) == (1, 1)
