"""The options of ``kbroker serve``, read with and without the parser."""

import argparse
import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kbroker.broker import trace
from kbroker.cli import serve, serving
from kbroker.cli.main import main
from tests.sizes import size

OPTIONS = ("--host", "--port", "--advertise", "--data-dir", "--memory", "--set", "--profile")
OPTIONS += ("--stop-with-stdin",)
ODD = ("--trace", "--data-d", "--port=1", "--help", "--", "-x", "file", "")
VALUES = ("0", "9092", "1_0", " 7", "+7", "\u0661", "localhost:9", "a=b", "=", "x y", "prod", "-1")


def parsed(words: list[str]) -> dict[str, object] | None:
    """None where the parser refuses them, or prints its help."""
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    try:
        return vars(parser.parse_args(words))
    except SystemExit:
        return None


def test_the_usual_options_need_no_parser() -> None:
    words = ["--data-dir", "d", "--port", "19092", "--host", "::", "--set", "a=b"]
    words += ["--advertise", "h:1", "--set", "c=d"]
    quick = serve.quick_options(words)
    assert quick is not None
    assert vars(quick) == parsed(words)
    assert serve.quick_options([]) is not None
    assert serve.quick_options(["--memory", "--port", "0"]) is not None


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@settings(max_examples=size(ci=300, full=20_000), deadline=None)
@given(st.lists(st.sampled_from(OPTIONS + ODD + VALUES), max_size=8))
def test_what_is_read_without_the_parser_is_what_it_reads(words: list[str]) -> None:
    quick = serve.quick_options(words)
    if quick is not None:
        assert vars(quick) == parsed(words)


def test_serving_does_not_import_the_parser() -> None:
    program = "import sys, kbroker.cli.main, kbroker.cli.serve, kbroker.cli.serving\n"
    program += "assert 'argparse' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], timeout=50, check=True)


@pytest.mark.parametrize("bad", ["listeners=SSL://:1", "node.id=x"])
def test_a_refusal_is_said_as_the_log_says_things(bad: str) -> None:
    said = {}
    for style in ("text", "json"):
        words = ["serve", "--memory", "--log-format", style, "--set", bad]
        program = f"import sys; from kbroker.cli.main import main; sys.exit(main({words!r}))"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False
        )
        assert (done.returncode, done.stdout) == (2, "")
        (said[style],) = done.stderr.splitlines()
    assert said["text"].startswith("kbroker: ")
    assert json.loads(said["json"])["message"] == said["text"]


@pytest.mark.parametrize(
    ("words", "style"),
    [([], "text"), (["--log-format", "json"], "json"), (["--trace-format", "json"], "json")],
)
def test_the_trace_is_written_as_the_log_is(words: list[str], style: str) -> None:
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    tracer = serve.make_tracer(parser.parse_args(["--trace", *words]))
    assert tracer._format is (trace._as_json if style == "json" else trace._as_text)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--set", "listeners=foo"], "Invalid value foo for configuration listeners"),
        (["--advertise", "foo"], "--advertise: 'foo' is not HOST:PORT"),
        (["--api-versions", "1.0"], "cannot start: kbroker.api.versions: '1.0' is neither"),
        (["no-such-file"], "no-such-file"),
    ],
)
def test_what_cannot_be_meant_is_one_line(words: list[str], told: str, capsys, monkeypatch) -> None:
    """Before anything is touched."""
    monkeypatch.delattr(serving, "serve")
    assert main(["serve", "--memory", *words]) == serve.EXIT_USAGE
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kbroker: ")
    assert told in line


def test_the_version_as_json(capsys) -> None:
    assert main(["version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out).keys() == {"kbroker", "kafka", "python"}
