"""``kbroker produce`` and ``kbroker consume`` against a running broker."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.compat.cli.command import kbroker, refuse, running, succeed, succeed_json
from tests.compat.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path


def test_lines_with_keys_and_headers(bootstrap: str, topic: str):
    done = kbroker(
        *("produce", topic, "--key-separator", ":", "--header", "h=1", "--compression", "zstd"),
        bootstrap=bootstrap,
        stdin=b"a:one\nb:two:2\r\na:\nc:last",
    )
    assert (done.returncode, done.stderr.decode()) == (0, f"4 records to {topic}\n")
    lines = succeed("consume", topic, "--exit", "--json", bootstrap=bootstrap).splitlines()
    records = [json.loads(line) for line in lines]
    read = sorted((each["key"], each["value"], each["offset"]) for each in records)
    assert [each[:2] for each in read] == [("a", ""), ("a", "one"), ("b", "two:2"), ("c", "last")]
    assert all(each["headers"] == [{"name": "h", "value": "1"}] for each in records)


def test_files_and_where_to_begin(bootstrap: str, topic: str, tmp_path: Path):
    for name, content in (("one", b"\x00\xff\n"), ("two", b"2"), ("three", b"3")):
        (tmp_path / name).write_bytes(content)
    files = [str(tmp_path / name) for name in ("one", "two", "three")]
    succeed("produce", topic, "--partition", "0", *files, "--acks", "1", bootstrap=bootstrap)

    def consumed(*options: str) -> bytes:
        done = kbroker("consume", topic, "--exit", *options, bootstrap=bootstrap)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert consumed() == b"\x00\xff\n\n2\n3\n"
    assert consumed("--from", "1", "--format", "{partition}/{offset} {value}") == b"0/1 2\n0/2 3\n"
    assert consumed("--from=-1") == b"3\n"
    assert consumed("--from", "end") == b""
    assert consumed("--from", "2001-01-01T00:00:00Z", "--count", "2") == b"\x00\xff\n\n2\n"
    assert b'"value_base64": "AP8K"' in consumed("--count", "1", "--json")


def test_a_live_tail_ends_with_ctrl_c(bootstrap: str, topic: str):
    succeed("produce", topic, bootstrap=bootstrap, stdin=b"first\n")
    with running("consume", topic, bootstrap=bootstrap) as tail:
        assert tail.stdout.readline() == b"first\n"
        succeed("produce", topic, bootstrap=bootstrap, stdin=b"second\n")
        assert tail.stdout.readline() == b"second\n"
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=30) == (b"", b"")
        assert tail.returncode == 130


def in_group(bootstrap: str, topic: str, group: str, *options: str) -> list[str]:
    return succeed(
        *("consume", topic, "--group", group, *options), bootstrap=bootstrap
    ).splitlines()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_group_goes_on_where_it_was(bootstrap: str, topic: str, group: str, protocol: str):
    succeed("topics", "create", topic, "--partitions", "2", bootstrap=bootstrap)
    of_group = (topic, group, "--group-protocol", protocol)
    succeed("produce", topic, "--partition", "0", bootstrap=bootstrap, stdin=b"1\n2\n3\n4\n")
    assert in_group(bootstrap, *of_group, "--count", "3") == ["1", "2", "3"]
    assert in_group(bootstrap, *of_group, "--exit") == ["4"]
    assert in_group(bootstrap, *of_group, "--exit") == []
    succeed("produce", topic, "--partition", "1", bootstrap=bootstrap, stdin=b"5\n")
    assert in_group(bootstrap, *of_group, "--exit") == ["5"]
    (described,) = succeed_json("groups", "describe", group, bootstrap=bootstrap)
    assert (described["state"], described["members"], described["lag"]) == ("Empty", [], 0)
    other = (topic, f"{group}-2", "--group-protocol", protocol)
    assert in_group(bootstrap, *other, "--from", "end", "--exit") == []


def test_a_member_that_is_interrupted_leaves_its_group(bootstrap: str, topic: str, group: str):
    succeed("produce", topic, bootstrap=bootstrap, stdin=b"first\n")
    with running("consume", topic, "--group", group, bootstrap=bootstrap) as tail:
        assert tail.stdout.readline() == b"first\n"
        eventually(
            lambda: succeed_json("groups", "describe", group, bootstrap=bootstrap)[0]["lag"] == 0,
            what="the record is committed",
        )
        tail.send_signal(signal.SIGINT)
        assert tail.communicate(timeout=30) == (b"", b"")
    (described,) = succeed_json("groups", "describe", group, bootstrap=bootstrap)
    assert described["members"] == []


def test_a_file_of_lines_and_back(bootstrap: str, topic: str, tmp_path: Path):
    lines = b"".join(b"line %d\n" % number for number in range(5000))
    (tmp_path / "lines").write_bytes(lines)
    succeed("topics", "create", topic, bootstrap=bootstrap)
    written = succeed_json(
        "produce", topic, "--lines", str(tmp_path / "lines"), bootstrap=bootstrap
    )
    assert written == {"topic": topic, "records": 5000}
    out = tmp_path / "out"
    assert succeed("consume", topic, "--exit", "--output", str(out), bootstrap=bootstrap) == ""
    assert out.read_bytes() == lines
    refuse("consume", topic, "--output", str(tmp_path / "no" / "x"), bootstrap=bootstrap, status=2)


def test_refusals(bootstrap: str, topic: str):
    assert "kbroker topics" in refuse("consume", topic, "--exit", bootstrap=bootstrap)
    succeed("produce", topic, bootstrap=bootstrap, stdin=b"x\n")
    assert "--from beginning" in refuse(
        *("consume", topic, "--from", "77", "--partition", "0", "--count", "1"),
        bootstrap=bootstrap,
    )
    for wrong in (
        ("--from", "noon"),
        ("--format", "{nonsense}"),
        ("--count", "0"),
        ("--group", "g", "--from", "7"),
        ("--group", "g", "--partition", "0"),
    ):
        refuse("consume", topic, *wrong, bootstrap=bootstrap, status=2)
