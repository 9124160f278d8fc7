"""``kbroker groups`` against a running broker, kbroker or Apache Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("confluent_kafka", reason="needs a consumer of another maker")

from contextlib import closing

from confluent_kafka import TopicPartition

from tests.compat.cli.command import kbroker_here, refuse, succeed, succeed_json
from tests.compat.confluent_kafka import clients
from tests.compat.samples import Sample, now_ms
from tests.compat.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

COUNT = 10


@pytest.fixture
def written(bootstrap: str, topic: str) -> str:
    """A topic of two partitions with ten records in each, a second apart."""
    clients.create_topic(bootstrap, topic, partitions=2)
    producer = clients.producer(bootstrap)
    for partition in range(2):
        samples = [Sample(None, b"v", now_ms() - (COUNT - n) * 1000) for n in range(COUNT)]
        clients.send(producer, topic, samples, partition)
    return topic


@pytest.fixture
def committed(bootstrap: str, written: str, group: str) -> str:
    """A group without members that has committed 4 and 10 of ten records."""
    with closing(clients.consumer(bootstrap, group)) as consumer:
        clients.commit(consumer, [TopicPartition(written, n, 4 + 6 * n) for n in range(2)])
    return group


def describe(bootstrap: str, group: str) -> dict[str, Any]:
    (described,) = succeed_json("groups", "describe", group, bootstrap=bootstrap)
    return described


def offsets(bootstrap: str, group: str) -> list[int]:
    return [each["committed"] for each in describe(bootstrap, group)["partitions"]]


def test_a_group_with_a_member(bootstrap: str, written: str, group: str):
    with closing(clients.consumer(bootstrap, group, client_id="reader-7")) as consumer:
        consumer.subscribe([written])
        clients.receive(consumer, 2 * COUNT)
        consumer.commit(offsets=[TopicPartition(written, 1, 7)], asynchronous=False)

        described = describe(bootstrap, group)
        assert (described["state"], described["type"]) == ("Stable", "classic")
        assert described["lag"] == 3
        (member,) = described["members"]
        assert (member["client"], member["host"]) == ("reader-7", "127.0.0.1")
        assert member["assignment"] == {written: [0, 1]}
        shown = [
            [each[name] for name in ("partition", "committed", "end_offset", "lag", "member")]
            for each in described["partitions"]
        ]
        assert shown == [
            [0, None, COUNT, None, member["member"]],
            [1, 7, COUNT, 3, member["member"]],
        ]
        text = succeed("groups", "describe", group, bootstrap=bootstrap)
        rows = [line.split() for line in text.splitlines()]
        assert [written, "0", "-", "10", "-", member["member"], "reader-7", "127.0.0.1"] in rows
        assert [member["member"], "-", "reader-7", "127.0.0.1", f"{written}:0,1"] in rows

        def listed(*filters: str) -> list[str]:
            found = succeed_json("groups", "list", *filters, bootstrap=bootstrap)
            return [each["group"] for each in found]

        assert group in listed("--state", "Stable", "--type", "classic")
        assert group not in listed("--state", "Empty")
        assert group not in listed("--type", "consumer")
        earliest = ("groups", "reset", group, "--topic", written, "--to-earliest")
        for options in ((), ("--execute",)):
            refused = refuse(*earliest, *options, bootstrap=bootstrap)
            assert "is Stable, with 1 members of reader-7" in refused
        assert "stop them first" in refuse("groups", "delete", group, bootstrap=bootstrap)
        assert "stop them first" in refuse(
            "groups", "delete-offsets", group, "--topic", written, bootstrap=bootstrap
        )
    assert offsets(bootstrap, group) == [7]


def test_a_group_of_the_consumer_protocol(bootstrap: str, written: str, group: str):
    with closing(clients.consumer(bootstrap, group, group_protocol="consumer")) as consumer:
        consumer.subscribe([written])
        clients.receive(consumer, 2 * COUNT)
        consumer.commit(asynchronous=False)
        described = eventually(
            lambda: (found := describe(bootstrap, group))["state"] == "Stable" and found,
            what="the group is stable",
        )
    assert (described["type"], described["assignor"]) == ("consumer", "uniform")
    (member,) = described["members"]
    assert member["assignment"] == member["target"] == {written: [0, 1]}
    assert member["subscribed"] == [written]
    assert member["epoch"] == described["epoch"]
    assert [each["lag"] for each in described["partitions"]] == [0, 0]
    to_earliest = ("groups", "reset", group, "--all-topics", "--to-earliest", "--execute")
    succeed(*to_earliest, bootstrap=bootstrap)
    assert offsets(bootstrap, group) == [0, 0]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (("--to-earliest",), [0, 0]),
        (("--to-latest",), [10, 10]),
        (("--to-current",), [4, 10]),
        (("--to-offset", "3"), [3, 3]),
        (("--to-offset", "77"), [10, 10]),
        (("--shift-by=-2",), [2, 8]),
        (("--shift-by", "3"), [7, 10]),
        (("--to-datetime", "2001-01-01T00:00:00Z"), [0, 0]),
        (("--to-datetime", "2999-01-01T00:00:00Z"), [10, 10]),
        (("--by-duration", "PT0S"), [10, 10]),
        (("--by-duration", "P1DT1H"), [0, 0]),
        (("--by-duration", "P9999999D"), [0, 0]),
    ],
)
def test_offsets_are_reset(
    bootstrap: str, written: str, committed: str, where: tuple[str, ...], expected: list[int]
):
    reset = ("groups", "reset", committed, "--all-topics", *where)
    planned = succeed_json(*reset, bootstrap=bootstrap)
    assert not planned["executed"]
    assert [(each["committed"], each["new"]) for each in planned["partitions"]] == [
        (4, expected[0]),
        (10, expected[1]),
    ]
    assert offsets(bootstrap, committed) == [4, 10]
    done = kbroker_here(*reset, "--execute", bootstrap=bootstrap)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert rows[1:] == [[written, str(n), str((4, 10)[n]), str(expected[n])] for n in range(2)]
    assert (b"is outside of 0 to 10, taking 10" in done.stderr) == (
        where in (("--to-offset", "77"), ("--shift-by", "3"))
    )
    assert offsets(bootstrap, committed) == expected


def test_some_partitions_and_a_file(bootstrap: str, written: str, committed: str, tmp_path: Path):
    reset = ("groups", "reset", committed)
    done = kbroker_here(*reset, "--topic", f"{written}:1", "--to-offset", "5", bootstrap=bootstrap)
    assert b"nothing was changed; --execute does it" in done.stderr
    succeed(*reset, "--topic", f"{written}:1", "--to-offset", "5", "--execute", bootstrap=bootstrap)
    assert offsets(bootstrap, committed) == [4, 5]
    saved = succeed(*reset, "--all-topics", "--to-current", "--export", bootstrap=bootstrap)
    assert saved == f"{written},0,4\n{written},1,5\n"
    succeed(*reset, "--topic", written, "--to-latest", "--execute", bootstrap=bootstrap)
    assert offsets(bootstrap, committed) == [10, 10]
    (tmp_path / "saved").write_text(saved + f"other,{written},0,1\n{committed},{written},1,6\n")
    from_file = (*reset, "--from-file", str(tmp_path / "saved"))
    succeed(*from_file, "--execute", bootstrap=bootstrap)
    assert offsets(bootstrap, committed) == [4, 6]
    assert "leave out" in refuse(*from_file, "--all-topics", bootstrap=bootstrap, status=2)


def test_deleting(bootstrap: str, written: str, committed: str):
    deleted = succeed(
        "groups", "delete-offsets", committed, "--topic", f"{written}:0", bootstrap=bootstrap
    )
    assert deleted == f"deleted {written}-0\n"
    assert offsets(bootstrap, committed) == [10]
    assert succeed("groups", "delete", committed, bootstrap=bootstrap) == f"deleted {committed}\n"
    assert "groups list" in refuse("groups", "delete", committed, bootstrap=bootstrap)
    again = succeed_json("groups", "delete", committed, "--if-exists", bootstrap=bootstrap)
    assert again == {"deleted": []}


def test_refusals_say_what_to_do(bootstrap: str, written: str, group: str, tmp_path: Path):
    assert "kbroker groups list" in refuse("groups", "describe", group, bootstrap=bootstrap)
    reset = ("groups", "reset", group)
    (tmp_path / "bad").write_text(f"{written},zero,0\n")
    for wrong, told in (
        (("--to-earliest",), "--topic"),
        (("--all-topics", "--to-earliest"), "has committed nothing"),
        (("--topic", written, "--shift-by", "1"), "nothing is committed"),
        (("--topic", written, "--to-datetime", "noon"), "2026-01-31"),
        (("--topic", written, "--by-duration", "1h"), "PT1H30M"),
        (("--topic", f"{written}:x", "--to-earliest"), "NAME:N,N"),
        (("--from-file", str(tmp_path / "bad")), "line 1"),
        (("--from-file", str(tmp_path / "missing")), "No such file"),
    ):
        assert told in refuse(*reset, *wrong, bootstrap=bootstrap, status=2)
    missing = f"{written}-missing"
    for text, told in ((missing, "no such topic"), (f"{written}:7", "partitions 0 to 1, not 7")):
        assert told in refuse(*reset, "--topic", text, "--to-earliest", bootstrap=bootstrap)
