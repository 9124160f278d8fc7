"""``kbroker log import``."""

import argparse
from typing import Any

import anyio

from kbroker.cli.cluster import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    UsageError,
    fail,
    parse_assignments,
    print_json,
)
from kbroker.cli.log_progress import ByteProgress
from kbroker.common.entropy import SystemEntropy
from kbroker.common.files import AlreadyLockedError
from kbroker.log_tools.import_plan import ImportRefused, ImportWishes
from kbroker.log_tools.log_import import ImportReport, LogImport
from kbroker.metadata.store import StoreError
from kbroker.storage.checkpoints import encode_uuid
from kbroker.storage.log_directory import DataDirectoryError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to import, where to, and what to do where the cluster's metadata is missing."""
    add = parser.add_argument
    add(
        "sources",
        nargs="+",
        metavar="KAFKA_LOG_DIR",
        help="log directories of the cluster's brokers and of its controller; never written to",
    )
    add("--data-dir", required=True, metavar="DIR", help="kbroker's data directory, new or not")
    add(
        "--topic",
        action="append",
        default=[],
        metavar="NAME",
        dest="topics",
        help="take this topic only; may be repeated (default: all, Kafka's own included)",
    )
    add(
        "--topic-config",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting for every topic, over what the cluster's metadata says; may be repeated",
    )
    add("--keep-forever", action="store_true", help="set retention.ms=-1 on every topic")
    add(
        "--allow-missing",
        action="store_true",
        help="leave partitions empty that none of the directories holds",
    )
    add(
        "--node-id",
        type=int,
        default=1,
        metavar="N",
        help="node.id of the broker that will serve DIR, where DIR does not say it (default 1)",
    )
    add("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace) -> int:
    """0, 1 when it refuses or fails (it can be repeated), 2 for options that cannot be meant."""
    try:
        wishes = ImportWishes(
            topic_config=parse_assignments("--topic-config", options.topic_config),
            keep_forever=options.keep_forever,
            allow_missing=options.allow_missing,
            topics=options.topics,
        )
    except UsageError as error:
        return fail(str(error), EXIT_USAGE)
    try:
        with ByteProgress("importing") as progress:
            work = LogImport(
                options.sources,
                options.data_dir,
                wishes,
                node_id=options.node_id,
                entropy=SystemEntropy(),
                progress=progress.show,
            )
            report = anyio.run(work.run)
    except ImportRefused as refused:
        for problem in refused.problems:
            fail(problem)
        return EXIT_FAILED
    except AlreadyLockedError as error:
        return fail(f"{error} is in use by a broker; stop it first")
    except (DataDirectoryError, StoreError) as error:
        return fail(str(error))
    except OSError as error:
        return fail(
            f"{error.filename or options.data_dir}: {error.strerror or error} "
            "(the same command goes on where it stopped)"
        )
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if options.json:
        print_json(_as_json(report, options))
    else:
        _print_report(report, options)
    return 0


def _as_json(report: ImportReport, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "data_dir": options.data_dir,
        "topics": [
            {
                "name": topic.name,
                "topic_id": encode_uuid(topic.topic_id or bytes(16)),
                "config": topic.settings,
                "partitions": [
                    {
                        "partition": each.index,
                        "source": None if each.replica is None else each.replica.path,
                        "end_offset": 0
                        if each.replica is None
                        else each.replica.end.log_end_offset,
                    }
                    for each in topic.partitions
                ],
            }
            for topic in report.topics
        ],
        "already_there": report.topics_already_there,
        "partitions": report.partitions,
        "bytes_copied": report.bytes_copied,
        "bytes_shared": report.bytes_shared,
        "rewritten_segments": report.rewritten_segments,
        "notes": report.notes,
    }


def _print_report(report: ImportReport, options: argparse.Namespace) -> None:
    for note in report.notes:
        print(f"note: {note}")
    if report.topics_already_there:
        print(f"there already: {', '.join(report.topics_already_there)}")
    for topic in report.topics:
        settings = " ".join(f"{name}={value}" for name, value in sorted(topic.settings.items()))
        print(f"imported {topic.name}: {len(topic.partitions)} partitions {settings}".rstrip())
    if report.rewritten_segments:
        print(f"rewrote {report.rewritten_segments} segments of message formats before 0.11")
    if options.keep_forever and report.topics:
        print("retention.ms=-1 on every topic: nothing is deleted for its age")
    print(
        f"{len(report.topics)} topics, {report.partitions} partitions in {options.data_dir}: "
        f"{report.bytes_copied} bytes copied, {report.bytes_shared} shared with the source"
    )
    if report.topics:
        print(f"serve them: kbroker serve --data-dir {options.data_dir}")
