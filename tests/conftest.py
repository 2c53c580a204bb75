"""What every test shares: how hypothesis runs, the real model server, the real systemd, and what to say of what did not run."""

from collections import Counter

import pytest
from hypothesis import settings

from tests.aloud import NOT_TESTED

pytest_plugins = ["tests.output", "tests.functional.real_upstream", "tests.functional.booted"]

# A deadline measures the machine, not the code; a failure prints what reproduces it.
settings.register_profile("ds2d", deadline=None, print_blob=True)
settings.load_profile("ds2d")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud which whole parts did not run here."""
    reports = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in reports if NOT_TESTED in str(report.longrepr))
    if reasons:
        terminalreporter.section("NOT TESTED", red=True, bold=True)
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} tests: {reason.removeprefix(NOT_TESTED)}", red=True)
