"""Names of topics: what Kafka's Topic class accepts."""

import pytest

from kbroker.metadata.topic_names import (
    has_collision_characters,
    is_internal,
    topic_name_problem,
    unify_collision_characters,
    validate_topic_name,
)
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError


@pytest.mark.parametrize("name", ["a", "A-Z_0.9", "...", "x" * 249, "__consumer_offsets", "-"])
def test_good_names(name: str) -> None:
    assert topic_name_problem(name) is None
    validate_topic_name(name)


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("", "the empty string is not allowed"),
        (".", "'.' is not allowed"),
        ("..", "'..' is not allowed"),
        ("x" * 250, f"the length of '{'x' * 250}' is longer than the max allowed length 249"),
        *(
            (
                name,
                f"'{name}' contains one or more characters other than "
                "ASCII alphanumerics, '.', '_' and '-'",
            )
            for name in ("a b", "a/b", "café", "a\0", "a\n", "Ⅷ", "٣")
        ),
    ],
)
def test_bad_names(name: str, problem: str) -> None:
    assert topic_name_problem(name) == problem
    with pytest.raises(KafkaError) as raised:
        validate_topic_name(name)
    assert raised.value.error_code == ErrorCode.INVALID_TOPIC_EXCEPTION
    assert raised.value.message == f"Topic name is invalid: {problem}"


def test_internal_topics() -> None:
    assert all(
        map(is_internal, ("__consumer_offsets", "__transaction_state", "__share_group_state"))
    )
    assert not any(map(is_internal, ("__cluster_metadata", "__other", "consumer_offsets")))


def test_collisions() -> None:
    assert unify_collision_characters("a.b_c") == unify_collision_characters("a_b.c")
    assert has_collision_characters("a.b")
    assert has_collision_characters("a_b")
    assert not has_collision_characters("a-b")
