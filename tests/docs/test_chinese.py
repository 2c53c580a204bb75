"""The Chinese pages say what the English ones say: the same headings in the same order, the same blocks, the same commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAIRS = [("README.md", "README.zh-CN.md"), ("docs/start.md", "docs/start.zh-CN.md")]


def halves(name: str) -> tuple[str, list[str], list[str]]:
    """Prose without blocks, fenced blocks, and indented ones."""
    text = (ROOT / name).read_text()
    fenced = re.findall(r"^```\w*\n.*?^```$", text, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    return prose, fenced, re.findall(r"^    .+$", prose, re.MULTILINE)


@pytest.mark.parametrize(("english", "chinese"), PAIRS)
def test_the_same_headings_blocks_and_commands(english: str, chinese: str) -> None:
    prose, fenced, indented = halves(english)
    prose_zh, fenced_zh, indented_zh = halves(chinese)
    assert fenced_zh == fenced
    assert indented_zh == indented
    assert re.findall(r"^#+ ", prose_zh, re.MULTILINE) == re.findall(r"^#+ ", prose, re.MULTILINE)
    assert set(re.findall(r"`ds2d [^`]+`", prose_zh)) == set(re.findall(r"`ds2d [^`]+`", prose))
    assert len(re.findall(r"^- \*\*", prose_zh, re.MULTILINE)) == len(re.findall(r"^- \*\*", prose, re.MULTILINE))


@pytest.mark.parametrize("name", [chinese for _, chinese in PAIRS])
def test_headings_are_in_chinese_and_links_lead_somewhere(name: str) -> None:
    prose, _, _ = halves(name)
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    assert [heading for heading in headings if not re.search(r"[\u4e00-\u9fff]", heading)] in ([], ["ds2d"])
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        assert ((ROOT / name).parent / target).exists(), target
