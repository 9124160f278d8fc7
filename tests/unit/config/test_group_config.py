"""Settings of groups."""

import pytest

from kbroker.config.group_config import share_auto_offset_reset


@pytest.mark.parametrize("value", ["PT1H", "P1D", "p1dt2h3m4.5s", "PT0S", "PT0,25S"])
def test_a_duration_to_start_from(value: str) -> None:
    assert share_auto_offset_reset(f"by_duration:{value}") is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "by_duration",
        *(f"by_duration:{d}" for d in ("", "P", "Pxx", "PT", "-PT1H", "P1W", "1h")),
    ],
)
def test_what_is_none(value: str) -> None:
    problem = share_auto_offset_reset(value)
    assert problem is not None
    assert f"`{value}`" in problem
    assert problem.endswith("'by_duration:<PnDTnHnMn.nS>'.")


@pytest.mark.parametrize("value", ["earliest", "latest"])
def test_ends_of_the_log(value: str) -> None:
    assert share_auto_offset_reset(value) is None
