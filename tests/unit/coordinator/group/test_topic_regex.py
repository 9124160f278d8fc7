"""Expressions over topic names: against Python's engine where both agree, and where it would
hang."""

import random
import re

import pytest

from kbroker.coordinator.group.topic_regex import TopicRegex
from kbroker.protocol.error_codes import ErrorCode
from kbroker.protocol.errors import KafkaError
from tests.sizes import size

PATTERNS = [
    "foo.*",
    "a|b",
    "(a|b)+c?",
    "[a-c]{2,3}",
    "[^a]b*",
    "^ab$",
    r"a\.b",
    "(?i)ABc",
    r"\w+-\d{2}",
    "(ab){0,2}",
    "x{3}",
    "(a+)+",
    "(?:a|ab)(?:c|bcd)(?:d*)",
    "a??b",
    "[a-]",
    "[]a]x",
    "",
    "a*?",
    "(?P<n>a)b",
    r"\bfoo\b",
    r"a\x41",
    "(a{0,3}){2}",
    "(?i:a)B",
    r"[\w.]+",
    "a|",
    "(|a)b",
    r"\Afoo\Z".replace(r"\Z", "$"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_python_matches(pattern: str) -> None:
    chance = random.Random(pattern)
    ours, theirs = TopicRegex(pattern), re.compile(pattern)
    for _ in range(size(ci=400, full=20_000)):
        text = "".join(chance.choice("abcABCfo.x1-2d") for _ in range(chance.randint(0, 6)))
        assert ours.matches(text) == bool(theirs.fullmatch(text)), text


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("[[:alpha:]]+1", "topic1", True),
        ("[[:alpha:]]+1", "to1pic", False),
        ("[[:^digit:]]+", "abc", True),
        (r"\Qa.b\E.*", "a.bc", True),
        (r"\Qa.b\E.*", "axbc", False),
        ("a{,2}", "a{,2}", True),
        (r"team-\d+\z", "team-12", True),
    ],
)
def test_what_only_re2_has(pattern: str, name: str, expected: bool) -> None:
    assert TopicRegex(pattern).matches(name) is expected


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "a)",
        "[a",
        "a**",
        "*a",
        "(?=a)",
        "(?!a)",
        "(?<=a)b",
        r"\1",
        r"\p{L}",
        "a{2000}",
        "a{2,1}",
        "(?z)",
        "[z-a]",
        "((a{100}){100}){100}",
        "\\",
        "(?P<1>a)",
        "[[:foo:]]",
        "x(?",
        "(" * 500 + ")" * 500,
    ],
)
def test_invalid_ones(pattern: str) -> None:
    with pytest.raises(KafkaError) as raised:
        TopicRegex(pattern)
    assert raised.value.error_code is ErrorCode.INVALID_REGULAR_EXPRESSION


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+", "(a*)*b", "(.*.*)*x"])
def test_no_expression_takes_more_than_its_share(pattern: str) -> None:
    # A backtracking engine needs 2^200 steps for these.
    assert not TopicRegex(pattern).matches("a" * 248 + "-")
