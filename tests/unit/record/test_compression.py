import contextlib
import gzip
import os
import struct
import subprocess
import sys
import textwrap

import lz4.frame
import pytest
import snappy
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kbroker.protocol.error_codes import ErrorCode
from kbroker.record import compression as c
from tests.unit.record.batches import COMPRESSED

LIMIT = 1 << 20
PLAIN = b"the same words again and again " * 300


@given(st.binary(max_size=5000), st.sampled_from(COMPRESSED))
def test_round_trips(data, codec):
    assert c.decompress(codec, c.compress(codec, data), limit=LIMIT) == data


@pytest.mark.parametrize("codec", COMPRESSED)
def test_streams_in_any_pieces(codec):
    data = os.urandom(100_000) + bytes(300_000)
    deflater = c.open_deflater(codec)
    compressed = c.stream_header(codec)
    for start in range(0, len(data), 7777):
        compressed += deflater.write(data[start : start + 7777])
    compressed += deflater.finish()
    inflater = c.open_inflater(codec, compressed, limit=LIMIT)
    output = bytearray()
    while piece := inflater.read(1000):
        assert len(piece) <= 1000
        output += piece
    assert output == data
    assert inflater.read(1000) == b""


@pytest.mark.parametrize("codec", COMPRESSED)
def test_the_limit_is_exact(codec):
    compressed = c.compress(codec, PLAIN)
    assert c.decompress(codec, compressed, limit=len(PLAIN)) == PLAIN
    with pytest.raises(c.OutputLimitError) as caught:
        c.decompress(codec, compressed, limit=len(PLAIN) - 1)
    assert caught.value.error_code is ErrorCode.MESSAGE_TOO_LARGE


def test_uncompressed_data_has_the_limit_too():
    assert c.decompress(c.NONE, b"abc", limit=3) == b"abc"
    with pytest.raises(c.OutputLimitError):
        c.decompress(c.NONE, b"abc", limit=2)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_every_truncation_is_undecodable(codec):
    compressed = c.compress(codec, PLAIN)
    for end in range(1, len(compressed)):
        if codec == c.SNAPPY and end == 16:
            continue  # xerial's header alone is a stream of nothing
        if codec == c.SNAPPY and 16 < end < 20:
            continue  # Kafka takes less than a block size for the end
        with pytest.raises(c.UndecodableDataError):
            c.decompress(codec, compressed[:end], limit=LIMIT)


@pytest.mark.parametrize("codec", COMPRESSED)
def test_every_flipped_byte_ends_in_output_or_a_known_error(codec):
    compressed = bytearray(c.compress(codec, PLAIN))
    for position in range(len(compressed)):
        for flip in (0x01, 0x80, 0xFF):
            compressed[position] ^= flip
            with contextlib.suppress(c.UndecodableDataError, c.OutputLimitError):
                assert len(c.decompress(codec, compressed, limit=LIMIT)) <= LIMIT
            compressed[position] ^= flip


@given(st.binary(max_size=200), st.sampled_from((1, 2, 3, 4, 5, 6, 7)))
def test_junk_ends_in_output_or_a_known_error(data, codec):
    with contextlib.suppress(c.UndecodableDataError, c.OutputLimitError):
        assert len(c.decompress(codec, data, limit=LIMIT)) <= LIMIT


@pytest.mark.parametrize("codec", [c.GZIP, c.SNAPPY, c.LZ4])
def test_no_data_is_undecodable(codec):
    with pytest.raises(c.UndecodableDataError):
        c.decompress(codec, b"", limit=LIMIT)


def test_no_zstd_data_is_no_output():
    assert c.decompress(c.ZSTD, b"", limit=LIMIT) == b""


@pytest.mark.parametrize("codec", [5, 6, 7])
def test_unknown_codecs(codec):
    with pytest.raises(c.UndecodableDataError) as caught:
        c.decompress(codec, b"abc", limit=LIMIT)
    assert caught.value.error_code is ErrorCode.UNKNOWN_SERVER_ERROR
    with pytest.raises(ValueError, match="codec"):
        c.compress(codec, b"abc")


