"""The checkpoint of all logs: lines there and back, and files that are no good."""

import pytest

from kbroker.common.memory_files import MemoryFileSystem
from kbroker.storage.log_state import (
    LogState,
    encode_log_states,
    is_settled,
    read_log_states,
)

STATE = LogState(
    *("topic.of-words", 7, bytes(range(16))),
    *(3, 90, 80, 85, 5, 2, 1, 0, 50, 4, 9000, 3000, 1_700_000_000_000, 640, 1, 17, 18, 900),
)


def stored(data: bytes) -> tuple[str, dict[str, str]]:
    files = MemoryFileSystem()
    files.make_directory("/data")
    files.open("/data/checkpoint", create=True).write_at(data, 0)
    memory_id, rows = read_log_states(files, "/data/checkpoint")
    return memory_id, dict(rows)


def test_a_line_says_everything() -> None:
    assert LogState.parse(STATE.row()) == STATE


def test_the_file_is_found_again_by_directory_name() -> None:
    other = STATE._replace(topic="other", partition=0)
    data = encode_log_states("boot", [STATE.row(), other.row()])
    memory_id, rows = stored(data)
    assert memory_id == "boot"
    assert rows == {"topic.of-words-7": STATE.row(), "other-0": other.row()}
    assert stored(encode_log_states("", [])) == ("", {})


def test_a_file_that_is_cut_anywhere_says_nothing() -> None:
    data = encode_log_states("boot", [STATE.row()])
    for size in range(len(data)):
        assert stored(data[:size]) == ("", {})
    assert stored(b"\xff" + data) == ("", {})
    assert stored(data.replace(b"1\n", b"2\n", 1)) == ("", {})
    assert read_log_states(MemoryFileSystem(), "/missing") == ("", {})


@pytest.mark.parametrize("row", ["", "topic 1", STATE.row() + " 1", STATE.row() + "x"])
def test_a_line_of_another_form_is_refused(row: str) -> None:
    with pytest.raises(ValueError, match=r"fields|invalid|literal|unpack"):
        LogState.parse(row)


def test_a_change_just_now_may_hide_the_next_one() -> None:
    now_ms = 1_700_000_000_000
    assert not is_settled(now_ms * 1_000_000, now_ms)
    assert not is_settled((now_ms - 49) * 1_000_000, now_ms)
    assert is_settled((now_ms - 50) * 1_000_000, now_ms)
    assert is_settled(17, now_ms)
