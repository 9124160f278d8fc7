"""Error codes and the exception that carries them."""

import json

from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.unit.reference_codec import SCHEMAS

TABLE = json.loads((SCHEMAS / "errors.json").read_text())


def test_all_of_the_table():
    assert {code.name: code.value for code in ErrorCode} == {
        row["name"]: row["code"] for row in TABLE
    }
    assert {code.name for code in ErrorCode if code.retriable} == {
        row["name"] for row in TABLE if row["retriable"]
    }


def test_the_facts_of_4_3():
    assert len(ErrorCode) == 135
    assert ErrorCode.NONE == 0
    assert ErrorCode.UNKNOWN_SERVER_ERROR == -1
    assert ErrorCode.NOT_LEADER_OR_FOLLOWER.retriable
    assert not ErrorCode.TOPIC_ALREADY_EXISTS.retriable


def test_codes_from_the_wire():
    assert ErrorCode.for_code(36) is ErrorCode.TOPIC_ALREADY_EXISTS
    assert ErrorCode.for_code(12345) is ErrorCode.UNKNOWN_SERVER_ERROR


def test_messages():
    assert ErrorCode.NONE.message == "NONE"
    assert ErrorCode.NOT_COORDINATOR.message == "Not coordinator."


def test_kafka_error():
    error = KafkaError(ErrorCode.INVALID_CONFIG, "segment.bytes is too small")
    assert error.error_code is ErrorCode.INVALID_CONFIG
    assert error.message == "segment.bytes is too small"
    assert str(error) == "INVALID_CONFIG: segment.bytes is too small"
    bare = KafkaError(ErrorCode.NOT_COORDINATOR)
    assert bare.message is None
    assert str(bare) == "NOT_COORDINATOR"
