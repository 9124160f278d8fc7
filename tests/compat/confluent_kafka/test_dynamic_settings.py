"""confluent-kafka: settings that are changed while the broker runs act at once, and stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    ResourceType,
)

from tests.compat.confluent_kafka import clients
from tests.compat.waiting import PATIENCE_S, eventually
from tests.wire.connection import Conn

if TYPE_CHECKING:
    from tests.compat.broker_under_test import OwnedBroker

SMALL = 1_000
LARGE_RECORD = b"x" * 10_000


def alter_all(bootstrap: str, key: str, value: str) -> None:
    """Set a setting of all brokers, the resource without a name, which librdkafka refuses."""
    host, _, port = bootstrap.rpartition(":")
    connection = Conn(host, int(port))
    try:
        config = {"Name": key, "ConfigOperation": 0, "Value": value}
        asked = {"ResourceType": 4, "ResourceName": "", "Configs": [config]}
        connection.send("IncrementalAlterConfigs", 1, {"Resources": [asked]})
        (answer,) = connection.recv(PATIENCE_S)[4]["Responses"]
        assert answer["ErrorCode"] == 0, answer
    finally:
        connection.close()


def alter(bootstrap: str, name: str, key: str, value: str | None) -> None:
    """Set, or with None take back, a setting of a broker."""
    operation = AlterConfigOpType.DELETE if value is None else AlterConfigOpType.SET
    entry = ConfigEntry(key, value, incremental_operation=operation)
    resource = ConfigResource(ResourceType.BROKER, name, incremental_configs=[entry])
    client = clients.admin(bootstrap)
    (done,) = client.incremental_alter_configs([resource]).values()
    done.result(timeout=PATIENCE_S)


def described(bootstrap: str, key: str) -> tuple[str, int]:
    """The setting of broker 1 and where it comes from."""
    resource = ConfigResource(ResourceType.BROKER, "1")
    client = clients.admin(bootstrap)  # its futures end with it
    (answer,) = client.describe_configs([resource]).values()
    entry = answer.result(timeout=PATIENCE_S)[key]
    return entry.value, int(entry.source)


def error_of_large_record(bootstrap: str, topic: str) -> int | None:
    """What becomes of a record that is larger than SMALL."""
    outcome: list[KafkaError | None] = []
    producer = clients.producer(bootstrap)
    producer.produce(topic, LARGE_RECORD, on_delivery=lambda error, _: outcome.append(error))
    assert producer.flush(PATIENCE_S) == 0
    (error,) = outcome
    return None if error is None else error.code()


def test_limits_of_all_brokers_act_at_once_and_after_a_restart(
    owned_broker: OwnedBroker, topic: str
) -> None:
    bootstrap = owned_broker.bootstrap
    clients.create_topic(bootstrap, topic)
    assert error_of_large_record(bootstrap, topic) is None

    alter_all(bootstrap, "message.max.bytes", str(SMALL))
    default = (str(SMALL), ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG.value)
    eventually(lambda: described(bootstrap, "message.max.bytes") == default, what="in force")
    assert error_of_large_record(bootstrap, topic) == KafkaError.MSG_SIZE_TOO_LARGE

    owned_broker.stop()
    owned_broker.start()
    assert described(bootstrap, "message.max.bytes") == default
    assert error_of_large_record(bootstrap, topic) == KafkaError.MSG_SIZE_TOO_LARGE

    alter(bootstrap, "1", "message.max.bytes", "2000000")  # its own is stronger
    own = ("2000000", ConfigSource.DYNAMIC_BROKER_CONFIG.value)
    eventually(lambda: described(bootstrap, "message.max.bytes") == own, what="in force")
    assert error_of_large_record(bootstrap, topic) is None

    alter(bootstrap, "1", "message.max.bytes", None)
    eventually(lambda: described(bootstrap, "message.max.bytes") == default, what="taken back")
    assert error_of_large_record(bootstrap, topic) == KafkaError.MSG_SIZE_TOO_LARGE


def test_what_cannot_be_changed_while_it_runs_is_refused(bootstrap: str) -> None:
    try:
        alter(bootstrap, "1", "log.dirs", "/elsewhere")
    except KafkaException as refused:
        error = refused.args[0]
        assert error.code() == KafkaError.INVALID_REQUEST
        assert "Cannot update these configs dynamically" in error.str()
    else:
        raise AssertionError("log.dirs was changed")
