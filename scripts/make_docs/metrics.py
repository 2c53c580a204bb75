"""docs/metrics.md: what a daemon that has done nothing yet shows at /metrics, and the alert rules."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ds2d.app import Daemon
from ds2d.config.source import Source
from ds2d.config.store import ConfigStore
from ds2d.core.metrics import Family, Histogram, Reading

ROOT = Path(__file__).parents[2]
PROSE = ROOT / "docs" / "parts" / "metrics.md"
ALERTS = ROOT / "systemd" / "alerts.yml"
CONFIG = {"upstreams": [{"name": "demo", "kind": "demo"}], "metrics": {"key_labels": True}}


def page() -> str:
    """The whole page."""
    made = PROSE.read_text().replace("<!-- metrics -->", "\n".join(_metrics()))
    return made.replace("<!-- alerts -->", "\n".join(_alerts()))


def _metrics() -> Iterator[str]:
    yield "| name | type | labels | what |"
    yield "| --- | --- | --- | --- |"
    for family in asyncio.run(_families()):
        kind = family.kind if isinstance(family, Reading) else "histogram" if isinstance(family, Histogram) else "counter"
        labels = ", ".join(f"`{label}`" for label in family.labels)
        yield f"| `{family.name}` | {kind} | {labels} | {family.help} |"


async def _families() -> tuple[Family, ...]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "config.json"
        file.write_text(json.dumps(CONFIG))
        daemon = Daemon(ConfigStore(Source.file(file), keep_history=False))
        await daemon.start(port=0)
        try:
            return daemon.families()
        finally:
            await daemon.stop()


def _alerts() -> Iterator[str]:
    """Name, severity and summary of each rule, read line by line: the file is ours, and YAML would need a package."""
    yield "| alert | severity | says |"
    yield "| --- | --- | --- |"
    for rule in re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.MULTILINE)[1:]:
        severity = re.search(r"severity: (\w+)", rule)
        summary = re.search(r'summary: "?(.+?)"?$', rule, re.MULTILINE)
        assert severity
        assert summary
        said = re.sub(r"\{\{ ?\$labels\.(\w+) ?\}\}", r"`\1`", summary[1])
        said = re.sub(r"\{\{.*?\}\}", "…", said)
        yield f"| `{rule.partition(chr(10))[0]}` | {severity[1]} | {said} |"
