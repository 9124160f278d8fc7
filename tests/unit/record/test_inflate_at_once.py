import struct

import lz4.frame
import pytest
import zstandard

from kbroker.protocol.errors import KafkaError
from kbroker.record import compression as c
from kbroker.record.chunks import CHUNK_SIZE
from kbroker.record.inflate_at_once import AT_ONCE, AtOnceInflater

LIMIT = 1 << 24
DATA = b"".join(b"%d:%d," % (index, index * index) for index in range(20_000))  # several blocks


@pytest.fixture(params=sorted(AT_ONCE))
def codec(request):
    return request.param


def streamed(codec, data):
    """What the stream makes of it, None where it finds fault."""
    try:
        return c.decompress(codec, data, limit=LIMIT)
    except KafkaError:
        return None


def at_once(inflater, codec, data, most=CHUNK_SIZE):
    inflated = inflater.inflate(codec, memoryview(data), most)
    if inflated is None:
        return None
    output = bytes(inflated)
    inflater.give_back(inflated)
    return output


@pytest.mark.parametrize("size", [1, 100, 65_536, 65_537, len(DATA)])
def test_what_a_producer_sends_is_inflated(codec, size):
    data = DATA[:size]
    assert at_once(AtOnceInflater(), codec, c.compress(codec, data)) == data


def test_what_does_not_shrink_is_inflated(codec):
    data = b"".join(struct.pack(">I", (n * 2_654_435_761) % (1 << 32)) for n in range(50_000))
    compressed = c.compress(codec, data)
    assert len(compressed) >= len(data)
    assert at_once(AtOnceInflater(), codec, compressed) == data


def test_the_buffer_is_used_again_when_it_was_given_back(codec):
    inflater = AtOnceInflater()
    compressed = memoryview(c.compress(codec, DATA))
    first = inflater.inflate(codec, compressed)
    second = inflater.inflate(codec, compressed)
    assert first is not None
    assert second is not None
    assert first.obj is not second.obj
    assert first == second == DATA
    buffer = first.obj
    inflater.give_back(first)
    again = inflater.inflate(codec, compressed)
    assert again is not None
    assert again.obj is buffer
    assert second == again == DATA


def test_nothing_of_the_batch_before_shows(codec):
    inflater = AtOnceInflater()
    for size in (len(DATA), 40, 70_000, 20):
        assert at_once(inflater, codec, c.compress(codec, DATA[-size:])) == DATA[-size:]


def test_the_bound_is_exact(codec):
    inflater = AtOnceInflater()
    compressed = c.compress(codec, DATA)
    assert at_once(inflater, codec, compressed, len(DATA) + 1) == DATA
    assert at_once(inflater, codec, compressed, len(DATA)) is None
    assert at_once(inflater, codec, compressed, len(DATA) - 1) is None
    assert at_once(inflater, codec, compressed, len(compressed) - 1) is None
    bomb = c.compress(codec, bytes(CHUNK_SIZE + 1))
    assert at_once(inflater, codec, bomb) is None
    assert at_once(inflater, codec, compressed) == DATA


def test_other_codecs_are_left_to_their_streams():
    for codec in (c.NONE, c.GZIP, c.SNAPPY):
        assert at_once(AtOnceInflater(), codec, c.compress(c.GZIP, DATA)) is None


def test_every_truncation_is_left_to_the_stream(codec):
    inflater = AtOnceInflater()
    compressed = c.compress(codec, DATA[:300] + bytes(200))
    for size in range(len(compressed)):
        cut = compressed[:size]
        assert at_once(inflater, codec, cut) == (b"" if streamed(codec, cut) == b"" else None)
    assert at_once(inflater, codec, compressed) is not None


