"""The importer: source tree, folder of schemas, jars; facts only; what is stale is said."""

import json
import zipfile

import pytest

from codegen import source_json
from codegen.import_schemas import (
    SCHEMAS,
    facts,
    main,
    read_errors_table,
    read_source,
)
from codegen.java_errors import read_errors_java

REQUEST = """
// License text.
{
  "apiKey": 92, "type": "request", "listeners": ["broker"], "name": "SampleRequest",
  /* a note
     over two lines */
  "validVersions": "0-1",  // version 1 adds nothing
  "flexibleVersions": "none",
  "fields": [
    { "name": "Url", "type": "string", "versions": "0+", "default": "http://x, }",
      "about": "Prose with // and \\" in it." },
  ]
}
"""
VALUE = """{ "apiKey": 3, "type": "coordinator-value", "name": "SampleValue",
"validVersions": "0", "flexibleVersions": "0+", "fields": [] }"""
RECORD = VALUE.replace("coordinator-value", "metadata").replace("SampleValue", "SampleRecord")
SNAPSHOT = VALUE.replace("coordinator-value", "data").replace("SampleValue", "SampleSnapshot")
ERRORS_JAVA = """
package org.apache.kafka.common.protocol;
public enum Errors {
    UNKNOWN_SERVER_ERROR(-1, "The server experienced an unexpected error.",
            UnknownServerException::new),
    NONE(0, null, message -> null),
    CORRUPT_MESSAGE(
        2,
        "This message has failed its CRC checksum, " + "or is \\"odd\\".",
            CorruptRecordException::new),
    NOT_COORDINATOR(1, "Wrong.", NotCoordinatorException::new);
    private static final Logger log = LoggerFactory.getLogger(Errors.class);
}
"""


def source_tree(root):
    clients = root / "clients/src/main/resources/common/message"
    group = root / "group-coordinator/src/main/resources/common/message"
    tests = root / "clients/src/test/resources/common/message"
    for folder in (clients, group, tests):
        folder.mkdir(parents=True)
    (clients / "SampleRequest.json").write_text(REQUEST)
    (clients / "README.md").write_text("prose")
    (group / "SampleValue.json").write_text(VALUE)
    (tests / "OnlyForTests.json").write_text(VALUE)
    (root / "gradle.properties").write_text("group=org.apache.kafka\nversion=9.8.7\n")
    java = root / "clients/src/main/java/org/apache/kafka/common"
    (java / "protocol").mkdir(parents=True)
    (java / "errors").mkdir()
    (java / "protocol/Errors.java").write_text(ERRORS_JAVA)
    for child, parent in (
        ("UnknownServerException", "ApiException"),
        ("CorruptRecordException", "RetriableException"),
        ("NotCoordinatorException", "RefreshRetriableException"),
        ("RefreshRetriableException", "RetriableException"),
        ("RetriableException", "ApiException"),
    ):
        text = f"// class Wrong extends Nothing\npublic class {child} extends {parent} {{ }}"
        (java / f"errors/{child}.java").write_text(text)


def run(source, target, capsys):
    status = main([str(source), "--target", str(target)])
    return status, capsys.readouterr()


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_source_tree(tmp_path, capsys):
    source_tree(tmp_path / "kafka")
    status, (out, _) = run(tmp_path / "kafka", tmp_path / "schemas", capsys)
    assert status == 0
    assert files(tmp_path / "schemas") == {
        "README.md",
        "errors.json",
        "api/SampleRequest.json",
        "internal_records/group-coordinator/SampleValue.json",
    }
    assert "Kafka 9.8.7" in (tmp_path / "schemas/README.md").read_text()
    assert "STALE: configs.json" in out
    assert "errors.json is left" not in out
    assert json.loads((tmp_path / "schemas/api/SampleRequest.json").read_text()) == {
        "apiKey": 92,
        "type": "request",
        "listeners": ["broker"],
        "name": "SampleRequest",
        "validVersions": "0-1",
        "flexibleVersions": "none",
        "fields": [{"name": "Url", "type": "string", "versions": "0+", "default": "http://x, }"}],
    }
    assert json.loads((tmp_path / "schemas/errors.json").read_text()) == [
        {"code": -1, "name": "UNKNOWN_SERVER_ERROR", "retriable": False},
        {"code": 0, "name": "NONE", "retriable": False},
        {"code": 1, "name": "NOT_COORDINATOR", "retriable": True},
        {"code": 2, "name": "CORRUPT_MESSAGE", "retriable": True},
    ]


