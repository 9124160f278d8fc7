"""The log validator beside Apache Kafka's own, batch by batch: same error, or same batch.

The batches are random, well-formed or with a fault or two. Where compressed bytes were damaged only
the verdict is compared: which of two faults is met first depends on how much a decoder reads ahead.
"""

from __future__ import annotations

import asyncio
import inspect
import random
import struct
import subprocess
from pathlib import Path

import pytest

from kbroker.common.offload import InlineOffload
from kbroker.config.topic_config import LogConfig
from kbroker.protocol.errors import KafkaError
from kbroker.record import batch as b
from kbroker.record import compression
from kbroker.record.encoding import encode_record
from kbroker.record.record import iter_records
from kbroker.storage.append_info import AppendOrigin
from kbroker.storage.log_validator import RecordValidationError, validate_records
from tests.peers import maven
from tests.peers.require import PeerUnavailable, skip_or_fail
from tests.sizes import size

NOW = 1_700_000_000_000
INT64_MAX = 2**63 - 1
SOURCE = Path(__file__).with_name("LogValidatorOracle.java")


class Question:
    """A batch, the topic it is produced to, and how exactly the answers must agree."""

    def __init__(self, records: bytes, version: int, properties: dict[str, str], *, damaged: bool):
        self.records = records
        self.version = version
        self.properties = properties
        self.damaged = damaged

    def line(self) -> str:
        get = self.properties.get
        return "|".join(
            (
                str(self.version),
                get("compression.type", "producer"),
                "1" if get("cleanup.policy") == "compact" else "0",
                get("message.timestamp.type", "CreateTime"),
                get("message.timestamp.before.max.ms", str(INT64_MAX)),
                get("message.timestamp.after.max.ms", "3600000"),
                get("max.message.bytes", "1048588"),
                get("segment.bytes", "1073741824"),
                str(NOW),
                self.records.hex(),
            )
        )

    def ask_us(self) -> str:
        """Our answer in the oracle's words."""
        try:
            validated = validate_records(
                memoryview(bytearray(self.records)),
                config=LogConfig.from_properties(self.properties, LogConfig()),
                origin=AppendOrigin.CLIENT,
                now_ms=NOW,
                offload=InlineOffload(),
                allow_zstd=self.version >= 7,
                topic_partition="t-0",
            )
            if inspect.iscoroutine(validated):
                validated = asyncio.run(validated)
        except RecordValidationError as error:
            rows = "".join(f"|{index}:{message}" for index, message in error.record_errors)
            return f"ERR|{int(error.error_code)}|{error.message}{rows}"
        except KafkaError as error:
            return f"ERR|{int(error.error_code)}|{error.message}"
        data = bytes(validated.data)
        return f"OK|{validated.max_timestamp}|{validated.record_count}|{data.hex()}"

    def comparable(self, answer: str) -> object:
        """What of an answer must be the same."""
        fields = answer.split("|")
        if self.damaged:
            return fields[0]
        if fields[0] == "ERR":
            return fields[1:] if "One or more records" in answer else fields[1]
        batch = bytearray.fromhex(fields[3])
        struct.pack_into(">i", batch, b.LEADER_EPOCH_POSITION, 0)
        if self.properties.get("compression.type", "producer") == "producer":
            return fields[1:3], batch
        header = b.RecordBatchHeader(batch)  # other encoders make other bytes of the same records
        names = set(header.__slots__) - {"crc", "size"}
        rows = [(repr(record), record.attributes) for record in iter_records(batch)]
        return fields[1:3], {name: getattr(header, name) for name in names}, rows


def random_bytes(rng: random.Random) -> bytes | None:
    kind = rng.random()
    if kind < 0.1:
        return None
    if kind < 0.9:
        return bytes(rng.choices(b"ABCDE", k=rng.choice((0, 1, 5, 50, 200))))
    return b"z" * rng.choice((1000, 3000))


def random_timestamp(rng: random.Random) -> int:
    if rng.random() < 0.05:
        odd = (-1, 0, 1000, NOW + 7_200_000, -2, INT64_MAX, -(2**63))
        return rng.choice(odd)
    return NOW + rng.randrange(-9, 9)


def random_record_data(rng: random.Random, count: int, base: int) -> bytes:
    odd_deltas = rng.random() < 0.1
    data = bytearray()
    for index in range(count):
        delta = random_timestamp(rng) - base
        data += encode_record(
            timestamp_delta=max(-(2**63), min(INT64_MAX, delta)),
            offset_delta=rng.randrange(5) if odd_deltas else index,
            key=random_bytes(rng),
            value=random_bytes(rng),
            headers=[("h", random_bytes(rng)) for _ in range(rng.choice((0, 0, 0, 1, 3)))],
        )
    return bytes(data)


