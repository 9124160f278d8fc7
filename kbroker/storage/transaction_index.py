"""The ``.txnindex`` of a segment: aborted transactions whose marker lies in the segment.

Entries as Kafka's, 34 bytes big-endian: version i16 (0), producer id i64, first offset i64, last
offset i64 (the marker's), last stable offset i64 when the marker was written. The file exists once
there is an entry.
"""

import struct
from collections.abc import Iterator
from typing import NamedTuple

from kbroker.common.files import FileSystem
from kbroker.storage.indexes import CorruptIndexError

_ENTRY = struct.Struct(">hqqqq")
_VERSION = 0
ABORTED_TXN_SIZE = _ENTRY.size


class AbortedTxn(NamedTuple):
    """One aborted transaction of one producer."""

    producer_id: int
    first_offset: int
    last_offset: int
    last_stable_offset: int


class TransactionIndex:
    """Aborted transactions in the order of their markers."""

    __slots__ = ("_transactions", "base_offset", "path")

    def __init__(self, path: str, base_offset: int, data: bytes = b"") -> None:
        """``data`` is the file's content. CorruptIndexError when it is no index of this segment."""
        self.path = path
        self.base_offset = base_offset
        self._transactions: list[AbortedTxn] = []
        if len(data) % ABORTED_TXN_SIZE:
            raise CorruptIndexError(f"{path}: {len(data)} bytes are no whole entries")
        last = base_offset - 1
        for version, *fields in _ENTRY.iter_unpack(data):
            transaction = AbortedTxn(*fields)
            if (
                version != _VERSION
                or transaction.producer_id < 0
                or not 0 <= transaction.first_offset <= transaction.last_offset
                or transaction.last_offset <= last
            ):
                raise CorruptIndexError(f"{path}: {transaction} (version {version}) is misplaced")
            last = transaction.last_offset
            self._transactions.append(transaction)

    def __len__(self) -> int:
        return len(self._transactions)

    def __iter__(self) -> Iterator[AbortedTxn]:
        return iter(self._transactions)

    def append(self, files: FileSystem, transaction: AbortedTxn) -> None:
        """Add an entry to the file and then here. OSError leaves memory as it was."""
        if self._transactions and transaction.last_offset <= self._transactions[-1].last_offset:
            raise ValueError("last offsets of aborted transactions must ascend")
        file = files.open(self.path, create=True)
        try:
            file.write_at(
                _ENTRY.pack(_VERSION, *transaction), len(self._transactions) * ABORTED_TXN_SIZE
            )
        finally:
            file.close()
        self._transactions.append(transaction)

    def truncate_to(self, files: FileSystem, offset: int) -> None:
        """Forget the transactions whose marker is at ``offset`` or above."""
        count = sum(1 for each in self._transactions if each.last_offset < offset)
        if count == len(self._transactions):
            return
        file = files.open(self.path)
        try:
            file.truncate(count * ABORTED_TXN_SIZE)
        finally:
            file.close()
        del self._transactions[count:]

    def sync(self, files: FileSystem) -> None:
        """Return when the entries are on the device."""
        if self._transactions:
            file = files.open(self.path)
            try:
                file.sync()
            finally:
                file.close()

    def collect(self, fetch_offset: int, upper_bound: int) -> tuple[list[AbortedTxn], bool]:
        """What a reader of [fetch offset, upper bound) must know, and whether that is all of it.

        It is all when an entry's last stable offset reaches the bound: every transaction that is
        aborted later began later.
        """
        found: list[AbortedTxn] = []
        for transaction in self._transactions:
            if transaction.last_offset >= fetch_offset and transaction.first_offset < upper_bound:
                found.append(transaction)
            if transaction.last_stable_offset >= upper_bound:
                return found, True
        return found, False
