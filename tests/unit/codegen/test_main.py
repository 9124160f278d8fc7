"""`python -m codegen`: writes, compares, deletes strays; and the committed code is up to date."""

import shutil

import pytest

from codegen.__main__ import SCHEMAS, TARGET, main
from codegen.render import CodegenError, render_all


@pytest.fixture(scope="module")
def small_schemas(tmp_path_factory):
    """A few real schemas, so that a run takes no time."""
    folder = tmp_path_factory.mktemp("schemas")
    for path in (
        "errors.json",
        "api/HeartbeatRequest.json",
        "api/HeartbeatResponse.json",
        "api/LeaderAndIsrRequest.json",
        "api/LeaderAndIsrResponse.json",
        "api/RequestHeader.json",
        "internal_records/group-coordinator/OffsetCommitKey.json",
        "internal_records/group-coordinator/OffsetCommitValue.json",
    ):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SCHEMAS / path, folder / path)
    return folder


def run(schemas, target, *options):
    return main(["--schemas", str(schemas), "--target", str(target), *options])


def test_committed_code_is_up_to_date(capsys):
    assert main(["--check"]) == 0, capsys.readouterr().out


def test_all_is_written_and_then_nothing(small_schemas, tmp_path, capsys):
    assert run(small_schemas, tmp_path) == 0
    written = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py")}
    assert written == {
        "api_keys.py",
        "error_codes.py",
        "registry.py",
        "internal_records/registry.py",
        "messages/heartbeat_request.py",
        "messages/heartbeat_response.py",
        "messages/request_header.py",
        "internal_records/offset_commit_key.py",
        "internal_records/offset_commit_value.py",
    }
    assert capsys.readouterr().out == "9 files, 9 changed\n"
    assert "RESERVED_KEYS: Final = frozenset({4})" in (tmp_path / "registry.py").read_text()
    assert run(small_schemas, tmp_path) == 0
    assert capsys.readouterr().out == "9 files, 0 changed\n"
    assert run(small_schemas, tmp_path, "--check") == 0


def test_check_prints_the_difference_and_fails(small_schemas, tmp_path, capsys):
    run(small_schemas, tmp_path)
    path = tmp_path / "messages/heartbeat_request.py"
    text = path.read_text()
    path.write_text(text.replace("API_KEY: Final = 12", "API_KEY: Final = 13"))
    (tmp_path / "api_keys.py").unlink()
    (tmp_path / "messages/gone_request.py").write_text("")
    capsys.readouterr()
    assert run(small_schemas, tmp_path, "--check") == 1
    out, err = capsys.readouterr()
    assert "-API_KEY: Final = 13\n+API_KEY: Final = 12\n" in out
    assert "+    HEARTBEAT = 12\n" in out
    assert "stray file: messages/gone_request.py" in out
    assert "run `python -m codegen`" in err
    assert path.read_text() != text


def test_strays_are_deleted(small_schemas, tmp_path):
    run(small_schemas, tmp_path)
    stray = tmp_path / "messages/gone_request.py"
    stray.write_text("")
    package = tmp_path / "messages/__init__.py"
    package.write_text("")
    run(small_schemas, tmp_path)
    assert not stray.exists()
    assert package.exists()


def test_only_our_folders_are_touched():
    rendered = render_all(SCHEMAS)
    for name in rendered:
        assert name.count("/") <= 1
        assert (TARGET / name).is_file()


def change(small_schemas, tmp_path, name, old, new):
    folder = tmp_path / "changed"
    shutil.copytree(small_schemas, folder)
    path = folder / name
    path.write_text(path.read_text().replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("name", "old", "new", "reason"),
    [
        ("api/HeartbeatResponse.json", '"0-4"', '"0-5"', "differ in versions"),
        ("api/HeartbeatResponse.json", '"apiKey": 12', '"apiKey": 13', "no key or no response"),
        (
            "internal_records/group-coordinator/OffsetCommitValue.json",
            '"apiKey": 1',
            '"apiKey": 2',
            "record types of keys and values differ",
        ),
    ],
)
def test_schemas_that_contradict_each_other(small_schemas, tmp_path, name, old, new, reason):
    folder = change(small_schemas, tmp_path, name, old, new)
    with pytest.raises(CodegenError, match=reason):
        render_all(folder)
