"""The ``kbroker`` command: one module per subcommand, imported when it is asked for."""

import gc
import os
import sys
from collections.abc import Sequence
from errno import ENOSPC
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argparse import ArgumentParser, HelpFormatter

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

COMMANDS = {
    "configs": ("kbroker.cli.configs", "describe and change settings of topics and brokers"),
    "consume": ("kbroker.cli.consume", "print the records of a topic"),
    "exec": ("kbroker.cli.exec", "run a command with a throwaway broker of its own"),
    "groups": ("kbroker.cli.groups", "list, describe, reset and delete consumer groups"),
    "log": ("kbroker.cli.log", "look at the files of a data directory"),
    "produce": ("kbroker.cli.produce", "write lines or files to a topic"),
    "serve": ("kbroker.cli.serve", "start a broker"),
    "topics": ("kbroker.cli.topics", "list, create, describe, alter and delete topics"),
    "version": ("kbroker.cli.version", "print the versions of kbroker and of Kafka's protocol"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _open_missing_streams()
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:  # before the command could do something about it
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever read our output has seen enough: `kbroker ... | head`
        drop_output()
        return 0
    except OSError as error:
        if error.errno != ENOSPC:
            raise
        drop_output()
        print(f"kbroker: cannot write the output: {error.strerror}", file=sys.stderr)
        return EXIT_FAILED


def drop_output() -> None:
    """What is still buffered cannot be written: the end of the process must not try it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--version"]:
        words = ["version"]
    if not words or words[0] not in COMMANDS:
        _all_commands().parse_args(words)  # prints the help or says what is wrong, and exits
        raise AssertionError("unreachable")
    module_name, summary = COMMANDS[words[0]]
    gc.disable()  # nothing that an import makes is garbage
    command = import_module(module_name)
    quick = getattr(command, "quick_options", None)
    options = quick(words[1:]) if quick is not None else None
    gc.enable()
    if options is None:
        from argparse import ArgumentParser

        parser = ArgumentParser(
            prog=f"kbroker {words[0]}", description=summary, formatter_class=_formatter
        )
        command.add_arguments(parser)
        options = getattr(command, "parse_arguments", ArgumentParser.parse_args)(parser, words[1:])
    status: int = command.run(options)
    return status


def _open_missing_streams() -> None:
    """A socket must not become descriptor 0, 1 or 2; each takes the lowest that is free."""
    sys.stdin = sys.stdin or open(os.devnull, encoding="utf-8")  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def _all_commands() -> "ArgumentParser":
    """Only for its help and its errors: each parser costs a start a millisecond."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="kbroker", description="A Kafka-wire-compatible broker in Python."
    )
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, (_, summary) in COMMANDS.items():
        subparsers.add_parser(name, help=summary)
    return parser


def _formatter(prog: str) -> "HelpFormatter":
    """argparse's own asks shutil for the width, which is 3 ms to import, even without a help."""
    from argparse import HelpFormatter

    columns = os.environ.get("COLUMNS", "")
    width = int(columns) if columns.isdecimal() else 0
    if not width:
        try:
            width = os.get_terminal_size(sys.stdout.fileno()).columns
        except (ValueError, OSError):  # no terminal
            width = 80
    return HelpFormatter(prog, width=(width or 80) - 2)
