"""IncrementalAlterConfigs: what the asked broker checks itself, and how answers come together."""

import logging
from collections.abc import Iterator

import pytest

from kbroker.metadata.topic_control import NewTopic
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.messages.describe_configs_request import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
)
from kbroker.protocol.messages.incremental_alter_configs_request import (
    AlterableConfig,
    AlterConfigsResource,
    IncrementalAlterConfigsRequest,
)
from kbroker.protocol.messages.incremental_alter_configs_response import (
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsResponse,
)
from tests.unit.handlers.asking import Asker, asking

pytestmark = pytest.mark.anyio
KEY = 44
TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = range(4)
INVALID = ErrorCode.INVALID_REQUEST
Setting = tuple[str, int, str | None]
LOGGER_NAME = "kbroker.tests.levels"


def resource(kind: int, name: str, *settings: Setting) -> AlterConfigsResource:
    return AlterConfigsResource(kind, name, [AlterableConfig(*setting) for setting in settings])


async def ask(
    client: Asker, *resources: AlterConfigsResource, version: int = 1, validate_only: bool = False
) -> list[tuple[int, str, int, str | None]]:
    """(type, name, code, text) of each answer."""
    request = IncrementalAlterConfigsRequest(list(resources), validate_only)
    response: IncrementalAlterConfigsResponse = await client.ask(KEY, version, request)
    return [
        (r.resource_type, r.resource_name, r.error_code, r.error_message)
        for r in response.responses
    ]


@pytest.mark.parametrize("version", [0, 1])
async def test_answers_come_in_the_order_of_the_request(version: int) -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="t")])
        answers = await ask(
            client,
            resource(3, "x", ("a", SET, "1")),
            resource(TOPIC, "t", ("retention.ms", SET, "5")),
            resource(TOPIC, "nope", ("retention.ms", SET, "5")),
            resource(GROUP, "g", ("consumer.session.timeout.ms", SET, "50000")),
            version=version,
        )
        assert answers == [
            (3, "x", INVALID, "Unknown resource type 3"),
            (TOPIC, "t", 0, None),
            (TOPIC, "nope", 3, "The topic 'nope' does not exist."),
            (GROUP, "g", 0, None),
        ]
        assert client.node.image.topic_overrides("t") == {"retention.ms": "5"}
        nothing = await client.ask(KEY, version, IncrementalAlterConfigsRequest())
        assert nothing == IncrementalAlterConfigsResponse()


