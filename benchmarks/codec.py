"""``python -m benchmarks.codec``: decode and encode, beside reflection, kafka-python and kio.

FetchRequest v12 is decoded and encoded, with 1 topic of 1 partition and 10 topics of 10. Printed is
the CPU of one message in microseconds, best of interleaved rounds. kio (`pip install kio`), a codec
in Rust, is left out where it is not installed. ``--compiled`` measures ours through mypyc instead,
beside the same others, from a copy of the tree (a minute to build).
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import io
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    Work = Callable[[], object]

VERSION = 12
SHAPES = ((1, 1), (10, 10))
_SLICE_S = 0.05
_MODULES = ("kbroker.protocol.wire", "kbroker.protocol.messages.fetch_request")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.codec", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--compiled", action="store_true")
    options = parser.parse_args()
    best = (measure_compiled if options.compiled else measure)(options.rounds)
    if options.json:
        print(json.dumps(best))
        return 0
    for name, codecs in best.items():
        figures = "  ".join(f"{codec} {us:.2f}" for codec, us in codecs.items())
        print(f"{name:<28} {figures}  us")
    return 0


def measure(rounds: int) -> dict[str, dict[str, float]]:
    """Line -> codec -> CPU us for one message."""
    best: dict[str, dict[str, float]] = {}
    for topics, partitions in SHAPES:
        works = {
            ours: works
            for ours, make in (
                (_ours_name(), _ours),
                ("reflection", _reflection),
                ("kafka-python", _kafka_python),
                ("kio", _kio),
            )
            if (works := make(topics, partitions)) is not None
        }
        for direction, verb in enumerate(("decode", "encode")):
            figures = best.setdefault(f"{verb} {topics} x {partitions} partitions", {})
            for _ in range(rounds):
                for name, pair in works.items():
                    figures[name] = min(figures.get(name, 1e9), _cpu_us(pair[direction]))
    return best


def measure_compiled(rounds: int) -> dict[str, dict[str, float]]:
    """The same in a process that has the compiled modules."""
    from codegen import compiled

    with tempfile.TemporaryDirectory(prefix="kbroker-codec-") as folder:
        tree = Path(folder)
        compiled.copy_tree(tree)
        compiled.write_native(tree)
        compiled.build(tree, "3", _MODULES)
        shutil.copytree(Path(__file__).parent, tree / "benchmarks")
        command = [sys.executable, "-m", "benchmarks.codec", "--json", f"--rounds={rounds}"]
        found = subprocess.run(command, cwd=tree, check=True, stdout=subprocess.PIPE)
    best: dict[str, dict[str, float]] = json.loads(found.stdout)
    return best


def _cpu_us(work: Work) -> float:
    count, spent = 1, 0.0
    while True:
        started = time.process_time()
        for _ in range(count):
            work()
        spent = time.process_time() - started
        if spent >= _SLICE_S:
            return spent * 1e6 / count
        count = int(count * max(2.0, 1.2 * _SLICE_S / max(spent, 1e-6)))


def _ours_name() -> str:
    module = importlib.import_module("kbroker.protocol.messages.fetch_request")
    is_compiled = not str(module.__file__).endswith(".py")
    return "kbroker, compiled" if is_compiled else "kbroker"


def _ours(topics: int, partitions: int) -> tuple[Work, Work]:
    from kbroker.protocol.messages import fetch_request as m

    message = m.FetchRequest(
        max_wait_ms=500,
        min_bytes=1,
        topics=[
            m.FetchTopic(
                f"topic-{number}",
                partitions=[
                    m.FetchPartition(partition=index, fetch_offset=1, partition_max_bytes=1 << 20)
                    for index in range(partitions)
                ],
            )
            for number in range(topics)
        ],
    )

    def encode() -> bytes:
        parts: list[bytes] = []
        m.write_fetch_request(parts, message, VERSION)
        return b"".join(parts)

    data = encode()
    return (lambda: m.read_fetch_request(data, 0, VERSION)), encode


def _encoded(topics: int, partitions: int) -> bytes:
    data = _ours(topics, partitions)[1]()
    assert isinstance(data, bytes)
    return data


def _reflection(topics: int, partitions: int) -> tuple[Work, Work]:
    from benchmarks.reflection import codec

    data = _encoded(topics, partitions)
    fetch = codec("FetchRequest", VERSION)
    message = fetch.read(io.BytesIO(data))

    def encode() -> bytes:
        stream = io.BytesIO()
        fetch.write(stream, message)
        return stream.getvalue()

    return _checked((lambda: fetch.read(io.BytesIO(data))), encode, data)


def _kafka_python(topics: int, partitions: int) -> tuple[Work, Work]:
    from kafka.protocol.consumer import FetchRequest

    data = _encoded(topics, partitions)
    decoded = FetchRequest.decode(data, version=VERSION)
    # What was decoded has no header, and cannot be encoded as it is.
    names = ("max_wait_ms", "min_bytes", "topics", "forgotten_topics_data")
    message = FetchRequest(**{name: getattr(decoded, name) for name in names})
    return _checked(
        (lambda: FetchRequest.decode(data, version=VERSION)),
        (lambda: bytes(message.encode(version=VERSION))),
        data,
    )


def _kio(topics: int, partitions: int) -> tuple[Work, Work] | None:
    try:
        serial: Any = importlib.import_module("kio.serial")
        schema: Any = importlib.import_module(f"kio.schema.fetch.v{VERSION}.request")
    except ImportError:
        return None
    data = _encoded(topics, partitions)
    read, write = (f(schema.FetchRequest) for f in (serial.entity_reader, serial.entity_writer))
    message, _ = read(data, 0)
    assert message.max_wait == datetime.timedelta(milliseconds=500)

    def encode() -> bytes:
        stream = io.BytesIO()
        write(stream, message)
        return stream.getvalue()

    return _checked((lambda: read(data, 0)), encode, data)


def _checked(decode: Work, encode: Callable[[], bytes], expected: bytes) -> tuple[Work, Work]:
    """The pair, when it gives the same bytes as ours."""
    if encode() != expected:
        raise ValueError(f"{encode()!r} instead of {expected!r}")
    return decode, encode


if __name__ == "__main__":
    sys.exit(main())
