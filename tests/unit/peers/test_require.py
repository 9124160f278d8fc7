"""A missing tool skips, unless the environment requires it."""

from __future__ import annotations

import pytest

from tests.peers import maven
from tests.peers.require import PeerUnavailable, required_tools, skip_or_fail


def test_a_missing_tool_skips_with_its_name_and_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("KBROKER_REQUIRE", raising=False)

    with pytest.raises(pytest.skip.Exception, match="needs java: no `java` on PATH"):
        skip_or_fail(PeerUnavailable("java", "no `java` on PATH"))


def test_a_required_tool_that_is_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KBROKER_REQUIRE", "java, Maven")

    assert required_tools() == {"java", "maven"}
    with pytest.raises(pytest.fail.Exception, match="asks for maven, but it is offline"):
        skip_or_fail(PeerUnavailable("maven", "it is offline"))


def test_a_machine_without_java_or_maven_is_told_apart(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(PeerUnavailable) as no_java:
        maven.find_java()
    with pytest.raises(PeerUnavailable) as no_maven:
        maven.find_maven()

    assert (no_java.value.tool, no_maven.value.tool) == ("java", "maven")


def test_the_pom_names_every_artifact() -> None:
    text = maven.pom(maven.KAFKA_ARTIFACTS)

    for group, artifact, version in maven.KAFKA_ARTIFACTS:
        assert f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId>" in text
        assert f"<version>{version}</version>" in text
