"""What servers answer when asked for their models.

Rule: whatever cannot be read as a model is left out, so that one odd entry hides no other.
Surprise: vLLM gives a new `created` with each answer, and each kind of server has a name of its own for the window.
"""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.calls import Reply
from ds2d.core.models import Listed, Seen

MAX_MODELS = 10_000
"""Of one upstream's list."""


def parsed(body: bytes) -> Any:
    """JSON of an upstream; None for what is none."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


_OWN = frozenset(("id", "object", "created", "owned_by", "max_model_len"))


def entries_of(reply: Reply) -> list[Any] | None:
    """What a model list holds; None if the answer is none."""
    listed = parsed(reply.body)
    entries = listed.get("data") if isinstance(listed, dict) else listed
    return entries[:MAX_MODELS] if isinstance(entries, list) else None


def read_list(entries: list[Any], before: Seen) -> tuple[Listed, ...]:
    """The models of a list; what cannot be read as one is left out. `created` stays as first seen: vLLM renews it each time."""
    found: dict[str, Listed] = {}
    for entry in entries:
        name = entry.get("id") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name or name in found:
            continue
        known = before.find(name)
        created = known.created if known is not None and known.id == name else _whole(entry.get("created"))
        owner, window = entry.get("owned_by"), _window(entry)
        extra = {key: value for key, value in entry.items() if key not in _OWN}
        found[name] = Listed(name, created or 0, owner if isinstance(owner, str) else "", window, extra)
    return tuple(found.values())


def _window(entry: dict[str, Any]) -> int | None:
    """Tokens of the context: vLLM's and SGLang's name, llama-server's, and one that proxies use."""
    meta = entry.get("meta")
    served = meta.get("n_ctx") if isinstance(meta, dict) else None
    candidates = (entry.get("max_model_len"), entry.get("context_length"), served)
    return next((value for value in map(_whole, candidates) if value), None)


def _whole(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**53 else None