def test_gzip_members_follow_each_other_and_junk_is_ignored():
    two = gzip.compress(b"one") + gzip.compress(b"two")
    assert c.decompress(c.GZIP, two, limit=LIMIT) == b"onetwo"
    for junk in (b"j", b"junk" * 20, b"\x1f\x8b\x08", bytes(100)):
        assert c.decompress(c.GZIP, gzip.compress(b"one") + junk, limit=LIMIT) == b"one"


def test_gzip_headers_may_carry_names_and_more():
    body = gzip.compress(b"data", mtime=0)
    extra = struct.pack("<H", 5) + b"extra"
    head = bytearray(body[:10])
    head[3] = 0x04 | 0x08 | 0x10 | 0x02
    full = bytes(head) + extra + b"name\0comment\0" + b"xx" + body[10:]
    assert c.decompress(c.GZIP, full, limit=LIMIT) == b"data"
    with pytest.raises(c.UndecodableDataError):
        c.decompress(c.GZIP, full[:20], limit=LIMIT)


@pytest.mark.parametrize("position", [-1, -5])
def test_gzip_checksum_and_size_are_checked(position):
    data = bytearray(gzip.compress(b"data"))
    data[position] ^= 1
    with pytest.raises(c.UndecodableDataError):
        c.decompress(c.GZIP, data, limit=LIMIT)


def test_a_gzip_record_is_handed_out_before_its_checksum_is_read():
    data = bytearray(gzip.compress(b"data"))
    data[-5] ^= 1
    inflater = c.open_inflater(c.GZIP, data, limit=LIMIT)
    assert inflater.read(100) == b"data"
    with pytest.raises(c.UndecodableDataError):
        inflater.read(100)


def test_raw_snappy_is_read_and_xerial_written():
    assert c.decompress(c.SNAPPY, snappy.compress(PLAIN), limit=LIMIT) == PLAIN
    written = c.compress(c.SNAPPY, bytes(70_000))
    assert written.startswith(b"\x82SNAPPY\x00\x00\x00\x00\x01\x00\x00\x00\x01")
    assert c.decompress(c.SNAPPY, written + written, limit=LIMIT) == bytes(140_000)


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack(">i", -1),
        struct.pack(">i", 100) + b"short",
        struct.pack(">i", 5) + b"\xff\xff\xff\xff\x07",  # announces 2 GiB
        struct.pack(">i", 3) + b"\x05ab",
        b"\x82SNAPPY\x00\x00",
    ],
)
def test_bad_xerial_blocks(tail):
    with pytest.raises(c.UndecodableDataError):
        c.decompress(c.SNAPPY, c.compress(c.SNAPPY, b"first") + tail, limit=LIMIT)


def test_a_raw_snappy_block_that_announces_too_much_is_refused_unread():
    with pytest.raises(c.UndecodableDataError):
        c.decompress(c.SNAPPY, b"\xff\xff\xff\x7f" + b"abc", limit=1 << 31)


def test_lz4_takes_the_first_frame_only():
    frame = lz4.frame.compress(PLAIN, block_linked=False)
    assert c.decompress(c.LZ4, frame + b"junk", limit=LIMIT) == PLAIN
    assert c.decompress(c.LZ4, frame + frame, limit=LIMIT) == PLAIN


def test_lz4_needs_independent_blocks_as_in_kafka():
    linked = lz4.frame.compress(
        os.urandom(200_000), block_linked=True, block_size=lz4.frame.BLOCKSIZE_MAX64KB
    )
    with pytest.raises(c.UndecodableDataError, match="independent"):
        c.decompress(c.LZ4, linked, limit=LIMIT)


def test_zstd_frames_follow_each_other_and_nothing_else():
    frame = zstandard.compress(PLAIN)
    skippable = struct.pack("<II", 0x184D2A53, 4) + b"skip"
    assert c.decompress(c.ZSTD, frame + skippable + frame, limit=LIMIT) == PLAIN * 2
    for junk in (b"j", b"junkjunk"):
        with pytest.raises(c.UndecodableDataError):
            c.decompress(c.ZSTD, frame + junk, limit=LIMIT)


