"""Text of clients in prompts that the gateway writes: what a tokenizer would take for one of its marks is broken up.

Rule: a function of the text alone, so that every turn of a conversation renders the same bytes; done twice it changes
nothing more. Surprise: JSON keeps its meaning, because there the bracket becomes an escape instead of getting a blank.
"""

from __future__ import annotations

import re

SPECIAL = re.compile(r"<(?=[｜|][^<>｜|\n]{1,60}[｜|]>|/?think>|/?｜DSML｜)|｜(?=DSML｜)")
"""DeepSeek's marks (upstreams.md 4) and those of other models' templates, each at the character that is changed."""


def escape_special_tokens(text: str) -> str:
    """Text with a blank behind the first character of every mark."""
    return SPECIAL.sub(r"\g<0> ", text)


def escape_in_json(text: str) -> str:
    """JSON text with that character written as an escape: the same value, but no mark."""
    return SPECIAL.sub(lambda found: f"\\u{ord(found.group()):04x}", text)
