"""The pytest plugin as a user's project meets it: in a pytest run of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SUITE = """
from confluent_kafka import Producer

def test_fresh_one(kafka_broker):
    assert kafka_broker.produce("t", b"x") == (0, 0)

def test_fresh_two(kafka_broker):
    assert kafka_broker.produce("t", b"x") == (0, 0)

def test_shared(kafka_session_broker, kafka_bootstrap_servers):
    assert kafka_session_broker.bootstrap_servers == kafka_bootstrap_servers

def test_client(kafka_bootstrap_servers):
    producer = Producer({"bootstrap.servers": kafka_bootstrap_servers})
    producer.produce("u", b"x")
    assert producer.flush(30) == 0
"""
NOTHING_LOADED = """
import sys

def test_nothing():
    ours = [name for name in sys.modules if name.split(".")[0] == "kbroker"]
    assert sorted(ours) == ["kbroker", "kbroker.pytest_plugin"]
    assert "asyncio" not in sys.modules
"""


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A run in ``folder`` that knows no plugin but ours (and xdist when it is asked for)."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "kbroker.pytest_plugin", "-q", *arguments],
        cwd=folder,
        env={"PATH": "", "PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_fixtures(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run_pytest(tmp_path)
    assert "4 passed" in done.stdout, done.stdout


@pytest.mark.timeout(120)
def test_under_xdist(tmp_path):
    (tmp_path / "test_suite.py").write_text(SUITE)
    done = run_pytest(tmp_path, "-p", "xdist", "-n", "2")
    assert "4 passed" in done.stdout, done.stdout


def test_against_another_cluster(tmp_path):
    (tmp_path / "test_suite.py").write_text(
        "def test_address(kafka_bootstrap_servers):\n"
        "    assert kafka_bootstrap_servers == 'kafka.example:1'\n"
        "def test_own(kafka_broker):\n"
        "    pass\n"
    )
    done = run_pytest(tmp_path, "--kafka-bootstrap", "kafka.example:1")
    assert "1 passed, 1 skipped" in done.stdout, done.stdout


def test_an_unused_plugin_loads_nothing(tmp_path):
    (tmp_path / "test_suite.py").write_text(NOTHING_LOADED)
    done = run_pytest(tmp_path, "-p", "no:cacheprovider")
    assert "1 passed" in done.stdout, done.stdout
