"""Aborted transactions of a segment; restates TransactionIndexTest."""

import struct

import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.storage.indexes import CorruptIndexError
from kbroker.storage.transaction_index import AbortedTxn, TransactionIndex
from tests.unit.storage.faulty_files import FaultyFileSystem

TRANSACTIONS = [
    AbortedTxn(0, 0, 10, 11),
    AbortedTxn(1, 5, 15, 13),
    AbortedTxn(2, 18, 35, 25),
    AbortedTxn(3, 32, 50, 40),
]


@pytest.fixture
def files() -> MemoryFileSystem:
    files = MemoryFileSystem()
    files.make_directory("/d")
    return files


def filled(files: MemoryFileSystem) -> TransactionIndex:
    index = TransactionIndex("/d/x", 0)
    for transaction in TRANSACTIONS:
        index.append(files, transaction)
    return index


def test_the_file_is_kafkas_and_comes_with_the_first_entry(files: MemoryFileSystem) -> None:
    index = TransactionIndex("/d/x", 0)
    index.truncate_to(files, 0)
    index.sync(files)
    assert not files.exists("/d/x")
    index.append(files, AbortedTxn(7, 1, 2, 3))
    index.sync(files)
    assert files.read("/d/x") == struct.pack(">hqqqq", 0, 7, 1, 2, 3)


def test_entries_are_found_again(files: MemoryFileSystem) -> None:
    filled(files)
    reopened = TransactionIndex("/d/x", 0, files.read("/d/x"))
    assert list(reopened) == TRANSACTIONS
    assert len(reopened) == 4
    reopened.append(files, AbortedTxn(4, 60, 70, 71))
    assert len(TransactionIndex("/d/x", 0, files.read("/d/x"))) == 5


def test_last_offsets_ascend(files: MemoryFileSystem) -> None:
    index = TransactionIndex("/d/x", 0)
    index.append(files, AbortedTxn(0, 0, 10, 11))
    for last_offset in (10, 9):
        with pytest.raises(ValueError, match="ascend"):
            index.append(files, AbortedTxn(1, 0, last_offset, 11))


def test_what_a_reader_is_told(files: MemoryFileSystem) -> None:
    index = filled(files)
    assert index.collect(0, 100) == (TRANSACTIONS, False)
    assert index.collect(0, 32) == (TRANSACTIONS[:3], True)
    assert index.collect(0, 35) == (TRANSACTIONS, True)
    assert index.collect(10, 35) == (TRANSACTIONS, True)
    assert index.collect(11, 35) == (TRANSACTIONS[1:], True)
    assert index.collect(20, 41) == (TRANSACTIONS[2:], False)


def test_truncation(files: MemoryFileSystem) -> None:
    index = filled(files)
    index.truncate_to(files, 51)
    assert list(index) == TRANSACTIONS
    index.truncate_to(files, 50)
    assert list(index) == TRANSACTIONS[:3]
    assert list(TransactionIndex("/d/x", 0, files.read("/d/x"))) == TRANSACTIONS[:3]
    index.truncate_to(files, 0)
    assert files.read("/d/x") == b""


def test_an_append_that_failed_leaves_memory_and_is_overwritten(files: MemoryFileSystem) -> None:
    index = TransactionIndex("/d/x", 0)
    index.append(files, TRANSACTIONS[0])
    with pytest.raises(OSError, match="injected"):
        index.append(FaultyFileSystem(files, fail_at=1, mode="short"), TRANSACTIONS[1])
    assert list(index) == TRANSACTIONS[:1]
    index.append(files, TRANSACTIONS[2])
    reopened = TransactionIndex("/d/x", 0, files.read("/d/x"))
    assert list(reopened) == [TRANSACTIONS[0], TRANSACTIONS[2]]


@pytest.mark.parametrize(
    "data",
    [
        b"x" * 33,
        struct.pack(">hqqqq", 1, 7, 1, 2, 3),
        struct.pack(">hqqqq", 0, 7, 1, 2, 3) * 2,
    ],
)
def test_a_damaged_index_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptIndexError):
        TransactionIndex("/d/x", 0, data)


def test_a_transaction_below_the_segment_is_refused() -> None:
    data = struct.pack(">hqqqq", 0, 0, 0, 10, 11)
    with pytest.raises(CorruptIndexError):
        TransactionIndex("/d/x", 100, data)
