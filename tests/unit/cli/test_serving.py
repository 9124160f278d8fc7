"""What the process around a broker sets before the broker is there."""

import os
import sys

import anyio
import pytest

from kbroker.broker.broker_server import StartError
from kbroker.cli import serving
from kbroker.config.broker_config import BrokerConfig


@pytest.fixture
def own_switch_interval():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("own_switch_interval")
def test_a_thread_gives_way_to_the_loop_within_a_fraction_of_a_millisecond(monkeypatch, capsys):
    seen = []

    def run(*args, **options):
        seen.append(sys.getswitchinterval())
        raise StartError("no more of it")

    monkeypatch.setattr(serving.anyio, "run", run)
    assert serving.serve(BrokerConfig.from_properties({}), memory=True) == 1
    assert "no more of it" in capsys.readouterr().err
    assert seen == [pytest.approx(0.0002)]


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.anyio
async def test_the_end_of_standard_input_ends_the_broker(monkeypatch) -> None:
    reader, writer = os.pipe()
    try:
        monkeypatch.setattr(serving, "_STDIN", reader)
        stop = anyio.Event()
        serving._watch_input(stop)
        os.write(writer, b"nobody reads this")
        await anyio.wait_all_tasks_blocked()
        assert not stop.is_set()
        os.close(writer)
        with anyio.fail_after(30):
            await stop.wait()
    finally:
        os.close(reader)


@pytest.mark.skipif(os.name != "posix", reason="pipes as POSIX has them")
@pytest.mark.anyio
async def test_standard_input_that_cannot_be_watched_is_told(monkeypatch, tmp_path) -> None:
    with open(tmp_path / "file", "wb") as file:
        monkeypatch.setattr(serving, "_STDIN", file.fileno())
        with pytest.raises(StartError, match="--stop-with-stdin"):
            serving._watch_input(anyio.Event())


@pytest.fixture
def anyio_backend() -> str:
    """What serves is asyncio's loop."""
    return "asyncio"
