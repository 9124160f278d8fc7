"""What the commands share: times, and how each of them ends."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from functools import partial

import pytest

from kbroker.cli.cluster import (
    EXIT_TERMINATED,
    add_connection_arguments,
    each_of,
    parse_moment,
    print_deleted,
)
from kbroker.cli.main import main
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

GROUP_ID_NOT_FOUND, NON_EMPTY_GROUP = ErrorCode.GROUP_ID_NOT_FOUND, ErrorCode.NON_EMPTY_GROUP
PRINTING = """
import sys
from kbroker.cli.cluster import print_table, run_reporting
async def main():
    print_table(("A",), [("caf\\u00e9",)] * ROWS)
    return 0
sys.exit(run_reporting(main))
"""
WAITING = """
import signal, sys
import anyio
from kbroker.cli.cluster import run_reporting
signal.signal(signal.SIGINT, signal.SIG_IGN)  # as for a shell's job in the background
async def main():
    try:
        print("waits", flush=True)
        await anyio.sleep_forever()
    finally:
        print("tidies up", flush=True)
sys.exit(run_reporting(main))
"""
posix = pytest.mark.skipif(os.name != "posix", reason="descriptors and signals as POSIX has them")


def python(program: str, **options) -> subprocess.CompletedProcess[bytes]:
    words = [sys.executable, "-c", program]
    return subprocess.run(words, stderr=subprocess.PIPE, timeout=50, check=False, **options)


def test_a_moment_is_never_before_the_first_one() -> None:
    assert parse_moment("1970-01-01T00:00:01Z") == 1000
    assert parse_moment("1950-01-01T00:00:00Z") == 0


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "1e12", "x"])
def test_a_time_to_try_for_is_more_than_none(text: str, capsys) -> None:
    parser = argparse.ArgumentParser()
    add_connection_arguments(parser, json_help="")
    assert parser.parse_args(["--timeout", "0.5"]).timeout == 0.5
    with pytest.raises(SystemExit):
        parser.parse_args([f"--timeout={text}"])
    assert "--timeout" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variables", "option", "told"),
    [
        ({}, ["--bootstrap", "nowhere"], "--bootstrap: 'nowhere' is not HOST:PORT"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "a:b"}, [], "$KAFKA_BOOTSTRAP_SERVERS: 'a:b' is not"),
    ],
)
def test_an_address_that_is_none_is_told_with_its_source(
    variables, option, told: str, monkeypatch, capsys
) -> None:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["topics", "list", *option]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has a full device")
@pytest.mark.parametrize("rows", [1, 100_000])
def test_output_that_finds_no_room_is_one_line(rows: int) -> None:
    with open("/dev/full", "wb") as full:
        done = python(PRINTING.replace("ROWS", str(rows)), stdout=full)
    assert done.stderr == b"kbroker: cannot write the output: No space left on device\n"
    assert done.returncode == 1


@posix
@pytest.mark.parametrize("rows", [1, 100_000])
def test_a_reader_that_has_seen_enough_is_no_error(rows: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = python(PRINTING.replace("ROWS", str(rows)), stdout=writer)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_names_that_the_terminal_cannot_show_are_shown_otherwise() -> None:
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = python(PRINTING.replace("ROWS", "1"), stdout=subprocess.PIPE, env=ascii_only)
    assert done.stdout.split() == [b"A", b"caf\\xe9"]


@pytest.mark.anyio
async def test_what_is_refused_for_one_name_is_done_for_the_others(capsys) -> None:
    async def delete(name: str) -> None:
        if name in ("missing", "gone", "held"):
            code = NON_EMPTY_GROUP if name == "held" else GROUP_ID_NOT_FOUND
            raise KafkaError(code, name)

    for as_json, printed in ((True, '{"deleted": ["a", "b"]}'), (False, "deleted a\ndeleted b")):
        with pytest.raises(KafkaError, match="NON_EMPTY_GROUP: held"):
            await each_of(
                ["a", "missing", "b", "held"],
                delete,
                unless=None,
                done=partial(print_deleted, as_json),
            )
        out, err = capsys.readouterr()
        assert out == printed + "\n"
        assert err.startswith("kbroker: GROUP_ID_NOT_FOUND: missing (there is no such group;")
    told: list[str] = []
    await each_of(["gone", "a"], delete, unless=GROUP_ID_NOT_FOUND, done=told.extend)
    assert told == ["a"]


@pytest.fixture
def anyio_backend() -> str:
    """Nothing here depends on it."""
    return "asyncio"


@posix
def test_sigterm_lets_a_command_tidy_up() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"waits\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"tidies up\n"
        assert process.wait(50) == EXIT_TERMINATED


@posix
@pytest.mark.parametrize("redirection", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_are_closed_are_no_accident(redirection: str) -> None:
    """Nor does a socket take their place."""
    check = "from kbroker.cli.main import main; import os; main(['version']); os.fstat(0);"
    check += "os.fstat(1); os.fstat(2); os._exit(7)"
    command = f'"{sys.executable}" -c "$PROGRAM" {redirection}'
    done = subprocess.run(
        ["sh", "-c", command],
        env={**os.environ, "PROGRAM": check},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=50,
        check=False,
    )
    assert done.returncode == 7
