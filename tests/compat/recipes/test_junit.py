"""JUnit: Kafka's Java client in a Maven project."""

from __future__ import annotations

import pytest

from tests.compat.recipes.programs import KBROKER, run
from tests.compat.recipes.readme import put_file
from tests.peers.maven import KAFKA_VERSION, find_java, find_maven
from tests.peers.require import PeerUnavailable, skip_or_fail

pytestmark = pytest.mark.timeout(300)

POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>example</groupId>
  <artifactId>orders</artifactId>
  <version>1</version>
  <properties>
    <maven.compiler.source>17</maven.compiler.source>
    <maven.compiler.target>17</maven.compiler.target>
    <project.build.sourceEncoding>UTF-8</project.build.sourceEncoding>
  </properties>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-clients</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.junit.jupiter</groupId>
      <artifactId>junit-jupiter</artifactId>
      <version>5.11.4</version>
      <scope>test</scope>
    </dependency>
  </dependencies>
  <build>
    <plugins>
      <plugin>
        <artifactId>maven-surefire-plugin</artifactId>
        <version>3.5.2</version>
      </plugin>
    </plugins>
  </build>
</project>
"""
CANNOT_FETCH = ("Could not resolve", "could not be resolved", "Could not transfer artifact")


def test_junit(tmp_path):
    try:
        find_java()
        maven = find_maven()
    except PeerUnavailable as missing:
        skip_or_fail(missing)
    (tmp_path / "pom.xml").write_text(POM)
    put_file("JUnit", "java", tmp_path)
    done = run([*KBROKER, "exec", "--", maven, "-B", "-ntp", "test"], tmp_path)
    if done.returncode != 0 and any(text in done.stdout for text in CANNOT_FETCH):
        tail = " | ".join(line for line in done.stdout.splitlines() if "ERROR" in line)
        skip_or_fail(PeerUnavailable("maven", tail[:500]))
    assert done.returncode == 0, done.stdout
    assert "Tests run: 1, Failures: 0, Errors: 0, Skipped: 0" in done.stdout
