"""A pytest plugin: a test whose output holds a planted secret fails, whatever else it showed."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import pytest

from tests.planted import found_in, watch

watch()
logging.getLogger("ds2d").setLevel(logging.DEBUG)  # every line that could be written is looked at


TOLD = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, pytest.TestReport]:
    """Look through what was captured."""
    report: pytest.TestReport = yield
    captured = "\n".join(text for _, text in report.sections)
    if report.passed and not item.stash.get(TOLD, False) and (found := found_in(captured)):
        item.stash[TOLD] = True  # the sections stay: once is enough
        report.outcome = "failed"
        report.longrepr = f"a planted secret came out in {report.when}: {', '.join(found)}"
    return report
