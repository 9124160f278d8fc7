"""The frame cutter alone: any chunking gives the same frames, and memory follows what arrived."""

import random
import struct

import pytest

from kbroker.network.frame import BAD_NEGATIVE_SIZE, BAD_TOO_LARGE, FrameCutter, looks_like
from kbroker.network.limits import BufferPool, ByteBudget
from tests.sizes import size

MIB = 1_048_576


class Owner:
    def __init__(self) -> None:
        self.told = 0

    def on_room(self) -> None:
        self.told += 1


def make(*, budget=None, limit=104_857_600, scratch=131_072, pool=None):
    return FrameCutter(
        scratch=memoryview(bytearray(scratch)),
        max_frame_bytes=limit,
        budget=budget or ByteBudget(1 << 40),
        pool=pool or BufferPool(8 * MIB),
        owner=Owner(),
    )


def framed(data):
    return struct.pack(">i", len(data)) + data


def receive(cutter, data, chunk):
    """As a transport would: at most ``chunk`` bytes at a time, into the cutter's own memory."""
    position = 0
    while position < len(data):
        target = cutter.get_buffer()
        assert len(target) > 0
        count = min(len(target), chunk, len(data) - position)
        target[:count] = data[position : position + count]
        cutter.received(count)
        position += count


def take(cutter):
    frames = []
    while cutter.queued_frames:
        frames.append(bytes(cutter.next_frame()))
        cutter.finished(len(frames[-1]) + 4)
    return frames


def put(cutter, data):
    cutter.get_buffer()[: len(data)] = data
    return len(data)


@pytest.mark.parametrize("length", [0, 1, 8188])
def test_a_frame_alone_is_neither_queued_nor_counted(length):
    budget = ByteBudget(1 << 20)
    cutter = make(budget=budget)
    data = bytes(length)
    frame = cutter.take_alone(put(cutter, framed(data)))
    assert bytes(frame) == data
    assert not frame.readonly
    assert (cutter.frames_cut, cutter.queued_frames, cutter.queued_bytes) == (1, 0, 0)
    assert budget.used == 0
    cutter.hold(length + 4)
    assert (cutter.queued_bytes, budget.used) == (length + 4, length + 4)
    cutter.finished(length + 4)
    assert (cutter.queued_bytes, budget.used) == (0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0",
        framed(b"whole") + b"\0",
        framed(b"cut short")[:-1],
        framed(b"one") + framed(b"two"),
        framed(bytes(8189)),
        struct.pack(">i", -4),
    ],
)
def test_what_is_not_one_small_frame_is_not_taken(data):
    cutter = make()
    size_ = put(cutter, data)
    assert cutter.take_alone(size_) is None
    cutter.received(size_)
    queued = cutter.queued_frames
    whole = framed(b"next")
    if queued or cutter.partial or cutter.bad:
        assert cutter.take_alone(put(cutter, whole)) is None


def test_a_frame_above_the_limit_is_not_taken():
    cutter = make(limit=100)
    data = framed(bytes(101))
    assert cutter.take_alone(put(cutter, data)) is None
    cutter.received(len(data))
    assert cutter.bad == BAD_TOO_LARGE


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100, 1448, 65_536, 1 << 30])
def test_any_chunking_gives_the_same_frames(chunk):
    sent = [b"", b"a", b"bc" * 100, bytes(8192), b"x" * 9000, b"", b"z" * 70_000, b"end"]
    budget = ByteBudget(1 << 40)
    cutter = make(budget=budget)
    receive(cutter, b"".join(map(framed, sent)), chunk)
    assert take(cutter) == sent
    assert (budget.used, cutter.partial, cutter.frames_cut) == (0, 0, len(sent))


@pytest.mark.parametrize("seed", range(size(ci=30, full=2000)))
def test_random_frames_in_random_chunks(seed):
    chance = random.Random(seed)
    budget = ByteBudget(1 << 40)
    cutter = make(budget=budget, scratch=chance.choice([131_072, 150_001, 262_144]))
    sent = [
        chance.randbytes(chance.choice([0, 9, 300, 8_191, 8_192, 40_000, 200_000, 2_200_000]))
        for _ in range(chance.randrange(1, 12))
    ]
    stream = b"".join(map(framed, sent))
    got = []
    position = 0
    while position < len(stream):
        count = chance.choice([1, 4, 100, 5_000, 66_000, 1 << 20])
        data = stream[position : position + count]
        if chance.random() < 0.5:
            cutter.feed(data)
        else:
            receive(cutter, data, chance.choice([7, 4096, 1 << 30]) if count > 1 else 1)
        position += len(data)
        if chance.random() < 0.3:
            got += take(cutter)
    got += take(cutter)
    assert got == sent
    assert budget.used == 0


def test_a_frame_that_comes_alone_stays_before_those_that_come_later():
    budget = ByteBudget(1 << 40)
    cutter = make(budget=budget)
    for data in (framed(b"one"), framed(b"two"), framed(b"3") + framed(b"4"), framed(b"")):
        receive(cutter, data, 1 << 30)
    assert (cutter.queued_frames, cutter.frames_cut, budget.used) == (5, 5, 28)
    assert take(cutter) == [b"one", b"two", b"3", b"4", b""]
    receive(cutter, framed(b"alone"), 1 << 30)
    cutter.close()
    assert (cutter.queued_frames, budget.used) == (0, 0)


