"""What the process around a broker sets before the broker is there."""

import sys

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
