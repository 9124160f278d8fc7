"""``kbroker version``."""

import argparse
import platform

import kbroker

KAFKA_RELEASE = "4.3.1"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(options: argparse.Namespace) -> int:
    """Print one line."""
    print(
        f"kbroker {kbroker.__version__} (protocol of Apache Kafka {KAFKA_RELEASE}, "
        f"Python {platform.python_version()})"
    )
    return 0
