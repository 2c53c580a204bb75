"""One normalised form for a tag, however it is written (toolcalls.md 1, formats 2 to 9)."""

from __future__ import annotations

import pytest

from ds2d.toolcalls.formats import FORMATS, OPENERS, opened_by
from ds2d.toolcalls.tags import MAX_SHELL, lex, unfinished

NAMESPACE = "ant" + "ml:"


@pytest.mark.parametrize(
    ("shell", "name", "dsml"),
    [
        ("<｜DSML｜tool_calls>", "toolcalls", True),
        ("<|DSML|tool_calls>", "toolcalls", True),
        ("<dsml-tool-calls>", "toolcalls", True),
        ("<｜｜DSML｜｜ calls>", "calls", True),
        ("<DSML tool_calls>", "toolcalls", True),
        ("<DSMLtool_calls>", "toolcalls", True),
        ("<Dsml:Tool_Calls:>", "toolcalls", True),
        ("＜｜DSML｜tool_calls＞", "toolcalls", True),
        ("〈｜DSML｜tool_calls〉", "toolcalls", True),
        ("< | DSML | tool_calls | >", "toolcalls", True),
        ("<tool_calls>", "toolcalls", False),
        (f"<{NAMESPACE}function_calls>", "functioncalls", False),
        ("<｜tool▁calls▁begin｜>", "toolcallsbegin", False),
        ("<|tool_calls_begin|>", "toolcallsbegin", False),
        ("<br>", "br", False),
    ],
)
def test_names(shell: str, name: str, dsml: bool) -> None:
    found = lex(shell + "x", 0)
    assert found is not None
    assert (found.name, found.dsml, found.closing, found.end) == (name, dsml, False, len(shell))
    closing = lex(shell[0] + "/" + shell[1:], 0)
    assert closing is not None
    assert closing.closing
    assert closing.closes(found)


@pytest.mark.parametrize(
    "shell",
    [
        '<invoke name="get_time" id="1">',
        "<invoke name='get_time' id='1'>",
        "<invoke name=“get_time” id=“1”>",
        "<invoke name=「get_time」 id=「1」>",
        "<invoke name=get_time id=1>",
        '<invoke\n  name = "get_time"\n  id="1"\n>',
        '<｜DSML｜ invoke name="get_time" id="1"｜>',
        '<invoke name="get_time” id="1">',
        '<invoke name＝"get_time" id="1"/>',
    ],
)
def test_attributes(shell: str) -> None:
    found = lex(shell, 0)
    assert found is not None
    assert (found.name, found.attributes) == ("invoke", {"name": "get_time", "id": "1"})
    assert found.empty == shell.endswith("/>")


@pytest.mark.parametrize(
    "text",
    [
        "<",
        "<>",
        "< >",
        "<1 + 2",
        "<a <b>",
        "<a, b>",
        "<function=x>",
        '<x y="1" z>',
        "<!-- a -->",
        "<![CDATA[",
        "<" + "a" * 99 + ">",
    ],
)
def test_what_is_no_tag(text: str) -> None:
    assert lex(text, 0) is None


@pytest.mark.parametrize(
    "shell",
    [
        '<｜DSML｜ invoke name="get_weather">',
        "<tool_call>",
        "<dsml-tool-calls>",
        "<｜tool▁calls▁begin｜>",
        "＜｜｜DSML｜｜ calls＞",
        f'<{NAMESPACE}invoke name="x">',
        "< | DSML | tool_calls >",
    ],
)
def test_every_beginning_of_an_opener_may_become_one(shell: str) -> None:
    for end in range(1, len(shell)):
        assert unfinished(shell[:end], 0, OPENERS), shell[:end]
    assert not unfinished(shell, 0, OPENERS)


@pytest.mark.parametrize(
    "text",
    ["<=", "<1", "< b and", "<div class", "<div/", "<tool_calls are very nice to have", "<a" + "b" * 20, "<<", "<x>", "<, "],
)
def test_other_beginnings_are_not_waited_for(text: str) -> None:
    assert not unfinished(text, 0, OPENERS)


def test_nothing_is_waited_for_longer_than_a_shell() -> None:
    assert not unfinished('<invoke name="' + "x" * MAX_SHELL, 0, OPENERS)


def test_each_format_of_the_contract_has_one_entry() -> None:
    assert len(FORMATS) == 10
    assert len({entry.name for entry in FORMATS}) == 10


@pytest.mark.parametrize(
    ("shell", "name", "drops"),
    [
        ("<｜DSML｜function_calls>", "deepseek_v32", False),
        ("<｜DSML｜tool_calls>", "deepseek_v4", True),
        ("<｜DSML｜ calls>", "deepseek_v41", True),
        ("<|DSML|tool_calls>", "dsml_drifted", False),
        ('<｜DSML｜invoke name="x">', "dsml_drifted", False),
        ("<｜tool▁calls▁begin｜>", "deepseek_v3", False),
        ("<tool_call>", "hermes", False),
        ("<tool_calls>", "xml", False),
        ('<invoke name="x">', "xml", False),
    ],
)
def test_which_format_an_opener_belongs_to(shell: str, name: str, drops: bool) -> None:
    found = lex(shell, 0)
    assert found is not None
    entry = opened_by(found)
    assert entry is not None
    assert (entry.name, entry.drops_text_after) == (name, drops)


@pytest.mark.parametrize(
    "shell", ["<tool_calls_extra>", "<calls>", "<tool>", "<parameter>", "</tool_calls>", "<toolbox>", "<tools>"]
)
def test_near_misses_open_nothing(shell: str) -> None:
    found = lex(shell, 0)
    assert found is not None
    assert opened_by(found) is None
