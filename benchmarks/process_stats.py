"""What a process has used (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

_SCHEDULED = 2  # CPUCLOCK_SCHED
_STAT = Path("/proc/stat")


def cpu_seconds(pid: int) -> float:
    """User plus system time of all its threads, of those that have ended too.

    By the clock of the process, as clock_getcpuclockid makes it: /proc/PID/stat has 10 ms ticks.
    """
    return time.clock_gettime((~pid << 3) | _SCHEDULED)


def rss_mb(pid: int) -> float:
    """Resident memory now, in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no VmRSS for process {pid}")


def idle_cpu_percent(pid: int, *, seconds: float) -> float:
    """Share of one core that it uses while nobody asks anything of it."""
    before, started = cpu_seconds(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(pid) - before) / (time.monotonic() - started)


class StolenTime:
    """What a virtual machine's host kept of its processors since this was made."""

    def __init__(self) -> None:
        self._before = stolen_ticks(_STAT.read_text())
        self._started = time.monotonic()

    def percent(self) -> float:
        """Of all processors' time until now; 0 where nothing runs below."""
        ticks = (time.monotonic() - self._started) * os.sysconf("SC_CLK_TCK")
        return (
            100 * (stolen_ticks(_STAT.read_text()) - self._before) / (ticks * (os.cpu_count() or 1))
        )


def stolen_ticks(stat: str) -> int:
    """Of all processors since the machine's start, of a text such as /proc/stat."""
    for line in stat.splitlines():
        name, *ticks = line.split()
        if name == "cpu":
            return int(ticks[7])  # user, nice, system, idle, iowait, irq, softirq, steal
    raise ValueError("no line cpu in /proc/stat")
