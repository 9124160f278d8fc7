"""The plugin in pytest runs of its own: fixtures, option, xdist, and what it loads."""

import os
import subprocess
import sys
import textwrap
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

from kbroker import BrokerThread

ROOT = Path(__file__).parents[2]
PLUGIN = "kbroker.pytest_plugin"


def run_pytest(folder, *arguments, plugins=()):
    """pytest in ``folder`` with this plugin alone (and ``plugins``); the finished process."""
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    named = [part for plugin in (PLUGIN, *plugins) for part in ("-p", plugin)]
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *named, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def outcomes(run):
    """The last line of pytest's report."""
    return run.stdout.strip().splitlines()[-1]


@pytest.fixture
def suite(tmp_path):
    """Writes a test module into an empty folder and returns the folder."""

    def write(text):
        (tmp_path / "test_it.py").write_text(textwrap.dedent(text))
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        return tmp_path

    return write


SUITE = """
    import socket

    def reach(bootstrap):
        host, _, port = bootstrap.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=5):
            return bootstrap

    seen = {}

    def test_fresh_one(kafka_broker):
        assert kafka_broker.produce("t", "v") == (0, 0)
        seen["fresh"] = reach(kafka_broker.bootstrap_servers)

    def test_fresh_two(kafka_broker):
        assert kafka_broker.produce("t", "v") == (0, 0), "it is another one"
        assert kafka_broker.consume("t", count=1)[0].value == b"v"

    def test_session_one(kafka_session_broker, kafka_bootstrap_servers):
        assert reach(kafka_bootstrap_servers) == kafka_session_broker.bootstrap_servers
        assert kafka_session_broker.produce("t", "v") == (0, 0)

    def test_session_two(kafka_session_broker, kafka_broker):
        assert kafka_session_broker.produce("t", "v") == (0, 1), "it is the same one"
        assert kafka_session_broker.port != kafka_broker.port

    def test_address(kafka_bootstrap_servers):
        reach(kafka_bootstrap_servers)
"""


def test_the_fixtures(suite):
    run = run_pytest(suite(SUITE))
    assert "5 passed" in outcomes(run), run.stdout + run.stderr


def test_under_xdist_each_worker_has_its_own(suite):
    folder = suite(
        """
        import os
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_own(kafka_session_broker, kafka_broker, number):
            worker = os.environ["PYTEST_XDIST_WORKER"]
            kafka_session_broker.produce("t", worker)
            assert {r.value for r in kafka_session_broker.consume("t")} == {worker.encode()}
            assert kafka_broker.produce("t", "v") == (0, 0)
        """
    )
    run = run_pytest(folder, "-n", "2", plugins=("xdist",))
    assert "8 passed" in outcomes(run), run.stdout + run.stderr


def test_another_cluster(suite):
    """The same suite; what its fixtures made there is gone afterwards."""
    folder = suite(
        """
        def test_address(kafka_bootstrap_servers, pytestconfig):
            assert kafka_bootstrap_servers == pytestconfig.getoption("--kafka-bootstrap")

        def test_fresh_one(kafka_broker, pytestconfig):
            assert kafka_broker.bootstrap_servers == pytestconfig.getoption("--kafka-bootstrap")
            assert kafka_broker.produce("t", "v") == (0, 0)
            assert kafka_broker.consume("t", count=1)[0].value == b"v"

        def test_fresh_two(kafka_broker):
            kafka_broker.create_topic("t", partitions=2)
            assert kafka_broker.produce("t", "v", partition=1) == (1, 0)

        def test_session_one(kafka_session_broker):
            assert kafka_session_broker.produce("s", "v") == (0, 0)

        def test_session_two(kafka_session_broker):
            assert kafka_session_broker.produce("s", "v") == (0, 1)
        """
    )
    with BrokerThread() as broker:
        broker.produce("kept", "v")
        run = run_pytest(folder, "--kafka-bootstrap", broker.bootstrap_servers)
        assert list(broker.server.publisher.image.topics.by_name) == ["kept"]
    assert "5 passed" in outcomes(run), run.stdout + run.stderr


def test_help_names_the_option_and_the_fixtures(tmp_path):
    assert "--kafka-bootstrap" in run_pytest(tmp_path, "--help").stdout
    listed = run_pytest(tmp_path, "--fixtures").stdout
    for name in ("kafka_broker", "kafka_session_broker", "kafka_bootstrap_servers"):
        assert name in listed


LOADED = """
    import sys, pytest
    status = pytest.main([*{options!r}, "-q", "-p", "no:cacheprovider", {folder!r}])
    assert status == pytest.ExitCode.NO_TESTS_COLLECTED, status
    print("loaded:", *sorted(sys.modules))
"""


def loaded_modules(tmp_path, *options):
    program = textwrap.dedent(LOADED).format(options=options, folder=str(tmp_path))
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


def test_a_run_that_uses_nothing_loads_nothing(tmp_path):
    plain = loaded_modules(tmp_path)
    with_plugin = loaded_modules(tmp_path, "-p", PLUGIN)
    assert with_plugin - plain == {"kbroker", PLUGIN}
    assert "asyncio" not in with_plugin - plain


def test_the_entry_point():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = project["entry-points"]["pytest11"]["kbroker"]
    assert named == PLUGIN
    assert import_module(named).kafka_broker
