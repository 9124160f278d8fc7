"""Fetches Apache Kafka's jars from Maven Central into a cache folder outside the repository.

The folder is ``$KBROKER_TEST_PEERS``, else ``$XDG_CACHE_HOME/kbroker-test-peers``, else
``~/.cache/kbroker-test-peers``. It is filled once, under a temporary name, and renamed when
complete: two test runs at the same time cannot see half of it.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.peers.require import PeerUnavailable

KAFKA_VERSION = "4.3.1"
MINIMUM_JAVA = 17
DOWNLOAD_TIMEOUT_S = 600

# kafka-tools holds producer-perf-test and friends; the slf4j binding makes a broken start readable.
_LOG4J = ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.4")
KAFKA_ARTIFACTS = (
    ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
    ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
    _LOG4J,
)
STREAMS_ARTIFACTS = (("org.apache.kafka", "kafka-streams", KAFKA_VERSION), _LOG4J)


@dataclass(frozen=True)
class JavaTools:
    """Paths of the executables, already checked to run."""

    java: str
    maven: str


def cache_folder() -> Path:
    """Where downloaded peers are kept between runs."""
    named = os.environ.get("KBROKER_TEST_PEERS")
    if named:
        return Path(named)
    cache_home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache_home) / "kbroker-test-peers"


def find_java() -> str:
    """The java executable; raises PeerUnavailable when there is none or it is too old."""
    home = os.environ.get("JAVA_HOME")
    in_home = shutil.which(str(Path(home) / "bin" / "java")) if home else None
    java = in_home or shutil.which("java")
    if java is None:
        raise PeerUnavailable("java", "no `java` on PATH and no JAVA_HOME")
    output = subprocess.run(
        [java, "-version"], capture_output=True, text=True, timeout=60, check=False
    )
    found = re.search(r'version "(\d+)', output.stderr + output.stdout)
    if output.returncode != 0 or found is None:
        raise PeerUnavailable("java", f"`{java} -version` does not run: {output.stderr.strip()}")
    if int(found[1]) < MINIMUM_JAVA:
        raise PeerUnavailable("java", f"Java {found[1]} found, {MINIMUM_JAVA} or newer needed")
    return java


def find_maven() -> str:
    """The mvn executable; raises PeerUnavailable when there is none."""
    maven = shutil.which("mvn")
    if maven is None:
        raise PeerUnavailable("maven", "no `mvn` on PATH")
    return maven


def pom(artifacts: tuple[tuple[str, str, str], ...]) -> str:
    """The text of a pom that depends on the given (group, artifact, version) triples."""
    dependencies = "".join(
        f"<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>"
        f"<version>{version}</version></dependency>"
        for group, artifact, version in artifacts
    )
    return (
        '<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>'
        "<groupId>kbroker.tests</groupId><artifactId>peer</artifactId><version>1</version>"
        f"<packaging>pom</packaging><dependencies>{dependencies}</dependencies></project>"
    )


def kafka_jars() -> Path:
    """The folder with the jars of Apache Kafka's broker and tools; see ``_jars``."""
    return _jars("apache-kafka", KAFKA_ARTIFACTS)


def streams_jars() -> Path:
    """The folder with the jars of Kafka Streams; see ``_jars``."""
    return _jars("kafka-streams", STREAMS_ARTIFACTS)


def _jars(name: str, artifacts: tuple[tuple[str, str, str], ...]) -> Path:
    """The folder with these artifacts and what they need, fetched when absent.

    Raises PeerUnavailable("java" | "maven", ...) when a tool is missing or the download fails.
    """
    find_java()
    complete = cache_folder() / f"{name}-{KAFKA_VERSION}"
    if complete.is_dir():
        return complete
    maven = find_maven()
    complete.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{complete.name}.part-", dir=complete.parent))
    try:
        _copy_dependencies(maven, pom(artifacts), partial)
        with contextlib.suppress(FileExistsError, OSError):
            partial.rename(complete)  # an error here means that another run was first
        if not complete.is_dir():
            raise PeerUnavailable("maven", f"cannot create {complete}")
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return complete


def _copy_dependencies(maven: str, pom_text: str, target: Path) -> None:
    """Runs Maven in a scratch folder so that every runtime jar of the pom lands in ``target``."""
    with tempfile.TemporaryDirectory(prefix="kbroker-pom-") as scratch:
        (Path(scratch) / "pom.xml").write_text(pom_text)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
        try:
            run = subprocess.run(
                [maven, "-q", "-B", goal, "-DincludeScope=runtime", f"-DoutputDirectory={target}"],
                cwd=scratch,
                capture_output=True,
                text=True,
                timeout=DOWNLOAD_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise PeerUnavailable("maven", f"no answer within {DOWNLOAD_TIMEOUT_S} s") from error
    if run.returncode != 0 or not any(target.glob("*.jar")):
        tail = " | ".join((run.stdout + run.stderr).strip().splitlines()[-3:])
        raise PeerUnavailable("maven", f"could not fetch Apache Kafka {KAFKA_VERSION}: {tail}")
