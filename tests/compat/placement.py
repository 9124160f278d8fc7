"""Kafka's default placement of keyed records: 32-bit MurmurHash2, sign bit dropped, modulo.

Written from the published algorithm (Austin Appleby, public domain) with Kafka's seed, and checked
against placements that the Java client made, so that it can judge the Python clients.
"""

from __future__ import annotations

SEED = 0x9747B28C
MULTIPLIER = 0x5BD1E995
MASK = 0xFFFFFFFF


def murmur2(data: bytes) -> int:
    """The unsigned 32-bit hash."""
    state = SEED ^ len(data)
    whole = len(data) & ~3
    for position in range(0, whole, 4):
        word = int.from_bytes(data[position : position + 4], "little") * MULTIPLIER & MASK
        word = (word ^ (word >> 24)) * MULTIPLIER & MASK
        state = (state * MULTIPLIER & MASK) ^ word
    if len(data) > whole:
        state ^= int.from_bytes(data[whole:], "little")
        state = state * MULTIPLIER & MASK
    state = (state ^ (state >> 13)) * MULTIPLIER & MASK
    return state ^ (state >> 15)


def partition_for(key: bytes, partition_count: int) -> int:
    """Where every client must put a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partition_count
