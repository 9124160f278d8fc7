"""What Apache Kafka 4.3.1 answered to these changes of a running broker is answered here."""

import pytest

from kbroker.config.broker_config import BrokerConfig
from kbroker.config.config_def import ConfigError
from kbroker.config.dynamic_setting_checks import check_change, check_together

OVERRIDES = "max.connections.per.ip.overrides"
PARSING = f"Error parsing configuration property '{OVERRIDES}': begin 0, end -1, length"
ZERO = (
    "requirement failed: max.connections.per.ip can be set to zero only if "
    "max.connections.per.ip.overrides property is set."
)
MISSING = (
    "requirement failed: All entries in cordoned.log.dirs must be present in log.dirs or log.dir. "
    "Missing entries :"
)
NOT_ALONE = (
    "requirement failed: When cordoned.log.dirs is set to *, it must not contain other values"
)


def answer(settings: dict[str, str], **static: str) -> str | None:
    """What is complained of when a running broker gets them; None when they are taken."""
    properties = {"log.dirs": "/data,/more"}
    properties.update((name.replace("_", "."), value) for name, value in static.items())
    old = BrokerConfig.from_properties(properties)
    try:
        new = old.with_dynamic(settings, {})
        check_together(settings, new)
        check_change(settings, old, new)
    except ConfigError as error:
        return str(error)
    return None


def wrapped(text: str) -> str:
    return (
        f"Invalid value org.apache.kafka.common.config.ConfigException: {text} "
        "for configuration Invalid dynamic configuration"
    )


def threads(name: str, count: int, text: str) -> tuple[dict[str, str], str]:
    failed = f"Dynamic thread count update validation failed for {name}={count}, value should"
    return {name: str(count)}, wrapped(f"{failed} {text}")


def local(name: str, value: int, text: str) -> str:
    return wrapped(f"Invalid value {value} for configuration {name}: Value must not be {text}")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"max.connections": "0"}, wrapped("Invalid max.connections 0")),
        (
            {"max.connection.creation.rate": "0"},
            wrapped("Invalid max.connection.creation.rate 0"),
        ),
        (
            {"max.connection.creation.rate": "0", "max.connections": "0"},
            wrapped("Invalid max.connections 0"),
        ),
        ({"max.connections.per.ip": "0"}, ZERO),
        ({"max.connections.per.ip": "0", OVERRIDES: ","}, ZERO),
        ({"max.connections.per.ip": "0", OVERRIDES: "foo"}, f"{PARSING} 3"),
        ({OVERRIDES: "127.0.0.1"}, f"{PARSING} 9"),
        ({OVERRIDES: "127.0.0.1:5 ,foo"}, f"{PARSING} 3"),
        ({OVERRIDES: "127.0.0.1:abc"}, 'For input string: "abc"'),
        ({OVERRIDES: "foo:"}, 'For input string: ""'),
        ({OVERRIDES: "127.0.0.1:1_0"}, 'For input string: "1_0"'),
        ({OVERRIDES: "x:+"}, 'For input string: "+"'),
        ({OVERRIDES: "x:2147483648"}, 'For input string: "2147483648"'),
        ({OVERRIDES: "x:-2147483649"}, 'For input string: "-2147483649"'),
        ({OVERRIDES: "[::1]:5"}, f"{OVERRIDES} contains invalid addresses : [::1]"),
        ({OVERRIDES: "exa mple:5"}, f"{OVERRIDES} contains invalid addresses : exa mple"),
        *(
            (
                {f"group.{kind}.assignment.interval.ms": "15001"},
                f"group.{kind}.assignment.interval.ms must be less than or equal to "
                f"group.{kind}.max.assignment.interval.ms",
            )
            for kind in ("consumer", "share", "streams")
        ),
        ({"cordoned.log.dirs": "/data,nope"}, f"{MISSING} nope"),
        ({"cordoned.log.dirs": "/nope,/nope2"}, f"{MISSING} /nope, /nope2"),
        ({"cordoned.log.dirs": "/data/"}, f"{MISSING} /data/"),
        ({"cordoned.log.dirs": "*,/data"}, NOT_ALONE),
        threads("num.io.threads", 17, "not be greater than double the current value 8"),
        threads("num.io.threads", 3, "be at least half the current value 8"),
        threads("remote.log.reader.threads", 21, "not be greater than double the current value 10"),
        threads("remote.log.reader.threads", 4, "be at least half the current value 10"),
        threads(
            "remote.log.manager.follower.thread.pool.size",
            10,
            "not be greater than double the current value 2",
        ),
        (
            {"log.cleaner.threads": "3"},
            wrapped(
                "Log cleaner threads cannot be increased to more than double the current value 1"
            ),
        ),
        (
            {"log.local.retention.ms": "604800001"},
            local(
                "log.local.retention.ms",
                604800001,
                "more than log.retention.ms property value: 604800000",
            ),
        ),
        (
            {"log.local.retention.ms": "-1"},
            local(
                "log.local.retention.ms", -1, "-1 as log.retention.ms value is set as 604800000."
            ),
        ),
        (
            {"log.retention.bytes": "100", "log.local.retention.bytes": "101"},
            local(
                "log.local.retention.bytes",
                101,
                "more than log.retention.bytes property value: 100",
            ),
        ),
        (
            {"max.connections": "0", "log.retention.ms": "0"},
            "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal "
            "to 1",
        ),
        ({"max.connections.per.ip": "0", "cordoned.log.dirs": "nope"}, f"{MISSING} nope"),
        (
            {"max.connections": "0", "log.cleaner.threads": "100", "num.io.threads": "100"},
            wrapped("Invalid max.connections 0"),
        ),
    ],
)
def test_what_is_refused(settings: dict[str, str], text: str) -> None:
    assert answer(settings) == text