async def test_a_resource_twice_is_refused_both_times() -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="t")])
        one, other = ("retention.ms", SET, "5"), ("segment.ms", SET, "5")
        answers = await ask(client, resource(TOPIC, "t", one), resource(TOPIC, "t", other))
        text = "Each resource must appear at most once."
        assert answers == [(TOPIC, "t", INVALID, text)] * 2
        assert client.node.image.topic_overrides("t") == {}


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (
            resource(TOPIC, "t", ("a", SET, "1"), ("a", DELETE, None)),
            "Error due to duplicate config keys",
        ),
        (
            resource(TOPIC, "t", ("a", SET, None), ("b", APPEND, None), ("c", DELETE, None)),
            "Null value not supported for : a, b",
        ),
        (resource(BROKER, "x"), "Node id must be an integer, but it is: x"),
        (resource(BROKER, "2"), "Unexpected broker id, expected 1, but received 2"),
        (
            resource(BROKER, "1", ("log.dirs", SET, "/x")),
            "Cannot update these configs dynamically: [log.dirs]",
        ),
        (
            resource(BROKER, "", ("listeners", SET, "PLAINTEXT://:1")),
            "Cannot update these configs at default cluster level, broker id must be specified: "
            "[listeners]",
        ),
        (
            resource(BROKER, "1", ("ssl.keystore.location", SET, "/x")),
            "These security configs can be dynamically updated only per-listener using the "
            "listener prefix: [ssl.keystore.location]",
        ),
        (
            resource(BROKER, "1", ("message.max.bytes", SET, "x")),
            "Invalid value x for configuration message.max.bytes: Not a number of type INT",
        ),
        (
            resource(BROKER, "1", ("log.roll.ms", SET, "0")),
            "requirement failed: log.roll.ms must be greater than or equal to 1",
        ),
        (
            resource(BROKER, "", ("log.roll.jitter.ms", SET, "-1")),
            "requirement failed: log.roll.jitter.ms must be greater than or equal to 0",
        ),
        (
            resource(BROKER, "1", ("log.retention.ms", SET, "0")),
            "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal "
            "to 1",
        ),
        (
            resource(BROKER, "1", ("log.cleaner.dedupe.buffer.size", SET, "1048576")),
            "requirement failed: log.cleaner.dedupe.buffer.size must be at least 1MB per cleaner "
            "thread.",
        ),
        (
            resource(BROKER, "1", ("num.io.threads", SET, "100")),
            "Invalid value org.apache.kafka.common.config.ConfigException: "
            "Dynamic thread count update validation failed for num.io.threads=100, "
            "value should not be greater than double the current value 8"
            " for configuration Invalid dynamic configuration",
        ),
        (
            resource(BROKER, "1", ("num.io.threads", SET, "3")),
            "Invalid value org.apache.kafka.common.config.ConfigException: "
            "Dynamic thread count update validation failed for num.io.threads=3, "
            "value should be at least half the current value 8"
            " for configuration Invalid dynamic configuration",
        ),
        (
            resource(BROKER, "1", ("cordoned.log.dirs", SET, "/nowhere")),
            "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or "
            "log.dir. Missing entries : /nowhere",
        ),
        (
            resource(BROKER, "", ("cordoned.log.dirs", SET, "")),
            "Cannot update these configs at default cluster level, broker id must be specified: "
            "[cordoned.log.dirs]",
        ),
        (
            resource(BROKER, "", ("max.connections", SET, "0")),
            "Invalid value org.apache.kafka.common.config.ConfigException: "
            "Invalid max.connections 0 for configuration Invalid dynamic configuration",
        ),
        (resource(BROKER, "1", ("a", 7, "1")), "Unknown operations type 7"),
        (
            resource(LOGGER, "1", ("root", APPEND, "INFO")),
            "APPEND operation is not allowed for the BROKER_LOGGER resource",
        ),
        (
            resource(LOGGER, "1", ("root", DELETE, None)),
            "Removing the log level of the root logger is not allowed",
        ),
        (resource(LOGGER, "2"), "Unexpected node id. Expected 1, but received 2"),
        (resource(LOGGER, ""), "Node id must be an integer, but it is: "),
    ],
)
async def test_what_the_asked_broker_refuses(bad: AlterConfigsResource, text: str) -> None:
    async with asking() as client:
        revision = client.node.image.revision
        (answer,) = await ask(client, bad)
        assert answer == (bad.resource_type, bad.resource_name, INVALID, text)
        assert client.node.image.revision == revision


async def test_an_unknown_operation_fails_all_that_reach_the_controller() -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="t")])
        answers = await ask(
            client,
            resource(TOPIC, "t", ("retention.ms", SET, "5")),
            resource(GROUP, "g", ("consumer.session.timeout.ms", 9, "5")),
            resource(3, "x"),
        )
        assert [code for _, _, code, _ in answers] == [-1, -1, INVALID]
        assert client.node.image.topic_overrides("t") == {}


async def test_settings_of_brokers() -> None:
    async with asking() as client:
        answers = await ask(
            client,
            resource(BROKER, "1", ("message.max.bytes", SET, "5"), ("num.io.threads", SET, "16")),
            resource(
                BROKER, "", ("unknown.key", SET, "1"), ("log.cleanup.policy", APPEND, "compact")
            ),
        )
        assert [code for _, _, code, _ in answers] == [0, 0]
        image = client.node.image
        assert image.broker_overrides(1) == {"message.max.bytes": "5", "num.io.threads": "16"}
        assert image.cluster_overrides() == {
            "unknown.key": "1",
            "log.cleanup.policy": "delete,compact",
            "min.insync.replicas": "1",
        }
        (answer,) = await ask(client, resource(BROKER, "1", ("message.max.bytes", APPEND, "1")))
        assert answer[2:] == (
            ErrorCode.INVALID_CONFIG,
            "Config value append is not allowed for config key: message.max.bytes",
        )
        (answer,) = await ask(client, resource(BROKER, "1", ("no.such", SUBTRACT, "1")))
        assert answer[2:] == (ErrorCode.INVALID_CONFIG, "Unknown config name: no.such")


