"""Paths as clients really send them, and whose error shape a path without a route gets.

Rule: a route is declared once, in its canonical form; a trailing slash, `//`, a doubled `/v1/v1` and a missing `/v1` in a
client's base URL reach the same one.
Surprise: model ids may begin with a slash (vLLM's default id is a path), so `/v1/models//mnt/x` is an id, not a typo;
only the part of a path before such an id is tidied. And the manual's links are relative, so its pages must not be read with a
slash behind them: theirs stays, and is answered with the way to the page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

DOUBLED = re.compile(r"(/v1)(?:/v1)+(?=/)")
IDS = re.compile(r"^((?:/anthropic)?(?:/v1|/v1beta)?/models/)(.*)$")
METHOD = re.compile(r"(:[a-z]+[A-Z][A-Za-z]*)/+$")
"""Gemini's method at the end of an id, known by its capitals: `:7b/` belongs to the id."""

SLASHES = re.compile(r"/{2,}")

_NOT_OFFERED = {
    "batches": "Batches",
    "files": "Stored files",
    "conversations": "Conversations",
    "cachedContents": "Cached contents",
}
_NAMED = re.compile(rf"(?:/upload)?(?:/anthropic)?(?:/v1|/v1beta)?(?:/messages)?/({'|'.join(_NOT_OFFERED)})(?:/|$)")


def no_route(path: str) -> str:
    """Why a path has no route: what the real services have there and this one does not is told by name (deviations.md)."""
    found = _NAMED.match(path)
    return f"{_NOT_OFFERED[found.group(1)]} are not offered here." if found else "There is no such route."


def tidy_path(path: str, root: str = "") -> str:
    """The canonical form of a path that a client sent. `root` (server.root_path) may stand before it: proxies that take it
    away and proxies that leave it there are both served."""
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :] or "/"
    if "//" not in path and "/v1/v1" not in path and path[-1:] != "/":
        return path  # as nearly every client sends it
    if path.startswith("//"):
        path = "/" + path.lstrip("/")
    path = DOUBLED.sub(r"\1", path)
    head, tail = (found.group(1), found.group(2)) if (found := IDS.match(path)) and found.group(2).strip("/") else (path, "")
    head, tail = SLASHES.sub("/", head), METHOD.sub(r"\1", tail)
    if tail or head.startswith("/docs/"):  # a page of the manual leads away from the slash itself
        return head + tail
    return head.rstrip("/") or "/"


def short_form(path: str) -> str | None:
    """The path without its `/v1`, which many clients leave out; None where there is none to leave out."""
    for base in ("", "/anthropic"):
        if path.startswith(f"{base}/v1/"):
            return base + path.removeprefix(f"{base}/v1")
    return None


def dialect_of(path: str, headers: Mapping[str, str]) -> str:
    """Whose error shape an unmatched path gets (errors.md 1)."""
    last = path.rsplit("/", 1)[-1]
    if path.startswith("/admin"):
        return "admin"
    if "/anthropic" in path or path.endswith(("/messages", "/count_tokens")) or "anthropic-version" in headers:
        return "claude"
    if path.startswith("/v1beta/") or ":" in last or "x-goog-api-key" in headers:
        return "gemini"
    return "openai_chat"
