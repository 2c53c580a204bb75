"""The model list for Claude clients (anthropic-messages.md 7): Anthropic's and OpenAI's shape in one object.

Rule: the whole list begins with claude-opus-4-6 and ends with claude-instant-1.0, which the reference fixes; without a
paging query it comes whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from ds2d.core.models import ModelInfo
from ds2d.core.request import Inbound
from ds2d.core.validate import invalid

FIRST, LAST = "claude-opus-4-6", "claude-instant-1.0"
DEFAULT_PAGE, MAX_PAGE = 20, 1000
_PAGING = ("limit", "after_id", "before_id")


def render_model(model: ModelInfo, inbound: Inbound) -> bytes:
    """One model."""
    return orjson.dumps(_line(model))


def render_models(models: Sequence[ModelInfo], inbound: Inbound) -> bytes:
    """The page that the query asks for. Raises GatewayError INVALID_REQUEST for a bad limit or an id that is not in the list."""
    query = inbound.query
    lines = [_line(model) for model in sorted(models, key=_rank)]
    if not _wants_active(inbound):
        lines = []
    more = False
    if any(name in query for name in _PAGING):
        lines, more = _page(lines, query.get("after_id"), query.get("before_id"), _limit(query.get("limit")))
    return orjson.dumps(
        {
            "object": "list",
            "data": lines,
            "has_more": more,
            "first_id": lines[0]["id"] if lines else None,
            "last_id": lines[-1]["id"] if lines else None,
        }
    )


def _rank(model: ModelInfo) -> int:
    return {FIRST: -1, LAST: 1}.get(model.id, 0)


def _line(model: ModelInfo) -> dict[str, Any]:
    return {
        "id": model.id,
        "type": "model",
        "display_name": model.id,
        "created_at": datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "lifecycle": "active",
        "object": "model",
        "created": model.created,
        "owned_by": "anthropic",
        "max_input_tokens": model.max_model_len,
        "max_tokens": model.max_output,
        "capabilities": None,
        "deprecated_at": None,
        "retires_at": None,
    }


def _wants_active(inbound: Inbound) -> bool:
    """Every model here is active, so a filter for other states leaves nothing."""
    wanted = {value for name, value in inbound.query.items() if name in ("lifecycle", "lifecycle[]")}
    return not wanted or any("active" in value.split(",") for value in wanted)


def _limit(raw: str | None) -> int:
    if raw is None:
        return DEFAULT_PAGE
    if not (raw.isascii() and raw.isdigit() and 1 <= int(raw[:9]) <= MAX_PAGE):
        raise invalid("limit", f"must be an integer from 1 to {MAX_PAGE}.")
    return int(raw)


def _page(lines: list[dict[str, Any]], after: str | None, before: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """Up to `limit` lines behind `after` or right before `before`, and whether there are more in that direction."""
    ids = [line["id"] for line in lines]
    for name, value in (("after_id", after), ("before_id", before)):
        if value is not None and value not in ids:
            raise invalid(name, "is not the id of a model.")
    start = ids.index(after) + 1 if after is not None else 0
    end = ids.index(before) if before is not None else len(ids)
    if before is not None and after is None:
        return lines[max(0, end - limit) : end], end > limit
    return lines[start : min(end, start + limit)], start + limit < end
