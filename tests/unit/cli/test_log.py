"""``kbroker log``: what is printed where, and the exit status."""

import json
import os
import subprocess
import sys

import pytest

from kbroker.cli.main import main
from kbroker.common.files import OsFileSystem
from tests.unit.log_tools.kafka_directory import METADATA, write_kafka_directory
from tests.unit.log_tools.partition_files import active_segment


@pytest.fixture
def source(tmp_path):
    return write_kafka_directory(tmp_path / "kafka")


def run(capsys, *arguments):
    """(status, lines of stdout, lines of stderr)."""
    status = main(["log", *map(os.fspath, arguments)])
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


def test_dump(capsys, source):
    path = active_segment(source / "orders-0")
    status, lines, complaints = run(capsys, "dump", path)
    assert (status, complaints) == (0, [])
    assert lines[0] == f"Dumping {path}"
    status, deep, _ = run(capsys, "dump", "--deep", path)
    assert any(line.startswith("| offset: 91 ") for line in deep)
    assert run(capsys, "dump", "--decoder", "text", path)[1] == deep
    assert run(capsys, "dump", "--verify-only", path) == (0, [], [])
    _, objects, _ = run(capsys, "dump", "--json", path)
    assert json.loads(objects[0])["kind"] == "file"


def test_dump_of_a_damaged_file(capsys, source):
    path = active_segment(source / "orders-0")
    path.write_bytes(path.read_bytes()[:-1])
    status, lines, complaints = run(capsys, "dump", "--verify-only", path)
    assert (status, lines) == (1, [])
    (complaint,) = complaints
    assert f"{path}: at byte " in complaint and "is cut short" in complaint
    status, objects, complaints = run(capsys, "dump", "--verify-only", "--json", path)
    assert (status, complaints) == (1, [])
    assert json.loads(objects[0])["kind"] == "problem"


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices as POSIX has them")
def test_a_dump_whose_output_ends(source):
    """It is not the file that cannot be read."""
    files = [active_segment(source / "orders-0")] * 500
    words = [sys.executable, "-m", "kbroker", "log", "dump", "--deep", *files]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, timeout=50, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            done = subprocess.run(
                words, stdout=full, stderr=subprocess.PIPE, timeout=50, check=False
            )
        assert done.stderr == b"kbroker: cannot write the output: No space left on device\n"
        assert done.returncode == 1


def test_dump_of_a_file_that_is_not_there(capsys, tmp_path):
    missing = tmp_path / "00000000000000000000.log"
    for path in (missing, tmp_path / "nonsense"):
        status, _, complaints = run(capsys, "dump", path)
        assert (status, complaints) == (1, [f"{path}: cannot be read: No such file or directory"])


def test_verify(capsys, source):
    status, lines, _ = run(capsys, "verify", source)
    assert status == 0
    assert lines[-1].startswith("0 errors, 3 notes in 3 partitions, 7 segments, ")
    status, (report,), _ = run(capsys, "verify", "--json", source)
    assert (status, json.loads(report)["error_count"]) == (0, 0)
    path = active_segment(source / "orders-0", ".snapshot")
    path.write_bytes(b"x")
    status, lines, _ = run(capsys, "verify", source)
    assert status == 1
    assert f"error: {path}: 1 bytes are too few for a snapshot" in lines


def test_verify_what_cannot_be_read(capsys, source, tmp_path):
    missing = tmp_path / "missing"
    status, _, (line,) = run(capsys, "verify", missing)
    assert (status, line) == (1, f"kbroker: {missing} cannot be read: No such file or directory")
    lock = OsFileSystem().lock(os.fspath(source / ".lock"))
    status, _, (line,) = run(capsys, "verify", source)
    assert (status, line) == (1, f"kbroker: {source} is in use by a broker; stop it first")
    lock.release()


def test_import(capsys, source, tmp_path):
    target = tmp_path / "data"
    status, lines, _ = run(capsys, "import", source, "--data-dir", target)
    assert status == 0
    assert "imported orders: 2 partitions retention.ms=-1" in lines
    assert lines[-1] == f"serve them: kbroker serve --data-dir {target}"
    status, lines, _ = run(capsys, "import", source, "--data-dir", target)
    assert status == 0 and "there already: orders" in lines
    status, (report,), _ = run(capsys, "import", source, "--data-dir", tmp_path / "b", "--json")
    (topic,) = json.loads(report)["topics"]
    assert topic["topic_id"] == "AAECAwQFBgcICQoLDA0ODw"
    assert topic["partitions"][1] == {
        "partition": 1,
        "source": os.fspath(source / "orders-1"),
        "end_offset": 94,
    }


def test_import_is_refused(capsys, source, tmp_path):
    (source / METADATA).rename(tmp_path / METADATA)
    status, _, (line,) = run(capsys, "import", source, "--data-dir", tmp_path / "data")
    assert status == 1 and "--keep-forever" in line
    arguments = ("import", source, "--data-dir", tmp_path / "data", "--topic-config", "retention")
    status, _, (line,) = run(capsys, *arguments)
    assert (status, line) == (2, "kbroker: --topic-config retention: expected NAME=VALUE")
    lock = OsFileSystem().lock(os.fspath(source / ".lock"))
    status, _, (line,) = run(capsys, *arguments[:-2], "--keep-forever")
    assert (status, line) == (1, f"kbroker: {source} is in use by a broker; stop it first")
    lock.release()


def test_keep_forever_is_said(capsys, source, tmp_path):
    status, lines, _ = run(
        capsys, "import", source, "--data-dir", tmp_path / "data", "--keep-forever"
    )
    assert status == 0
    assert "retention.ms=-1 on every topic: nothing is deleted for its age" in lines
