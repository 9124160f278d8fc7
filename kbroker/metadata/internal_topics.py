"""How topics are made that nobody asked for: automatic creation, Kafka's internal topics."""

from kbroker.config.broker_config import BrokerConfig
from kbroker.metadata.topic_control import NewTopic
from kbroker.metadata.topic_names import CONSUMER_OFFSETS, SHARE_GROUP_STATE, TRANSACTION_STATE


def automatic_topic(name: str, config: BrokerConfig) -> NewTopic:
    """The topic as AutoTopicCreationManager creates it: internal ones with their own settings."""
    if name == CONSUMER_OFFSETS:
        return NewTopic(
            name=name,
            num_partitions=config.offsets_topic_num_partitions,
            replication_factor=config.offsets_topic_replication_factor,
            configs=(
                ("cleanup.policy", "compact"),
                ("compression.type", "producer"),
                ("segment.bytes", str(config.offsets_topic_segment_bytes)),
            ),
        )
    if name == TRANSACTION_STATE:
        return NewTopic(
            name=name,
            num_partitions=config.transaction_state_log_num_partitions,
            replication_factor=config.transaction_state_log_replication_factor,
            configs=(
                ("unclean.leader.election.enable", "false"),
                ("compression.type", "uncompressed"),
                ("cleanup.policy", "compact"),
                ("min.insync.replicas", str(config.transaction_state_log_min_isr)),
                ("segment.bytes", str(config.transaction_state_log_segment_bytes)),
            ),
        )
    if name == SHARE_GROUP_STATE:
        return NewTopic(
            name=name,
            num_partitions=config.share_coordinator_state_topic_num_partitions,
            replication_factor=config.share_coordinator_state_topic_replication_factor,
            configs=(
                ("cleanup.policy", "delete"),
                ("compression.type", "producer"),
                ("segment.bytes", str(config.share_coordinator_state_topic_segment_bytes)),
                ("min.insync.replicas", str(config.share_coordinator_state_topic_min_isr)),
                ("retention.ms", "-1"),
            ),
        )
    return NewTopic(
        name=name,
        num_partitions=config.num_partitions,
        replication_factor=config.default_replication_factor,
    )
