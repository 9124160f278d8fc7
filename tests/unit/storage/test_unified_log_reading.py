"""Reading a log: where a read begins and ends, and what outlives the files."""

import pytest

from kbroker.common.files import File
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from kbroker.record.batch import RecordBatchHeader
from kbroker.storage.batch_scan import locate
from tests.unit.storage.log_fixture import (
    DIRECTORY,
    END,
    HW,
    append,
    append_values,
    bases,
    batch,
    config,
    environment,
    new_log,
    read_bytes,
    records_of,
    small_segments,
    validated,
)


def test_reads_begin_at_the_batch_that_holds_the_offset() -> None:
    log = small_segments()
    for number in range(6):
        append(log, batch(b"%d" % number, b"b", b"c"))
    for offset in range(18):
        records = records_of(read_bytes(log, offset))
        assert records[0].offset == offset - offset % 3


def test_reads_stop_at_the_end_of_a_segment() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 13)
    assert [record.offset for record in records_of(read_bytes(log, 3))] == [3, 4]
    assert [record.offset for record in records_of(read_bytes(log, 12))] == [12]


def test_reads_outside_the_log_are_refused() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    assert read_bytes(log, 7) == b""
    log.maybe_increment_log_start_offset(2)
    for offset in (-1, 1, 8):
        with pytest.raises(KafkaError) as caught:
            read_bytes(log, offset)
        assert caught.value.error_code is ErrorCode.OFFSET_OUT_OF_RANGE


def test_limits_on_what_a_read_returns() -> None:
    log = new_log()
    append_values(log, *[b"v" * 100] * 4)
    size = len(batch(b"v" * 100))
    assert len(read_bytes(log, 0, max_bytes=2 * size)) == 2 * size
    assert len(read_bytes(log, 0, max_bytes=2 * size + 7)) == 2 * size + 7
    # The first batch whole when it is asked for, else nothing that does not fit.
    assert len(read_bytes(log, 1, max_bytes=1)) == size
    assert len(read_bytes(log, 1, max_bytes=0)) == size
    for max_bytes in (0, 1, size - 1):
        info = log.read(1, max_bytes=max_bytes, isolation=END, min_one_message=False)
        assert len(info.records) == 0
        assert info.first_entry_incomplete is (max_bytes > 0)
    assert len(read_bytes(log, 1, max_bytes=size, min_one_message=False)) == size
    with pytest.raises(KafkaError) as caught:
        read_bytes(log, 0, max_bytes=-1)
    assert caught.value.error_code is ErrorCode.UNKNOWN_SERVER_ERROR
    assert read_bytes(log, 4, max_bytes=-1) == b""


def test_after_a_batch_that_fills_a_read_the_next_is_found_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = new_log()
    append_values(log, *[b"v" * 100] * 6)
    size = len(batch(b"v" * 100))
    begun: list[int] = []

    def noting(file: File, offset: int, position: int, end: int) -> tuple[int, int, int] | None:
        begun.append(position)
        return locate(file, offset, position, end)

    monkeypatch.setattr("kbroker.storage.log_segment.locate", noting)
    for offset in range(5):
        assert len(read_bytes(log, offset, max_bytes=size + 7)) == size + 7
    assert begun == [size * offset for offset in range(5)]


def test_reads_are_bounded_by_the_high_watermark() -> None:
    log = small_segments()
    for _ in range(9):
        log.append_as_leader(validated(batch(b"v", b"w")), leader_epoch=0)
    for watermark in range(19):
        log.update_high_watermark(watermark)
        seen = [
            record.offset
            for offset in range(0, 18, 2)
            for record in records_of(read_bytes(log, offset, isolation=HW))
        ]
        # Whole batches below the watermark: the batch that holds it is not shown.
        assert sorted(set(seen)) == list(range(watermark - watermark % 2))
    assert len(read_bytes(log, 16, isolation=END)) > 0


def test_the_high_watermark_stays_inside_the_log() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    log.update_high_watermark(99)
    assert log.high_watermark == 7
    log.maybe_increment_log_start_offset(3)
    log.update_high_watermark(1)
    assert log.high_watermark == 3
    append_values(log, b"v")
    assert log.high_watermark == 8


def test_reads_across_a_gap() -> None:
    log = new_log()
    view = memoryview(batch(b"a", base_offset=0) + batch(b"b", base_offset=10))
    log.append_as_follower(view)
    log.append_as_follower(memoryview(batch(b"c", base_offset=20)))
    for offset, expected in ((0, 0), (1, 10), (10, 10), (11, 20), (20, 20)):
        assert records_of(read_bytes(log, offset))[0].offset == expected
    log.roll()
    log.append_as_follower(memoryview(batch(b"d", base_offset=40)))
    assert bases(log) == [0, 21]
    assert records_of(read_bytes(log, 25))[0].offset == 40


def test_a_read_whose_segment_was_compacted_to_its_end_goes_on_in_the_next() -> None:
    log = new_log()
    log.append_as_follower(memoryview(batch(b"a", base_offset=0)))
    log.roll()
    log.log_end_offset = 30  # the records 1 to 29 were removed
    log.roll()
    log.append_as_follower(memoryview(batch(b"b", base_offset=30)))
    assert [record.offset for record in records_of(read_bytes(log, 5))] == [30]


def test_a_slice_outlives_its_segment() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    expected = b"".join(info.records.parts())
    log.truncate_fully_and_start_at(50)
    assert b"".join(info.records.parts()) == expected
    assert len(info.records) == len(expected)


def test_a_slice_of_what_was_truncated_says_so() -> None:
    log = new_log()
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    log.truncate_to(3)
    with pytest.raises(OSError, match="are left"):
        info.records.parts()


def test_reads_where_open_files_cannot_be_renamed() -> None:
    files = MemoryFileSystem()
    files.renames_open_files = False
    log = new_log(environment(files), config(segment_bytes=400))
    append_values(log, *[b"v"] * 7)
    info = log.read(0, max_bytes=1000, isolation=END, min_one_message=True)
    log.truncate_fully_and_start_at(0)
    assert len(records_of(b"".join(info.records.parts()))) == 5


def test_batches_for_a_loader() -> None:
    log = small_segments()
    for number in range(9):
        append(log, batch(b"%d" % number, b"x" * 50))
    log.maybe_increment_log_start_offset(5)
    found = [RecordBatchHeader(view).base_offset for view in log.read_batches(0)]
    assert found == [4, 6, 8, 10, 12, 14, 16]
    found = [RecordBatchHeader(view).base_offset for view in log.read_batches(7, 12)]
    assert found == [6, 8, 10]
    assert b"".join(log.read_runs(0)) == b"".join(log.read_batches(0))
    assert len(list(log.read_runs(0))) < 7
    batches = log.read_batches(0)
    next(batches)
    append(log, batch(b"later"))
    assert len(list(batches)) == 6
    assert list(log.read_batches(99)) == list(log.read_runs(99)) == []


def test_a_read_error_is_a_storage_error() -> None:
    log = small_segments()
    append_values(log, *[b"v"] * 7)
    log.env.open_files.close_idle()
    log.env.open_files.close_idle()
    log.env.files.remove(f"{DIRECTORY}/00000000000000000000.log")
    for search in (
        lambda: read_bytes(log, 0),
        lambda: log.offset_for_timestamp(5) and None,
        lambda: list(log.read_batches(0)),
        lambda: list(log.read_runs(0)),
    ):
        with pytest.raises(KafkaError) as caught:
            search()
        assert caught.value.error_code is ErrorCode.KAFKA_STORAGE_ERROR
    assert len(read_bytes(log, 5)) > 0
