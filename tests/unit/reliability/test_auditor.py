"""The auditor against histories made by hand: silent on good ones, named anomalies on bad ones."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.reliability.auditor import Anomaly, audit
from tests.reliability.history import History, LogEntry, RecordId, record_of, value_of


def _history(sent: int, acked: dict[int, int]) -> History:
    """One producer, one partition: ``sent`` records, number -> offset of the acknowledged."""
    return History(
        sent={(0, 0): sent},
        acked={RecordId(0, 0, number): offset for number, offset in acked.items()},
    )


def _log(*numbers: int) -> dict[int, list[LogEntry]]:
    """Partition 0 with these numbers of producer 0 at offsets 0, 1, ..."""
    entries = [LogEntry(offset, RecordId(0, 0, n)) for offset, n in enumerate(numbers)]
    return {0: entries}


def _anomalies(history: History, log: dict[int, list[LogEntry]]) -> list[Anomaly]:
    return [violation.anomaly for violation in audit(history, log)]


def test_a_log_with_everything_in_place_is_clean() -> None:
    assert audit(_history(3, {0: 0, 1: 1, 2: 2}), _log(0, 1, 2)) == []


def test_a_record_never_answered_may_be_there_or_not() -> None:
    assert audit(_history(3, {0: 0, 1: 1}), _log(0, 1)) == []
    assert audit(_history(3, {0: 0, 1: 1}), _log(0, 1, 2)) == []


def test_an_acknowledged_record_that_is_not_there_is_lost() -> None:
    assert _anomalies(_history(3, {0: 0, 1: 1, 2: 2}), _log(0, 1)) == [Anomaly.LOST]


def test_a_record_at_two_offsets_is_a_duplicate() -> None:
    anomalies = _anomalies(_history(2, {0: 0, 1: 1}), _log(0, 1, 1))
    assert anomalies == [Anomaly.DUPLICATE]


def test_a_whole_batch_written_again_is_duplicated_and_reordered() -> None:
    anomalies = _anomalies(_history(2, {0: 0, 1: 1}), _log(0, 1, 0, 1))
    assert set(anomalies) == {Anomaly.DUPLICATE, Anomaly.REORDERED}


def test_records_in_another_order_are_reordered() -> None:
    anomalies = _anomalies(_history(2, {0: 1, 1: 0}), _log(1, 0))
    assert anomalies == [Anomaly.REORDERED]


def test_a_record_away_from_its_acknowledged_offset_has_moved() -> None:
    assert _anomalies(_history(2, {0: 0, 1: 5}), _log(0, 1)) == [Anomaly.MOVED]


def test_a_record_nobody_sent_is_foreign() -> None:
    assert _anomalies(_history(1, {0: 0}), _log(0, 1)) == [Anomaly.FOREIGN]
    garbage = {0: [LogEntry(0, RecordId(0, 0, 0)), LogEntry(1, None)]}
    assert _anomalies(_history(1, {0: 0}), garbage) == [Anomaly.FOREIGN]


def test_a_record_in_another_partition_is_foreign() -> None:
    history = History(sent={(0, 0): 1}, acked={})
    log = {0: [], 1: [LogEntry(0, RecordId(0, 0, 0))]}
    assert _anomalies(history, log) == [Anomaly.FOREIGN]


def test_a_missing_offset_is_a_gap() -> None:
    log = {0: [LogEntry(0, RecordId(0, 0, 0)), LogEntry(2, RecordId(0, 0, 1))]}
    assert _anomalies(_history(2, {0: 0, 1: 2}), log) == [Anomaly.GAP]


def test_an_error_for_an_idempotent_producer_is_a_violation() -> None:
    history = _history(1, {})
    history.failed[RecordId(0, 0, 0)] = "out of order sequence"
    assert _anomalies(history, {0: []}) == [Anomaly.FAILED]

    history = _history(0, {})
    history.fatal.append("producer 0: fenced")
    assert _anomalies(history, {0: []}) == [Anomaly.FAILED]


@given(
    st.builds(RecordId, *[st.integers(0, 10**6)] * 3),
    st.integers(1, 2000),
    st.integers(0, 10**6),
)
def test_a_damaged_value_is_never_taken_for_a_record(
    record: RecordId, size: int, place: int
) -> None:
    value = value_of(record, size)
    assert len(value) >= size
    assert record_of(value) == record

    damaged = bytearray(value)
    damaged[place % len(value)] = 0
    assert record_of(bytes(damaged)) is None
    assert record_of(value[:-1]) is None


def test_other_values_are_not_records() -> None:
    for value in (None, b"", b";", b"1/2;", b"1/2/3/4;", b"a/b/c;", b"1/2/3"):
        assert record_of(value) is None
