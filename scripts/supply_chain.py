"""What we install: no lock with a version from the kept list, and no code that runs at the start of every Python.

Rule: nothing here touches the network; asking the advisory services is scripts/audit.
Surprise: a line of a .pth file in site-packages that begins with `import` is run by every Python of that environment, imported
or not; stolen releases have used that. So every such line is known here by its words, or it is an error.
"""

from __future__ import annotations

import re
import site
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCKS = ROOT / "requirements"
BAD = LOCKS / "bad-versions.txt"

KNOWN_LINES = (
    re.compile(r"import __editable___ds2d_\w+_finder; __editable___ds2d_\w+_finder\.install\(\)"),
    re.compile(r"import os; var = 'SETUPTOOLS_USE_DISTUTILS'; .*__import__\('_distutils_hack'\)\.add_shim\(\);\s*"),
)
"""Ours, made by the editable install, and setuptools' own."""


def locked(lock: Path) -> Iterator[tuple[str, str]]:
    """Names and versions of a lock; a lock of npm's or of comments alone has none."""
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+)", lock.read_text(), re.MULTILINE):
        yield re.sub(r"[-_.]+", "-", name).lower(), version


def bad_versions(text: str) -> Iterator[tuple[str, list[SpecifierSet], str]]:
    """The kept list: name, what of it is bad (any of these), and why."""
    for line in text.splitlines():
        entry, _, why = line.partition("#")
        if entry.strip():
            name, _, versions = entry.strip().partition(" ")
            yield name, [SpecifierSet(one.strip()) for one in versions.split(",")], why.strip()


def bad_in(locks: Iterable[Path], text: str) -> list[str]:
    """What stands in a lock and on the list."""
    kept = list(bad_versions(text))
    return [
        f"{lock.name}: {name} {version} must not be installed: {why}"
        for lock in locks
        for name, version in locked(lock)
        for bad, versions, why in kept
        if name == bad and any(Version(version) in one for one in versions)
    ]


def strange_lines(folders: Iterable[Path]) -> list[str]:
    """Lines of .pth files that are code and that nobody here knows."""
    return [
        f"{path}: runs at every start: {line[:100]}"
        for folder in folders
        for path in sorted(folder.glob("*.pth"))
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith(("import ", "import\t")) and not any(known.fullmatch(line) for known in KNOWN_LINES)
    ]


def main(what: str) -> int:
    """Check the locks, or the environment this runs in."""
    if what == "locks":
        locks = sorted(lock for lock in LOCKS.glob("*.txt") if lock != BAD)
        found, fine = bad_in(locks, BAD.read_text()), f"{sum(len(list(locked(lock))) for lock in locks)} locked, none on the list"
    else:
        found, fine = strange_lines(map(Path, site.getsitepackages())), "no code in .pth files but ours"
    print("\n".join(found) or fine)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
