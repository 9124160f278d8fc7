"""First and end offsets of partitions of many topics at once."""

from collections.abc import Iterable, Mapping

from kbroker.client.client import KafkaClient
from kbroker.client.group_offsets import TopicPartition, by_topic
from kbroker.client.reader import EARLIEST, LATEST, READ_UNCOMMITTED, list_offsets
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

_GONE = (ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, ErrorCode.INVALID_PARTITIONS)


async def end_offsets(
    client: KafkaClient, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """The offset that the next record of each will get, None where a partition is gone or has
    no leader.

    Records of open transactions count, as in Kafka's own tools.
    """
    ends: dict[TopicPartition, int | None] = {}
    for topic, indexes in by_topic(dict.fromkeys(partitions, LATEST)).items():
        found: Mapping[int, int] = {}
        try:
            leaders = await client.leaders(topic, of=())
            asked = {index: LATEST for index in indexes if leaders.get(index, -1) >= 0}
            found = await list_offsets(client, topic, asked, isolation_level=READ_UNCOMMITTED)
        except KafkaError as error:
            if error.error_code not in _GONE:
                raise
        ends |= {TopicPartition(topic, index): found.get(index) for index in indexes}
    return ends


async def offsets_at(
    client: KafkaClient, timestamps: Mapping[TopicPartition, int]
) -> dict[TopicPartition, int]:
    """The first record of each at or after a time (ms since 1970, EARLIEST, LATEST), -1: none.

    Raises KafkaError for a partition that is not there.
    """
    found: dict[TopicPartition, int] = {}
    for topic, of_topic in by_topic(timestamps).items():
        offsets = await list_offsets(client, topic, of_topic, isolation_level=READ_UNCOMMITTED)
        found |= {TopicPartition(topic, index): offsets[index] for index in of_topic}
    return found


async def first_and_end_offsets(
    client: KafkaClient, partitions: Iterable[TopicPartition]
) -> dict[TopicPartition, tuple[int, int]]:
    """Between which offsets records lie. Raises KafkaError for a partition that is not there."""
    asked = list(partitions)
    first = await offsets_at(client, dict.fromkeys(asked, EARLIEST))
    end = await offsets_at(client, dict.fromkeys(asked, LATEST))
    return {each: (first[each], end[each]) for each in asked}
