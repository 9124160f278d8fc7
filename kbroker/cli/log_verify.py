"""``kbroker log verify``."""

import argparse

from kbroker.cli.cluster import EXIT_FAILED, EXIT_INTERRUPTED, fail, print_json
from kbroker.cli.log_progress import ByteProgress
from kbroker.common.files import AlreadyLockedError
from kbroker.log_tools.verify import DirectoriesCheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Directories."""
    parser.add_argument(
        "directories", nargs="+", metavar="DIR", help="the data directories of one broker"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """0, 1 when something is wrong or it cannot be told."""
    try:
        with ByteProgress("verifying") as progress:
            check = DirectoriesCheck(options.directories, progress.show)
            check.run()
    except AlreadyLockedError as error:
        return fail(f"{error} is in use by a broker; stop it first")
    except OSError as error:
        return fail(f"{error.filename or 'a data directory'} cannot be read: {error.strerror}")
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    findings = check.findings
    if options.json:
        print_json(check.report())
    else:
        for note in findings.notes:
            print(f"note: {note}")
        for finding in findings.errors:
            print(f"error: {finding}")
        if findings.unlisted_errors:
            print(f"error: {findings.unlisted_errors} more in the files named above")
        print(
            f"{findings.error_count} errors, {len(findings.notes)} notes in {check.partitions} "
            f"partitions, {check.segments} segments, {check.batches} batches, {check.bytes} bytes"
        )
    return EXIT_FAILED if findings.error_count else 0