def test_java_errors_alone(tmp_path):
    source_tree(tmp_path)
    common = tmp_path / "clients/src/main/java/org/apache/kafka/common"
    assert [row["code"] for row in read_errors_java(common)] == [-1, 0, 1, 2]


def test_jars(tmp_path, capsys):
    libs = tmp_path / "kafka_2.13-9.8.7/libs"
    libs.mkdir(parents=True)
    for jar, entries in (
        ("kafka-clients-9.8.7.jar", {"common/message/SampleRequest.json": REQUEST, "A.class": ""}),
        ("kafka-group-coordinator-9.8.7.jar", {"common/message/SampleValue.json": VALUE}),
        ("kafka-metadata-9.8.7.jar", {"common/metadata/SampleRecord.json": RECORD}),
        ("kafka-storage-9.8.7.jar", {"message/SampleSnapshot.json": SNAPSHOT}),
        ("kafka-clients-9.8.7-test.jar", {"common/message/Other.json": VALUE}),
        ("jackson-core-2.21.2.jar", {"common/message/Stranger.json": VALUE}),
    ):
        with zipfile.ZipFile(libs / jar, "w") as archive:
            for name, text in entries.items():
                archive.writestr(name, text)
    status, (out, _) = run(libs.parent, tmp_path / "schemas", capsys)
    assert status == 0
    assert files(tmp_path / "schemas") == {
        "README.md",
        "api/SampleRequest.json",
        "internal_records/group-coordinator/SampleValue.json",
        "internal_records/metadata/SampleRecord.json",
        "internal_records/storage/SampleSnapshot.json",
    }
    assert "Kafka 9.8.7" in out
    assert "STALE: errors.json" in out
    assert "STALE: configs.json" in out


def test_a_folder_of_schemas(tmp_path, capsys):
    source = tmp_path / "reference/schemas"
    (source / "clients").mkdir(parents=True)
    (source / "clients/SampleRequest.json").write_text(REQUEST)
    (tmp_path / "reference/errors.md").write_text(
        "| code | name | retriable |\n| --- | --- | --- |\n| 0 | NONE |  |\n| -1 | ODD | yes |\n"
    )
    row = {"name": "a.b", "type": "INT", "default": 1, "validator": "", "imp": "LOW", "cls": "X"}
    (tmp_path / "reference/configs-9.8.7.json").write_text(json.dumps({"topic": [row]}))
    status, (out, _) = run(source, tmp_path / "schemas", capsys)
    assert status == 0
    assert "STALE" not in out
    assert json.loads((tmp_path / "schemas/configs.json").read_text()) == {
        "topic": [{"name": "a.b", "type": "INT", "default": 1, "validator": ""}]
    }
    assert [row["code"] for row in json.loads((tmp_path / "schemas/errors.json").read_text())] == [
        -1,
        0,
    ]


def test_what_vanished_from_the_source_vanishes_here(tmp_path, capsys):
    source_tree(tmp_path / "kafka")
    target = tmp_path / "schemas"
    run(tmp_path / "kafka", target, capsys)
    (target / "api/GoneRequest.json").write_text("{}")
    (target / "configs.json").write_text("kept")
    _, (out, _) = run(tmp_path / "kafka", target, capsys)
    assert "removed api/GoneRequest.json" in out
    assert not (target / "api/GoneRequest.json").exists()
    assert (target / "configs.json").read_text() == "kept"


