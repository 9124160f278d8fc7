"""What the commands that talk to a cluster share: options, errors in one line, tables, JSON."""

import argparse
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import anyio

from kbroker.client.client import BootstrapError, KafkaClient
from kbroker.client.connection import ConnectionLostError
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

DEFAULT_BOOTSTRAP = "127.0.0.1:9092"
BOOTSTRAP_VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

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
        "--timeout", type=float, default=30.0, metavar="S", help="seconds to try for (default 30)"
    )
    parser.add_argument("--json", action="store_true", help=json_help)


def add_verb(verbs: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """The parser of ``kbroker COMMAND NAME``, with the options of the connection."""
    parser: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    add_connection_arguments(parser, json_help="print JSON")
    return parser


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
    """``work`` with a client; its status, or 1, 2 or 130 after one line on stderr."""

    async def main() -> int:
        async with KafkaClient(
            bootstrap_of(options), client_id="kbroker-cli", timeout_s=options.timeout
        ) as client:
            return await work(client)

    return run_reporting(main)


def run_reporting(main: Callable[[], Awaitable[int]]) -> int:
    """Run it; errors that a user can do something about become one line on stderr."""
    try:
        return anyio.run(main)
    except KafkaError as error:
        hint = _HINTS.get(error.error_code)
        return fail(f"{error} ({hint})" if hint else str(error))
    except BootstrapError as error:
        return fail(
            f"cannot reach a broker: {error} (start one with `kbroker serve`, or name one with "
            f"--bootstrap HOST:PORT or ${BOOTSTRAP_VARIABLE})"
        )
    except ConnectionLostError as error:
        return fail(f"connection lost: {error}")
    except (UsageError, ValueError) as error:
        return fail(str(error), EXIT_USAGE)
    except BrokenPipeError:  # whoever read our output has seen enough: `kbroker ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


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