def damage(rng: random.Random, data: bytes) -> bytes:
    """One of the ways in which bytes go wrong."""
    kind = rng.randrange(3)
    if kind == 0 and data:
        changed = bytearray(data)
        changed[rng.randrange(len(data))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        return bytes(changed)
    if kind == 1 and data:
        return data[: rng.randrange(len(data))]
    return data + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 30)))


def odd_header(rng: random.Random, count: int) -> dict[str, int]:
    """Mostly nothing, else fields of the header that are not as they should be."""
    choices: list[dict[str, int]] = [
        {"max_timestamp": rng.choice((0, NOW, -1, INT64_MAX))},
        {"attributes": rng.choice((8, 16, 32, 64, 128, 512, -0x8000, 5, 7))},
        {"producer_id": 5, "producer_epoch": rng.choice((0, -1)), "base_sequence": 0},
        {"producer_id": rng.choice((0, -2))},
        {"record_count": rng.choice((0, count + 1, count - 1, -1, 2**31 - 1))},
        {"last_offset_delta": rng.choice((0, count, count - 2, -1, 2**31 - 1))},
        {"base_offset": 1},
    ]
    return rng.choice(choices) if rng.random() < 0.4 else {}


def random_question(rng: random.Random) -> Question:
    count = rng.choice((1, 1, 2, 3, 5, 20))
    base = rng.choice((0, INT64_MAX, -(2**63), -5)) if rng.random() < 0.05 else NOW
    data = random_record_data(rng, count, base)
    if rng.random() < 0.2:
        data = damage(rng, data)
    header = {"record_count": count, "max_timestamp": NOW, **odd_header(rng, count)}
    codec = rng.choice((0, 0, 1, 2, 3, 4))
    body = compression.compress(codec, data) if codec else data
    damaged = codec != 0 and rng.random() < 0.2
    if damaged:
        body = damage(rng, body)
    header["attributes"] = header.get("attributes", 0) | codec
    batch = b.assemble_batch(body, base_timestamp=base, **header)
    if rng.random() < 0.05:
        batch[b.MAGIC_POSITION] = rng.choice((0, 1, 3, 255))
    if rng.random() < 0.05:
        lengths = (-1, 0, 13, 14, 30, 48, 49, 200, 2**31 - 1, 2**31 - 12, 2**31 - 13)
        struct.pack_into(">i", batch, b.LENGTH_POSITION, rng.choice(lengths))
    if rng.random() < 0.03:
        batch[b.CRC_POSITION] ^= 1
    if rng.random() < 0.05:
        batch = bytearray(rng.choice((batch + batch, damage(rng, bytes(batch)))))
    codecs = ["producer"] * 6 + ["gzip", "snappy", "lz4", "zstd", "uncompressed"]
    properties = {
        "compression.type": rng.choice(codecs),
        "cleanup.policy": rng.choice(("compact",) + ("delete",) * 9),
        "message.timestamp.type": rng.choice(("LogAppendTime",) + ("CreateTime",) * 4),
        "message.timestamp.before.max.ms": rng.choice((str(INT64_MAX), "3600000", "0")),
        "message.timestamp.after.max.ms": rng.choice((str(INT64_MAX), "3600000", "0")),
    }
    if properties["compression.type"] == "producer":  # sizes after recompression are not Java's
        properties["max.message.bytes"] = rng.choice(("1048588",) * 5 + ("300",))
    return Question(bytes(batch), rng.choice((3, 6, 7, 9, 12)), properties, damaged=damaged)


def ask_kafka(questions: list[Question]) -> list[str]:
    java, jars = maven.find_java(), maven.kafka_jars()
    lines = "".join(question.line() + "\n" for question in questions)
    run = subprocess.run(
        [java, "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", str(SOURCE)],
        input=lines,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if run.returncode:
        raise AssertionError(run.stderr[-2000:])
    return run.stdout.splitlines()


@pytest.mark.timeout(400)
def test_kafkas_log_validator_says_the_same() -> None:
    seed = 20_260_301
    rng = random.Random(seed)
    questions = [random_question(rng) for _ in range(size(ci=2000, full=50_000))]
    try:
        answers = ask_kafka(questions)
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    assert len(answers) == len(questions)
    refused = sum(answer.startswith("ERR") for answer in answers)
    assert len(questions) // 5 < refused < 4 * len(questions) // 5, "both verdicts are tried"
    differing = []
    for question, theirs in zip(questions, answers, strict=True):
        ours = question.ask_us()
        if question.comparable(theirs) != question.comparable(ours):
            differing.append(f"{question.line()}\n  Kafka {theirs}\n  here  {ours}")
    assert not differing, f"{len(differing)} differ:\n" + "\n".join(differing[:5])