@pytest.mark.parametrize(
    "settings",
    [
        {"max.connections": "1", "max.connection.creation.rate": "1"},
        {"max.connections.per.ip": "0", OVERRIDES: "x:5"},
        {OVERRIDES: " 127.0.0.1:5 , 127.0.0.2:+6,"},
        {OVERRIDES: "::1:5,:5,127.0.0.1:-5,fe80::1%lo: 7"},
        {OVERRIDES: ","},
        {"group.consumer.assignment.interval.ms": "15000"},
        {"cordoned.log.dirs": "*"},
        {"cordoned.log.dirs": "*,*"},
        {"cordoned.log.dirs": "/more,/more"},
        {"cordoned.log.dirs": ""},
        {"num.io.threads": "16", "remote.log.reader.threads": "5", "log.cleaner.threads": "2"},
        {"log.local.retention.ms": "604800000", "log.local.retention.bytes": "100000"},
        {"log.retention.ms": "-1", "log.local.retention.ms": "101"},
        {"log.retention.ms": "100", "log.local.retention.ms": "-2"},
        {"log.local.retention.bytes": "-1"},
    ],
)
def test_what_is_taken(settings: dict[str, str]) -> None:
    assert answer(settings) is None


def test_what_is_set_otherwise_is_looked_at_too() -> None:
    static = {"log_retention_hours": "1"}
    assert answer({"log.local.retention.ms": "3600000"}, **static) is None
    assert answer({"log.local.retention.ms": "3600001"}, **static) == local(
        "log.local.retention.ms", 3600001, "more than log.retention.ms property value: 3600000"
    )
    half = {"log_cleaner_threads": "8", "log_cleaner_dedupe_buffer_size": "134217728"}
    assert answer({"log.cleaner.threads": "3"}, **half) == wrapped(
        "Log cleaner threads cannot be reduced to less than half the current value 8"
    )


@pytest.mark.parametrize(
    ("listeners", "problem"),
    [
        ("x", "Invalid value x for configuration listeners: expected NAME://HOST:PORT"),
        ("A://h:1", "No security protocol defined for listener A; add it to"),
        ("PLAINTEXT://h:1,PLAINTEXT://h:2", "Each listener must have a different name"),
    ],
)
def test_listeners_that_the_next_start_would_fail_for(listeners: str, problem: str) -> None:
    found = answer({"listeners": listeners})
    assert found is not None
    shown = ", ".join(listeners.split(","))
    assert found.startswith(f"Error creating broker listeners from '[{shown}]': {problem}")


def test_listeners_must_not_promise_more_than_there_is() -> None:
    refused = "SSL is not supported yet, only PLAINTEXT"
    assert answer({"listeners": "SSL://h:1"}) == f"listener SSL: {refused}"
    by_name = {"listener.security.protocol.map": "PLAINTEXT:SSL"}
    assert answer(by_name) == f"listener PLAINTEXT: {refused}"


def test_listeners_that_another_start_can_use() -> None:
    assert answer({"listeners": "PLAINTEXT://127.0.0.1:1"}) is None
    both = {"listeners": "IN://:1", "listener.security.protocol.map": "IN:PLAINTEXT"}
    assert answer(both) is None


def test_limits_of_addresses() -> None:
    config = BrokerConfig.from_properties({OVERRIDES: " 10.0.0.1 : 5, ::1:7,10.0.0.1:6,"})
    assert config.connections_per_ip_overrides() == {"10.0.0.1": 6, "::1": 7}
