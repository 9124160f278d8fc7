"""Primitives: what Kafka accepts is accepted, what cannot be is refused before memory is taken."""

import tracemalloc
from struct import error as struct_error

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.protocol import wire
from kbroker.protocol.wire import DecodeError, EncodeError

FAILURES = (DecodeError, IndexError, struct_error)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (300, "ac02"),
        (16383, "ff7f"),
        (16384, "808001"),
        (2**31 - 1, "ffffffff07"),
        (2**32 - 1, "ffffffff0f"),
    ],
)
def test_uvarint_bytes(value, encoded):
    assert wire.uvarint(value) == bytes.fromhex(encoded)


@given(st.integers(0, 2**31 - 1))
def test_uvarint_round_trip(value):
    encoded = wire.uvarint(value)
    assert wire.read_uvarint(b"\xff" + encoded, 1) == (value, 1 + len(encoded))


def test_uvarint_is_a_signed_int_as_in_kafka():
    assert wire.read_uvarint(bytes.fromhex("ffffffff0f"), 0) == (-1, 5)
    assert wire.read_uvarint(bytes.fromhex("8080808008"), 0) == (-(2**31), 5)


def test_uvarint_longer_than_needed_is_accepted():
    assert wire.read_uvarint(bytes.fromhex("8000"), 0) == (0, 2)


def test_bits_of_the_fifth_byte_without_room_are_dropped_as_in_kafka():
    assert wire.read_uvarint(bytes.fromhex("8180808010"), 0) == (1, 5)
    assert wire.read_uvarint(bytes.fromhex("fefefefe58"), 0) == (0x8FDFBF7E - 2**32, 5)


@pytest.mark.parametrize("encoded", ["ffffffff8f00", "ffffffffffffff01", "80" * 100])
def test_uvarint_of_more_than_5_bytes(encoded):
    with pytest.raises(DecodeError):
        wire.read_uvarint(bytes.fromhex(encoded), 0)


@pytest.mark.parametrize("encoded", ["", "80", "ffffffff"])
def test_uvarint_cut_short(encoded):
    with pytest.raises(IndexError):
        wire.read_uvarint(bytes.fromhex(encoded), 0)


@pytest.mark.parametrize("value", [2**32, 2**40])
def test_uvarint_that_cannot_be_written(value):
    with pytest.raises(EncodeError):
        wire.uvarint(value)


@pytest.mark.parametrize("length", [-1, -2, -32768])
def test_any_negative_length_is_null(length):
    encoded = length.to_bytes(2, "big", signed=True)
    assert wire.read_nullable_string(encoded, 0) == (None, 2)
    with pytest.raises(DecodeError):
        wire.read_string(encoded, 0)
    wide = length.to_bytes(4, "big", signed=True)
    assert wire.read_nullable_bytes(wide, 0) == (None, 4)
    assert wire.read_nullable_records(wide, 0) == (None, 4)
    assert wire.read_nullable_count(wide, 0, 1) == (-1, 4)
    for read in (wire.read_bytes, wire.read_records):
        with pytest.raises(DecodeError):
            read(wide, 0)
    with pytest.raises(DecodeError):
        wire.read_count(wide, 0, 1)


@pytest.mark.parametrize("encoded", ["00", "ffffffff0f", "818080800f"])
def test_compact_null(encoded):
    data = bytes.fromhex(encoded)
    assert wire.read_compact_nullable_string(data, 0) == (None, len(data))
    assert wire.read_compact_nullable_bytes(data, 0) == (None, len(data))
    assert wire.read_compact_nullable_records(data, 0) == (None, len(data))
    assert wire.read_compact_nullable_count(data, 0, 1) == (-1, len(data))
    for read in (wire.read_compact_string, wire.read_compact_bytes, wire.read_compact_records):
        with pytest.raises(DecodeError):
            read(data, 0)
    with pytest.raises(DecodeError):
        wire.read_compact_count(data, 0, 1)


def test_the_one_length_that_is_neither():
    data = bytes.fromhex("8080808008")  # -2**31 less one is no int
    for read in (wire.read_compact_nullable_string, wire.read_compact_nullable_bytes):
        with pytest.raises(DecodeError):
            read(data, 0)


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"\xff\xfe", "��"),
        (b"a\xc3", "a�"),
        (b"\xed\xa0\x80", "�"),  # an encoded surrogate: one replacement, as Java has it
        (b"\xed\xa0\x80\xed\xb0\x80x", "��x"),
        (b"\xe6\x97", "�"),
        (b"\xf0\x9f\x98\x80", "\U0001f600"),
    ],
)
def test_bad_utf8_is_replaced(raw, text):
    wide = len(raw).to_bytes(2, "big") + raw
    compact = bytes([len(raw) + 1]) + raw
    for data, read in (
        (wide, wire.read_string),
        (wide, wire.read_nullable_string),
        (compact, wire.read_compact_string),
        (compact, wire.read_compact_nullable_string),
    ):
        assert read(data, 0) == (text, len(data))
        assert read(memoryview(data), 0) == (text, len(data))


@pytest.mark.parametrize("text", ["", "a", "ä" * 63, "x" * 126, "x" * 127, "x" * 32767])
def test_short_strings_are_compact_strings(text):
    parts = []
    wire.write_compact_string(parts, text)
    data = b"".join(parts)
    assert wire.read_short_string(b"-" + data, 1) == (text, 1 + len(data))
    assert wire.read_short_nullable_string(b"-" + data, 1) == (text, 1 + len(data))


