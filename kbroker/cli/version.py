"""``kbroker version``."""

import argparse
import json
import platform

import kbroker

KAFKA_RELEASE = "4.3.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """Print one line."""
    if options.json:
        versions = {"kbroker": kbroker.__version__, "kafka": KAFKA_RELEASE}
        print(json.dumps({**versions, "python": platform.python_version()}))
        return 0
    print(
        f"kbroker {kbroker.__version__} (protocol of Apache Kafka {KAFKA_RELEASE}, "
        f"Python {platform.python_version()})"
    )
    return 0