async def test_validate_only() -> None:
    async with asking() as client:
        revision = client.node.image.revision
        one = resource(BROKER, "1", ("message.max.bytes", SET, "5"))
        assert await ask(client, one, validate_only=True) == [(BROKER, "1", 0, None)]
        assert client.node.image.revision == revision


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger(LOGGER_NAME)
    yield made
    made.setLevel(logging.NOTSET)


async def test_levels_of_loggers(logger: logging.Logger) -> None:
    async with asking() as client:
        one = resource(LOGGER, "1", (LOGGER_NAME, SET, "ERROR"))
        assert await ask(client, one, validate_only=True) == [(LOGGER, "1", 0, None)]
        assert logger.level == logging.NOTSET
        assert await ask(client, one) == [(LOGGER, "1", 0, None)]
        assert logger.level == logging.ERROR
        assert await ask(client, resource(LOGGER, "1", (LOGGER_NAME, DELETE, None))) == [
            (LOGGER, "1", 0, None)
        ]
        assert logger.level == logging.NOTSET
        for bad in ((LOGGER_NAME, SET, "LOUD"), ("kbroker.nowhere", SET, "INFO")):
            (answer,) = await ask(client, resource(LOGGER, "1", bad))
            assert answer[2] == ErrorCode.INVALID_CONFIG
        (answer,) = await ask(client, resource(LOGGER, "1", (LOGGER_NAME, 9, "INFO")))
        assert answer[2] == ErrorCode.UNKNOWN_SERVER_ERROR


@pytest.mark.parametrize("level", ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"])
async def test_every_level_is_described_as_it_was_set(logger: logging.Logger, level: str) -> None:
    async with asking() as client:
        one = resource(LOGGER, "1", (LOGGER_NAME, SET, level))
        assert await ask(client, one) == [(LOGGER, "1", 0, None)]
        described = DescribeConfigsResource(LOGGER, "1", [LOGGER_NAME])
        answer = await client.ask(32, 4, DescribeConfigsRequest([described]))
        (result,) = answer.results
        (config,) = result.configs
        assert (config.name, config.value) == (LOGGER_NAME, level)
    assert logger.isEnabledFor(logging.DEBUG) == (level in ("TRACE", "DEBUG"))


async def test_the_same_error_for_all_when_there_is_no_controller() -> None:
    async with asking() as client:
        await client.node.controller.create_topics([NewTopic(name="t")])
        await client.node.controller.stop()
        answers = await ask(
            client,
            resource(TOPIC, "t", ("retention.ms", SET, "5")),
            resource(3, "x"),
        )
        assert [code for _, _, code, _ in answers] == [ErrorCode.NOT_CONTROLLER, INVALID]


async def test_settings_of_a_listener_are_checked_as_what_they_stand_for() -> None:
    limit, key = "listener.name.in.max.connections", "listener.name.in.ssl.keystore.type"
    async with asking() as client:
        answers = [
            (await ask(client, resource(BROKER, name, (setting, SET, value))))[0][2:]
            for name, setting, value in (
                ("1", limit, "x"),
                ("1", limit, "5"),
                ("", limit, "5"),
                ("", key, "JKS"),
            )
        ]
    everywhere = "Cannot update these configs at default cluster level, broker id must be specified"
    assert answers == [
        (INVALID, "Invalid value x for configuration max.connections: Not a number of type INT"),
        (0, None),
        (0, None),
        (INVALID, f"{everywhere}: [{key}]"),
    ]


async def test_listeners_that_the_next_start_would_fail_for() -> None:
    async with asking() as client:
        for bad in ("x", "SSL://127.0.0.1:0"):
            answers = await ask(client, resource(BROKER, "1", ("listeners", SET, bad)))
            assert answers[0][2] == INVALID
        image = client.node.image
        assert "listeners" not in image.broker_overrides(1)


def test_error_response_is_for_every_resource() -> None:
    from kbroker.handlers.api_44_incremental_alter_configs import error_response
    from kbroker.protocol.errors import KafkaError

    request = IncrementalAlterConfigsRequest([resource(TOPIC, "a"), resource(GROUP, "b")])
    error = KafkaError(ErrorCode.CLUSTER_AUTHORIZATION_FAILED, "no")
    assert error_response(request, error, 1).responses == [
        AlterConfigsResourceResponse(31, "no", TOPIC, "a"),
        AlterConfigsResourceResponse(31, "no", GROUP, "b"),
    ]