@pytest.mark.parametrize("with_checksum", [True, False])
@pytest.mark.parametrize("with_size", [True, False])
@pytest.mark.parametrize("size", [1, 200, 70_000, 400_000])
def test_zstd_frames_of_every_shape_are_whole(with_checksum, with_size, size):
    compressor = zstandard.ZstdCompressor(
        write_checksum=with_checksum, write_content_size=with_size
    )
    data = bytes(size)
    frame = compressor.compress(data)
    streamed = compressor.compressobj()
    for form in (frame, streamed.compress(data) + streamed.flush()):
        assert c.decompress(c.ZSTD, form, limit=LIMIT) == data
        with pytest.raises(c.UndecodableDataError):
            c.decompress(c.ZSTD, form[:-1], limit=LIMIT)


def test_zstd_windows_up_to_kafkas_128_mib():
    for window_log, fits in ((27, True), (28, False)):
        parameters = zstandard.ZstdCompressionParameters(window_log=window_log)
        compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        data = compressor.compress(b"x" * 1000) + compressor.flush()
        if fits:
            assert c.decompress(c.ZSTD, data, limit=LIMIT) == b"x" * 1000
        else:
            with pytest.raises(c.UndecodableDataError):
                c.decompress(c.ZSTD, data, limit=LIMIT)


@pytest.mark.parametrize(
    ("codec", "low", "high"), [(c.GZIP, 1, 9), (c.LZ4, 1, 17), (c.ZSTD, -50, 15)]
)
def test_levels_act(codec, low, high):
    data = b"".join(b"record %d of %d\n" % (i, i * i % 997) for i in range(10_000))
    weak, strong = c.compress(codec, data, low), c.compress(codec, data, high)
    assert len(strong) < len(weak)
    assert c.decompress(codec, strong, limit=LIMIT) == data


def test_codec_libraries_are_imported_at_first_use():
    program = (
        "import sys, kbroker.record.compression, kbroker.record.batch, kbroker.record.walk\n"
        "print([n for n in ('zlib', 'lz4', 'snappy', 'zstandard', 'isal') if n in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() in ("[]", "['zlib']")


BOMBS = """
    import gzip, resource, sys, time
    import lz4.frame, snappy, zstandard
    from kbroker.record import compression as c

    MEBI = 1 << 20
    zeros = bytes(MEBI)

    def zstd_bomb():
        stream = zstandard.ZstdCompressor(level=1).compressobj()
        return b"".join([stream.compress(zeros) for _ in range(700)] + [stream.flush()])

    bombs = {
        c.GZIP: gzip.compress(bytes(200 * MEBI), 1),
        c.SNAPPY: c.compress(c.SNAPPY, bytes(200 * MEBI)),
        c.LZ4: lz4.frame.compress(bytes(200 * MEBI), block_linked=False),
        c.ZSTD: zstd_bomb(),
    }
    for codec, bomb in bombs.items():
        c.open_inflater(codec, bomb, limit=MEBI).read(10)  # the library is loaded
    usage = resource.getrusage(resource.RUSAGE_SELF)
    # The bombs were built in this process: only new pages count from here on.
    def resident():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    for codec, bomb in bombs.items():
        before, total, peak = resident(), 0, 0
        inflater = c.open_inflater(codec, bomb, limit=128 * MEBI)
        try:
            while chunk := inflater.read(256 * 1024):
                total += len(chunk)
                peak = max(peak, resident() - before)
            raise SystemExit(f"codec {codec} inflated to the end")
        except c.OutputLimitError:
            pass
        print(codec, len(bomb), total // MEBI, peak // MEBI)
        assert 100 * MEBI < total <= 129 * MEBI, total
        assert peak < 24 * MEBI, peak
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_bombs_stay_flat_and_end_at_the_limit():
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(BOMBS)], capture_output=True, text=True, timeout=50
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert len(run.stdout.splitlines()) == 4
