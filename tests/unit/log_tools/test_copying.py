"""Copies: shared, inside of the kernel, or byte by byte; segments of old formats rewritten."""

import errno
import os

import pytest

from kbroker.log_tools import copying
from kbroker.log_tools.copying import copy_file, rewrite_segment
from kbroker.record.batch import build_batch
from kbroker.record.record import Record
from tests.unit.log_tools.partition_files import legacy_message, legacy_wrapper
from tests.unit.storage.log_fixture import records_of

CONTENT = os.urandom(9 * 1024 * 1024 + 17)


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source"
    path.write_bytes(CONTENT)
    os.utime(path, ns=(1, 123456789))
    path.chmod(0o444)
    return path


def copied(source, target, monkeypatch=None):
    steps = []
    is_shared = copy_file(os.fspath(source), os.fspath(target), steps.append)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert sum(steps) == source.stat().st_size
    return is_shared


def test_a_copy_replaces_what_was_there(source, tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"x" * (len(CONTENT) + 5))
    copied(source, target)


def test_blocks_are_shared_where_the_file_system_can(source, tmp_path, monkeypatch):
    """``ioctl`` is played by a copy: what counts is which file is cloned into which."""
    fcntl = pytest.importorskip("fcntl")

    calls = []

    def clone(target, request, origin):
        calls.append(request)
        os.pwrite(target, os.pread(origin, len(CONTENT), 0), 0)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert copied(source, tmp_path / "target")
    assert calls == [0x40049409]


@pytest.mark.parametrize("reason", [errno.EOPNOTSUPP, errno.EXDEV, errno.ENOTTY, errno.EINVAL])
def test_without_shared_blocks(source, tmp_path, monkeypatch, reason):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(reason, "not here")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    assert not copied(source, tmp_path / "target")


def test_a_full_disk_is_no_reason_to_try_another_way(source, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(OSError, match="full"):
        copy_file(os.fspath(source), os.fspath(tmp_path / "target"), lambda size: None)


@pytest.mark.parametrize("how", ["missing", "refused"])
def test_without_a_copy_inside_of_the_kernel(source, tmp_path, monkeypatch, how):
    monkeypatch.setattr(copying, "_clone", lambda *_: False)
    if how == "missing":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:

        def refuse(*_):
            raise OSError(errno.EXDEV, "other disk")

        monkeypatch.setattr(os, "copy_file_range", refuse, raising=False)
    assert not copied(source, tmp_path / "target")


def test_an_empty_file(tmp_path):
    (tmp_path / "empty").touch()
    copied(tmp_path / "empty", tmp_path / "target")


@pytest.mark.parametrize("codec", [0, 1, 2])
@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_become_batches(tmp_path, magic, codec):
    """Keys, values, offsets and times stay; gaps too; batches that follow are left alone."""
    batch = build_batch([Record(value=b"new", timestamp=9)], base_offset=30, leader_epoch=4)
    source = tmp_path / "source"
    source.write_bytes(
        legacy_message(magic, 0, b"k", None)
        + legacy_message(magic, 2, None, b"v" * 300_000)
        + legacy_message(magic, 3, None, b"w" * 300_000)
        + (legacy_wrapper(magic, 12, [b"a", b"b"], codec=codec) if codec else b"")
        + bytes(batch)
    )
    target = tmp_path / "target"
    rewrite_segment(os.fspath(source), os.fspath(target), lambda size: None)
    data = target.read_bytes()
    assert data.endswith(bytes(batch))
    found = [(each.offset, each.key, each.value) for each in records_of(data)]
    expected = [(0, b"k", None), (2, None, b"v" * 300_000), (3, None, b"w" * 300_000)]
    if codec:
        expected += [(11, None, b"a"), (12, None, b"b")]
    assert found == [*expected, (30, None, b"new")]
    times = [each.timestamp for each in records_of(data)]
    assert times[0] == (5 if magic else -1)
    if codec:
        assert times[3:5] == ([10, 11] if magic else [-1, -1])


def test_damage_behind_old_messages_is_left_out(tmp_path):
    source = tmp_path / "source"
    whole = legacy_message(1, 0, b"k", b"v")
    source.write_bytes(whole + legacy_message(1, 1, b"k", b"v")[:-3])
    target = tmp_path / "target"
    rewrite_segment(os.fspath(source), os.fspath(target), lambda size: None)
    assert [each.offset for each in records_of(target.read_bytes())] == [0]


def test_a_compressed_message_that_cannot_be_unpacked(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(legacy_message(1, 0, None, b"no gzip", codec=1))
    with pytest.raises(OSError, match="unreadable message at byte 0"):
        rewrite_segment(os.fspath(source), os.fspath(tmp_path / "target"), lambda size: None)
