"""What the figures of a run were measured on and with."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

from benchmarks.throughput import RECORD_SIZE
from tests.peers.maven import KAFKA_VERSION


def circumstances(folder: Path) -> list[tuple[str, str]]:
    """(what, value) pairs; ``folder`` is where the brokers keep their data."""
    confluent = version("confluent-kafka")
    return [
        ("machine", f"{os.cpu_count()} cores, {_processor()}, {_memory()}, {platform.release()}"),
        ("load when it began", " ".join(f"{load:.1f}" for load in os.getloadavg())),
        ("file system of all data", _file_system(folder)),
        ("python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("uvloop", version("uvloop")),
        ("apache kafka", f"{KAFKA_VERSION}, one KRaft node, heap 1 GB, G1, as it comes"),
        ("segments", "1 GiB (log.segment.bytes), flush never, of all brokers"),
        (
            "confluent-kafka",
            f"{confluent}, defaults but acks=all, queue.buffering.max.messages=500000 and "
            "fetch.queue.backoff.ms=10",
        ),
        ("records", f"{RECORD_SIZE} and 100 bytes of JSON-like text without keys"),
        ("perf tools", f"Apache Kafka {KAFKA_VERSION}, {RECORD_SIZE} bytes, defaults"),
    ]


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory() -> str:
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / 2**30:.0f} GiB"


def _file_system(folder: Path) -> str:
    command = ["stat", "-f", "-c", "%T", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
