"""The text of counters, gauges and histograms, read back by prometheus_client's own parser."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from ds2d.core.metrics import Counter, Histogram, Reading, render

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=20)
VALUES = st.floats(0, 1e12) | st.integers(0, 2**53)
BOUNDS = (0, 0.5, 1, 10)


def parsed(*families: Any) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(render(families).decode())}


@given(st.dictionaries(st.tuples(TEXTS, TEXTS), VALUES), TEXTS)
def test_any_labels_and_values_come_back(values: dict[tuple[str, str], float], text: str) -> None:
    counter = Counter("ds2d_things_total", f"What {text} counts", ("a", "b"))
    for labels, value in values.items():
        counter.values[labels] += value
    read = parsed(counter, Reading("ds2d_now", "gauge", "x", ("a", "b"), values.items()))
    for name, kind in (("ds2d_things", "counter"), ("ds2d_now", "gauge")):
        assert read[name].type == kind
        assert {(one.labels["a"], one.labels["b"]): one.value for one in read[name].samples} == values
    assert read["ds2d_things"].documentation.strip() == f"What {text} counts".strip()


@given(st.lists(st.floats(0, 100)))
def test_a_histogram_adds_its_buckets_up(seen: list[float]) -> None:
    histogram = Histogram("ds2d_took_seconds", "x", BOUNDS, ("a",))
    for value in seen:
        histogram.observe(("one",), value)
    samples = {(one.name, one.labels.get("le")): one.value for one in parsed(histogram)["ds2d_took_seconds"].samples}
    if not seen:
        assert samples == {}
        return
    for bound in BOUNDS:
        assert samples["ds2d_took_seconds_bucket", str(bound)] == sum(value <= bound for value in seen)
    assert samples["ds2d_took_seconds_bucket", "+Inf"] == samples["ds2d_took_seconds_count", None] == len(seen)
    assert samples["ds2d_took_seconds_sum", None] == sum(seen)


def test_a_value_on_a_bound_belongs_below_it() -> None:
    assert bisect_left(BOUNDS, 0) == 0
    histogram = Histogram("ds2d_took_seconds", "x", BOUNDS)
    histogram.observe((), 1)
    assert histogram.series[()] == [0, 0, 1, 0, 0, 1]


def test_families_without_labels_are_there_from_the_start_and_series_can_go() -> None:
    assert parsed(Counter("ds2d_things_total", "x"))["ds2d_things"].samples[0].value == 0
    counter = Counter("ds2d_things_total", "x", ("a",))
    counter.values["kept",] += 1
    counter.values["gone",] += 1
    counter.keep(lambda labels: labels == ("kept",))
    assert list(counter.values) == [("kept",)]
