"""What the commands that talk to a cluster share: options, errors in one line, tables, JSON."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import anyio

from kbroker.cli.main import drop_output
from kbroker.client.client import BootstrapError, KafkaClient
from kbroker.client.connection import ConnectionLostError
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_LONGEST_TIMEOUT_S: Final = 2_000_000.0
"""Requests have room for as many milliseconds as 31 bits can count."""

_HINTS = {
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: "there is no such topic; "
    "`kbroker topics list` shows what is there, `kbroker topics create` makes one",
    ErrorCode.TOPIC_ALREADY_EXISTS: "use --if-not-exists where that is all right",
    ErrorCode.OFFSET_OUT_OF_RANGE: "records there are gone or not yet written; "
    "`--from beginning` reads what is left",
    ErrorCode.GROUP_ID_NOT_FOUND: "there is no such group; "
    "`kbroker groups list` shows what is there",
    ErrorCode.NON_EMPTY_GROUP: "the group has members; stop them first",
    ErrorCode.UNKNOWN_MEMBER_ID: "the group has members; stop them first",
    ErrorCode.GROUP_SUBSCRIBED_TO_TOPIC: "members of the group read this topic; stop them first",
    ErrorCode.INVALID_CONFIG: "`kbroker configs describe` with --all shows what there is",
    ErrorCode.MESSAGE_TOO_LARGE: "a single record is larger than the topic takes: "
    "`kbroker topics alter` with --config max.message.bytes=N, or --compression",
    ErrorCode.UNSUPPORTED_VERSION: "older brokers cannot do all that is asked for",
    ErrorCode.REQUEST_TIMED_OUT: "is the cluster overloaded, or a broker down? --timeout waits",
}


class UsageError(Exception):
    """An option that cannot be meant; the text says what would be right."""


def add_connection_arguments(parser: argparse.ArgumentParser, *, json_help: str) -> None:
    """``--bootstrap``, ``--timeout`` and ``--json``."""
    parser.add_argument(
        "--bootstrap",
        metavar="HOST:PORT",
        help=f"a broker of the cluster (default ${BOOTSTRAP_VARIABLE}, then {DEFAULT_BOOTSTRAP})",
    )
    parser.add_argument(
        "--timeout",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="seconds to try for (default 30)",
    )
    parser.add_argument("--json", action="store_true", help=json_help)


def add_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """The parser of ``kbroker COMMAND NAME``, with the options of the connection."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    add_connection_arguments(parser, json_help="print JSON")
    return parser


def _seconds(text: str) -> float:
    """For argparse, which says what was wrong."""
    seconds = float(text)
    if not 0 < seconds <= _LONGEST_TIMEOUT_S:
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0 seconds")
    return seconds


def bootstrap_of(options: argparse.Namespace) -> str:
    """The option, else the environment, else this machine."""
    told: str | None = options.bootstrap
    return told or os.environ.get(BOOTSTRAP_VARIABLE) or DEFAULT_BOOTSTRAP


def run_verb(
    options: argparse.Namespace,
    verbs: Mapping[str, Callable[[KafkaClient, argparse.Namespace], Awaitable[None]]],
) -> int:
    """The verb that was asked for, with a client; the status as ``run_with_client``."""

    async def work(client: KafkaClient) -> int:
        await verbs[options.verb](client, options)
        return 0

    return run_with_client(options, work)


def run_with_client(
    options: argparse.Namespace, work: Callable[[KafkaClient], Awaitable[int]]
) -> int:
    """``work`` with a client; its status, or as ``run_reporting``."""

    async def main() -> int:
        try:
            client = KafkaClient(
                bootstrap_of(options), client_id="kbroker-cli", timeout_s=options.timeout
            )
        except ValueError as error:
            named = "--bootstrap" if options.bootstrap else f"${BOOTSTRAP_VARIABLE}"
            raise UsageError(f"{named}: {error}") from error
        async with client:
            return await work(client)

    return run_reporting(main)


