"""Keys land where Java's partitioner puts them; the hashes are those of its own unit test."""

import pytest

from kbroker.record.partitioner import murmur2, partition_for_key

# UtilsTest.testMurmur2 of Apache Kafka, as unsigned 32-bit numbers
KNOWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("data", "signed"), KNOWN.items())
def test_murmur2_is_kafkas(data: bytes, signed: int):
    assert murmur2(data) == signed % 2**32


def test_a_negative_hash_loses_its_sign():
    assert partition_for_key(b"21", 7) == (-973932308 & 0x7FFFFFFF) % 7
