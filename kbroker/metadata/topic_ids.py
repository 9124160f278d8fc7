"""Ids of topics, and of clusters, which Kafka draws in the same way."""

from typing import Final

from kbroker.common.entropy import Entropy

_RESERVED: Final = frozenset({bytes(16), bytes(15) + b"\x01"})
_URL_SAFE_DASH: Final = 62  # the six bits that base64url shows as "-"


def new_topic_id(entropy: Entropy) -> bytes:
    """A random id that is not reserved and whose text does not begin with "-", as in Kafka."""
    while True:
        topic_id = entropy.uuid_bytes()
        if topic_id not in _RESERVED and topic_id[0] >> 2 != _URL_SAFE_DASH:
            return topic_id
