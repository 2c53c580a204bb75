"""By what requests of one conversation are known to belong together: what the client says, else what they begin with.

Rule: pure; nothing that a client sent is kept, only a short hash of it, and never without the caller's id in front.
Surprise: one client's name for itself (`user`) is no conversation: it counts only where nothing else is known, since all of a
user's conversations would meet on one server. Claude Code's `metadata.user_id` names the session inside; that one counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from itertools import islice
from typing import Any

import msgspec
import orjson

from ds2d.core.request import ChatRequest, Message

HEADERS = (
    "thread-id",
    "x-claude-code-session-id",
    "session-id",
    "session_id",
    "conversation_id",
    "x-session-affinity",
    "x-session-id",
)
"""Of Codex (new and older), Claude Code, opencode and others; a thread is less than a session, so it comes first (clients.md)."""

LONGEST = 512
"""Characters of a client's key that count."""

WHOLE = 16 * 1024
"""Characters of one text that are hashed whole; of a longer one both ends and the length."""


LONGEST_CHAIN = 1024
"""Messages that a conversation is known by at most: what comes after so many tells it from no other."""


class Trail(msgspec.Struct, frozen=True):
    """The keys of one request, each 8 bytes as a number. `exact`: the conversation's own name, if the client gave one; `chain`:
    one for each number of leading messages up to `LONGEST_CHAIN`, the longest last; `user`: who asks."""

    exact: int | None = None
    chain: tuple[int, ...] = ()
    user: int | None = None


def session_of(headers: Mapping[str, str], *keys: str | None) -> str | None:
    """The client's name for the conversation: a key of its body, else a header (names in lower case)."""
    found = next(filter(None, keys), None) or next((value for name in HEADERS if (value := headers.get(name))), None)
    return found[:LONGEST] if found else None


def trail_of(request: ChatRequest, caller: str, model: str) -> Trail:
    """The keys of a request to this public model. A name of the conversation spares the hashing of its messages."""
    seed = f"{caller}\0{model}\0".encode()
    user = _hash(seed + b"u", request.user) if request.user else None
    if request.session:
        return Trail(_hash(seed + b"s", request.session), user=user)
    state = blake2b(seed, digest_size=8)
    if request.prompt is not None:
        return Trail(user=user)
    chain = []
    for message in islice(request.messages, LONGEST_CHAIN):
        _add(state, message)
        chain.append(int.from_bytes(state.digest()))
    return Trail(None, tuple(chain), user)


def _hash(seed: bytes, text: str) -> int:
    return int.from_bytes(blake2b(seed + text[:LONGEST].encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _add(state: blake2b, message: Message) -> None:
    """One more message. Reasoning is left out: clients drop it, and the gateway puts it back."""
    state.update(b"\0m" + message["role"].encode())
    content = message.get("content")
    for part in content if isinstance(content, list) else (content,):
        _add_part(state, part)
    if calls := message.get("tool_calls"):
        state.update(orjson.dumps(calls, option=orjson.OPT_SORT_KEYS))


def _add_part(state: blake2b, part: Any) -> None:
    if isinstance(part, dict):
        image = part.get("image_url")
        part = part.get("text") or (image.get("url") if isinstance(image, dict) else image)
    if not isinstance(part, str):
        return
    if len(part) > WHOLE:
        state.update(b"%d" % len(part))
        part = part[: WHOLE // 2] + part[-WHOLE // 2 :]
    state.update(b"\0t" + part.encode("utf-8", "surrogatepass"))