def run_reporting(main: Callable[[], Awaitable[int]]) -> int:
    """Run it; its status, or 1, 2, 130 or 143 (Ctrl-C, SIGTERM) after what it has to tidy up.

    Errors that a user can do something about become one line on stderr.
    """
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that this terminal cannot show
    try:
        status = anyio.run(_until_sigterm, main)
        sys.stdout.flush()
        return status
    except KafkaError as error:
        return _fail_with_hint(error)
    except BootstrapError as error:
        return fail(
            f"cannot reach a broker: {error} (start one with `kbroker serve`, or name one with "
            f"--bootstrap HOST:PORT or ${BOOTSTRAP_VARIABLE})"
        )
    except ConnectionLostError as error:
        return fail(f"connection lost: {error}")
    except UsageError as error:
        return fail(str(error), EXIT_USAGE)
    except UnicodeEncodeError as error:  # a byte of the command line
        return fail(f"{error.object!r} is no UTF-8", EXIT_USAGE)
    except BrokenPipeError:  # it may have been the file of --output, too
        drop_output()
        return 0
    except OSError as error:
        drop_output()
        return fail(f"cannot write {error.filename or 'the output'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


async def _until_sigterm(main: Callable[[], Awaitable[int]]) -> int:
    """SIGTERM cancels it as Ctrl-C does: members leave their groups, brokers are stopped."""
    if os.name != "posix":
        return await main()
    status = EXIT_TERMINATED
    problem: Exception | None = None
    async with anyio.create_task_group() as tasks:
        await tasks.start(_cancel_at_sigterm, tasks.cancel_scope)
        try:
            status = await main()
        except Exception as error:  # raised below: it would leave the task group inside a group
            problem = error
        tasks.cancel_scope.cancel()
    if problem is not None:
        raise problem
    return status


async def _cancel_at_sigterm(
    scope: anyio.CancelScope,
    *,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        task_status.started()
        async for _ in signals:
            scope.cancel()


async def each_of(
    names: Sequence[str],
    work: Callable[[str], Awaitable[None]],
    *,
    unless: ErrorCode | None,
    done: Callable[[Sequence[str]], None],
) -> None:
    """Do it to every name, also where one is refused; ``done`` gets those that it was done to.

    ``unless`` is no refusal: it means that there was nothing to do. Each refusal is one line on
    stderr, the last one is raised.
    """
    worked: list[str] = []
    refusals: list[KafkaError] = []
    for name in names:
        try:
            await work(name)
        except KafkaError as error:
            if error.error_code != unless:
                refusals.append(error)
            continue
        worked.append(name)
    done(worked)
    for refusal in refusals[:-1]:
        _fail_with_hint(refusal)
    if refusals:
        raise refusals[-1]


def _fail_with_hint(error: KafkaError) -> int:
    hint = _HINTS.get(error.error_code)
    return fail(f"{error} ({hint})" if hint else str(error))


def print_deleted(as_json: bool, names: Sequence[str]) -> None:
    """What a command has deleted."""
    if as_json:
        print_json({"deleted": list(names)})
    for name in () if as_json else names:
        print(f"deleted {name}")


def fail(text: str, status: int = EXIT_FAILED) -> int:
    """One line on stderr."""
    print(f"kbroker: {' '.join(text.split())}", file=sys.stderr)
    return status


def parse_assignments(option: str, assignments: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` each. Raises UsageError."""
    found: dict[str, str] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not equals or not name:
            raise UsageError(f"{option} {assignment}: expected NAME=VALUE")
        found[name] = value
    return found


def parse_changes(
    option: str, assignments: Sequence[str], reset: Sequence[str]
) -> dict[str, str | None]:
    """Settings to set, and with None to reset. Raises UsageError."""
    changes: dict[str, str | None] = dict(parse_assignments(option, assignments))
    both = sorted(changes.keys() & set(reset))
    if both:
        raise UsageError(f"{', '.join(both)}: either {option} or --reset")
    return changes | dict.fromkeys(reset)


def parse_moment(text: str) -> int:
    """An ISO 8601 time, local without a zone -> ms since 1970. Raises ValueError."""
    return max(int(datetime.fromisoformat(text).timestamp() * 1000), 0)


def print_json(value: Any) -> None:
    """One line of JSON on stdout."""
    print(json.dumps(value, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; numbers to the right; None is a dash."""
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [
        bool(rows) and all(row[index] is None or isinstance(row[index], int) for row in rows)
        for index in range(len(columns))
    ]
    for line in [list(columns), *cells]:
        padded = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ]
        print("  ".join(padded).rstrip())
