"""Runs scenarios against a broker and compares their transcripts with recorded ones."""

import fnmatch
import gzip
import importlib
import json
import pkgutil
import time
from pathlib import Path
from typing import NamedTuple

from tests.wire import kit, scenarios
from tests.wire.codec import DecodeError
from tests.wire.connection import Closed, Conn, Silent
from tests.wire.difference import compare

TRANSCRIPTS = Path(__file__).parent / "transcripts"
RETRIES = 1
"""Timing can differ once on a loaded machine; a real difference stays."""


class Outcome(NamedTuple):
    """One scenario's comparison: no differences means the same."""

    name: str
    differences: list[tuple[str, object, object]]
    transcript: list[dict]


def load_scenarios() -> dict[str, tuple]:
    """Every scenario by name; importing their modules registers them."""
    for module in sorted(m.name for m in pkgutil.iter_modules(scenarios.__path__)):
        importlib.import_module(f"tests.wire.scenarios.{module}")
    return kit.REG


def load_transcript(path: Path | None = None) -> dict[str, list[dict]]:
    """Recorded answers by scenario, of one recording or of all."""
    if path is None:
        recordings = [load_transcript(each) for each in sorted(TRANSCRIPTS.glob("*.json.gz"))]
        return {name: steps for recording in recordings for name, steps in recording.items()}
    with gzip.open(path, "rt") as file:
        return json.load(file)


def save_transcript(transcript: dict[str, list[dict]], path: Path) -> None:
    """The same bytes for the same answers."""
    text = json.dumps(transcript, indent=0, sort_keys=True)
    with gzip.GzipFile(path, "wb", mtime=0) as file:
        file.write(text.encode())


def pick(names, globs) -> list[str]:
    """The names that match one of the globs, all without globs."""
    return [n for n in names if not globs or any(fnmatch.fnmatch(n, g) for g in globs)]


def node_ids(host: str, port: int) -> list[int]:
    """The broker's nodes, from its Metadata."""
    for version in (9, 7, 4, 1):
        connection = Conn(host, port)
        try:
            connection.send("Metadata", version, {"Topics": []})
            answer = connection.recv(5)[4]
            return sorted(broker["NodeId"] for broker in answer["Brokers"])
        except (Closed, Silent, DecodeError):
            continue
        finally:
            connection.close()
    raise AssertionError(f"no Metadata answer from {host}:{port}")


def warm(host: str, port: int) -> None:
    """Let the broker make its internal topics before anything is compared."""
    for key_type in (0, 1, 2):
        key = "warm" if key_type < 2 else "warm:AAAAAAAAAAAAAAAAAAAAAQ:0"
        _until_coordinated(
            host,
            port,
            "FindCoordinator",
            6,
            {"KeyType": key_type, "CoordinatorKeys": [key]},
            lambda answer: answer["Coordinators"][0]["ErrorCode"],
        )
    for i in range(100):
        if not _until_coordinated(
            host,
            port,
            "OffsetFetch",
            8,
            {"Groups": [{"GroupId": f"warm{i}", "Topics": None}]},
            lambda answer: answer["Groups"][0]["ErrorCode"],
        ):
            break


def _until_coordinated(host, port, name, version, body, error_of) -> bool:
    """Ask until the coordinator is there; False when the broker does not speak that API."""
    connection = Conn(host, port)
    try:
        for _ in range(100):
            connection.send(name, version, body)
            if error_of(connection.recv(5)[4]) not in (14, 15, 16):
                return True
            time.sleep(0.05)
    except (Closed, Silent, DecodeError):
        pass
    finally:
        connection.close()
    return False


def run_scenario(name: str, recorded: list[dict], host: str, port: int, nodes) -> Outcome:
    """Compare one scenario, again when it differs; the smaller difference counts."""
    best: Outcome | None = None
    for _ in range(1 + RETRIES):
        transcript, _seconds = kit.run_one(name, host, port, nodes)
        outcome = Outcome(name, compare(recorded, transcript), transcript)
        if best is None or len(outcome.differences) < len(best.differences):
            best = outcome
        if not best.differences:
            break
    return best


def show(difference, width: int = 90) -> str:
    """One line: where, what was recorded, what came."""
    path, *sides = difference
    texts = [s if isinstance(s, str) else json.dumps(s) for s in sides]
    return f"{path}: " + " | ".join(t if len(t) <= width else t[:width] + ".." for t in texts)
