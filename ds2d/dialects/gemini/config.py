"""`generationConfig` (gemini.md 3).

Rule: values go on under their chat names as they are; nothing is filled in.
Surprise: a schema can come in four spellings, two of them with an underscore in front or inside a list.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ds2d.core.errors import ErrorKind
from ds2d.core.openai_shape import MAX_TOKENS, NonEmpty, Penalty
from ds2d.core.request import ReasoningWish
from ds2d.core.validate import convert, invalid
from ds2d.dialects.gemini.fields import join, level, text, word
from ds2d.dialects.gemini.schema import Schema, convert_schema, lower_types

_LEVELS = ("THINKING_LEVEL_UNSPECIFIED", "MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_BUDGETS = ((32768, "max"), (8192, "high"), (2048, "medium"), (1, "low"))
"""From which budget on, which effort (mapping.md 6)."""

PLAIN, JSON, ENUM = "text/plain", "application/json", "text/x.enum"


class View(msgspec.Struct, rename="camel"):
    """The members with limits of their own."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[float, Meta(ge=0, le=2**31)] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    stop_sequences: Annotated[list[NonEmpty], Meta(max_length=16)] | None = None
    candidate_count: Annotated[int, Meta(ge=1, le=128)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    response_logprobs: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_modalities: list[str] | None = None


class ThinkingView(msgspec.Struct, rename="camel"):
    """`thinkingConfig`."""

    include_thoughts: bool | None = None
    thinking_budget: Annotated[int, Meta(ge=-1, le=MAX_TOKENS)] | None = None
    thinking_level: str | None = None


class Generation(msgspec.Struct):
    """What a generation config comes to. `unquote`: the answer is one word of an enum; `thoughts`: thinking is shown."""

    params: dict[str, Any]
    max_tokens: int | None
    response_format: dict[str, Any] | None
    wish: ReasoningWish
    thoughts: bool
    unquote: bool


def read_config(body: dict[str, Any], at: str) -> Generation:
    """The generation config of a body. Raises INVALID_REQUEST or UNSUPPORTED_PARAMETER with the path of what is wrong."""
    path = join(at, "generationConfig")
    members = level(body.get("generationConfig", {}), path)
    view = convert(members, View, path)
    for i, modality in enumerate(view.response_modalities or ()):
        if modality.upper() not in ("TEXT", "MODALITY_UNSPECIFIED"):
            where = f"{path}.responseModalities[{i}]"
            raise invalid(where, "only TEXT is offered here.", ErrorKind.UNSUPPORTED_PARAMETER)
    wish, thoughts = _thinking(members.get("thinkingConfig"), f"{path}.thinkingConfig")
    response_format, unquote = _response_format(members, path)
    return Generation(_params(members, view), view.max_output_tokens, response_format, wish, thoughts, unquote)


def _params(members: dict[str, Any], view: View) -> dict[str, Any]:
    found = {
        "temperature": members.get("temperature"),
        "top_p": members.get("topP"),
        "top_k": None if view.top_k is None else int(view.top_k),
        "stop": view.stop_sequences or None,
        "n": view.candidate_count,
        "presence_penalty": members.get("presencePenalty"),
        "frequency_penalty": members.get("frequencyPenalty"),
        "seed": view.seed,
        "logprobs": view.response_logprobs or None,
        "top_logprobs": view.logprobs if view.response_logprobs else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _thinking(raw: Any, path: str) -> tuple[ReasoningWish, bool]:
    """The wish, and whether thoughts are shown."""
    if raw is None:
        return ReasoningWish(), False
    view = convert(level(raw, path), ThinkingView, path)
    shown = view.include_thoughts is True
    budget = view.thinking_budget
    if view.thinking_level is not None:
        effort = word(view.thinking_level, f"{path}.thinkingLevel", _LEVELS)
        if effort != _LEVELS[0]:
            if budget is not None:
                raise invalid(f"{path}.thinkingLevel", "use either thinkingLevel or thinkingBudget.")
            return ReasoningWish("on", effort.lower()), shown
    if budget is None:
        return ReasoningWish(), shown
    if budget == 0:
        return ReasoningWish("off"), shown
    if budget < 0:
        return ReasoningWish("on"), shown
    return ReasoningWish("on", next(name for least, name in _BUDGETS if budget >= least), budget), shown


def _response_format(members: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, bool]:
    """The format in chat form, and whether the answer is to be unquoted."""
    mime = text(members["responseMimeType"], f"{path}.responseMimeType").lower() if "responseMimeType" in members else None
    found, mime = _schema(members, mime, path)
    schema, where = found
    if mime not in (None, PLAIN, JSON, ENUM):
        raise invalid(f"{path}.responseMimeType", f"must be {PLAIN}, {JSON} or {ENUM}.")
    if mime == ENUM:
        if schema is None or not isinstance(schema.get("enum"), list):
            raise invalid(f"{path}.responseSchema", f"{ENUM} needs a schema with enum.")
        return _json_schema(schema), True
    if schema is not None:
        if mime == PLAIN:
            raise invalid(where, f"a schema needs the type {JSON}.")
        return _json_schema(schema), False
    return ({"type": "json_object"} if mime == JSON else None), False


def _json_schema(schema: Schema) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "response", "schema": schema}}


def _schema(members: dict[str, Any], mime: str | None, path: str) -> tuple[tuple[Schema | None, str], str | None]:
    """The one schema in any of its spellings with its path, and the MIME type, which may stand beside it."""
    found: list[tuple[Schema, str]] = []
    if "responseSchema" in members:
        where = f"{path}.responseSchema"
        found.append((convert_schema(members["responseSchema"], where), where))
    if "responseJsonSchema" in members:
        found.append(_as_is(members["responseJsonSchema"], f"{path}.responseJsonSchema"))
    if "responseFormat" in members:
        where = f"{path}.responseFormat"
        for form in _text_formats(members["responseFormat"], where):
            if "mimeType" in form:
                mime = text(form["mimeType"], f"{where}.text.mimeType").lower()
                mime = {"application_json": JSON, "text_plain": PLAIN}.get(mime, mime)
            if "schema" in form:
                found.append(_as_is(form["schema"], f"{where}.text.schema"))
    if len(found) > 1:
        raise invalid(found[1][1], "only one schema may be given.")
    return (found[0] if found else (None, path)), mime


def _as_is(schema: Any, path: str) -> tuple[Schema, str]:
    if not isinstance(schema, dict):
        raise invalid(path, "must be an object.")
    return lower_types(schema), path


def _text_formats(raw: Any, path: str) -> list[dict[str, Any]]:
    """The text members of `responseFormat`, which is an object or a list of them."""
    forms = raw if isinstance(raw, list) else [raw]
    return [level(form["text"], f"{path}.text") for form in (level(one, path) for one in forms) if "text" in form]
