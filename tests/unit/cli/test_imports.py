"""What a command imports: those that talk to a cluster never a broker, and little for --help."""

from __future__ import annotations

import gc
import subprocess
import sys

import pytest

from kbroker.cli.main import COMMANDS, main

BROKER_COMMANDS = {"serve", "log"}
BROKER = ("kbroker.broker", "kbroker.embedded", "kbroker.handlers", "kbroker.storage")


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - BROKER_COMMANDS))
def test_no_command_imports_the_broker(command: str):
    program = (
        "import contextlib, io, sys; from kbroker.cli.main import main\n"
        "with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):\n"
        f"    main([{command!r}, '--help'])\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True
    )
    loaded = done.stdout.split()
    assert COMMANDS[command][0] in loaded
    assert [name for name in loaded if name.startswith(BROKER)] == []


def test_a_command_runs_with_the_collector_that_it_found(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert gc.isenabled()
    assert main(["version"]) == 0
    assert gc.isenabled(), "it only pauses while the command is imported"
    assert capsys.readouterr().out
