"""However a directory is damaged, the tools say something and go on: no traceback."""

import os
import random
import shutil
from pathlib import Path

import anyio
import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.log_tools.import_plan import ImportRefused, ImportWishes
from kbroker.log_tools.log_import import LogImport
from kbroker.log_tools.verify import DirectoriesCheck
from tests.sizes import size
from tests.unit.log_tools.kafka_directory import METADATA, write_kafka_directory, write_snapshot
from tests.unit.log_tools.kafka_directory import topic_records as records_of_topic
from tests.unit.log_tools.partition_files import Dumped, legacy_wrapper


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Files of every kind."""
    directory = write_kafka_directory(tmp_path_factory.mktemp("original") / "kafka")
    write_snapshot(directory, 2, *records_of_topic())
    old = directory / "old-0"
    old.mkdir()
    (old / f"{0:020d}.log").write_bytes(legacy_wrapper(1, 5, [b"a", b"b"]) * 3)
    return directory


def damage(data: bytes, source: random.Random) -> bytes:
    """A few bytes changed, cut, doubled, or zeroed."""
    changed = bytearray(data)
    for _ in range(source.randint(1, 3)):
        at = source.randrange(len(changed) + 1)
        kind = source.randrange(5)
        if kind == 0:
            del changed[at:]
        elif kind == 1:
            changed[at:at] = source.randbytes(source.randint(1, 40))
        elif kind == 2:
            changed[at : at + 8] = bytes(8)
        elif kind == 3:
            changed[at : at + 4] = b"\xff\xff\xff\xff"
        elif at < len(changed):
            changed[at] ^= 1 << source.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("seed", range(size(ci=60, full=3000)))
def test_any_damage(original, tmp_path, seed):
    source = random.Random(seed)
    directory = tmp_path / "kafka"
    shutil.copytree(original, directory)
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != ".lock")
    for path in source.sample(files, 3):
        path.write_bytes(damage(path.read_bytes(), source))
        Dumped(path, deep=True, json=seed % 2 == 0)
        for beside in path.parent.glob(f"{path.stem}.*"):
            Dumped(beside)
    if seed % 3 == 0:
        source.choice(files).unlink()
    DirectoriesCheck([os.fspath(directory)]).run()
    _import(directory, tmp_path / "data")


def _import(directory: Path, target: Path) -> None:
    """It imports or refuses; what it imported is at most as damaged as the source was."""
    work = LogImport(
        [os.fspath(directory)],
        os.fspath(target),
        ImportWishes(keep_forever=True, allow_missing=True),
        node_id=1,
        entropy=SeededEntropy(1),
    )
    try:
        anyio.run(work.run)
    except ImportRefused as refused:
        assert refused.problems
    except OSError as error:
        assert "unreadable message" in str(error)


def test_metadata_of_every_length(original, tmp_path):
    """Cut anywhere it is refused, or what is whole counts."""
    directory = tmp_path / "kafka"
    shutil.copytree(original, directory)
    (path,) = (directory / METADATA).glob("*.log")
    whole = path.read_bytes()
    for length in range(0, len(whole), size(ci=29, full=1)):
        path.write_bytes(whole[:length])
        _import(directory, tmp_path / f"data-{length}")
