"""The log works where the system lacks calls that it prefers: each hidden, then all of them.

What is there is looked up when modules are imported, so each case is a process of its own that
takes the names away first: it fills a data directory, dies, and reads everything back.
"""

import subprocess
import sys
from pathlib import Path

import pytest

CALLS = ("pwrite", "pread", "pwritev", "preadv", "writev", "sendfile", "fdatasync")
OTHERS = ("posix_fallocate", "fcntl")

_SCRIPT = """
import os, sys
hidden, root = sys.argv[1].split(","), sys.argv[2]
for name in hidden:
    if name == "fcntl":
        sys.modules["fcntl"] = None
    elif hasattr(os, name):
        delattr(os, name)
import logging
import anyio
from kbroker.common.clock import ManualClock
from kbroker.common.entropy import SeededEntropy
from kbroker.common.files import OsFileSystem
from kbroker.common.offload import ThreadOffload
from kbroker.common.timer import Timer
from kbroker.storage.log_manager import LogManager
from tests.unit.storage.log_fixture import TOPIC_ID, append, append_values, batch, config, read_all

settings = config(segment_bytes=700, index_interval_bytes=150, cleanup_policy="compact")

def manager():
    clock = ManualClock(time_ms=2_000_000)
    return LogManager(OsFileSystem(), [root], settings, clock, Timer(clock), ThreadOffload(),
                      SeededEntropy(1), logging.getLogger("test"))

async def main():
    first = manager()
    await first.load()
    log = first.get_or_create_log("topic", 0, TOPIC_ID, settings)
    for number in range(30):
        append(log, batch(b"value %d" % number, keys=[b"%d" % (number % 9)]))
    await log.flush()
    append_values(log, b"x" * 300)
    log.truncate_to(31)
    append(log, batch(b"p", producer_id=3, base_sequence=0, keys=[b"p"]))
    before = read_all(log)
    await first.checkpoint()
    await first.shutdown(clean=False)
    second = manager()
    await second.load()
    again = second.get_or_create_log("topic", 0, TOPIC_ID, settings)
    assert read_all(again) == before, (read_all(again), before)
    assert append(again, batch(b"p", producer_id=3, base_sequence=0, keys=[b"p"])).duplicate
    assert await second.cleaner.clean_logs(second.cleaner.make_cleaner()) > 0
    cleaned = read_all(again)
    assert len(cleaned) < len(before)
    await second.shutdown()
    third = manager()
    await third.load()
    assert read_all(third.get_or_create_log("topic", 0, TOPIC_ID, settings)) == cleaned
    await third.shutdown()

anyio.run(main)
missing = [name for name in hidden if name != "fcntl" and hasattr(os, name)]
assert not missing, missing
print("whole")
"""


@pytest.mark.slow
@pytest.mark.parametrize("hidden", [*CALLS, *OTHERS, ",".join((*CALLS, *OTHERS))])
def test_a_data_directory_without(hidden: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, hidden, str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr
