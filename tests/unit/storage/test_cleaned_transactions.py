"""Which records and markers of transactions a compaction may drop."""

from kbroker.record.batch import RecordBatchHeader
from kbroker.storage.cleaned_transactions import CleanedTransactions
from kbroker.storage.transaction_index import AbortedTxn
from tests.unit.storage.log_fixture import batch, marker


def data_batch(offset: int, producer_id: int, *, transactional: bool = True) -> RecordBatchHeader:
    return RecordBatchHeader(
        batch(b"v", base_offset=offset, producer_id=producer_id, transactional=transactional)
    )


def end(transactions: CleanedTransactions, offset: int, producer_id: int, *, commit: bool) -> bool:
    data = marker(commit=commit, producer_id=producer_id)
    header = RecordBatchHeader(data)
    header.base_offset = offset
    return transactions.on_control_batch(header, memoryview(data))


def test_records_of_aborted_transactions_go_and_their_marker_stays() -> None:
    transactions = CleanedTransactions()
    aborted = AbortedTxn(1, 5, 9, 10)
    transactions.add_aborted([aborted])
    transactions.add_aborted([aborted])
    assert not transactions.on_data_batch(data_batch(4, 1, transactional=False))
    assert transactions.on_data_batch(data_batch(5, 1))
    assert not transactions.on_data_batch(data_batch(6, 2))
    assert not transactions.on_data_batch(data_batch(7, 1, transactional=False))
    assert not end(transactions, 9, 1, commit=False)
    assert transactions.kept == [aborted]
    assert not transactions.on_data_batch(data_batch(10, 1))
    assert not end(transactions, 11, 2, commit=True)


def test_markers_of_transactions_without_records_may_go() -> None:
    transactions = CleanedTransactions()
    transactions.add_aborted([AbortedTxn(1, 5, 9, 10)])
    assert end(transactions, 9, 1, commit=False)
    assert end(transactions, 10, 2, commit=True)
    assert end(transactions, 11, 3, commit=False)
    assert transactions.kept == []
    transactions.on_data_batch(data_batch(12, 4))
    assert not end(transactions, 13, 4, commit=True)
    assert end(transactions, 14, 4, commit=True)
