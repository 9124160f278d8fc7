"""Where replicas go: live brokers first, spread evenly, racks apart."""

from collections import Counter

import pytest

from kbroker.common.entropy import SeededEntropy
from kbroker.metadata.image import BrokerImage
from kbroker.metadata.placement import place_replicas
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.sizes import size


def brokers(*racks: str | None, fenced: tuple[int, ...] = ()) -> list[BrokerImage]:
    return [
        BrokerImage(node_id=node, epoch=1, endpoints={}, rack=rack, fenced=node in fenced)
        for node, rack in enumerate(racks, 1)
    ]


def place(
    known: list[BrokerImage], partitions: int, factor: int, seed: int = 0
) -> list[tuple[int, ...]]:
    return place_replicas(
        known, partitions=partitions, replication_factor=factor, entropy=SeededEntropy(seed)
    )


def test_a_single_broker_gets_everything() -> None:
    assert place(brokers(None), 3, 1) == [(1,)] * 3


def test_leaders_and_replicas_are_even() -> None:
    for seed in range(size(ci=5, full=50)):
        placed = place(brokers(None, None, None, None, None), 100, 3, seed)
        assert all(len(set(replicas)) == 3 for replicas in placed)
        assert set(Counter(replicas[0] for replicas in placed).values()) == {20}
        assert set(Counter(node for replicas in placed for node in replicas).values()) == {60}


def test_followers_of_one_leader_are_spread() -> None:
    placed = place(brokers(None, None, None, None), 48, 2)
    followers = Counter(replicas for replicas in placed)
    assert len(followers) == 12  # every ordered pair


def test_racks_are_apart_when_there_are_enough() -> None:
    known = brokers("a", "a", "b", "b", "c", "c")
    racks = {broker.node_id: broker.rack for broker in known}
    first_round = place(known, 6, 3)
    assert all(len({racks[node] for node in replicas}) == 3 for replicas in first_round)


def test_fenced_brokers_only_when_needed_and_never_as_leader() -> None:
    known = brokers(None, None, None, fenced=(2,))
    assert all(2 not in replicas for replicas in place(known, 20, 2))
    wide = place(known, 20, 3)
    assert all(replicas[2] == 2 for replicas in wide)


@pytest.mark.parametrize(
    ("known", "factor", "text"),
    [
        (brokers(), 1, "All brokers are currently fenced."),
        (brokers(None, fenced=(1,)), 1, "All brokers are currently fenced."),
        (
            brokers(None),
            3,
            "The target replication factor of 3 cannot be reached because only 1 broker(s) are "
            "registered or some brokers have all their log directories cordoned.",
        ),
    ],
)
def test_too_few_brokers(known: list[BrokerImage], factor: int, text: str) -> None:
    with pytest.raises(KafkaError) as raised:
        place(known, 1, factor)
    assert raised.value.error_code == ErrorCode.INVALID_REPLICATION_FACTOR
    assert raised.value.message == text
