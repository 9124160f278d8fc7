"""Subscriptions and assignments, as consumers of all makers write and read them."""

from __future__ import annotations

from struct import pack

import pytest

from kbroker.client.consumer_protocol import (
    read_assignment,
    read_subscribed_topics,
    write_assignment,
    write_subscription,
)
from kbroker.protocol.wire import DecodeError


def text(value: str) -> bytes:
    return pack(">h", len(value)) + value.encode()


def test_a_subscription():
    content = write_subscription(["b", "a"])
    assert content == pack(">hi", 0, 2) + text("b") + text("a") + pack(">i", -1)
    assert read_subscribed_topics(content) == ["b", "a"]


def test_a_subscription_with_everything_and_of_a_version_to_come():
    body = pack(">i", 1) + text("a") + pack(">i", 2) + b"xy"
    body += pack(">i", 1) + text("a") + pack(">ii", 1, 0)  # owned partitions
    body += pack(">i", 7) + text("rack")
    for version, more in ((3, b""), (9, b"what nobody knows yet")):
        assert read_subscribed_topics(pack(">h", version) + body + more) == ["a"]


def test_an_assignment():
    content = write_assignment({"b": [2, 0], "a": [1]})
    assert content == (
        pack(">hi", 0, 2)
        + text("a")
        + pack(">ii", 1, 1)
        + text("b")
        + pack(">iii", 2, 0, 2)
        + pack(">i", -1)
    )
    assert read_assignment(content) == {"a": [1], "b": [0, 2]}
    assert read_assignment(b"") == {}


@pytest.mark.parametrize("read", [read_subscribed_topics, read_assignment])
@pytest.mark.parametrize("content", [b"\0", b"\xff\xff", pack(">hi", 0, 9), pack(">hih", 0, 1, 9)])
def test_nonsense(read, content: bytes):
    with pytest.raises(DecodeError):
        read(content)
