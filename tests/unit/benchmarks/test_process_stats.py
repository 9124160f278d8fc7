"""What a process has used is read as the process itself would."""

from __future__ import annotations

import os
import sys
import time

import pytest

from benchmarks import process_stats
from benchmarks.process_stats import cpu_seconds, rss_mb, stolen_ticks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="read from the Linux kernel")


def test_cpu_time_is_that_of_the_process_to_the_microsecond():
    before = time.process_time()
    used = cpu_seconds(os.getpid())
    assert before <= used <= time.process_time()
    assert cpu_seconds(os.getpid()) > used


def test_memory_is_in_megabytes():
    assert 1 < rss_mb(os.getpid()) < 100_000


def test_a_process_that_is_not_there_has_no_time():
    with pytest.raises(OSError, match=r"Invalid argument"):
        cpu_seconds(2**22 + 1)  # no process has a number above 2^22


def test_what_the_host_keeps_is_read_from_the_line_of_all_processors():
    stat = "cpu  1 2 3 4 5 6 7 80 9 10\ncpu0 1 2 3 4 5 6 7 40 9 10\nintr 5\n"
    assert stolen_ticks(stat) == 80
    with pytest.raises(ValueError, match="no line cpu"):
        stolen_ticks("intr 5\n")


def test_where_the_host_keeps_nothing_the_share_is_nothing(tmp_path, monkeypatch):
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 3 4 5 6 7 80 9 10\n")
    monkeypatch.setattr(process_stats, "_STAT", stat)
    stolen = process_stats.StolenTime()
    assert stolen.percent() == 0
    stat.write_text("cpu  1 2 3 4 5 6 7 81 9 10\n")
    assert stolen.percent() > 0
