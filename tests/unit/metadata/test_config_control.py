"""Altering settings through the controller: Kafka's operations, checks and texts."""

import pytest

from kbroker.metadata.config_control import AlterOperation, ConfigChange, SettingChange
from kbroker.metadata.keys import ConfigResourceType
from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.metadata.clusters import Node, running_node

pytestmark = pytest.mark.anyio
TOPIC = ConfigResourceType.TOPIC
BROKER = ConfigResourceType.BROKER
GROUP = ConfigResourceType.GROUP
METRICS = ConfigResourceType.CLIENT_METRICS
SET, DELETE, APPEND, SUBTRACT = AlterOperation


def change(
    kind: int, name: str, *settings: tuple[str, AlterOperation, str | None], replace: bool = False
) -> ConfigChange:
    return ConfigChange(
        resource_type=kind,
        resource_name=name,
        changes=[SettingChange(*setting) for setting in settings],
        replace=replace,
    )


async def alter(node: Node, one: ConfigChange) -> KafkaError | None:
    (error,) = await node.controller.alter_configs([one])
    return error


async def test_set_and_delete() -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="t")])
        several = [("retention.ms", SET, "5"), ("segment.ms", SET, "6")]
        assert await alter(node, change(TOPIC, "t", *several)) is None
        assert node.image.topic_overrides("t") == {"retention.ms": "5", "segment.ms": "6"}
        deletion = change(TOPIC, "t", ("retention.ms", DELETE, None), ("no.such", DELETE, None))
        assert await alter(node, deletion) is None
        assert node.image.topic_overrides("t") == {"segment.ms": "6"}
        assert await alter(node, change(TOPIC, "t", ("segment.ms", DELETE, "x"))) is None
        assert node.image.topic_overrides("t") == {}
        revision = node.image.revision
        assert await alter(node, change(TOPIC, "t", ("segment.ms", DELETE, None))) is None
        assert node.image.revision == revision


@pytest.mark.parametrize(
    ("before", "operation", "value", "after"),
    [
        (None, APPEND, "compact", "delete,compact"),
        ("compact", APPEND, "compact,delete", "compact,delete"),
        ("compact,delete", SUBTRACT, "compact", "delete"),
        ("compact", SUBTRACT, "delete", "compact"),
        ("compact", SUBTRACT, "compact", ""),
        (None, SUBTRACT, "delete", ""),
    ],
)
async def test_lists(before: str | None, operation: AlterOperation, value: str, after: str) -> None:
    async with running_node() as node:
        configs = [("cleanup.policy", before)] if before else []
        await node.controller.create_topics([NewTopic(name="t", configs=configs)])
        assert await alter(node, change(TOPIC, "t", ("cleanup.policy", operation, value))) is None
        assert node.image.topic_overrides("t") == {"cleanup.policy": after}


async def test_replacing_forgets_the_rest() -> None:
    async with running_node() as node:
        configs = [("retention.ms", "5"), ("segment.ms", "6")]
        await node.controller.create_topics([NewTopic(name="t", configs=configs)])
        one = change(TOPIC, "t", ("retention.ms", SET, "7"), replace=True)
        assert await alter(node, one) is None
        assert node.image.topic_overrides("t") == {"retention.ms": "7"}
        assert await alter(node, change(TOPIC, "t", replace=True)) is None
        assert node.image.topic_overrides("t") == {}


