"""Values survive a round trip, keep what a newer release added, and are refused when broken."""

from collections.abc import Callable
from typing import Any

import pytest

from kbroker.metadata.values import (
    BadValue,
    MetaValue,
    NumberValue,
    PartitionValue,
    RegistrationValue,
    TopicValue,
    decode_config,
    decode_topic_id,
    encode_config,
    encode_topic_id,
)

SAMPLES: list[Any] = [
    MetaValue(cluster_id="Nk018hRAQFytWskYqtQduw", incarnation=bytes(range(16))),
    NumberValue(number=-1),
    NumberValue(number=(1 << 63) - 1),
    RegistrationValue(incarnation=bytes(16), endpoints={}),
    RegistrationValue(
        incarnation=bytes(range(16)),
        endpoints={"PLAINTEXT": ("localhost", 9092), "TLS": ("::1", 65535)},
        rack="räck",
        clean_epoch=7,
        session_id=3,
    ),
    RegistrationValue(incarnation=bytes(16), endpoints={}, rack=""),
    TopicValue(name="t", partitions=3, generation=2),
    PartitionValue(leader=1, leader_epoch=0, replicas=(1,), isr=(1,)),
    PartitionValue(
        leader=-1,
        leader_epoch=2147483647,
        replicas=(1, 2, 3),
        isr=(),
        adding=(4,),
        removing=(1,),
        elr=(2,),
        last_known_elr=(3,),
        recovery_state=1,
        min_isr=2,
        change_id=-5,
    ),
]


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_round_trip(value: Any) -> None:
    assert type(value).decode(value.encode()) == value


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_what_a_newer_release_added_is_kept(value: Any) -> None:
    read = type(value).decode(value.encode() + b"from the future")
    assert read.tail == b"from the future"
    assert read.encode() == value.encode() + b"from the future"


@pytest.mark.parametrize("value", SAMPLES, ids=repr)
def test_cut_values_are_refused(value: Any) -> None:
    data = value.encode()
    for size in range(len(data)):
        with pytest.raises(BadValue):
            type(value).decode(data[:size])


@pytest.mark.parametrize(
    "decode",
    [type(value).decode for value in SAMPLES[:1] + SAMPLES[-1:]] + [decode_config, decode_topic_id],
)
def test_a_newer_version_is_refused(decode: Callable[[bytes], Any]) -> None:
    with pytest.raises(BadValue, match="newer"):
        decode(b"\x01" + bytes(100))


def test_config() -> None:
    overrides = {"retention.ms": "1", "a": "", "cleanup.policy": "compact,delete", "x": "é" * 70000}
    assert decode_config(encode_config(overrides)) == overrides
    assert decode_config(encode_config({})) == {}


def test_topic_id() -> None:
    assert decode_topic_id(encode_topic_id(bytes(range(16)))) == bytes(range(16))


def test_an_isr_of_all_replicas_is_one_tuple() -> None:
    read = PartitionValue.decode(SAMPLES[7].encode())
    assert read.isr is read.replicas
