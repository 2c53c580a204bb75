"""The version that documents name is the version."""

import re
from pathlib import Path

from ds2d import __version__

ROOT = Path(__file__).parents[2]


def test_documents_name_this_version() -> None:
    for name in ("docs/start.md", "docs/start.zh-CN.md"):
        assert set(re.findall(r"ds2d_([\d.]+)_", (ROOT / name).read_text())) == {__version__}, name
    assert f"\n## {__version__} " in (ROOT / "CHANGELOG.md").read_text()
