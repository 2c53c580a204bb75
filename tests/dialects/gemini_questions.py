"""Gemini questions for tests: how to ask, and how to be refused."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st

from ds2d.core.errors import GatewayError
from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects.gemini import parse

GOLDEN = Path(__file__).parent.parent / "golden" / "requests" / "gemini"
HELLO = [{"role": "user", "parts": [{"text": "hello"}]}]
PNG = base64.b64encode(b"\x89PNG\xff\xfe\xfd").decode()


def inbound(body: dict[str, Any], method: str = "generateContent", model: str = "m", **query: str) -> Inbound:
    return Inbound(body, query=query, path={"model": model, "method": method}, unseal={"sealed": "because"}.get)


def ask(**fields: Any) -> ChatRequest:
    return parse(inbound({"contents": HELLO, **fields}))


def refusal(**fields: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        ask(**fields)
    assert caught.value.status == 400
    return caught.value


def config(**fields: Any) -> ChatRequest:
    return ask(generationConfig=fields)


def config_refusal(**fields: Any) -> str:
    param = refusal(generationConfig=fields).param
    assert param is not None
    return param.removeprefix("generationConfig.")


# whole numbers as the parser of bodies gives them: larger ones become floats
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