def test_frames_do_not_share_the_scratch():
    cutter = make()
    receive(cutter, framed(b"one") + framed(b"two"), 1 << 30)
    first, second = cutter.next_frame(), cutter.next_frame()
    receive(cutter, framed(b"XXX") + framed(b"YYY"), 1 << 30)
    assert (bytes(first), bytes(second)) == (b"one", b"two")
    assert not first.readonly


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (-1, BAD_NEGATIVE_SIZE),
        (-(2**31), BAD_NEGATIVE_SIZE),
        (1001, BAD_TOO_LARGE),
        (2**31 - 1, BAD_TOO_LARGE),
    ],
)
def test_bad_sizes_end_the_stream_after_the_frames_before(number, reason):
    cutter = make(limit=1000)
    receive(cutter, framed(b"good") + struct.pack(">i", number) + framed(b"never"), 1 << 30)
    assert take(cutter) == [b"good"]
    assert cutter.bad == reason
    assert cutter.first_bytes.startswith(struct.pack(">i", number))
    receive(cutter, framed(b"never"), 1 << 30)
    assert cutter.queued_frames == 0


def test_a_frame_of_the_largest_size_passes():
    cutter = make(limit=1000)
    receive(cutter, framed(bytes(1000)), 1 << 30)
    assert take(cutter) == [bytes(1000)]


@pytest.mark.parametrize("announced", [8_192, 100_000, MIB, 104_857_600])
def test_memory_is_at_most_17_times_what_has_arrived(announced):
    budget = ByteBudget(1 << 40)
    cutter = make(budget=budget)
    stream = struct.pack(">i", announced) + bytes(min(announced, 5 * MIB) - 1)
    position = 0
    for piece in (4, 1, 100, 500, 3000, 20_000, 30_000, 40_000, *([200_000] * 30)):
        data = stream[position : position + piece]
        receive(cutter, data, 1 << 30)
        position += len(data)
        assert cutter.partial == position
        assert budget.used <= max(17 * position, 2 * position if position > MIB else 0)
    assert budget.used <= 2 * position
    cutter.close()
    assert budget.used == 0


def test_a_large_frame_waits_for_the_budget():
    budget = ByteBudget(10_000)
    busy = Owner()
    assert budget.try_hold(busy, 50_000), "one may always exceed"
    cutter = make(budget=budget)
    receive(cutter, framed(bytes(300_000))[:100_000], 1 << 30)
    assert cutter.is_blocked
    assert not cutter.grow()
    assert budget.is_crowded
    budget.release(50_000)
    budget.forget(busy)
    assert cutter.grow()
    assert not cutter.is_blocked
    receive(cutter, framed(bytes(300_000))[100_000:], 1 << 30)
    assert take(cutter) == [bytes(300_000)]


def test_a_transport_that_reads_though_blocked_is_given_room():
    budget = ByteBudget(10_000)
    budget.try_hold(Owner(), 50_000)
    cutter = make(budget=budget)
    data = bytes(range(256)) * 1500
    receive(cutter, framed(data), 1 << 30)
    assert take(cutter) == [data]
    assert budget.used == 50_000


def test_close_forgets_everything_but_what_is_in_progress():
    budget = ByteBudget(1 << 40)
    cutter = make(budget=budget)
    receive(cutter, framed(b"first") + framed(bytes(70_000)) + framed(b"cut")[:5], 1 << 30)
    first = cutter.next_frame()
    cutter.close(in_progress=len(first) + 4)
    assert (cutter.queued_frames, budget.used) == (0, 9)
    cutter.finished(len(first) + 4)
    assert budget.used == 0
    receive(cutter, framed(b"late"), 1 << 30)
    assert (cutter.queued_frames, budget.used) == (0, 0)


def test_buffers_of_large_frames_are_used_again_when_nobody_sees_them():
    pool = BufferPool(8 * MIB)
    cutter = make(pool=pool)
    seen = []
    for keep in (False, True, False):
        receive(cutter, framed(bytes(500_000)), 1 << 30)
        frame = cutter.next_frame()
        buffer = frame.obj
        seen.append(id(buffer))
        kept = frame[5:9] if keep else None
        length = len(frame)
        del frame
        cutter.finished_large(buffer, length + 4)
        del buffer
        if kept is not None:
            held = kept
    assert seen[0] == seen[1] != seen[2]
    assert bytes(held) == bytes(4)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x16\x03\x01\x02\x00\x01", "TLS"),
        (b"GET / HT", "HTTP"),
        (b"POST /", "HTTP"),
        (b"\r\n\r\n\0\r\nQ", "the PROXY protocol"),
        (b"PROXY TC", "the PROXY protocol"),
        (b"\x7f\xff\xff\xff", None),
        (b"", None),
        (b"\x16", None),
    ],
)
def test_hints(data, name):
    assert looks_like(data) == name


def test_a_scratch_must_hold_what_small_frames_need():
    with pytest.raises(ValueError, match="scratch"):
        make(scratch=1000)
