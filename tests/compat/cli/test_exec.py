"""``kbroker exec``: the command's environment, its status, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.compat.cli.command import kbroker, refuse
from tests.compat.waiting import eventually

PRINT = """
import json, os, subprocess, sys
names = ("KAFKA_BOOTSTRAP_SERVERS", "BOOTSTRAP_SERVERS", "SPRING_KAFKA_BOOTSTRAP_SERVERS")
(address,) = {os.environ[name] for name in names}
print(address, flush=True)
subprocess.run([sys.executable, "-m", "kbroker", "topics", "list"], check=True)
sys.exit(7)
"""


def is_closed(address: str) -> bool:
    return b"cannot reach a broker" in kbroker("topics", "list", "--bootstrap", address).stderr


def test_the_command_finds_its_broker_and_topics_and_gives_the_status():
    done = kbroker(
        *("exec", "--topic", "orders:3", "--topic", "audit", "--", sys.executable, "-c", PRINT)
    )
    assert done.returncode == 7, done.stderr
    assert done.stderr == b""
    address, header, *rows = done.stdout.decode().splitlines()
    assert header.split()[0] == "TOPIC"
    assert [row.split() for row in rows] == [["audit", "1", "1"], ["orders", "3", "1"]]
    assert is_closed(address)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_sigterm_ends_the_command_and_the_broker():
    wait = "import os, time; print(os.environ['BOOTSTRAP_SERVERS'], flush=True); time.sleep(60)"
    running = subprocess.Popen(
        [sys.executable, "-m", "kbroker", "exec", "--", sys.executable, "-c", wait],
        stdout=subprocess.PIPE,
    )
    address = running.stdout.readline().decode().strip()
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    running.communicate(timeout=40)
    assert running.returncode == 128 + signal.SIGTERM
    assert time.monotonic() - began < 40
    assert is_closed(address)


@pytest.mark.skipif(os.name != "posix", reason="signals as POSIX has them")
def test_a_broker_does_not_outlive_an_exec_that_is_killed():
    wait = "import os, time; print(os.environ['BOOTSTRAP_SERVERS'], flush=True); time.sleep(1)"
    with subprocess.Popen(
        [sys.executable, "-m", "kbroker", "exec", "--", sys.executable, "-c", wait],
        stdout=subprocess.PIPE,
    ) as running:
        address = running.stdout.readline().decode().strip()
        running.kill()
    eventually(lambda: is_closed(address), what="the broker has ended")


def test_mistakes():
    assert "no such command" in refuse("exec", "--", "no-such-command-anywhere", status=127)
    assert "no command" in refuse("exec", "--topic", "a", status=2)
    done = kbroker("exec", "--set", "log.retention.ms=x", "--", "true")
    assert done.returncode == 2, "as `kbroker serve` itself"
    assert b"log.retention.ms" in done.stderr
    assert "NAME:PARTITIONS" in refuse("exec", "--topic", "a:x", "--", "true", status=2)