INVALID: list[tuple[ConfigChange, ErrorCode, str]] = [
    (
        change(TOPIC, "t", ("retention.ms", SET, "x")),
        ErrorCode.INVALID_CONFIG,
        "Invalid value x for configuration retention.ms: Not a number of type LONG",
    ),
    (
        change(TOPIC, "t", ("no.such", SET, "1")),
        ErrorCode.INVALID_CONFIG,
        "Unknown topic config name: no.such",
    ),
    (
        change(TOPIC, "t", ("retention.ms", APPEND, "1")),
        ErrorCode.INVALID_CONFIG,
        "Can't APPEND to key retention.ms because its type is not LIST.",
    ),
    (
        change(TOPIC, "nope", ("retention.ms", SET, "x")),  # settings are looked at first
        ErrorCode.INVALID_CONFIG,
        "Invalid value x for configuration retention.ms: Not a number of type LONG",
    ),
    (
        change(TOPIC, "nope", ("retention.ms", SET, "1")),
        ErrorCode.UNKNOWN_TOPIC_OR_PARTITION,
        "The topic 'nope' does not exist.",
    ),
    (
        change(TOPIC, "a b", ("retention.ms", SET, "1")),
        ErrorCode.INVALID_TOPIC_EXCEPTION,
        "Topic name is invalid: 'a b' contains one or more characters other than "
        "ASCII alphanumerics, '.', '_' and '-'",
    ),
    (change(TOPIC, ""), ErrorCode.INVALID_REQUEST, "Default topic resources are not allowed."),
    (change(GROUP, ""), ErrorCode.INVALID_REQUEST, "Default group resources are not allowed."),
    (
        change(METRICS, ""),
        ErrorCode.INVALID_REQUEST,
        "Subscription name can't be empty",
    ),
    (change(3, "x"), ErrorCode.INVALID_REQUEST, "Unknown resource type 3"),
    (
        change(BROKER, "x"),
        ErrorCode.INVALID_REQUEST,
        "Unable to parse broker name as a base 10 number.",
    ),
    (change(BROKER, "-1"), ErrorCode.INVALID_REQUEST, "Invalid negative broker ID."),
    (change(BROKER, "9"), ErrorCode.BROKER_ID_NOT_REGISTERED, "No node with id 9 found."),
    (
        change(BROKER, "1", ("min.insync.replicas", SET, "1")),
        ErrorCode.INVALID_CONFIG,
        "Broker-level min.insync.replicas cannot be altered while ELR is enabled.",
    ),
    (
        change(BROKER, "", ("min.insync.replicas", DELETE, None)),
        ErrorCode.INVALID_CONFIG,
        "Cluster-level min.insync.replicas cannot be removed while ELR is enabled.",
    ),
    (
        change(GROUP, "g", ("no.such", SET, "1")),
        ErrorCode.INVALID_CONFIG,
        "Unknown group config name: no.such",
    ),
    (
        change(GROUP, "g", ("consumer.session.timeout.ms", SET, "1")),
        ErrorCode.INVALID_CONFIG,
        "consumer.session.timeout.ms must be greater than or equal to "
        "group.consumer.min.session.timeout.ms",
    ),
    (
        change(GROUP, "g", ("share.heartbeat.interval.ms", SET, "99999999")),
        ErrorCode.INVALID_CONFIG,
        "share.heartbeat.interval.ms must be less than or equal to "
        "group.share.max.heartbeat.interval.ms",
    ),
    (
        change(GROUP, "g", ("streams.num.standby.replicas", SET, "99")),
        ErrorCode.INVALID_CONFIG,
        "streams.num.standby.replicas must be less than or equal to "
        "group.streams.max.standby.replicas",
    ),
    (
        change(GROUP, "g", ("share.isolation.level", SET, "x")),
        ErrorCode.INVALID_CONFIG,
        "Invalid value x for configuration share.isolation.level: "
        "String must be one of: read_committed, read_uncommitted",
    ),
    (
        change(METRICS, "m", ("metrics", APPEND, "a")),
        ErrorCode.INVALID_CONFIG,
        "Can't APPEND to key metrics because its type is not LIST.",
    ),
    (
        change(METRICS, "m", ("no.such", SET, "1")),
        ErrorCode.INVALID_REQUEST,
        "Unknown client metrics configuration: no.such",
    ),
    (
        change(METRICS, "m", ("interval.ms", SET, "99")),
        ErrorCode.INVALID_REQUEST,
        "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)",
    ),
    (
        change(METRICS, "m", ("match", SET, "client_id=(")),
        ErrorCode.INVALID_CONFIG,
        "Illegal client matching pattern: client_id=(",
    ),
    *(
        (
            change(METRICS, "m", ("match", SET, text)),
            ErrorCode.INVALID_CONFIG,
            f"Illegal client matching pattern: {text}",
        )
        for text in ("client_id", "client_id=", "client_id=a=b", "=a", "CLIENT_ID=a")
    ),
    (
        change(METRICS, "m", ("match", SET, "who=.*")),
        ErrorCode.INVALID_CONFIG,
        "Illegal client matching pattern: who=.*",
    ),
]


@pytest.mark.parametrize(("one", "code", "text"), INVALID, ids=lambda value: str(value)[13:70])
async def test_what_is_refused(one: ConfigChange, code: ErrorCode, text: str) -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="t")])
        revision = node.image.revision
        error = await alter(node, one)
        assert error is not None
        assert (error.error_code, error.message) == (code, text)
        assert node.image.revision == revision


