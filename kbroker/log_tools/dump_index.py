"""``.index``, ``.timeindex``, ``.txnindex`` and ``.snapshot`` files, held against their segment."""

import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from kbroker.log_tools.dump_output import DumpOutput, optional_long, words
from kbroker.log_tools.index_check import (
    Checker,
    OffsetIndexChecker,
    OffsetPosition,
    TimeIndexChecker,
    TxnIndexChecker,
    offset_entries,
    time_entries,
    txn_entries,
)
from kbroker.log_tools.log_scan import Damage, scan_log
from kbroker.log_tools.read_only import opened, read_small
from kbroker.storage.indexes import TimestampOffset
from kbroker.storage.producer_state_entry import (
    CorruptSnapshotError,
    ProducerStateEntry,
    decode_snapshot,
)
from kbroker.storage.transaction_index import AbortedTxn

Entry = TypeVar("Entry")


def dump_offset_index(path: str, base_offset: int, output: DumpOutput) -> None:
    """``offset: .. position: ..`` OSError."""

    def show(entry: OffsetPosition) -> None:
        _show(output, "offsetIndexEntry", {"offset": entry.offset, "position": entry.position})

    def make(complain: Callable[[str], None]) -> Checker:
        entries = offset_entries(file, base_offset, _at(output))
        return OffsetIndexChecker(_watched(entries, show), complain)

    with opened(path) as file:
        _check_against_log(path, output, make)


def dump_time_index(path: str, base_offset: int, output: DumpOutput) -> None:
    """``timestamp: .. offset: ..`` OSError."""

    def show(entry: TimestampOffset) -> None:
        _show(output, "timeIndexEntry", {"timestamp": entry.timestamp, "offset": entry.offset})

    def make(complain: Callable[[str], None]) -> Checker:
        entries = time_entries(file, base_offset, _at(output))
        return TimeIndexChecker(_watched(entries, show), complain)

    with opened(path) as file:
        _check_against_log(path, output, make)


def dump_txn_index(path: str, base_offset: int, output: DumpOutput) -> None:
    """Aborted transactions. OSError."""

    def show(entry: AbortedTxn) -> None:
        fields = {
            "version": 0,
            "producerId": entry.producer_id,
            "firstOffset": entry.first_offset,
            "lastOffset": entry.last_offset,
            "lastStableOffset": entry.last_stable_offset,
        }
        _show(output, "abortedTransaction", fields)

    def make(complain: Callable[[str], None]) -> Checker:
        entries = txn_entries(file, base_offset, _at(output))
        return TxnIndexChecker(_watched(entries, show), complain)

    with opened(path) as file:
        _check_against_log(path, output, make)


def _show(output: DumpOutput, kind: str, fields: dict[str, Any]) -> None:
    output.show(kind, fields, lambda: words(fields))


def _at(output: DumpOutput) -> Callable[[int, str], None]:
    return lambda position, text: output.problem(text, position=position)


def _watched(entries: Iterator[Entry], show: Callable[[Entry], None]) -> Iterator[Entry]:
    for entry in entries:
        show(entry)
        yield entry


def _check_against_log(
    path: str, output: DumpOutput, make: Callable[[Callable[[str], None]], Checker]
) -> None:
    base_offset, _, *state = os.path.basename(path).split(".")  # .deleted, .cleaned or .swap
    log_path = os.path.join(os.path.dirname(path), ".".join((base_offset, "log", *state)))
    checker = make(output.problem)
    try:
        with opened(log_path) as log:
            for found in scan_log(log, 0, log.size()):
                if isinstance(found, Damage):
                    output.problem(f"{log_path} at byte {found.position}: {found.text}")
                else:
                    checker.on_entry(found)
    except FileNotFoundError:
        output.problem("there is no log file beside it")
    checker.finish()


def dump_snapshot(path: str, output: DumpOutput) -> None:
    """Producers and their open transactions. OSError."""
    try:
        entries = decode_snapshot(read_small(path))
    except CorruptSnapshotError as error:
        output.problem(str(error))
        return
    for entry in entries:
        _show_producer(output, _producer_fields(entry))


def _show_producer(output: DumpOutput, fields: dict[str, Any]) -> None:
    output.show("producer", fields, lambda: _producer_text(fields))


def _producer_fields(entry: ProducerStateEntry) -> dict[str, Any]:
    first = entry.current_txn_first_offset
    fields: dict[str, Any] = {
        "producerId": entry.producer_id,
        "producerEpoch": entry.producer_epoch,
        "coordinatorEpoch": entry.coordinator_epoch,
        "currentTxnFirstOffset": None if first < 0 else first,
        "lastTimestamp": entry.last_timestamp,
    }
    for batch in entry.batches:
        fields["firstSequence"] = batch.first_sequence
        fields["lastSequence"] = batch.last_sequence
        fields["lastOffset"] = batch.last_offset
        fields["offsetDelta"] = batch.last_offset - batch.first_offset
        fields["timestamp"] = batch.timestamp
    return fields


def _producer_text(fields: dict[str, Any]) -> str:
    first = optional_long(fields["currentTxnFirstOffset"])
    return words({**fields, "currentTxnFirstOffset": first})
