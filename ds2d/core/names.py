"""Tool names that upstreams refuse, and what is sent instead.

Rule: the short name is a function of the long one alone, so history, tool list and choice agree, and every turn of a
conversation renders the same bytes. Upstreams take 64 of `[A-Za-z0-9_-]` (mapping.md 3); MCP tools are often longer.
"""

from __future__ import annotations

import hashlib
import re

MAX_NAME = 64
_TAIL = 8
_FITS = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_NAME}}}").fullmatch
_ODD = re.compile(r"[^A-Za-z0-9_-]")


def upstream_name(name: str) -> str:
    """`name` itself where upstreams take it; else its beginning and a hash of the whole, 64 characters at most."""
    if _FITS(name):
        return name
    tail = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_TAIL]
    return f"{_ODD.sub('_', name)[: MAX_NAME - _TAIL - 1]}_{tail}"
