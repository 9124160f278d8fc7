"""Leader epochs and their offsets; restates LeaderEpochFileCacheTest."""

import errno
from typing import TYPE_CHECKING

import pytest

from kbroker.storage.checkpoints import EpochEntry
from kbroker.storage.leader_epoch_cache import LeaderEpochCache

if TYPE_CHECKING:
    from collections.abc import Callable


class Written:
    """What the cache persisted last."""

    def __init__(self) -> None:
        self.entries: list[EpochEntry] | None = None
        self.count = 0
        self.fails = False

    def __call__(self, entries: list[EpochEntry]) -> None:
        if self.fails:
            raise OSError(errno.EIO, "injected")
        self.entries = entries
        self.count += 1


@pytest.fixture
def written() -> Written:
    return Written()


def cache_of(written: Written, *entries: tuple[int, int]) -> LeaderEpochCache:
    cache = LeaderEpochCache((), written)
    for epoch, offset in entries:
        cache.assign(epoch, offset)
    return cache


def test_an_empty_cache_knows_nothing(written: Written) -> None:
    cache = cache_of(written)
    assert cache.latest_epoch == -1
    assert cache.earliest_entry is None
    assert cache.end_offset_for(0, 73) == (-1, -1)
    assert cache.end_offset_for(-1, 73) == (-1, -1)
    assert cache.epoch_for_offset(5) == -1
    cache.truncate_from_end(5)
    cache.truncate_from_start(5)
    cache.clear()
    assert written.count == 0


def test_the_latest_epoch_ends_at_the_log_end(written: Written) -> None:
    cache = cache_of(written, (2, 10))
    assert cache.latest_epoch == 2
    assert cache.end_offset_for(2, 12) == (2, 12)


def test_end_offsets_between_below_and_above_known_epochs(written: Written) -> None:
    cache = cache_of(written, (5, 11), (6, 12), (9, 40))
    assert cache.end_offset_for(4, 50) == (4, 11)
    assert cache.end_offset_for(-2, 50) == (-2, 11)
    assert cache.end_offset_for(5, 50) == (5, 12)
    assert cache.end_offset_for(6, 50) == (6, 40)
    assert cache.end_offset_for(8, 50) == (6, 40)
    assert cache.end_offset_for(9, 50) == (9, 50)
    assert cache.end_offset_for(10, 50) == (-1, -1)
    assert cache.end_offset_for(-1, 50) == (-1, -1)


def test_an_empty_log_knows_its_first_epoch(written: Written) -> None:
    assert cache_of(written, (0, 0)).end_offset_for(0, 0) == (0, 0)


def test_an_epoch_keeps_its_start(written: Written) -> None:
    cache = cache_of(written, (2, 6), (2, 7), (2, 8))
    assert cache.entries() == [(2, 6)]
    assert written.count == 1
    cache.assign(2, 5)
    assert cache.entries() == [(2, 5)]


def test_entries_that_contradict_a_new_one_go(written: Written) -> None:
    cache = cache_of(written, (2, 6), (3, 8), (4, 11))
    cache.assign(5, 8)
    assert cache.entries() == [(2, 6), (5, 8)]
    cache.assign(3, 20)
    assert cache.entries() == [(2, 6), (3, 20)]
    cache.assign(1, 3)
    assert cache.entries() == [(1, 3)]
    assert written.entries == [(1, 3)]


def test_impossible_epochs_are_refused(written: Written) -> None:
    for epoch, offset in ((-1, 0), (0, -1)):
        with pytest.raises(ValueError, match="cannot be"):
            cache_of(written, (epoch, offset))


def test_the_epoch_of_an_offset(written: Written) -> None:
    cache = cache_of(written, (1, 10), (3, 20))
    assert [cache.epoch_for_offset(offset) for offset in (9, 10, 19, 20, 99)] == [-1, 1, 1, 3, 3]


def test_truncation_from_the_end(written: Written) -> None:
    cache = cache_of(written, (2, 6), (3, 8), (4, 11))
    cache.truncate_from_end(12)
    assert len(cache.entries()) == 3
    cache.truncate_from_end(9)
    assert cache.entries() == written.entries == [(2, 6), (3, 8)]
    cache.truncate_from_end(8)
    assert cache.entries() == [(2, 6)]
    assert cache.latest_epoch == 2
    cache.truncate_from_end(-1)
    assert cache.entries() == [(2, 6)]
    cache.truncate_from_end(0)
    assert cache.entries() == []
    assert cache.latest_epoch == -1


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (1, [(2, 6), (3, 8), (4, 11)]),
        (6, [(2, 6), (3, 8), (4, 11)]),
        (7, [(2, 7), (3, 8), (4, 11)]),
        (8, [(3, 8), (4, 11)]),
        (9, [(3, 9), (4, 11)]),
        (11, [(4, 11)]),
        (15, [(4, 15)]),
    ],
)
def test_truncation_from_the_start(
    written: Written, start: int, expected: list[tuple[int, int]]
) -> None:
    cache = cache_of(written, (2, 6), (3, 8), (4, 11))
    cache.truncate_from_start(start)
    assert cache.entries() == expected
    assert written.entries == expected
    assert cache.earliest_entry == expected[0]


def test_clear(written: Written) -> None:
    cache = cache_of(written, (2, 6))
    cache.clear()
    assert cache.entries() == written.entries == []


def test_what_cannot_be_persisted_does_not_happen(written: Written) -> None:
    cache = cache_of(written, (2, 6), (3, 9))
    written.fails = True
    changes: list[Callable[[], None]] = [
        lambda: cache.assign(4, 12),
        lambda: cache.truncate_from_end(7),
        lambda: cache.truncate_from_start(10),
        cache.clear,
    ]
    for change in changes:
        with pytest.raises(OSError, match="injected"):
            change()
        assert cache.entries() == [(2, 6), (3, 9)]
        assert cache.latest_epoch == 3


def test_many_leader_changes(written: Written) -> None:
    cache = cache_of(written)
    for epoch in range(50):
        cache.assign(epoch, epoch * 10)
        assert cache.end_offset_for(epoch, epoch * 10 + 5) == (epoch, epoch * 10 + 5)
    for epoch in range(49):
        assert cache.end_offset_for(epoch, 1000) == (epoch, (epoch + 1) * 10)
    reopened = LeaderEpochCache(written.entries or [], written)
    assert reopened.entries() == cache.entries()
    assert reopened.latest_epoch == 49
