"""Topic settings: which values are refused, and with which of Kafka's texts."""

import json
import re
from pathlib import Path

import pytest

from kbroker.config.topic_config import LogConfig, validate_topic_config
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError

RECORDED = json.loads((Path(__file__).parent / "kafka_invalid_topic_configs.json").read_text())
VALUES = json.loads((Path(__file__).parent / "kafka_topic_config_values.json").read_text())
HEXADECIMAL = {"0x1p-1", "0x1p-1d"}  # Java reads them as doubles; nobody means it


@pytest.mark.parametrize(("name", "value", "code", "message"), RECORDED)
def test_as_kafka_answered(name, value, code, message):
    if code == 0:
        validate_topic_config({name: value})
        return
    with pytest.raises(KafkaError) as raised:
        validate_topic_config({name: value})
    assert raised.value.error_code == code
    assert raised.value.message == message


@pytest.mark.parametrize("name", sorted(LogConfig.settings()))
def test_values_that_kafka_takes_and_refuses(name):
    """Value to what Kafka 4.3.1 answered, null where it took the value."""
    for value, message in VALUES[name].items():
        if value in HEXADECIMAL:
            continue
        if message is None:
            validate_topic_config({name: value})
            continue
        with pytest.raises(KafkaError) as raised:
            validate_topic_config({name: value})
        assert raised.value.error_code is ErrorCode.INVALID_CONFIG
        assert raised.value.message == message


@pytest.mark.parametrize("text", ["+-1", "1.2.3", "e1", "-", ".", "NaNf", "Infinityd", "\u0661"])
def test_what_is_no_double(text):
    with pytest.raises(KafkaError, match="Not a number of type DOUBLE"):
        validate_topic_config({"min.cleanable.dirty.ratio": text})


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2147483648", "2.147483648E9"),
        ("123456789.25", "1.2345678925E8"),
        ("-0.00012345", "-1.2345E-4"),
        ("1e300", "1.0E300"),
    ],
)
def test_doubles_are_shown_as_java_shows_them(text, shown):
    with pytest.raises(KafkaError, match=f"Invalid value {re.escape(shown)} for"):
        validate_topic_config({"min.cleanable.dirty.ratio": text})


def test_settings_that_contradict_each_other():
    with pytest.raises(KafkaError, match=r"min\.compaction\.lag\.ms"):
        validate_topic_config({"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"})


def test_defaults_and_overrides():
    defaults = LogConfig.from_values({"retention_ms": 1, "segment.bytes": 2_000_000})
    config = LogConfig.from_properties({"cleanup.policy": "compact,delete"}, defaults)
    assert config.segment_bytes == 2_000_000
    assert config.compact
    assert config.delete
    assert config.overrides == {"cleanup.policy": "compact,delete"}
    assert defaults.cleanup_policy == ("delete",)


def test_the_policy_may_be_empty():
    config = LogConfig.from_properties({"cleanup.policy": ""})
    assert not config.compact
    assert not config.delete


def test_equal_settings_are_equal():
    assert LogConfig() == LogConfig.from_properties({})
    assert LogConfig() != LogConfig.from_properties({"retention.ms": "1"})
