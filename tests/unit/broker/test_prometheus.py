"""The text that Prometheus reads, parsed by prometheus_client's own parsers."""

import gc
import weakref

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse_text

import kbroker
from kbroker.broker.metrics import COUNTER, GAUGE, Family
from kbroker.broker.prometheus import new_renderer

FAMILIES = [
    Family("requests", COUNTER, "Requests").add(7).add(3, topic='a"b\n'),
    Family("size", GAUGE, "Size").add(1.5),
    Family("nothing", GAUGE, "No samples"),
]
OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.mark.parametrize("accept", ["", "text/plain", "*/*", OPENMETRICS])
def test_both_formats(accept: str) -> None:
    body, content_type = new_renderer()(FAMILIES, accept)
    is_openmetrics = accept == OPENMETRICS
    assert content_type.startswith("application/openmetrics-text" if is_openmetrics else "text/")
    parse = parse_openmetrics if is_openmetrics else parse_text
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }
    assert samples["requests_total",] == 7
    assert samples["requests_total", 'a"b\n'] == 3
    assert samples["size",] == 1.5
    assert samples["kbroker_build_info", kbroker.__version__] == 1
    assert not any(name[0].startswith("nothing") for name in samples)


def test_renderers_share_nothing() -> None:
    one, two = new_renderer(), new_renderer()
    one(FAMILIES, "")
    assert b"requests" not in two([], "")[0]


class Page(list[Family]):
    """A list that can be watched."""


def test_nothing_of_a_page_is_kept() -> None:
    render = new_renderer()
    page = Page(FAMILIES)
    watched = weakref.ref(page)
    assert b"requests_total 7.0" in render(page, "")[0]
    del page
    gc.collect()
    assert watched() is None