async def test_groups_metrics_and_brokers() -> None:
    async with running_node() as node:
        results = await node.controller.alter_configs(
            [
                change(GROUP, "g", ("consumer.session.timeout.ms", SET, "50000")),
                change(METRICS, "m", ("match", SET, "client_id=a.*"), ("interval.ms", SET, "100")),
                change(BROKER, "", ("unknown.key", SET, "1"), ("min.insync.replicas", SET, "2")),
                change(BROKER, "1", ("num.io.threads", SET, "9")),
                change(GROUP, "bad", ("no.such", SET, "1")),
            ]
        )
        assert [error is None for error in results] == [True, True, True, True, False]
        image = node.image
        assert image.group_overrides("g") == {"consumer.session.timeout.ms": "50000"}
        assert image.client_metrics_overrides("m")["interval.ms"] == "100"
        assert image.cluster_overrides() == {"unknown.key": "1", "min.insync.replicas": "2"}
        assert image.broker_overrides(1) == {"num.io.threads": "9"}
        assert image.group_overrides("bad") == {}


@pytest.mark.parametrize("replace", [False, True])
async def test_min_insync_replicas_of_all_brokers_stays_set(replace: bool) -> None:
    async with running_node() as node:
        assert await alter(node, change(BROKER, "", ("min.insync.replicas", SET, "1"))) is None
        settings = () if replace else (("min.insync.replicas", DELETE, None),)
        error = await alter(node, change(BROKER, "", *settings)._replace(replace=replace))
        assert error is not None
        assert error.message == (
            "Cluster-level min.insync.replicas cannot be removed while ELR is enabled."
        )
        kept = change(BROKER, "", ("min.insync.replicas", SET, "2"), ("a", SET, "1"))
        assert await alter(node, kept._replace(replace=replace)) is None


async def test_min_insync_replicas_of_one_broker_is_not_even_removed() -> None:
    async with running_node() as node:
        error = await alter(node, change(BROKER, "1", ("min.insync.replicas", DELETE, None)))
        assert error is not None
        assert error.message == (
            "Broker-level min.insync.replicas cannot be altered while ELR is enabled."
        )


async def test_a_heartbeat_is_shorter_than_its_session() -> None:
    async with running_node(
        settings={
            "group.consumer.min.session.timeout.ms": "1000",
            "group.consumer.max.heartbeat.interval.ms": "60000",
        }
    ) as node:
        one = change(GROUP, "g", ("consumer.session.timeout.ms", SET, "5000"))
        error = await alter(node, one)
        assert error is not None
        assert error.message == (
            "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms"
        )


async def test_partitions_follow_min_insync_replicas() -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="t", num_partitions=2)])
        for operation, expected in ((SET, 3), (DELETE, 1)):
            one = change(TOPIC, "t", ("min.insync.replicas", operation, "3"))
            assert await alter(node, one) is None
            topic = node.image.topics.get("t")
            assert topic is not None
            assert [partition.min_isr for partition in topic.partitions] == [expected] * 2
            assert [partition.leader_epoch for partition in topic.partitions] == [0, 0]


async def test_more_insync_replicas_may_be_wanted_than_there_can_be() -> None:
    """Kafka takes any number from 1 on; a partition has room for fewer."""
    async with running_node() as node:
        new = NewTopic(name="t", num_partitions=1, configs=[("min.insync.replicas", "2147483647")])
        (created,) = await node.controller.create_topics([new])
        assert created.error is None
        for value in ("32768", "70000"):
            assert (
                await alter(node, change(TOPIC, "t", ("min.insync.replicas", SET, value))) is None
            )
            assert node.image.topic_overrides("t") == {"min.insync.replicas": value}


async def test_validate_only_changes_nothing() -> None:
    async with running_node() as node:
        await node.controller.create_topics([NewTopic(name="t")])
        revision = node.image.revision
        results = await node.controller.alter_configs(
            [
                change(TOPIC, "t", ("retention.ms", SET, "5")),
                change(TOPIC, "nope", ("retention.ms", SET, "5")),
            ],
            validate_only=True,
        )
        assert [error is None for error in results] == [True, False]
        assert node.image.revision == revision
        assert await node.controller.alter_configs([]) == []