def test_a_short_string_that_is_null_bad_or_cut():
    assert wire.read_short_nullable_string(b"\0", 0) == (None, 1)
    with pytest.raises(DecodeError, match="is null"):
        wire.read_short_string(b"\0", 0)
    for read in (wire.read_short_string, wire.read_short_nullable_string):
        assert read(b"\4\xed\xa0\x80", 0) == ("\ufffd", 4)
        assert read(b"\6abc", 0)[1] == 6  # after the buffer: the next read fails
        with pytest.raises(DecodeError):
            read(b"\6ab\xc3", 0)
        with pytest.raises(IndexError):
            read(b"", 0)


def test_a_single_uuid():
    assert wire.read_uuid(bytes(range(20)), 2) == bytes(range(2, 18))
    with pytest.raises(IndexError):
        wire.read_uuid(bytes(range(20)), 5)


@pytest.mark.parametrize("size", [126, 127, 32767])
def test_long_strings(size):
    text = "x" * size
    for write, read in (
        (wire.write_string, wire.read_string),
        (wire.write_nullable_string, wire.read_nullable_string),
        (wire.write_compact_string, wire.read_compact_string),
        (wire.write_compact_nullable_string, wire.read_compact_nullable_string),
    ):
        parts = []
        write(parts, text)
        data = b"".join(parts)
        assert read(data, 0) == (text, len(data))


def test_strings_over_the_limit():
    text = "ä" * 16384
    for write in (wire.write_string, wire.write_compact_string):
        with pytest.raises(EncodeError):
            write([], text)
    data = wire.uvarint(32769) + text.encode()
    for read in (wire.read_compact_string, wire.read_compact_nullable_string):
        with pytest.raises(DecodeError):
            read(data, 0)


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (wire.read_string, b"\0\5abcd"),
        (wire.read_nullable_string, b"\x7f\xff"),
        (wire.read_compact_string, b"\6abcd"),
        (wire.read_compact_nullable_string, b"\6"),
        (wire.read_bytes, b"\0\0\0\2x"),
        (wire.read_nullable_bytes, b"\x7f\xff\xff\xff"),
        (wire.read_compact_bytes, b"\xff\xff\xff\xff\7"),
        (wire.read_compact_nullable_bytes, b"\3x"),
        (wire.read_records, b"\x7f\xff\xff\xffxxx"),
        (wire.read_compact_records, b"\xff\xff\xff\xff\7xxx"),
        (wire.read_tagged_fields, b"\1\0\5ab"),
        (wire.read_tagged_fields, b"\1\0\xff\xff\xff\xff\x0f"),
    ],
)
def test_a_field_that_ends_after_the_message(read, data):
    tracemalloc.start()
    try:
        with pytest.raises(DecodeError):
            read(data, 0)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (wire.read_count, b"\x7f\xff\xff\xff" + bytes(11)),
        (wire.read_nullable_count, b"\0\0\0\4" + bytes(11)),
        (wire.read_compact_count, b"\5" + bytes(11)),
        (wire.read_compact_nullable_count, b"\xff\xff\xff\xff\7" + bytes(11)),
    ],
)
def test_a_count_that_cannot_be(read, data):
    with pytest.raises(DecodeError, match="cannot fit the 11 bytes left"):
        read(data, 0, 3)


def test_a_count_that_just_fits():
    assert wire.read_count(b"\0\0\0\4" + bytes(12), 0, 3) == (4, 4)
    assert wire.read_compact_count(b"\5" + bytes(12), 0, 3) == (4, 1)


@pytest.mark.parametrize(
    ("read", "head"),
    [
        (wire.read_count, (1 << 18).to_bytes(4, "big")),
        (wire.read_nullable_count, (1 << 18).to_bytes(4, "big")),
        (wire.read_compact_count, wire.uvarint((1 << 18) + 1)),
        (wire.read_compact_nullable_count, wire.uvarint((1 << 18) + 1)),
    ],
)
def test_a_count_that_nobody_needs(read, head):
    data = head + bytes(1 << 18)
    assert read(data, 0, 1, wire.MAX_ELEMENTS) == (1 << 18, len(head))
    assert read(data, 0, 1) == (1 << 18, len(head))
    with pytest.raises(DecodeError, match="too many"):
        read(data, 0, 1, wire.MAX_ELEMENTS - 1)


def test_records_are_not_copied():
    data = memoryview(bytearray(b"\0\0\0\3abc"))
    records, end = wire.read_records(data, 0)
    data[4] = ord("X")
    assert bytes(records) == b"Xbc"
    assert end == 7


def test_unknown_tags_in_any_order_and_twice():
    data = b"\3\5\1a\4\0\5\1b"
    fields, end = wire.read_tagged_fields(data, 0)
    assert fields == ((5, b"a"), (4, b""), (5, b"b"))
    assert end == len(data)
    parts = []
    wire.write_tagged_fields(parts, fields)
    assert b"".join(parts) == b"\3\4\0\5\1a\5\1b"


@pytest.mark.parametrize("data", [b"", b"\2\0\0", b"\1", b"\1\0", b"\xff\xff\xff\xff\7"])
def test_tags_cut_short(data):
    with pytest.raises(FAILURES):
        wire.read_tagged_fields(data, 0)


def test_a_uuid_has_16_bytes():
    with pytest.raises(EncodeError):
        wire.write_uuid_array([], [bytes(16), bytes(15)])


class Sized:
    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size


def test_small_parts_are_joined_and_large_or_foreign_ones_are_not():
    large = bytes(wire.JOIN_BELOW)
    view = memoryview(bytearray(10_000))
    log_slice = Sized(5)
    parts = [b"before"]
    wire.append_joined(parts, [b"a", b"", b"b", large, b"c", view, log_slice, Sized(0), b"d", b"e"])
    assert parts == [b"before", b"ab", large, b"c", view, log_slice, b"de"]
    assert parts[2] is large
    assert parts[4] is view
    assert parts[5] is log_slice
