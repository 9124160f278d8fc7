"""``kbroker log``: look at the files of a log, check a data directory, take over Kafka's."""

import argparse
from importlib import import_module

VERBS = {
    "dump": ("kbroker.cli.log_dump", "print what files of a log hold, as kafka-dump-log does"),
    "verify": ("kbroker.cli.log_verify", "check data directories without changing them"),
    "import": ("kbroker.cli.log_import", "make topics of log directories of an Apache Kafka"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The verbs of ``kbroker log``."""
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, (module_name, summary) in VERBS.items():
        verb = verbs.add_parser(name, help=summary, description=summary)
        import_module(module_name).add_arguments(verb)


def run(options: argparse.Namespace) -> int:
    """0, 1 when something is wrong with what was found, 2 for options that cannot be meant."""
    status: int = import_module(VERBS[options.verb][0]).run(options)
    return status
