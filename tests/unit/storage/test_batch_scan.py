"""Walking and finding batches in a file."""

from itertools import accumulate

import pytest

from kbroker.common.files import File
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.record.batch import RecordBatchHeader
from kbroker.storage import batch_scan
from kbroker.storage.batch_scan import iter_headers, iter_runs, iter_whole_batches, locate
from tests.unit.storage.log_fixture import batch

SIZES = [1, 5000, 10, 70_000, 3, 1_500_000, 20]


def file_with(*, garbage: bytes = b"") -> tuple[File, list[int], int]:
    """A file of batches with two records each: (file, positions, end)."""
    files = MemoryFileSystem()
    files.make_directory("/d")
    file = files.open("/d/f", create=True)
    positions = []
    position = 0
    for number, size in enumerate(SIZES):
        data = batch(b"a", b"x" * size, base_offset=10 * number, leader_epoch=number)
        file.write_at(data, position)
        positions.append(position)
        position += len(data)
    file.write_at(garbage, position)
    return file, positions, position


@pytest.mark.parametrize("chunk", [61, 100, 4096, 1 << 20])
def test_headers_in_order(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_scan, "WALK_CHUNK_SIZE", chunk)
    file, positions, end = file_with()
    headers = list(iter_headers(file, 0, end))
    assert [header.position for header in headers] == positions
    assert [header.leader_epoch for header in headers] == list(range(len(SIZES)))
    assert [header.last_offset for header in headers] == [10 * n + 1 for n in range(len(SIZES))]
    assert headers[-1].position + headers[-1].size == end
    assert [each.position for each in iter_headers(file, positions[3], end)] == positions[3:]


@pytest.mark.parametrize("garbage", [b"", b"short", b"\0" * 100, b"\xff" * 100])
def test_a_walk_ends_where_no_batch_begins(garbage: bytes) -> None:
    file, positions, end = file_with(garbage=garbage)
    assert len(list(iter_headers(file, 0, file.size()))) == len(SIZES)
    assert len(list(iter_whole_batches(file, 0, file.size()))) == len(SIZES)
    assert locate(file, 999, 0, file.size()) is None
    for cut in (positions[-1], positions[-1] + 60, end - 1):
        assert len(list(iter_headers(file, 0, cut))) == len(SIZES) - 1
        assert len(list(iter_whole_batches(file, 0, cut))) == len(SIZES) - 1


def test_a_walk_ends_where_the_file_does() -> None:
    file, positions, end = file_with()
    file.truncate(positions[2] + 5)
    assert len(list(iter_headers(file, 0, end))) == 2
    assert len(list(iter_whole_batches(file, 0, end))) == 2
    assert locate(file, 25, 0, end) is None


@pytest.mark.parametrize("chunk", [61, 4096])
def test_locate_finds_the_batch_that_holds_an_offset_or_follows_it(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_scan, "LOCATE_CHUNK_SIZE", chunk)
    file, positions, end = file_with()
    for offset in range(10 * len(SIZES)):
        number = offset // 10 + (offset % 10 > 1)
        found = locate(file, offset, 0, end)
        if number == len(SIZES):
            assert found is None
        else:
            size = ([*positions, end])[number + 1] - positions[number]
            assert found == (positions[number], size, 10 * number + 1)
    assert locate(file, 0, positions[2], end) == locate(file, 20, 0, end)


def test_whole_batches_are_whole() -> None:
    file, positions, end = file_with()
    found = list(iter_whole_batches(file, positions[1], end))
    assert [RecordBatchHeader(each).size for each in found] == [len(each) for each in found]
    assert b"".join(found) == file.read_at(end, positions[1])


@pytest.mark.parametrize("run_size", [61, 100, 4096, 100_000, 1 << 21])
@pytest.mark.parametrize("garbage", [b"", b"short", b"\0" * 100, b"\xff" * 100])
def test_runs_are_of_whole_batches(
    run_size: int, garbage: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_scan, "RUN_SIZE", run_size)
    file, positions, end = file_with(garbage=garbage)
    size = file.size()
    for begin, limit in ((0, size), (positions[2], size), (0, end - 1), (0, positions[3] + 60)):
        runs = list(iter_runs(file, begin, limit))
        assert all(runs)
        assert {begin, *accumulate(map(len, runs), initial=begin)} <= {*positions, end}
        assert b"".join(runs) == b"".join(iter_whole_batches(file, begin, limit))
    assert len(list(iter_runs(file, 0, end))) <= 1 + 2 * end // run_size
    assert list(iter_runs(file, end, end)) == []


def test_a_run_ends_where_the_file_does() -> None:
    file, positions, end = file_with()
    for cut in (positions[5] + 1000, positions[5] + 5, positions[5]):
        file.truncate(cut)
        assert b"".join(iter_runs(file, 0, end)) == file.read_at(positions[5], 0)
