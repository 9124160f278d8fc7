"""Few descriptors for many segments."""

from kbroker.common.files import File
from kbroker.common.memory_files import MemoryFileSystem
from kbroker.storage.indexes import IndexFile
from kbroker.storage.log_environment import OpenFiles
from tests.unit.storage.log_fixture import (
    append_values,
    config,
    environment,
    new_log,
    path,
    read_all,
    reload,
)


class Segment:
    """Stands for a segment."""

    def __init__(self, number: int, opened: OpenFiles) -> None:
        self.log_path = f"/d/{number}"
        self.recently_used = False
        self.is_open = False
        self._opened = opened

    def use(self) -> File | None:
        self.recently_used = True
        if not self.is_open:
            self.is_open = True
            return self._opened.open(self, create=True)
        return None

    def release_file(self) -> None:
        self.is_open = False


def segments(count: int, limit: int) -> tuple[OpenFiles, list[Segment]]:
    files = MemoryFileSystem()
    files.make_directory("/d")
    opened = OpenFiles(files, limit)
    return opened, [Segment(number, opened) for number in range(count)]


def open_ones(all_of_them: list[Segment]) -> list[int]:
    return [number for number, each in enumerate(all_of_them) if each.is_open]


def test_no_more_than_the_limit_are_open() -> None:
    opened, each = segments(10, 3)
    for segment in each:
        segment.use()
        assert len(opened) <= 3
    assert len(open_ones(each)) == 3


def test_what_is_used_stays_open() -> None:
    _opened, each = segments(10, 3)
    for segment in each[1:]:
        each[0].use()
        segment.use()
    assert 0 in open_ones(each)


def test_idle_ones_are_closed() -> None:
    opened, each = segments(3, 10)
    for segment in each:
        segment.use()
    opened.close_idle()
    assert open_ones(each) == [0, 1, 2]
    each[1].use()
    opened.close_idle()
    assert open_ones(each) == [1]
    assert len(opened) == 1


def test_a_segment_may_let_go_by_itself() -> None:
    opened, each = segments(3, 10)
    each[0].use()
    opened.forget(each[0])
    opened.forget(each[0])
    assert len(opened) == 0


class CountingReads(MemoryFileSystem):
    """Which whole files were read."""

    def __init__(self) -> None:
        super().__init__()
        self.read_paths: list[str] = []

    def read(self, path: str) -> bytes:
        self.read_paths.append(path)
        return super().read(path)


def test_a_short_log_that_is_not_open_holds_no_index() -> None:
    files = CountingReads()
    log = new_log(environment(files))
    append_values(log, b"first")
    segment = log.segments.active
    assert segment is not None
    segment.release_file()
    assert not [name for name in segment.__slots__ if isinstance(getattr(segment, name), IndexFile)]
    assert segment.save_indexes() == [path(0, ".index"), path(0, ".timeindex")]
    append_values(log, b"second")
    assert not files.read_paths, "empty indexes need not be read"
    log.close()
    assert segment.time_index.entries() == [(1000, 0)]
    assert read_all(reload(log, is_clean=True)) == [(0, b"first"), (1, b"second")]


def test_entries_that_are_not_saved_are_kept_when_the_file_is_closed() -> None:
    log = new_log(log_config=config(index_interval_bytes=10))
    for number in range(4):
        append_values(log, b"value %d" % number)
    segment = log.segments.active
    assert segment is not None
    entries = segment.offset_index.entries()
    segment.release_file()
    assert segment.offset_index.entries() == entries and len(entries) == 3