@pytest.mark.parametrize("value", [0x00, 0x01, 0x55, 0x80, 0xFF])
def test_whatever_byte_is_wrong_it_inflates_as_the_stream_does_or_not_at_all(codec, value):
    inflater = AtOnceInflater()
    compressed = bytearray(c.compress(codec, DATA[:300] + bytes(200)))
    taken = 0
    for position in range(len(compressed)):
        wrong = bytearray(compressed)
        wrong[position] ^= value
        output = at_once(inflater, codec, wrong)
        if output is not None:
            taken += 1
            assert output == streamed(codec, wrong)
    assert taken > (len(compressed) // 2 if not value else 0)


@pytest.mark.parametrize("store_size", [True, False])
@pytest.mark.parametrize("content_checksum", [True, False])
@pytest.mark.parametrize("block_checksum", [True, False])
@pytest.mark.parametrize("block_size", [4, 5, 6, 7])
def test_lz4_frames_of_every_kind(store_size, content_checksum, block_checksum, block_size):
    compressed = lz4.frame.compress(
        DATA,
        store_size=store_size,
        content_checksum=content_checksum,
        block_checksum=block_checksum,
        block_linked=False,
        block_size=block_size,
    )
    expected = None if content_checksum or block_checksum else DATA
    assert at_once(AtOnceInflater(), c.LZ4, compressed) == expected
    assert at_once(AtOnceInflater(), c.LZ4, compressed + b"ignored") == expected


def test_an_lz4_content_size_that_lies_is_left_to_the_stream():
    data = lz4.frame.compress(DATA[:5000], block_linked=False)
    other = lz4.frame.compress(DATA[:5001], block_linked=False)
    wrong = other[:15] + data[15:]
    assert streamed(c.LZ4, wrong) is None
    assert at_once(AtOnceInflater(), c.LZ4, wrong) is None


def test_linked_lz4_blocks_are_left_to_the_stream():
    assert at_once(AtOnceInflater(), c.LZ4, lz4.frame.compress(DATA, block_linked=True)) is None


def test_many_small_lz4_blocks_are_left_to_the_stream():
    """Each costs as much as a large one here: they must not hold up the loop."""
    head = c.compress(c.LZ4, DATA[:100])[:7]
    block = struct.pack("<I", 0x80000001) + b"x"
    for count in (63, 64):
        frame = head + block * count + bytes(4)
        assert streamed(c.LZ4, frame) == b"x" * count
        assert at_once(AtOnceInflater(), c.LZ4, frame) == (b"x" * count if count < 64 else None)


def test_many_small_zstd_frames_and_blocks_are_left_to_the_stream():
    empty = zstandard.ZstdCompressor().compress(b"")
    skipped = struct.pack("<II", 0x184D2A50, 3) + b"any"
    stream = zstandard.ZstdCompressor().compressobj()
    flushed = b"".join(
        stream.compress(b"x") + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for _ in range(60)
    )
    flushed += stream.flush()
    for frames, expected in (
        (empty * 64, b""),
        (empty * 65, None),
        (skipped * 64, b""),
        (skipped * 65, None),
        (flushed, b"x" * 60),
        (flushed * 2, None),
    ):
        assert streamed(c.ZSTD, frames) is not None
        assert at_once(AtOnceInflater(), c.ZSTD, frames) == expected


def test_zstd_frames_follow_each_other():
    one = c.compress(c.ZSTD, DATA[:1000])
    two = zstandard.ZstdCompressor().compress(DATA[1000:])
    inflater = AtOnceInflater()
    assert at_once(inflater, c.ZSTD, one + two) == DATA
    assert at_once(inflater, c.ZSTD, one + two + b"x") is None


def test_large_zstd_windows_are_left_to_the_stream():
    """The decoder is kept, and its window with it."""
    inflater = AtOnceInflater()
    for window_log, expected in ((23, DATA), (24, None)):
        parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        frame = compressor.compress(DATA) + compressor.flush()
        assert zstandard.get_frame_parameters(frame).window_size == 1 << window_log
        assert at_once(inflater, c.ZSTD, frame) == expected


def test_what_was_left_to_the_stream_is_not_tried_again(codec, monkeypatch):
    inflater = AtOnceInflater()
    compressed = c.compress(codec, DATA)
    assert at_once(inflater, codec, compressed, len(DATA)) is None
    tried = []
    for name in ("_inflate_lz4", "_inflate_zstd"):
        method = getattr(AtOnceInflater, name)
        monkeypatch.setattr(
            AtOnceInflater, name, lambda *a, method=method: tried.append(1) or method(*a)
        )
    assert at_once(inflater, codec, compressed, len(DATA) - 9) is None
    assert not tried
    assert at_once(inflater, codec, compressed) == DATA
    assert tried


def test_another_batch_of_the_same_size_is_tried():
    inflater = AtOnceInflater()
    one, other = (lz4.frame.compress(bytes([n]) * 9, block_linked=False) for n in (1, 2))
    assert len(one) == len(other)
    assert at_once(inflater, c.LZ4, bytes(4) + one[4:]) is None
    assert at_once(inflater, c.LZ4, other) == bytes([2]) * 9
