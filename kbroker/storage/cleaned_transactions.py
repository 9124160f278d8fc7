"""Which transactions a compaction meets: aborted records go, markers go when nothing is left."""

import heapq

from kbroker.record.batch import CONTROL_ABORT, CONTROL_COMMIT, RecordBatchHeader, read_control_type
from kbroker.record.record import iter_records
from kbroker.storage.transaction_index import AbortedTxn


class CleanedTransactions:
    """Follows the batches of a log in order. ``kept`` are the aborted transactions to index."""

    __slots__ = ("_aborted", "_committed", "_observed", "_open_aborted", "kept")

    def __init__(self) -> None:
        self._aborted: list[tuple[int, AbortedTxn]] = []  # a heap by first offset
        self._open_aborted: dict[int, AbortedTxn] = {}
        self._observed: set[int] = set()  # producers whose open aborted transaction has batches
        self._committed: set[int] = set()
        self.kept: list[AbortedTxn] = []

    def add_aborted(self, transactions: list[AbortedTxn]) -> None:
        """Aborted transactions that overlap the segment that comes next."""
        for transaction in transactions:
            entry = (transaction.first_offset, transaction)
            if entry not in self._aborted:
                heapq.heappush(self._aborted, entry)

    def _begin_up_to(self, offset: int) -> None:
        while self._aborted and self._aborted[0][0] <= offset:
            transaction = heapq.heappop(self._aborted)[1]
            self._open_aborted.setdefault(transaction.producer_id, transaction)

    def on_data_batch(self, header: RecordBatchHeader) -> bool:
        """True when the batch belongs to an aborted transaction: its records go."""
        self._begin_up_to(header.last_offset)
        if not header.is_transactional:
            return False
        if header.producer_id in self._open_aborted:
            self._observed.add(header.producer_id)
            return True
        self._committed.add(header.producer_id)
        return False

    def on_control_batch(self, header: RecordBatchHeader, data: memoryview) -> bool:
        """True when no batch of the marker's transaction was met: the marker may go in time."""
        self._begin_up_to(header.last_offset)
        for record in iter_records(data, header):
            control_type = read_control_type(record.key or b"")
            if control_type == CONTROL_ABORT:
                transaction = self._open_aborted.pop(header.producer_id, None)
                if transaction is not None and header.producer_id in self._observed:
                    self._observed.discard(header.producer_id)
                    self.kept.append(transaction)
                    return False
                return True
            if control_type == CONTROL_COMMIT:
                if header.producer_id in self._committed:
                    self._committed.discard(header.producer_id)
                    return False
                return True
            return False
        return True  # an empty control batch: its marker went before
