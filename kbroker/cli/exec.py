"""``kbroker exec``: a command with a throwaway broker of its own, in memory, on a free port."""

import argparse
import os
import signal
import sys
from collections.abc import Mapping
from typing import Final

import anyio
from anyio.abc import Process

from kbroker.cli.cluster import EXIT_FAILED, UsageError, fail, run_reporting
from kbroker.client.admin import Admin
from kbroker.client.client import KafkaClient

VARIABLES: Final = (
    "KAFKA_BOOTSTRAP_SERVERS",
    "BOOTSTRAP_SERVERS",
    "SPRING_KAFKA_BOOTSTRAP_SERVERS",
)
"""Where programs look for the address of their cluster."""

EXIT_NOT_FOUND: Final = 127
EXIT_NOT_EXECUTABLE: Final = 126
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 10.0
_READY: Final = b"kbroker ready bootstrap="


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``kbroker exec``."""
    add = parser.add_argument
    parser.usage = "kbroker exec [--topic NAME[:PARTITIONS]]... [--set NAME=VALUE]... -- COMMAND"
    add(
        "--topic",
        action="append",
        default=[],
        dest="topics",
        metavar="NAME[:PARTITIONS]",
        help="a topic that is there when the command starts; may be repeated",
    )
    add(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="NAME=VALUE",
        help="a setting of the broker, as for `kbroker serve`; may be repeated",
    )
    add("words", nargs=argparse.REMAINDER, metavar="COMMAND", help="the command, after --")


def run(options: argparse.Namespace) -> int:
    """The command's status (128 + N when signal N ended it, 127 and 126 as in a shell)."""
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        return fail("exec: no command; expected kbroker exec [OPTIONS] -- COMMAND", 2)

    async def main() -> int:
        topics = dict(map(_parse_topic, options.topics))
        return await _with_broker(words, topics, options.assignments)

    return run_reporting(main)


def _parse_topic(text: str) -> tuple[str, int]:
    name, colon, count = text.partition(":")
    if not name or (colon and not (count.isdecimal() and int(count))):
        raise UsageError(f"--topic {text}: expected NAME or NAME:PARTITIONS")
    return name, int(count) if colon else 1


async def _with_broker(words: list[str], topics: Mapping[str, int], settings: list[str]) -> int:
    assignments = [part for setting in settings for part in ("--set", setting)]
    if os.name == "posix":
        assignments.append("--stop-with-stdin")  # a pipe from us: it ends with us, whatever ends us
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    broker = await anyio.open_process(
        [
            *(sys.executable, "-m", "kbroker", "serve", "--memory", "--port", "0"),
            *("--log-level", "warning", *assignments),
        ],
        stderr=None,
        env=environment,  # KAFKA_... of it are settings of the broker
        start_new_session=True,  # Ctrl-C is for the command; the broker ends when that has ended
    )
    try:
        bootstrap = await _ready(broker)
        if bootstrap is None:
            return fail("exec: the broker did not start", await _status_of(broker))
        async with KafkaClient(bootstrap, client_id="kbroker-exec") as client:
            for name, partitions in topics.items():
                await Admin(client).create_topic(name, partitions=partitions)
                await client.leaders(name)
        return await _run_command(words, {**os.environ, **dict.fromkeys(VARIABLES, bootstrap)})
    finally:
        with anyio.CancelScope(shield=True):
            await _stop(broker)


async def _status_of(broker: Process) -> int:
    """1, or what it ended with: 2 where a setting cannot be meant."""
    with anyio.move_on_after(_STOP_TIMEOUT_S):
        return max(await broker.wait(), EXIT_FAILED)
    return EXIT_FAILED


async def _ready(broker: Process) -> str | None:
    """The address of the broker's ready line; None when it ended or the time is over."""
    line = b""
    with anyio.move_on_after(_START_TIMEOUT_S):
        try:
            while not line.endswith(b"\n") and broker.stdout is not None:
                line += await broker.stdout.receive()
        except anyio.EndOfStream:
            return None
    if not line.startswith(_READY):
        return None
    return line.removeprefix(_READY).split()[0].decode()


async def _run_command(words: list[str], environment: Mapping[str, str]) -> int:
    try:
        command = await anyio.open_process(
            words, stdin=None, stdout=None, stderr=None, env=environment
        )
    except FileNotFoundError:
        return fail(f"exec: {words[0]}: no such command", EXIT_NOT_FOUND)
    except OSError as error:
        return fail(f"exec: {words[0]}: {error.strerror}", EXIT_NOT_EXECUTABLE)
    async with anyio.create_task_group() as tasks:
        if os.name == "posix":
            await tasks.start(_pass_on_signals, command)
        status = await command.wait()
        tasks.cancel_scope.cancel()
    return status if status >= 0 else 128 - status


async def _pass_on_signals(
    command: Process, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """SIGTERM and SIGHUP go to the command; Ctrl-C reaches it by itself, and must not end us."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            if number != signal.SIGINT and command.returncode is None:
                command.send_signal(number)


async def _stop(broker: Process) -> None:
    if broker.returncode is None:
        broker.terminate()
    with anyio.move_on_after(_STOP_TIMEOUT_S):
        await broker.wait()
    if broker.returncode is None:
        broker.kill()
    await broker.aclose()
