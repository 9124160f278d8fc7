"""kafka-dump-log over whole directories: every segment deep, every index against its segment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.peers import kafka_tools

if TYPE_CHECKING:
    from pathlib import Path

    from tests.peers.kafka_tools import KafkaTools

SUFFIXES = (".log", ".index", ".timeindex", ".txnindex", ".snapshot")
COMPLAINTS = (
    "Mismatches in",
    "Found timestamp mismatch",
    "Found out of order timestamp",
    "indexed offsets are not found",
    "Corrupt",
    "Exception",
)


def files_of(data_dir: Path, *suffixes: str) -> list[Path]:
    """Segments and what belongs to them, of every partition that is not deleted."""
    return sorted(
        path
        for suffix in suffixes or SUFFIXES
        for path in data_dir.glob(f"*/*{suffix}")
        if not path.parent.name.endswith(("-delete", "-stray"))
    )


def dump(tools: KafkaTools, files: list[Path], *arguments: str) -> tuple[str, str]:
    """Standard output and standard error of one run over all these files."""
    names = ",".join(map(str, files))
    return tools.run_with_errors(kafka_tools.DUMP_LOG, "--files", names, *arguments)


def assert_kafka_finds_nothing_wrong(tools: KafkaTools, data_dir: Path) -> str:
    """Deep iteration of all logs, both checks of all indexes; returns what was printed."""
    printed, errors = dump(
        tools, files_of(data_dir), "--deep-iteration", "--verify-index-only", "--print-data-log"
    )
    assert "isvalid: true" in printed
    bad = [line for line in printed.splitlines() if "isvalid: false" in line or "invalid" in line]
    assert not bad, "\n".join(bad[:10])
    assert not [line for line in errors.splitlines() if any(c in line for c in COMPLAINTS)], errors
    indexes = [path for path in files_of(data_dir, ".index", ".timeindex") if path.stat().st_size]
    checked, errors = dump(tools, indexes, "--index-sanity-check")
    assert checked.count("passed sanity check") == len(indexes), checked + errors
    return printed
