"""The codec beside Apache Kafka's own classes: the same bytes written, the same bytes refused."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path
from struct import error as struct_error
from typing import Any

import pytest

from kbroker.protocol.wire import DecodeError
from tests.peers import maven
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size
from tests.unit import reference_codec as reference
from tests.unit.protocol.corruption import corrupted
from tests.unit.protocol.message_values import random_message, read, to_object, write

pytestmark = pytest.mark.timeout(900)  # a JVM that compiles its program first, on a busy machine
SOURCE = Path(__file__).with_name("CodecOracle.java")
NOT_IN_A_BROKER = {"SubscriptionInfoData"}  # Kafka Streams, not among the broker's jars
CASES = [
    (schema, version) for schema in reference.load_all() for version in reference.versions(schema)
]


class Oracle:
    """Apache Kafka's classes in a JVM. Raises PeerUnavailable where Java or the jars are not."""

    def __init__(self) -> None:
        self._java = maven.find_java()
        self._jars = maven.kafka_jars()

    def ask(self, questions: list[tuple[str, int, bytes]]) -> list[str]:
        text = "".join(f"{name} {version} {data.hex()}\n" for name, version, data in questions)
        done = subprocess.run(
            [self._java, "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{self._jars}/*", str(SOURCE)],
            input=text,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def oracle() -> Oracle:
    try:
        return Oracle()
    except PeerUnavailable as missing:
        skip_or_fail(missing)


def ours(schema: dict[str, Any], version: int, data: bytes) -> str:
    """Our answer in the oracle's words."""
    try:
        message, end = read(schema, version, data)
    except (DecodeError, IndexError, struct_error):
        return "refused"
    return f"{len(data) - end} {write(schema, version, message).hex()}"


def test_the_same_bytes(oracle: Oracle) -> None:
    questions = []
    for schema, version in CASES:
        chance = random.Random(f"{schema['name']} {version}")
        samples = [reference.default_struct(schema, schema["fields"], version)]
        samples += [random_message(schema, version, chance) for _ in range(size(ci=3, full=50))]
        for message in samples:
            data = write(schema, version, to_object(schema, message))
            questions.append((schema["name"], version, data))
    absent = set()
    for (name, version, data), answer in zip(questions, oracle.ask(questions), strict=True):
        if answer == "absent":
            absent.add(name)
        else:
            assert answer == f"0 {data.hex()}", f"{name} v{version}"
    assert absent == NOT_IN_A_BROKER


def test_the_same_is_refused(oracle: Oracle) -> None:
    """Of damaged messages the same are refused, and of the others the same is understood."""
    chance = random.Random(17)
    cases = [case for case in CASES if case[0]["name"] not in NOT_IN_A_BROKER]
    questions, answers = [], []
    for number in range(size(ci=30_000, full=1_000_000)):
        schema, version = cases[number % len(cases)]
        sound = reference.encode(schema, version, random_message(schema, version, chance))
        data = bytes(corrupted(sound, chance))
        questions.append((schema["name"], version, data))
        answers.append(ours(schema, version, data))
    theirs = oracle.ask(questions)
    for (name, version, data), mine, other in zip(questions, answers, theirs, strict=True):
        if other.endswith(" -"):
            assert mine.split()[0] == other.split()[0], f"{name} v{version} {data.hex()}"
        else:
            assert mine == other, f"{name} v{version} {data.hex()}"
    assert theirs.count("refused") > len(theirs) // 10
    assert len(theirs) - theirs.count("refused") > len(theirs) // 10
