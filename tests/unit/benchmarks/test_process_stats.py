"""What a process has used is read as the process itself would."""

from __future__ import annotations

import os
import sys
import time

import pytest

from benchmarks.process_stats import cpu_seconds, rss_mb

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
