"""Names that a model nearly wrote: one letter dropped or doubled in the shell of a tag.

Rule: only shells that carry a mark of their format (a bar, DeepSeek's blank, DSML before the name) are read with this
tolerance. A plain XML name that is nearly `invoke` is another element. Letters before the mark count as they are written:
while they come nobody can know of it.
"""

from __future__ import annotations

_DSML = ("toolcalls", "functioncalls", "calls", "tool", "toolcall", "functioncall", "invoke", "parameter")
_TOKENS = ("toolcallsbegin", "toolcallbegin", "toolsep", "toolcallend", "toolcallsend")
MARKED_NAMES = frozenset((*_DSML, *_TOKENS))
"""Normalised names of DeepSeek's tokens and of DSML."""


def near(written: str, name: str) -> bool:
    """Whether one letter more or less makes one of the other."""
    longer, shorter = (written, name) if len(written) > len(name) else (name, written)
    if len(longer) - len(shorter) != 1:
        return False
    at = _common(longer, shorter)
    return longer[at + 1 :] == shorter[at:]


def near_beginning(written: str, name: str) -> bool:
    """Whether this may still become the name, with at most one letter dropped or doubled so far."""
    at = _common(written, name)
    return at == len(written) or name.startswith(written[at:], at + 1) or name.startswith(written[at + 1 :], at)


def meant(written: str, sure: int = 0) -> str:
    """The name of a marked shell that is meant; what is written if that is not clear. The first `sure` letters stood before
    the mark, and count as they are written."""
    if written in MARKED_NAMES:
        return written
    found = [name for name in MARKED_NAMES if near(written, name) and name.startswith(written[:sure])]
    return found[0] if len(found) == 1 else written


def _common(first: str, second: str) -> int:
    """How many letters at the beginning are the same."""
    size = min(len(first), len(second))
    return next((at for at in range(size) if first[at] != second[at]), size)
