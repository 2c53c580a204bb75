"""One normalised form for a tag, however it is written (toolcalls.md 1, formats 2 to 9)."""

from __future__ import annotations

import random

import pytest

from ds2d.toolcalls.formats import FORMATS, OPENERS, opened_by
from ds2d.toolcalls.tags import MAX_SHELL, lex, unfinished
from ds2d.toolcalls.value_reader import STRUCTURE

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


@pytest.mark.parametrize("names", [OPENERS, STRUCTURE | {"parameter"}, None], ids=["openers", "structure", "any"])
def test_what_is_no_more_waited_for_never_becomes_a_tag(names: frozenset[str] | None) -> None:
    dice = random.Random(5)
    for _ in range(3000):
        text, given_up, tag = _mangled(dice), "", None
        for end in range(1, len(text) + 1):
            before, tag = tag, lex(text[:end], 0)
            assert before is None or tag == before, text
            if tag is not None:
                assert not given_up or (names is not None and tag.name not in names), (text, given_up)
            elif not unfinished(text[:end], 0, names):
                given_up = given_up or text[:end]
            else:
                assert not given_up, (text, given_up)


def _mangled(dice: random.Random) -> str:
    """A tag of some family with some attributes, and a few letters changed."""
    prefix = dice.choice(
        ["", "｜DSML｜", "｜DSML｜ ", "dsml:", "dml-", "Dsml ", "|", "｜｜DSML｜｜", NAMESPACE, "my_ns:", " ", "｜SML｜"]
    )
    name = dice.choice(["tool_calls", "function_calls", "invoke", "parameter", "calls", "tool", "tool▁calls▁begin", "e", "city"])
    rest = [
        ' name="x"',
        'name="x"',
        " name=x",
        f' {"k" * 30}="1"',
        '"',
        '\nname="a"',
        "\u3000name=“a”",
        "｜",
        " ",
        ":",
        ' name="a\'〉b"',
    ]
    shell = prefix + name + "".join(dice.choices(rest, k=dice.randrange(3)))
    letters = list(dice.choice(["<", "<", "</", "< /", "〈"]) + shell + dice.choice([">", "｜>", "/>", "〉", '">']))
    for _ in range(dice.randrange(3)):
        at = dice.randrange(1, len(letters))
        letters[at : at + dice.randrange(2)] = dice.choice(["", *'abdmns_- ="｜▁:/\n<>〉'])
    return "".join(letters)


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
