"""GitHub Actions, GitLab CI, docker compose: sound YAML, and kbroker knows what they ask of it."""

from __future__ import annotations

import argparse
import shlex
import shutil
from importlib import import_module
from typing import Any

import pytest
import yaml

from kbroker.cli.main import COMMANDS
from tests.compat.cli.command import succeed as kbroker_succeeds
from tests.compat.recipes.programs import succeed
from tests.compat.recipes.readme import block, put_file


def load(heading: str) -> Any:
    return yaml.safe_load(block(heading, "yaml"))


def check_command(words: list[str]) -> argparse.Namespace:
    """The options of a ``kbroker`` command line, of which each must be known."""
    assert words[0] == "kbroker"
    module_name, _ = COMMANDS[words[1]]
    parser = argparse.ArgumentParser(prog="kbroker", exit_on_error=False)
    import_module(module_name).add_arguments(parser)
    return parser.parse_args(words[2:])


def test_unknown_options_would_be_noticed():
    with pytest.raises((SystemExit, argparse.ArgumentError)):
        check_command(["kbroker", "topics", "--no-such-option"])


def test_github_actions():
    workflow = load("GitHub Actions")
    assert workflow[True] == ["push", "pull_request"], "`on` is true to YAML 1.1"
    (job,) = workflow["jobs"].values()
    assert job["runs-on"]
    uses = [step["uses"] for step in job["steps"] if "uses" in step]
    assert [name.split("@")[0] for name in uses] == ["actions/checkout", "actions/setup-python"]
    install, test = (step["run"] for step in job["steps"] if "run" in step)
    assert shlex.split(install) == ["pip", "install", "kbroker"]
    options = check_command(shlex.split(test))
    assert options.topics == ["orders:3"]
    assert options.words[-2:] == ["npm", "test"]


def test_gitlab():
    (job,) = load("GitLab CI").values()
    install, test = job["script"]
    assert shlex.split(install)[:3] == ["pip", "install", "kbroker"]
    assert check_command(shlex.split(test)).words[-1] == "pytest"


def test_docker_compose(bootstrap, tmp_path):
    services = load("docker compose")["services"]
    kafka, app = services["kafka"], services["app"]
    shell, flag, script = shlex.split(kafka["command"])
    assert (shell, flag) == ("sh", "-c")
    install, _, serve = script.partition(" && exec ")
    assert shlex.split(install)[-1] == "kbroker"
    options = check_command(shlex.split(serve))
    assert options.host == "0.0.0.0"
    (volume,) = kafka["volumes"]
    assert volume.partition(":")[2] == str(options.data_dir)
    program, *check = kafka["healthcheck"]["test"][1:]
    assert program == "kbroker"
    kbroker_succeeds(*check, bootstrap=bootstrap)
    assert app["environment"]["KAFKA_BOOTSTRAP_SERVERS"] == "kafka:9092"
    assert app["depends_on"]["kafka"]["condition"] == "service_healthy"
    docker = shutil.which("docker")
    if docker is not None and _has_compose(docker):
        path = put_file("docker compose", "yaml", tmp_path)
        succeed([docker, "compose", "-f", str(path), "config", "-q"], tmp_path)


def _has_compose(docker: str) -> bool:
    import subprocess

    asked = subprocess.run(
        [docker, "compose", "version"], capture_output=True, timeout=60, check=False
    )
    return asked.returncode == 0
