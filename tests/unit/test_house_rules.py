"""Rules of the house that no linter knows: who may touch clock, chance, threads and sockets."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "kbroker"

ALLOWED = {
    "time": {"common/clock.py"},
    "random": {"common/entropy.py"},
    "uuid": {"common/entropy.py"},
    "secrets": set(),
    "threading": {"common/offload.py", "embedded.py"},
    "concurrent.futures": {"common/offload.py", "embedded.py"},
    "anyio.to_thread": {"common/offload.py"},
    "anyio.from_thread": {"common/offload.py", "embedded.py", "testing/external.py"},
    "asyncio": {
        "network/protocol_shell.py",
        "network/direct_socket.py",
        "network/listener.py",
        "embedded.py",
        "cli/serving.py",  # watches standard input
    },
    "socket": {
        "network/direct_socket.py",
        "network/listener.py",
        "embedded.py",
    },
    "pickle": set(),
    "subprocess": set(),
}
"""Module -> files that may import it. Determinism rests on this: everything else is handed in."""

FILES = sorted(path for path in PACKAGE.rglob("*.py") if "/messages/" not in path.as_posix())


def imported(path: Path) -> set[str]:
    """Every module a file imports, the parents of submodules included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def test_there_are_files():
    assert len(FILES) > 50


@pytest.mark.parametrize("module", sorted(ALLOWED))
def test_only_these_files_import(module):
    users = {path.relative_to(PACKAGE).as_posix() for path in FILES if module in imported(path)}
    assert users <= ALLOWED[module]


def test_no_randomness_by_the_back_door():
    users = [p.relative_to(PACKAGE).as_posix() for p in FILES if "urandom" in p.read_text()]
    assert users == ["common/entropy.py"]


def test_nothing_is_evaluated():
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec"), path


def test_ci_runs_the_readmes_command():
    commands = [
        line for line in (ROOT / "README.md").read_text().splitlines() if line.endswith("/tox")
    ]
    assert commands, "README.md does not name the test command"
    assert commands[0] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_versions_agree():
    import tomllib

    import kbroker

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == kbroker.__version__
    assert f"## {kbroker.__version__}" in (ROOT / "CHANGELOG.md").read_text()
