"""systemd/grafana-dashboard.json and systemd/alerts.yml against a real scrape: every name and label they use is there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.aloud import NOT_TESTED
from tests.functional.harness import config_for, running
from tests.functional.scrape import GAUGES, Page, mixed_run, scrape
from tests.functional.scripted import scripted_upstream

FOLDER = Path(__file__).parents[2] / "systemd"
NAME = re.compile(r"\bds2d_[a-z0-9_]+")
LABELS = re.compile(r"(?:\bby|label_values) ?\(([^()]*)\)|\{([^{}]*)\}")
NOT_OURS = {"instance", "job", "le"}
"""Labels that Prometheus or the format adds."""


def expressions() -> Iterator[str]:
    """Every expression of both files, rules' own names left out."""
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    yield from _inside(json.loads((FOLDER / "grafana-dashboard.json").read_text()))


def _inside(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _inside(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            if name in ("expr", "query") and isinstance(item, str) and item != "prometheus":
                yield item
            else:
                yield from _inside(item)


def labels_in(expression: str) -> set[str]:
    """The labels that it names, in braces and in `by`."""
    found: set[str] = set()
    for listed, matched in LABELS.findall(expression):
        found |= {name.strip() for name in listed.split(",") if "ds2d" not in name and name.strip()}
        found |= {name.strip() for name in re.findall(r"([a-z_]+) ?(?:=~|!~|!=|=)", matched)}
    return found


async def a_page(folder: Path) -> Page:
    async with scripted_upstream() as upstream:
        upstream.gauges = GAUGES
        async with running(folder, config_for(upstream.base_url)) as live:
            await mixed_run(live, upstream)
            return await scrape(live)


async def test_every_name_and_label_that_dashboard_and_rules_use_is_in_a_real_scrape(tmp_path: Path) -> None:
    page = await a_page(tmp_path)
    names = {sample.name for sample in page.samples}
    found = list(expressions())
    assert len(found) > 60
    for expression in found:
        used = set(NAME.findall(expression))
        assert used <= names, expression
        known = {label for sample in page.samples if sample.name in used for label in sample.labels}
        assert labels_in(expression) <= known | NOT_OURS, expression
    shown = {name for expression in found for name in NAME.findall(expression)}
    families = set(page.families)
    assert {"ds2d_turns_total", "ds2d_queue_waiting", "ds2d_breakers", "ds2d_tokens_total"} <= shown
    assert all(family.startswith("ds2d_") for family in families)


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip(NOT_TESTED + "page, dashboard and rules by promtool (Debian: apt install prometheus)")
    return found


async def test_promtool_finds_nothing_to_say_of_the_page(tmp_path: Path, promtool: str) -> None:
    page = await a_page(tmp_path)
    words = [promtool, "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, words, input=page.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_expression_of_the_dashboard_is_one_for_prometheus(tmp_path: Path, promtool: str) -> None:
    """As a rule each, since that is what promtool reads; Grafana's variables are what they are for All."""
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    rules = [
        {"record": f"panel_{panel['id']}_{target['refId']}", "expr": _for_all(target["expr"])}
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(rules) > 50
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", file], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(places) == len(set(places))


def _for_all(expression: str) -> str:
    return re.sub(r"\$\w+", ".*", expression.replace("$__rate_interval", "5m"))
