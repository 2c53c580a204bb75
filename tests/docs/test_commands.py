"""Every command of the manual, run as it is printed; what needs more than ds2d is marked, and counted here."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import pytest

from ds2d.cli.tree import commands
from ds2d.web.manual import pages
from tests.docs.running import Reader, blocks, check_config, inline_commands

DOCUMENTS = {name: pages.ROOT / pages.ELSEWHERE.get(name, f"docs/{name}.md") for name in pages.names()}
TYPED = [
    name
    for name, path in DOCUMENTS.items()
    if "zh-CN" not in name and any(block.language in ("sh", "python") and not block.needs for block in blocks(path))
]
"""Pages with something to run; the blocks of the Chinese ones are those of the English ones (test_chinese.py)."""

NOT_RUN = {
    "a GPU": 2, "a bundle": 1, "a clone": 3, "root": 6, "pipx": 2, "a newer version": 1,
    "Claude Code": 3, "Codex": 1, "Gemini CLI": 1, "opencode": 1, "openai SDK": 1, "Open WebUI": 1, "aider": 1, "Qwen Code": 1,
}  # fmt: skip
"""How many blocks are marked with which need. A new one is a decision."""


@pytest.mark.parametrize("name", TYPED)
def test_what_a_page_says_works(name: str, tmp_path: Path) -> None:
    with ExitStack() as stack:
        reader = Reader(tmp_path, stack)
        found = [block for block in blocks(DOCUMENTS[name]) if not block.needs]
        if not any(block.text.strip() == "ds2d serve" for block in found):
            reader.begin()
        for block in found:
            reader.read(block)


def test_what_does_not_run_is_marked_and_counted() -> None:
    assert Counter(block.needs for path in DOCUMENTS.values() for block in blocks(path) if block.needs) == NOT_RUN


def test_no_command_hides_in_a_block_of_text() -> None:
    """But for the page of commands, which is made of what they say of themselves."""
    documents = [path for name, path in DOCUMENTS.items() if name != "commands"]
    texts = [line for path in documents for block in blocks(path) if block.language == "text" for line in block.text.splitlines()]
    assert [line for line in texts if re.match(r"[$#] [a-z]+ |(ds2d|curl|systemctl|pip|scripts/)\b", line)] == []


@pytest.mark.parametrize("name", [name for name, path in DOCUMENTS.items() if any(b.language == "json" for b in blocks(path))])
def test_every_config_in_a_page_is_sound(name: str, tmp_path: Path) -> None:
    for block in blocks(DOCUMENTS[name]):
        if block.language == "json":
            assert check_config(tmp_path, block.text) == ""


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_command_that_a_sentence_names_is_there(name: str) -> None:
    known = {command.words: command for command in commands()}
    for words in inline_commands(DOCUMENTS[name]):
        verb = next((tuple(words[:length]) for length in (2, 1) if tuple(words[:length]) in known), None)
        assert verb or words[0] in ("COMMAND", "--help"), words
        flags = {flag for option in known[verb].options for flag in option.flags} if verb else set()
        assert {word for word in words if word.startswith("--")} <= flags | {"--help"}, words
