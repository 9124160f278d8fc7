"""Kafka's range and roundrobin assignors; examples as its documentation has them."""

from __future__ import annotations

import random

import pytest

from kbroker.client.assignors import ASSIGNORS, assign_range, assign_roundrobin
from tests.sizes import size


def test_range_gives_neighbours_topic_by_topic():
    members = {"C0": ["t0", "t1"], "C1": ["t0", "t1"]}
    assert assign_range(members, {"t0": 3, "t1": 3}) == {
        "C0": {"t0": [0, 1], "t1": [0, 1]},
        "C1": {"t0": [2], "t1": [2]},
    }


def test_roundrobin_gives_in_turn():
    members = {"C0": ["t0", "t1"], "C1": ["t0", "t1"]}
    assert assign_roundrobin(members, {"t0": 3, "t1": 3}) == {
        "C0": {"t0": [0, 2], "t1": [1]},
        "C1": {"t0": [1], "t1": [0, 2]},
    }


def test_roundrobin_with_different_subscriptions():
    members = {"C0": ["t0"], "C1": ["t0", "t1"], "C2": ["t0", "t1", "t2"]}
    assert assign_roundrobin(members, {"t0": 1, "t1": 2, "t2": 3}) == {
        "C0": {"t0": [0]},
        "C1": {"t1": [0]},
        "C2": {"t1": [1], "t2": [0, 1, 2]},
    }


@pytest.mark.parametrize("name", ASSIGNORS)
def test_a_topic_that_is_not_there(name: str):
    assert ASSIGNORS[name]({"C0": ["t0"]}, {}) == {"C0": {}}


@pytest.mark.parametrize("name", ASSIGNORS)
def test_every_partition_has_one_owner_that_subscribed_to_it(name: str):
    source = random.Random(name)
    for _ in range(size(ci=200, full=5000)):
        topics = {f"t{n}": source.randrange(6) for n in range(source.randrange(1, 5))}
        members = {
            f"m{n}": source.sample(sorted(topics), source.randint(1, len(topics)))
            for n in range(source.randrange(1, 7))
        }
        owners: dict[tuple[str, int], str] = {}
        for member, assignment in ASSIGNORS[name](members, topics).items():
            for topic, partitions in assignment.items():
                assert topic in members[member]
                for partition in partitions:
                    assert owners.setdefault((topic, partition), member) == member
        subscribed = {topic for chosen in members.values() for topic in chosen}
        assert owners.keys() == {(t, p) for t in subscribed for p in range(topics[t])}
