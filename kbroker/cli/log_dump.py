"""``kbroker log dump``."""

import argparse
import sys

from kbroker.log_tools.dump import dump_file
from kbroker.log_tools.dump_output import DumpOutput
from kbroker.log_tools.record_decoders import Decoder

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


class _OutputEndedError(Exception):
    """Our output cannot be written, which is not to be told of the file that is being read."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Files, and how much of them to show."""
    add = parser.add_argument
    add(
        "files",
        nargs="+",
        metavar="FILE",
        help="segments (.log), indexes (.index, .timeindex, .txnindex), .snapshot, .checkpoint, "
        "checkpoints, partition.metadata, meta.properties",
    )
    add("--deep", action="store_true", help="every record with its key and value")
    add(
        "--decoder",
        choices=[str(each) for each in Decoder],
        default=None,
        help="what records are; implies --deep (default: by the topic that the directory names)",
    )
    add("--verify-only", action="store_true", help="print nothing but what is wrong")
    add("--json", action="store_true", help="print one JSON object a line")


def run(options: argparse.Namespace) -> int:
    """0, 1 when something is wrong with a file."""
    stdout = sys.stdout

    def write(line: str) -> None:
        try:
            stdout.write(line + "\n")
        except OSError as error:
            raise _OutputEndedError(error) from error

    def complain(line: str) -> None:
        stdout.flush()  # where both go to one place the order tells which file is meant
        print(line, file=sys.stderr)

    if hasattr(stdout, "reconfigure"):
        stdout.reconfigure(errors="backslashreplace")  # records hold what no terminal can show
    output = DumpOutput(write, complain, as_json=options.json, verify_only=options.verify_only)
    is_deep = options.deep or options.decoder is not None
    try:
        for path in options.files:
            dump_file(
                path, output, is_deep=is_deep, decoder=Decoder(options.decoder or Decoder.AUTO)
            )
    except _OutputEndedError as ended:
        raise ended.error from None
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if output.problems else 0
