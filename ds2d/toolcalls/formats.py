"""The formats in which models write tool calls as text, one entry each (toolcalls.md 1).

Rule: an entry says how its block begins and which reader reads what follows; everything else (context, early start,
repair, release of text) is the same for all. A new format is one entry here, a reader if its grammar is new, and samples
under tests/golden/toolcalls/.
Surprise: an exact opening shell decides before a drifted one, because only the exact V4 forms drop the text behind them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ds2d.toolcalls import elements, tokens
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.source import Reading, Source
from ds2d.toolcalls.tags import Tag
from ds2d.toolcalls.value_reader import STRUCTURE

Reader = Callable[[Source, Calls, Tag], Reading[None]]


class ToolFormat(msgspec.Struct, frozen=True):
    """One way to write calls. `shells` open it exactly, `names` (normalised) in drifted spelling, with DSML before them if
    `dsml`. `read` takes what follows the tag; None: it begins with JSON or words, which the lexer tells apart by itself.
    """

    name: str
    read: Reader | None = None
    shells: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    dsml: bool = False
    drops_text_after: bool = False


FORMATS: tuple[ToolFormat, ...] = (
    ToolFormat("json"),
    ToolFormat("deepseek_v3", tokens.read, ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"), (tokens.BLOCK, tokens.CALL)),
    ToolFormat("deepseek_v31", tokens.read, ("<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>")),
    ToolFormat("deepseek_v32", elements.read, ("<｜DSML｜function_calls>",)),
    ToolFormat(
        "deepseek_v4",
        elements.read,
        ("<｜DSML｜tool_calls>", "<｜DSML｜toolcalls>", "<｜DSML｜tool>"),
        drops_text_after=True,
    ),
    ToolFormat("deepseek_v41", elements.read, ("<｜DSML｜ calls>",), drops_text_after=True),
    ToolFormat(
        "dsml_drifted",
        elements.read,
        names=("toolcalls", "functioncalls", "calls", "tool", "toolcall", "functioncall", "invoke"),
        dsml=True,
    ),
    ToolFormat("xml", elements.read, names=("toolcalls", "functioncalls", "functioncall", "tooluse", "invoke")),
    ToolFormat("hermes", elements.read, names=("toolcall",)),
    ToolFormat("text"),
)

_BY_SHELL = {shell: entry for entry in reversed(FORMATS) for shell in entry.shells}
_BY_NAME = {(entry.dsml, name): entry for entry in reversed(FORMATS) for name in entry.names}

OPENERS = frozenset(name for _, name in _BY_NAME)
"""Normalised names of every tag that may open a block."""


TOKENS = frozenset({tokens.CALL_END, tokens.BLOCK_END})
"""Normalised names of tokens that end something though they are no closing tags."""

_ELEMENTS = frozenset({"parameter", "parameters", "arguments", *STRUCTURE})


PARTS = OPENERS | TOKENS | _ELEMENTS | {tokens.SEPARATOR}
"""Normalised names of every tag that opens or ends a block, or something in it."""


def ends_of(opening: Tag) -> frozenset[str]:
    """Normalised names of the tags that may end a block which this tag opened, or something in it."""
    return TOKENS if opening.name in (tokens.BLOCK, tokens.CALL) else _ELEMENTS


def opened_by(tag: Tag) -> ToolFormat | None:
    """The format whose block this tag opens, or None."""
    if tag.closing:
        return None
    return _BY_SHELL.get(tag.shell) or _BY_NAME.get((tag.dsml, tag.name))
