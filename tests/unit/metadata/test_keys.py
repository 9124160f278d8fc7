"""Keys are built and taken apart the same way."""

from kbroker.metadata.keys import Keys, parse_config, parse_partition

KEYS = Keys("c1")
TOPIC_ID = bytes(range(16))


def test_every_key_lies_under_the_cluster_and_splits_into_kind_and_rest() -> None:
    uuid = TOPIC_ID.hex().encode()
    for key, kind, rest in (
        (KEYS.meta, b"meta", b""),
        (KEYS.controller, b"controller", b""),
        (KEYS.producer_ids, b"pid", b""),
        (KEYS.registration(12), b"b/reg", b"12"),
        (KEYS.admission(12), b"b/act", b"12"),
        (KEYS.last_epoch(12), b"b/epoch", b"12"),
        (KEYS.topic_name("a.b"), b"t", b"a.b"),
        (KEYS.topic_id(TOPIC_ID), b"ti", uuid),
        (KEYS.partition(TOPIC_ID, 255), b"p", uuid + b"/000000ff"),
        (KEYS.config(2, "a.b"), b"cfg", b"2/a.b"),
    ):
        assert key.startswith(b"/kb/c1/")
        assert KEYS.split(key) == (kind, rest)


def test_partitions_sort_by_number_and_share_a_prefix() -> None:
    keys = [KEYS.partition(TOPIC_ID, index) for index in (0, 9, 10, 100, 2**31 - 1)]
    assert sorted(keys) == keys
    assert all(key.startswith(KEYS.partitions(TOPIC_ID)) for key in keys)
    assert parse_partition(KEYS.split(keys[-1])[1]) == (TOPIC_ID, 2**31 - 1)


def test_configuration_of_any_name() -> None:
    for name in ("", "topic", "group/with/slashes", "größe"):
        assert parse_config(KEYS.split(KEYS.config(32, name))[1]) == (32, name)