def test_a_module_that_the_source_does_not_have_stays(tmp_path, capsys):
    source_tree(tmp_path / "kafka")
    target = tmp_path / "schemas"
    other = target / "internal_records/streams/Other.json"
    other.parent.mkdir(parents=True)
    other.write_text("{}")
    _, (out, _) = run(tmp_path / "kafka", target, capsys)
    assert "STALE: internal_records/streams/ is left" in out
    assert other.exists()
    assert "| `internal_records/streams/` | 1 |" in (target / "README.md").read_text()


def test_neither_of_the_three(tmp_path, capsys):
    status, (_, err) = run(tmp_path, tmp_path / "schemas", capsys)
    assert status == 1
    assert "neither a Kafka source tree" in err
    assert not (tmp_path / "schemas").exists()


def test_a_schema_that_breaks_the_language(tmp_path, capsys):
    source_tree(tmp_path / "kafka")
    broken = tmp_path / "kafka/clients/src/main/resources/common/message/BrokenRequest.json"
    broken.write_text(REQUEST.replace('"string"', '"text"'))
    status, (_, err) = run(tmp_path / "kafka", tmp_path / "schemas", capsys)
    assert status == 1
    assert "clients/BrokenRequest.json" in err
    assert "unknown type text" in err
    assert not (tmp_path / "schemas").exists()


def test_an_error_that_was_not_understood(tmp_path, capsys):
    source_tree(tmp_path / "kafka")
    java = tmp_path / "kafka/clients/src/main/java/org/apache/kafka/common/protocol/Errors.java"
    java.write_text(ERRORS_JAVA.replace("NONE(0, null", "NONE(ZERO, null"))
    status, (_, err) = run(tmp_path / "kafka", tmp_path / "schemas", capsys)
    assert status == 1
    assert "no codes [0]" in err
    assert not (tmp_path / "schemas").exists()


def test_comments_inside_strings_are_text():
    assert source_json.parse('{"a": "x // y /* z */", /* c */ "b": [1, 2,], // d\n}') == {
        "a": "x // y /* z */",
        "b": [1, 2],
    }
    assert source_json.parse('["a,]", {"b": "\\\\",},]') == ["a,]", {"b": "\\"}]


@pytest.mark.parametrize("value", [{}, [], {"a": [1, {"b": None}]}, [["x" * 90] * 3, {"k": "ä"}]])
def test_rendered_json_reads_back(value):
    text = source_json.render(value)
    assert json.loads(text) == value
    assert facts({"about": "x", "k": [{"about": 1, "l": 2}]}) == {"k": [{"l": 2}]}


def test_committed_schemas_hold_facts_only():
    for path in SCHEMAS.rglob("*.json"):
        text = path.read_text(encoding="utf-8")
        json.loads(text)
        assert '"about"' not in text
        assert "License" not in text


def test_committed_tables():
    assert len(json.loads((SCHEMAS / "errors.json").read_text())) == 135
    configs = json.loads((SCHEMAS / "configs.json").read_text())
    assert {scope: len(rows) for scope, rows in configs.items()} == {
        "topic": 34,
        "broker": 360,
        "group": 17,
        "client_metrics": 3,
    }


def test_the_committed_schemas_are_a_source_too(tmp_path):
    """What the importer wrote, laid out as a folder of schemas, is read back unchanged."""
    for path in (SCHEMAS / "api").glob("F*.json"):
        target = tmp_path / "clients" / path.name
        target.parent.mkdir(exist_ok=True)
        target.write_text(path.read_text())
    source = read_source(tmp_path)
    for name, text in source.messages["clients"].items():
        assert source_json.render(facts(source_json.parse(text))) + "\n" == text, name


def test_errors_table_ignores_other_lines():
    assert read_errors_table("# Errors\n\n| code | name |\n| 5 | A_B | no |\n") == []
