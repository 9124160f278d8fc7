"""Random streams in random pieces: every shell does with them what a plain reading says."""

import random
import struct

import pytest

from tests.sizes import size
from tests.unit.network.peers import CLOSE, ECHO, SILENT, WAIT, answer, request, settle, world

pytestmark = pytest.mark.anyio

LIMIT = 400_000


def random_stream(chance):
    """Bytes, mostly requests, some of them broken."""
    pieces = []
    for number in range(chance.randrange(1, 40)):
        body = chance.randbytes(chance.choice([0, 1, 50, 3000, 9000, 70_000, 300_000]))
        kind = chance.random()
        if kind < 0.60:
            pieces.append(request(ECHO, number, body))
        elif kind < 0.80:
            pieces.append(request(chance.choice([WAIT, SILENT]), number, body))
        elif kind < 0.97:
            pieces.extend(request(ECHO, n) for n in range(chance.randrange(100)))
        else:
            pieces.append(
                chance.choice(
                    [
                        request(CLOSE, number),
                        struct.pack(">i", chance.choice([-1, -5000, LIMIT + 1, 2**31 - 1])),
                        b"\0\0\0\0",
                        b"\0\0\0\x09" + chance.randbytes(9),
                        chance.randbytes(chance.randrange(1, 60)),
                    ]
                )
            )
    stream = b"".join(pieces)
    return stream[: chance.randrange(1, len(stream) + 1)] if chance.random() < 0.3 else stream


def plain_reading(stream):
    """(requests dispatched, bytes answered), by the shortest program that could say so."""
    requests, answers, position = [], b"", 0
    while position + 4 <= len(stream):
        (length,) = struct.unpack_from(">i", stream, position)
        frame = stream[position + 4 : position + 4 + length]
        if length < 0 or length > LIMIT or len(frame) < length:
            break
        position += 4 + length
        if length < 10:
            break
        key, version, correlation, text = struct.unpack_from(">hhih", frame)
        if 10 + max(text, 0) > length or (version, text) != (0, 2):
            # Random bytes that may or may not be a header: not what this test is about.
            return None
        body = frame[12:]
        requests.append((key, correlation, body))
        if key == CLOSE:
            break
        if key in (ECHO, WAIT):
            answers += answer(correlation, body)
    return requests, answers


@pytest.mark.parametrize("seed", range(size(ci=20, full=400)))
async def test_every_shell_reads_alike(kind, seed):
    chance = random.Random(seed)
    stream = random_stream(chance)
    expected = plain_reading(stream)
    if expected is None:
        pytest.skip("the random bytes of this seed resemble a header")
    limits = {
        "max_frame_bytes": LIMIT,
        "turn_frames": chance.choice([1, 3, 32]),
        "queued_frames_per_connection": chance.choice([1, 10, 256]),
        "queued_bytes_per_connection": chance.choice([1, 100_000, 2_000_000]),
        "queued_bytes": chance.choice([1, 100_000, 1 << 28]),
        "write_buffer_bytes": chance.choice([1, 10_000, 262_144]),
        "output_chunk_bytes": chance.choice([1, 10_000, 524_288]),
    }
    async with world(kind, **limits) as w:
        poison = w.server.settings.pool
        poison.on_reuse = lambda buffer: buffer.__setitem__(slice(None), b"\xdd" * len(buffer))
        client = await w.connect()

        async def send():
            position = 0
            while position < len(stream):
                count = chance.choice([1, 3, 17, 1000, 20_000, 200_000])
                await client.send(stream[position : position + count])
                position += count
                if chance.random() < 0.2:
                    await settle(chance.randrange(4))
            await client.half_close()

        async def release():
            await settle(chance.randrange(30))
            w.dispatcher.release()

        w.tasks.start_soon(send)
        w.tasks.start_soon(release)
        assert await client.receive_all() == expected[1]
        assert w.dispatcher.requests == expected[0]
