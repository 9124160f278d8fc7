"""Apache Kafka's own log in a JVM, told what to do line by line (``KafkaLog.java``)."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers import maven

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

_SOURCE = Path(__file__).with_name("KafkaLog.java")
_NS = 1e-9


class KafkaLog:
    """One log at a time, without a broker around it. PeerUnavailable where Java or Maven is not."""

    def __init__(self) -> None:
        java, jars = maven.find_java(), maven.kafka_jars()
        self._process = subprocess.Popen(
            [java, "-Xmx1g", "-cp", f"{jars}/*", str(_SOURCE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._process:
            self._process.kill()

    def do(self, *words: object) -> tuple[float, list[int]]:
        """Seconds that the step took, and the numbers that it gave."""
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        pipes.stdin.write(" ".join(map(str, words)) + "\n")
        for line in pipes.stdout:
            if line.startswith("="):  # else what Kafka logs
                took, *numbers = line[1:].split()
                return int(took) * _NS, [int(number) for number in numbers]
        raise RuntimeError(f"Apache Kafka's log ended at {words}")
