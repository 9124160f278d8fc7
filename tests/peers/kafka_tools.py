"""Apache Kafka's own command-line tools, which drive the Java clients against any broker."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from tests.peers import maven

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOPICS = "org.apache.kafka.tools.TopicCommand"
CONFIGS = "kafka.admin.ConfigCommand"
TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
CONSOLE_PRODUCER = "org.apache.kafka.tools.ConsoleProducer"
CONSOLE_CONSUMER = "org.apache.kafka.tools.consumer.ConsoleConsumer"
PRODUCER_PERFORMANCE = "org.apache.kafka.tools.ProducerPerformance"
CONSUMER_PERFORMANCE = "org.apache.kafka.tools.ConsumerPerformance"
DUMP_LOG = "org.apache.kafka.tools.DumpLogSegments"
STORAGE = "kafka.tools.StorageTool"
BROKER = "kafka.Kafka"

# One short-lived JVM after the other on few cores: no second compiler, a small heap.
SHORT_LIVED = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

LOGGING = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.target = SYSTEM_ERR
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
"""


class ToolFailed(Exception):
    """A tool ended with another status than 0; the message carries what it printed."""


class KafkaTools:
    """Runs the tools. Raises PeerUnavailable where Java or the jars cannot be had."""

    def __init__(self, jars: Callable[[], Path] = maven.kafka_jars) -> None:
        self._java = maven.find_java()
        self._jars = jars()
        self._logging = maven.cache_folder() / "log4j2-to-stderr.properties"
        if not self._logging.exists() or self._logging.read_text() != LOGGING:
            self._logging.write_text(LOGGING)

    def command(self, main_class: str, *arguments: str, flags: tuple[str, ...]) -> list[str]:
        """The command line of one of Kafka's main classes."""
        logging = f"-Dlog4j2.configurationFile={self._logging}"
        return [self._java, *flags, logging, "-cp", f"{self._jars}/*", main_class, *arguments]

    def run(
        self,
        main_class: str,
        *arguments: str,
        text: str | None = None,
        timeout_s: float = 120,
        flags: tuple[str, ...] = SHORT_LIVED,
    ) -> str:
        """Runs a tool with ``text`` on its standard input; returns its standard output."""
        return self.run_with_errors(
            main_class, *arguments, text=text, timeout_s=timeout_s, flags=flags
        )[0]

    def run_with_errors(
        self,
        main_class: str,
        *arguments: str,
        text: str | None = None,
        timeout_s: float = 120,
        flags: tuple[str, ...] = SHORT_LIVED,
    ) -> tuple[str, str]:
        """As ``run``; returns standard output and standard error."""
        done = subprocess.run(
            self.command(main_class, *arguments, flags=flags),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if done.returncode != 0:
            raise ToolFailed(
                f"{main_class} {' '.join(arguments)}: status {done.returncode}\n"
                f"{done.stdout}\n{done.stderr}"
            )
        return done.stdout, done.stderr
