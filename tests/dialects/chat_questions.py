"""Chat questions for tests: how to ask, and how to be refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from ds2d.core.errors import GatewayError
from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects.openai_chat import parse

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "openai_chat"
HELLO = [{"role": "user", "content": "hello"}]
PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()


def ask(**fields: Any) -> ChatRequest:
    return parse(Inbound({"model": "m", "messages": HELLO, **fields}))


def refusal(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def function(name: str = "f", **fields: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **fields}}


def call(call_id: str = "call_1", name: str = "f", arguments: str = "{}") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def named(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name}}


def allowed(*names: str, mode: str = "auto") -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [named(name) for name in names]}}


# whole numbers as the parser of bodies gives them: larger ones become floats
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
