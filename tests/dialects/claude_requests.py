"""Bodies of Claude requests, for tests: short ways to write messages and blocks, and to ask."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects.claude import parse

HELLO = [{"role": "user", "content": "hello"}]
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
IMAGE_PART = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}
READ = {"name": "read", "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}}}


def ask(**fields: Any) -> ChatRequest:
    return parse(Inbound({"model": "m", "messages": HELLO, **fields}))


def refusal(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    assert caught.value.message.startswith(f"{caught.value.param}: ")
    return caught.value


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def said(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": blocks[0] if isinstance(blocks[0], str) else list(blocks)}


def use(call: str, /, **given: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": call, "name": "read", "input": given}


def result(call: str, *content: Any, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": call, **({"content": content[0]} if content else {}), **more}


def messages(*entries: Any) -> list[Any]:
    return list(ask(messages=list(entries)).messages)


def tail(*entries: Any) -> list[Any]:
    """The chat messages behind a turn with calls a and b."""
    return messages(user("go"), said(use("a"), use("b")), *entries)[2:]
