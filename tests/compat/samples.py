"""Records that the tests send, and the form in which every client's answer is compared."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@dataclass(frozen=True)
class Sample:
    """One record as a producer hands it in and as a consumer must get it back."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True)
class Received:
    """One record as a client handed it out."""

    partition: int
    offset: int
    sample: Sample


def now_ms() -> int:
    """The wall clock: brokers refuse timestamps far in the future, retention eats old ones."""
    return int(time.time() * 1000)


def varied_samples(count: int, *, seed: int = 1) -> list[Sample]:
    """Records with all kinds of keys, values and headers; equal for equal arguments but the time.

    Values are half noise, half repetition, so that every codec has something to do; about one in
    ten is empty, a tombstone, or some tens of KiB long.
    """
    source = random.Random(seed)
    start = now_ms() - count
    return [_sample(source, index, start + index) for index in range(count)]


def _sample(source: random.Random, index: int, timestamp_ms: int) -> Sample:
    sizes = (0, 1, 10, 100, 1000, 1000, 1000, 5000, 30_000)
    size = source.choice(sizes)
    value = source.randbytes(size // 2) + b"kbroker " * (size // 16)
    key = source.choice([None, b"", b"key-%d" % index, "schlüssel".encode()])
    headers = tuple(
        (f"header-{number % 2}", source.randbytes(number)) for number in range(source.randrange(4))
    )
    # A record without key and value is legal, but some clients refuse to send it.
    is_tombstone = key is not None and source.random() < 0.05
    return Sample(key, None if is_tombstone else value, timestamp_ms, headers)


def of_partition(records: list[Received], partition: int) -> list[Sample]:
    """The samples of one partition, in offset order; asserts that offsets have no gap."""
    chosen = sorted((r for r in records if r.partition == partition), key=lambda r: r.offset)
    offsets = [record.offset for record in chosen]
    assert offsets == list(range(len(chosen))), f"partition {partition} has offsets {offsets}"
    return [record.sample for record in chosen]
