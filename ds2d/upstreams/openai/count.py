"""Counting a question's tokens where the server can: its own tokenizer and chat template know best (tokens.md, last line).

Rule: only servers whose `/tokenize` takes messages are asked; what they answer is believed only if it is a positive count.
Surprise: llama.cpp's `/tokenize` answers 200 with no tokens to a body that it does not understand, so it is never asked.
"""

from __future__ import annotations

import msgspec
import orjson

from ds2d.core.calls import Call, Reply
from ds2d.core.models import Target
from ds2d.core.request import ChatRequest
from ds2d.core.settings import Timeouts
from ds2d.upstreams.openai.ask import call_for
from ds2d.upstreams.openai.flavours import flavour_of, server_root

_ASKED = frozenset(("vllm", "sglang"))
_FIELDS = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt", "continue_final_message")

TIMEOUTS = Timeouts(connect=1, headers=3, first_payload=3, payload_gap=3, answer=3, total=3)
"""Seconds; a count that takes longer is made here."""


def count_call(request: ChatRequest, target: Target, token: str | None) -> Call | None:
    """The call that counts, or None where the server cannot. Raises what `prepare` raises."""
    if flavour_of(target) not in _ASKED or request.prompt is not None:
        return None
    chat = call_for(request, target, token)
    said = orjson.loads(chat.body or b"{}")
    body = orjson.dumps({name: said[name] for name in _FIELDS if name in said})
    upstream = msgspec.structs.replace(target.upstream, timeouts=TIMEOUTS)
    path = f"{server_root(target.upstream.base_url)}/tokenize"
    return Call("POST", path, {**chat.headers, "accept": "application/json"}, body, upstream=upstream)


def read_count(reply: Reply) -> int | None:
    """The count in an answer; None for anything else."""
    if reply.status != 200:
        return None
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        return None
    count = answer.get("count") if isinstance(answer, dict) else None
    return count if type(count) is int and count > 0 else None
