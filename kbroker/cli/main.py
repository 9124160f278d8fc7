"""The ``kbroker`` command: one module per subcommand, imported when it is asked for."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "configs": ("kbroker.cli.configs", "describe and change settings of topics and brokers"),
    "consume": ("kbroker.cli.consume", "print the records of a topic"),
    "exec": ("kbroker.cli.exec", "run a command with a throwaway broker of its own"),
    "groups": ("kbroker.cli.groups", "list, describe, reset and delete consumer groups"),
    "log": ("kbroker.cli.log", "dump, verify and import the files of a data directory"),
    "produce": ("kbroker.cli.produce", "write lines or files to a topic"),
    "serve": ("kbroker.cli.serve", "start a broker"),
    "topics": ("kbroker.cli.topics", "list, create, describe, alter and delete topics"),
    "version": ("kbroker.cli.version", "print the versions of kbroker and of Kafka's protocol"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(
        prog="kbroker", description="A Kafka-wire-compatible broker in Python."
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (module_name, summary) in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=summary)
        if words[:1] == [name]:
            import_module(module_name).add_arguments(subparser)
    if words[:1] == ["--version"]:
        words = ["version"]
    options = parser.parse_args(words)
    module_name, _ = COMMANDS[options.command]
    status: int = import_module(module_name).run(options)
    return status
