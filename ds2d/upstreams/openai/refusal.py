"""What a server said when it refused: one reading for the five shapes of error bodies, and texts fit to be passed on.

Rule: nothing of a server's text leaves here uncleaned: paths, URLs, hosts, keys and tracebacks are taken out, and it is
cut (errors.md, head; reliability.md, what goes out). No regex backtracks over more than `MAX_TEXT` characters.
Surprise: vLLM's missing key is `{"error": "Unauthorized"}`, a string where others have an object (upstreams.md 5).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

MAX_TEXT = 4096
"""Characters of a server's text that are looked at."""

MAX_SHOWN = 500
"""Characters of a server's text that are passed on."""


class Refusal(msgspec.Struct, frozen=True):
    """An error body. `code` is the word in it, `status` the number; `text` is as the server wrote it, cut to MAX_TEXT.

    `prompt_tokens` and `window` are llama-server's own fields (`n_prompt_tokens`, `n_ctx`).
    """

    text: str = ""
    code: str = ""
    kind: str = ""
    param: str | None = None
    status: int | None = None
    prompt_tokens: int | None = None
    window: int | None = None
    structured: bool = True


def read_body(body: bytes) -> Refusal:
    """The refusal in an HTTP body of any shape, HTML and nothing included. Raises nothing."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError:
        text = body[: 4 * MAX_TEXT].decode("utf-8", "replace")
        return Refusal("" if "<html" in text.lower() else text.strip()[:MAX_TEXT], structured=False)
    return read_object(parsed) or Refusal(structured=False)


def read_object(parsed: Any) -> Refusal | None:
    """The refusal that a parsed body or event is; None if it is none."""
    if not isinstance(parsed, dict):
        return None
    error = parsed.get("error")
    if isinstance(error, dict) and error:
        return _from_fields(error)
    if error:
        return Refusal(_text(parsed.get("message")) or _text(error), status=_number(parsed.get("code")))
    if parsed.get("object") == "error":  # SGLang (upstreams.md 5)
        return _from_fields(parsed)
    if parsed.get("detail") and "choices" not in parsed:
        return _from_detail(parsed["detail"])
    if "choices" not in parsed and isinstance(parsed.get("message"), str):
        return _from_fields(parsed)
    return None


def is_no_route(refusal: Refusal) -> bool:
    """Whether a 404 or 405 speaks of the path, and not of a model."""
    return not refusal.text or refusal.text in ("Not Found", "Method Not Allowed") or "File Not Found" in refusal.text


def clean(text: str) -> str:
    """A server's text as one short line without anything that tells where it runs or who asked."""
    text = text[:MAX_TEXT]
    for pattern, instead, flags in _SECRETS:
        text = re.sub(pattern, instead, text, flags=flags)
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


_SECRETS: tuple[tuple[str, str, int], ...] = (
    (r"Traceback \(most recent call last\).*", "", re.DOTALL),
    (r'\s*File "[^"\n]{1,400}", line \d+[^\n]*(?:\n[^\n]*)?', "", 0),
    (r"\bhttps?://[^\s\"'<>)\]]+", "[url]", re.IGNORECASE),
    (r"\b(Bearer|Basic)\s+[^\s\"',;]+", r"\1 [key]", re.IGNORECASE),
    (r"\b(?:sk|pk|adm|hf|gsk|xai|ghp|gho|pat)[-_][A-Za-z0-9_*.-]{4,}", "[key]", 0),
    (r"\b[A-Za-z0-9_.+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,5}\b", "[account]", 0),
    (r"(?<![\w/.:-])(?:[A-Za-z]:)?[\\/](?:[\w.@+~-]{1,255}[\\/]){1,30}[\w.@+~-]{0,255}", "[path]", 0),
    (r"(?<![\w/.:-])/(?:home|root|tmp|mnt|opt|srv|usr|var|etc|data)\b", "[path]", 0),
    (r"\b\d{1,3}(?:\.\d{1,3}){3}(?::\d{1,5})?\b", "[host]", 0),
    (r"\b(?:localhost|[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}):\d{2,5}\b", "[host]", 0),
    (r"(?<![\w-])(?=[A-Za-z0-9_-]*\d)(?=[A-Za-z0-9_-]*[A-Za-z])[A-Za-z0-9_-]{40,}", "[key]", 0),
)
"""What is looked for, what takes its place, and flags; compiled when a text is first cleaned."""


def _from_fields(fields: dict[str, Any]) -> Refusal:
    code = fields.get("code")
    return Refusal(
        _message(fields.get("message")),
        code=_text(code),
        kind=_text(fields.get("type")),
        param=_param(fields.get("param")),
        status=_number(code),
        prompt_tokens=_number(fields.get("n_prompt_tokens")),
        window=_number(fields.get("n_ctx")),
    )


def _from_detail(detail: Any) -> Refusal:
    """FastAPI: a text, or a list of what failed where."""
    if isinstance(detail, str):
        return Refusal(_text(detail))
    entries = [entry for entry in detail if isinstance(entry, dict)] if isinstance(detail, list) else []
    if not entries:
        return Refusal(_message(detail))
    found = [(_place(entry.get("loc")), _text(entry.get("msg"))) for entry in entries[:5]]
    text = "; ".join(f"{place}: {message}" if place else message for place, message in found)
    return Refusal(text[:MAX_TEXT], kind="validation_error", param=found[0][0] or None)


_PYDANTIC = re.compile(r"'loc': \(([^()]{0,300})\), 'msg': (?:'([^']{0,300})'|\"([^\"]{0,300})\")")


def _message(value: Any) -> str:
    """The message; where it is a dump of pydantic's complaints, what they say without the values they quote."""
    if isinstance(value, (dict, list)):
        value = orjson.dumps(value, default=str).decode()
    text = _text(value)
    found = _PYDANTIC.findall(text)
    if not found:
        return text
    places = (".".join(word for word in re.findall(r"[\w-]+", place) if word != "body") for place, _, _ in found[:5])
    return "; ".join(f"{place}: {one or other}" for place, (_, one, other) in zip(places, found, strict=False))


def _place(loc: Any) -> str:
    words = [str(word) for word in loc if isinstance(word, (str, int))] if isinstance(loc, list) else []
    return ".".join(word for word in words if word != "body")[:200]


def _param(value: Any) -> str | None:
    text = _text(value).removeprefix("body.")
    return text if re.fullmatch(r"[\w.\[\]-]{1,200}", text) else None


def _text(value: Any) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def _number(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        value = int(value)
    return value if type(value) is int and 0 <= value < 10**9 else None
