"""What a topic may be called, and which topics are Kafka's own."""

from typing import Final

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

CONSUMER_OFFSETS: Final = "__consumer_offsets"
TRANSACTION_STATE: Final = "__transaction_state"
SHARE_GROUP_STATE: Final = "__share_group_state"
CLUSTER_METADATA: Final = "__cluster_metadata"
INTERNAL_TOPICS: Final = frozenset({CONSUMER_OFFSETS, TRANSACTION_STATE, SHARE_GROUP_STATE})

MAX_NAME_LENGTH: Final = 249
_LEGAL: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def is_internal(name: str) -> bool:
    """Whether clients may read the topic, but not write to it."""
    return name in INTERNAL_TOPICS


def topic_name_problem(name: str) -> str | None:
    """What is wrong with the name, in Kafka's words; None when it may be used."""
    if not name:
        return "the empty string is not allowed"
    if name in (".", ".."):
        return f"'{name}' is not allowed"
    if len(name) > MAX_NAME_LENGTH:
        return f"the length of '{name}' is longer than the max allowed length {MAX_NAME_LENGTH}"
    if not _LEGAL.issuperset(name):
        return (
            f"'{name}' contains one or more characters other than "
            "ASCII alphanumerics, '.', '_' and '-'"
        )
    return None


def validate_topic_name(name: str) -> None:
    """Raises KafkaError(INVALID_TOPIC_EXCEPTION) for a name that cannot be used."""
    problem = topic_name_problem(name)
    if problem is not None:
        raise KafkaError(ErrorCode.INVALID_TOPIC_EXCEPTION, f"Topic name is invalid: {problem}")


def has_collision_characters(name: str) -> bool:
    """Metric names once made '.' and '_' the same: such names may not differ in them alone."""
    return "." in name or "_" in name


def unify_collision_characters(name: str) -> str:
    """Names that collide give the same text."""
    return name.replace(".", "_")
