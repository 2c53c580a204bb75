"""Add up what the parts of scripts/test left in a folder, and say it in one last line; exit code 1 if anything failed.

Rule: a part that left nothing behind has failed. NAME.xml is pytest's JUnit report and NAME.code its exit code,
check.counts holds the failed and skipped checks of scripts/check.
"""

import sys
import xml.etree.ElementTree as ET
from pathlib import Path

CHECKS = 9


def counts_of(report: Path) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    suites = list(ET.parse(report).getroot().iter("testsuite"))
    total, failures, errors, skipped = (
        sum(int(suite.get(name, 0)) for suite in suites) for name in ("tests", "failures", "errors", "skipped")
    )
    return total - failures - errors - skipped, failures + errors, skipped


def part_counts(folder: Path) -> dict[str, tuple[int, int, int]]:
    """The parts that ran, with their counts."""
    found = {}
    if (checks := folder / "check.counts").exists():
        failed, skipped = map(int, checks.read_text().split())
        found["check"] = (CHECKS - failed - skipped, failed, skipped)
    for code in sorted(folder.glob("*.code")):
        report = code.with_suffix(".xml")
        passed, failed, skipped = counts_of(report) if report.exists() else (0, 0, 0)
        if int(code.read_text()) and not failed:
            failed = 1  # pytest itself broke, found nothing, or was stopped
        found[code.stem] = (passed, failed, skipped)
    return found


def main(folder: Path) -> int:
    """Print a line a part and the last line."""
    parts = part_counts(folder)
    for name, (passed, failed, skipped) in parts.items():
        print(f"  {name:<14} {passed:5} passed  {failed:3} failed  {skipped:3} skipped")
    passed, failed, skipped = (sum(column) for column in zip(*parts.values(), strict=True)) if parts else (0, 1, 0)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
