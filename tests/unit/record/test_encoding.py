import pytest
from hypothesis import given
from hypothesis import strategies as st

from kbroker.record.encoding import (
    VarintTooLongError,
    read_varint,
    read_varlong,
    wrap_int64,
    write_varint,
)


@given(st.integers(-(2**31), 2**31 - 1))
def test_varints_round_trip(value):
    encoded = write_varint(value)
    assert len(encoded) <= 5
    assert read_varint(encoded, 0) == (value, len(encoded))


@given(st.integers(-(2**63), 2**63 - 1))
def test_varlongs_round_trip(value):
    encoded = write_varint(value)
    assert len(encoded) <= 10
    assert read_varlong(b"xx" + encoded, 2) == (value, 2 + len(encoded))


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "01"), (1, "02"), (63, "7e"), (-64, "7f"), (64, "8001"), (300, "d804")],
)
def test_known_encodings(value, encoded):
    assert write_varint(value).hex() == encoded


def test_bits_without_room_are_dropped():
    assert read_varint(b"\xff\xff\xff\xff\x7f", 0) == (-(2**31), 5)
    assert read_varlong(b"\xff" * 9 + b"\x7f", 0) == (-(2**63), 10)


def test_too_long_and_cut_varints():
    with pytest.raises(VarintTooLongError):
        read_varint(b"\x80" * 5 + b"\x00", 0)
    with pytest.raises(VarintTooLongError):
        read_varlong(b"\x80" * 10 + b"\x00", 0)
    with pytest.raises(IndexError):
        read_varint(b"\x80\x80", 0)


def test_sums_wrap_at_64_bits():
    assert wrap_int64(2**63) == -(2**63)
    assert wrap_int64(-(2**63) - 1) == 2**63 - 1
    assert wrap_int64(-5) == -5
