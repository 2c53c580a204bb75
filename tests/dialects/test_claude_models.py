"""anthropic-messages.md 7: the model list in both shapes at once, whole or in pages."""

from __future__ import annotations

from typing import Any

import anthropic.types as sdk
import orjson
import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.models import ModelInfo
from ds2d.core.request import Inbound
from ds2d.dialects.claude import render_model, render_models

MODELS = [
    ModelInfo(name, 1715635200, "deepseek", "ready", max_model_len=163840, max_output=32768)
    for name in ["claude-instant-1.0", "claude-2.1", "deepseek-chat", "claude-opus-4-6", "gpt-4o"]
]
ORDER = ["claude-opus-4-6", "claude-2.1", "deepseek-chat", "gpt-4o", "claude-instant-1.0"]


def page(**query: str) -> dict[str, Any]:
    return dict(orjson.loads(render_models(MODELS, Inbound({}, query=query))))


def ids(**query: str) -> list[str]:
    found = page(**query)
    names = [line["id"] for line in found["data"]]
    assert (found["first_id"], found["last_id"]) == ((names[0], names[-1]) if names else (None, None))
    return names


def test_a_model_has_both_shapes() -> None:
    line = orjson.loads(render_model(MODELS[3], Inbound({})))
    assert line == {
        "id": "claude-opus-4-6",
        "type": "model",
        "display_name": "claude-opus-4-6",
        "created_at": "2024-05-13T21:20:00Z",
        "lifecycle": "active",
        "object": "model",
        "created": 1715635200,
        "owned_by": "anthropic",
        "max_input_tokens": 163840,
        "max_tokens": 32768,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }
    sdk.ModelInfo.model_validate_json(render_model(MODELS[3], Inbound({})), strict=True)


def test_without_a_paging_query_the_list_comes_whole_with_the_ends_that_the_reference_fixes() -> None:
    assert ids() == ORDER
    found = page()
    assert (found["object"], found["has_more"]) == ("list", False)


@pytest.mark.parametrize(
    ("query", "expected", "more"),
    [
        ({"limit": "2"}, ORDER[:2], True),
        ({"limit": "1000"}, ORDER, False),
        ({"limit": "2", "after_id": ORDER[1]}, ORDER[2:4], True),
        ({"limit": "2", "after_id": ORDER[2]}, ORDER[3:], False),
        ({"after_id": ORDER[-1]}, [], False),
        ({"limit": "2", "before_id": ORDER[3]}, ORDER[1:3], True),
        ({"limit": "2", "before_id": ORDER[2]}, ORDER[:2], False),
        ({"before_id": ORDER[0]}, [], False),
        ({"after_id": ORDER[0], "before_id": ORDER[3]}, ORDER[1:3], False),
    ],
)
def test_pages(query: dict[str, str], expected: list[str], more: bool) -> None:
    assert (ids(**query), page(**query)["has_more"]) == (expected, more)


def test_pages_one_behind_the_other_are_the_whole_list() -> None:
    seen = ids(limit="2")
    while page(limit="2", after_id=seen[-1])["data"]:
        seen += ids(limit="2", after_id=seen[-1])
    assert seen == ORDER


def test_a_page_has_twenty_lines_unless_told() -> None:
    many = [ModelInfo(f"m{number}", 0, "x", "ready") for number in range(30)]
    assert len(orjson.loads(render_models(many, Inbound({}, query={"after_id": "m0"})))["data"]) == 20


@pytest.mark.parametrize(
    ("query", "field"),
    [({"limit": value}, "limit") for value in ["0", "1001", "-1", "x", "", "1.5", "²"]]
    + [({"after_id": "nobody"}, "after_id"), ({"before_id": "nobody"}, "before_id")],
)
def test_a_bad_query_is_refused_by_name(query: dict[str, str], field: str) -> None:
    with pytest.raises(GatewayError) as caught:
        page(**query)
    assert (caught.value.status, caught.value.param) == (400, field)


@pytest.mark.parametrize(("value", "count"), [("active", 5), ("deprecated,active", 5), ("retired", 0)])
def test_every_model_is_active(value: str, count: int) -> None:
    assert len(ids(**{"lifecycle[]": value})) == count
