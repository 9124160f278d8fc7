"""Loading a log: what counts, in which order, what is skipped."""

import logging
from typing import Any

import anyio
import pytest

from kbroker.coordinator import replayer as replayer_module
from kbroker.coordinator.replayer import Replayer
from kbroker.coordinator.shard import UnknownRecord
from kbroker.protocol.wire import DecodeError
from kbroker.record.batch import build_batch, build_end_transaction_marker
from kbroker.record.record import Record

LOG = logging.getLogger("test.replayer")


class Serde:
    def serialize(self, record: Any) -> Any:
        raise AssertionError

    def deserialize(self, key: Any, value: Any) -> tuple[Any, Any]:
        if key == b"unknown":
            raise UnknownRecord("who knows")
        if key == b"damaged":
            raise DecodeError("broken")
        return key, value


class Recorder:
    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    def replay(self, record_offset: int, producer_id: int, key: Any, value: Any) -> None:
        self.seen.append((record_offset, producer_id, key, value))

    def replay_end_transaction_marker(self, producer_id: int, *, commit: bool) -> None:
        self.seen.append(("end", producer_id, commit))

    def on_loaded(self) -> None: ...

    def on_unloaded(self) -> None: ...


def batch(offset: int, *records: tuple[bytes | None, bytes | None], **options: Any) -> memoryview:
    return memoryview(
        build_batch(
            [
                Record(key=key, value=value, timestamp=5 + index)
                for index, (key, value) in enumerate(records)
            ],
            base_offset=offset,
            **options,
        )
    )


def replayed(*batches: memoryview) -> list[tuple[Any, ...]]:
    """What is replayed of the batches, which is the same in one run and one by one."""
    seen = _replayed([bytes(each) for each in batches])
    assert _replayed([b"".join(batches)]) == seen
    return seen


def _replayed(runs: list[bytes]) -> list[tuple[Any, ...]]:
    recorder = Recorder()
    loading = Replayer(recorder, Serde(), LOG)

    async def load() -> None:
        for run in runs:
            await loading.add(run)
        await loading.flush()

    anyio.run(load)
    return recorder.seen


def test_the_last_record_of_a_key_counts_in_the_order_of_the_last_ones() -> None:
    seen = replayed(
        batch(0, (b"a", b"1"), (b"b", b"2")), batch(2, (b"a", b"3")), batch(3, (b"c", None))
    )
    assert seen == [(1, -1, b"b", b"2"), (2, -1, b"a", b"3"), (3, -1, b"c", None)]


def test_windows_are_replayed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replayer_module, "WINDOW", 2)
    seen = replayed(batch(0, (b"a", b"1"), (b"b", b"2")), batch(2, (b"a", b"3")))
    assert [entry[2:] for entry in seen] == [(b"a", b"1"), (b"b", b"2"), (b"a", b"3")]


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_compressed_batches(codec: int) -> None:
    records = [(b"key%d" % number, b"v" * number) for number in range(300)]
    seen = replayed(batch(7, *records, compression=codec))
    assert [(key, value) for _, _, key, value in seen] == records
    assert seen[-1][0] == 306


def test_transactions_keep_their_order() -> None:
    marker = memoryview(
        build_end_transaction_marker(
            commit=True, producer_id=9, producer_epoch=0, coordinator_epoch=0, timestamp=1
        )
    )
    seen = replayed(
        batch(0, (b"a", b"1")),
        batch(1, (b"a", b"2"), transactional=True, producer_id=9, producer_epoch=0),
        batch(2, (b"a", b"3")),
        marker,
    )
    assert seen == [
        (0, -1, b"a", b"1"),
        (1, 9, b"a", b"2"),
        (2, -1, b"a", b"3"),
        ("end", 9, True),
    ]


def test_unknown_and_damaged_records_are_skipped_with_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    seen = replayed(batch(0, (b"unknown", b"x"), (b"good", b"y"), (b"damaged", b"z")))
    assert [entry[2] for entry in seen] == [b"good"]
    assert [record.levelname for record in caplog.records] == 2 * ["WARNING", "ERROR"]


def test_an_unreadable_batch_is_skipped_with_a_log_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad = bytearray(batch(0, (b"a", b"1")))
    bad[61] = 0x7E  # the record claims to be longer than the batch
    assert replayed(memoryview(bad), batch(1, (b"b", b"2"))) == [(1, -1, b"b", b"2")]
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


@pytest.mark.parametrize("size", [1, 60, 61, 65])
def test_a_batch_that_is_cut_short_ends_a_run(size: int, caplog: pytest.LogCaptureFixture) -> None:
    whole = bytes(batch(0, (b"a", b"1")))
    assert _replayed([whole + whole[:size], bytes(batch(1, (b"b", b"2")))]) == [
        (0, -1, b"a", b"1"),
        (1, -1, b"b", b"2"),
    ]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_compressed_batches_among_plain_ones() -> None:
    seen = replayed(
        batch(0, (b"a", b"1"), (b"b", b"1")),
        batch(2, (b"a", b"2"), compression=1),
        batch(3, (b"b", b"3")),
    )
    assert seen == [(2, -1, b"a", b"2"), (3, -1, b"b", b"3")]


@pytest.mark.parametrize("size", [0, 50, 60, 70, 8_000, 9_000, 2_000_000])
def test_records_of_any_length(size: int) -> None:
    seen = replayed(batch(0, (b"k" * size, b"v" * size), (b"last", b"")))
    assert [entry[2:] for entry in seen] == [(b"k" * size, b"v" * size), (b"last", b"")]


def test_records_without_a_key_are_nothing() -> None:
    assert replayed(batch(0, (None, b"1"))) == []
