"""Metrics as Prometheus' own parsers read them: its text format, which the exporter takes, and OpenMetrics."""

import datetime as dt
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from infer.output.metrics import Metrics
from tests.infer.runs import TINY, score
from tests.infer.test_metrics import parsed

prometheus: Any = text_string_to_metric_families
openmetrics: Any = openmetrics_parser.text_string_to_metric_families
STARTED = dt.datetime(2026, 11, 28, 2, 0, tzinfo=dt.UTC)


def samples(families: Iterable[Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_both_formats_say_the_same(pristine: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.prom"
    score(pristine, tmp_path / "out", bundle=TINY, metrics=path)
    text = path.read_text()
    found = samples(prometheus(text))
    assert found == samples(openmetrics(text))
    assert sorted(found.values()) == sorted(parsed(text).values())
    assert len(found) > 10
    families = {family.name: family for family in openmetrics(text)}
    assert {family.type for family in families.values()} == {"gauge"}
    units = {name: family.unit for name, family in families.items() if family.unit}
    assert all(name.endswith(f"_{unit}") for name, unit in units.items())
    assert set(units.values()) == {"seconds", "patients", "pictures"}
    assert all(sample.timestamp is None for family in families.values() for sample in family.samples)


def test_odd_values_survive() -> None:
    odd = 'a"b\\c\nd'
    lines = [line for family in Metrics(None, STARTED, bundle=odd).families(STARTED, 0) for line in family.lines()]
    text = "\n".join([*lines, "# EOF\n"])
    for read in (prometheus, openmetrics):
        (info,) = [key for key in samples(read(text)) if key[0] == "lympho_build_info"]
        assert dict(info[1])["bundle"] == odd


def test_openmetrics_is_strict() -> None:
    """Else it would pass everything."""
    with pytest.raises(ValueError, match="EOF"):
        list(openmetrics("# TYPE a gauge\na 1\n"))
