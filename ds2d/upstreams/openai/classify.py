"""What a refusal means for the turn: statuses and texts of real servers to one `GatewayError`.

Rule: the text is looked at before the status, because servers report clients' mistakes as 500 and their own as 400
(upstreams.md 1.7 and 5). Upstream texts go on only for the 400 class, cleaned.
Surprise: three refusals are no errors but news about the server, told in `details`: `{"native_tools": False}` (its tool
parser is off), `{"completions": False}` (it has no such route); the service asks again in the other way and remembers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import partial

from ds2d.core.calls import Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest
from ds2d.upstreams.openai.refusal import Refusal, clean, is_no_route, read_body

MAX_DELAY = 31 * 86400.0
"""Seconds; a longer wait than a month is a fault of the server."""

Limits = tuple[int | None, int | None, int | None]


def classify(reply: Reply, request: ChatRequest) -> GatewayError:
    """The error that a status other than 200 stands for (errors.md 2)."""
    return judge(reply.status, read_body(reply.body), request, reply.headers)


def judge(status: int, refusal: Refusal, request: ChatRequest, headers: Mapping[str, str] | None = None) -> GatewayError:
    """The same for a refusal that was read already, such as an error event inside a stream."""
    headers = headers or {}
    if status in _MAY_BE_ABOUT_THE_QUESTION:
        if error := _about_tools(refusal, request) or _about_length(refusal) or _about_images(refusal, request):
            return error
        if _MODEL_UNKNOWN(refusal.text):
            status = 404
        elif status == 500 and _CLIENT_FAULT(refusal.text):
            status = 400
        elif status == 400 and _SERVER_FAULT(refusal.text):
            status = 500
    if status == 429:
        return _too_many(refusal, request, headers)
    if status in (404, 405):
        return _not_there(refusal, request)
    if status == 501 and refusal.structured:
        return GatewayError(ErrorKind.NOT_IMPLEMENTED, _said(refusal, "The upstream does not offer this."))
    if status in _PLAIN:
        kind, message = _PLAIN[status]
        return GatewayError(kind, message, retry_after=retry_delay(refusal, headers))
    if 400 <= status < 500:
        return GatewayError(ErrorKind.UPSTREAM_REJECTED, _said(refusal, "The upstream refused the request."), param=refusal.param)
    message = "The upstream redirected the request." if 300 <= status < 400 else "The upstream failed."
    return GatewayError(ErrorKind.UPSTREAM_ERROR, message, retry_after=retry_delay(refusal, headers))


_MAY_BE_ABOUT_THE_QUESTION = frozenset((400, 413, 422, 500))

_PLAIN: dict[int, tuple[ErrorKind, str]] = {
    401: (ErrorKind.UPSTREAM_AUTH, "The upstream refused the gateway's credential."),
    402: (ErrorKind.UPSTREAM_BILLING, "The upstream account's balance is used up."),
    403: (ErrorKind.UPSTREAM_AUTH, "The upstream refused the gateway's credential."),
    407: (ErrorKind.UPSTREAM_UNREACHABLE, "The proxy to the upstream asks for a login."),
    408: (ErrorKind.UPSTREAM_TIMEOUT, "The upstream gave up waiting for the request."),
    413: (ErrorKind.UPSTREAM_TOO_LARGE, "The request is too large for the upstream."),
    503: (ErrorKind.UPSTREAM_OVERLOADED, "The upstream is overloaded or not ready."),
    529: (ErrorKind.UPSTREAM_OVERLOADED, "The upstream is overloaded or not ready."),
}


def _any(*patterns: str) -> Callable[[str], re.Match[str] | None]:
    """Finds one of these. Compiled when it is first asked: a start has no use for what only refusals need."""
    return partial(re.search, "|".join(patterns), flags=re.IGNORECASE | re.DOTALL)


_MODEL_UNKNOWN = _any(r"\bmodel not exist\b", r"\bmodel .{0,200}? does not exist", r"\bmodel .{0,200}? not found\b")

_CLIENT_FAULT = _any(
    r"\bvalidation errors?\b",
    r"'loc': ?\(",
    r"\bInput should be\b",
    r"surrogates? not allowed",
    r"roles must alternate",
    r"jinja",
    r"\btemplate (error|exception)\b",
    r"\bInvalid (type|value|parameter|argument)\b",
    r"\bunsupported (content|role|response_format)\b",
)
"""How servers that answer 500 to clients' mistakes speak of them: llama-cpp-python, llama-server."""

_SERVER_FAULT = _any(r"not JSON compliant")
"""NaN in the server's own result, reported as 400 by vLLM (upstreams.md 3)."""

_TOOLS_OFF = _any(
    r"--enable-auto-tool-choice",
    r"--tool-call-parser",
    r"\btools? param requires\b",
    r"requires --jinja",
    r"does not support (tools|tool calls|tool calling|function calling)\b",
    r"\b(tools|tool calling|function calling) (is|are) not supported\b",
)


def _about_tools(refusal: Refusal, request: ChatRequest) -> GatewayError | None:
    if not (request.tools and _TOOLS_OFF(refusal.text)):
        return None
    message = "The upstream does not take tools."
    return GatewayError(ErrorKind.UPSTREAM_REJECTED, message, param="tools", details={"native_tools": False})


_IMAGES_OFF = _any(
    r"not a multimodal model",
    r"image (input|inputs|data) (is|are) not supported",
    r"does not support (images?|image input|vision|multimodal)",
    r"At most 0 image\(?s?\)? may be provided",
)


def _about_images(refusal: Refusal, request: ChatRequest) -> GatewayError | None:
    if not (request.images and _IMAGES_OFF(refusal.text)):
        return None
    where = request.images[0]
    message = f"Model '{request.model}' does not accept images ({where})."
    return GatewayError(ErrorKind.IMAGE_NOT_SUPPORTED, message, param=where)


_TOO_LONG = _any(
    r"maximum context length",
    r"context length is only",
    r"longer than the (model's context|maximum model) length",
    r"exceeds? the (available |model's |maximum )?(context|model length)",
    r"exceed context window",
    r"context[_ ](length|window)[_ ](is |was )?exceeded",
    r"\bcontext limit\b",
    r"\b(input|prompt) is too long",
    r"reduce the length of",
)

_NUMBERS = tuple(
    _any(pattern)
    for pattern in (
        r"passed (?P<prompt>\d+) input tokens and requested (?P<answer>\d+) output.{0,200}?length is only (?P<window>\d+)",
        r"too large: (?P<answer>\d+)\b.{0,200}?context length is (?P<window>\d+).{0,100}?request has (?P<prompt>\d+) input",
        r"length is (?P<window>\d+).{0,200}?\((?P<prompt>\d+) in the messages, (?P<answer>\d+) in the completion",
        r"length of (?P<window>\d+) tokens.{0,200}?(?P<prompt>\d+) tokens from the input.{0,40}?(?P<answer>\d+) tokens for",
        r"input length and `?max_tokens`? exceed context limit: (?P<prompt>\d+) \+ (?P<answer>\d+) > (?P<window>\d+)",
        r"context length is (?P<window>\d+).{0,200}?(?:has|contains|in|requested|least) (?P<prompt>\d+) (?:input )?tokens",
        r"input \((?P<prompt>\d+) tokens\) is longer than the model's context length \((?P<window>\d+)",
        r"request \((?P<prompt>\d+) tokens\) exceeds the available context size \((?P<window>\d+)",
        r"too long: (?P<prompt>\d+) tokens > (?P<window>\d+)",
        r"prompt \(length (?P<prompt>\d+)\) is longer than the maximum model length of (?P<window>\d+)",
        r"Requested tokens \((?P<prompt>\d+)\) exceed context window of (?P<window>\d+)",
        r"context (?:length|size)(?: is| of)?(?: only)? (?P<window>\d+)",
    )
)
"""Texts of vLLM, OpenAI and DeepSeek, SGLang, Anthropic, llama-server, llama-cpp-python; the fuller ones first."""


def _about_length(refusal: Refusal) -> GatewayError | None:
    """The input is longer than the window, or leaves too little of it for max_tokens (errors.md 2, texts below it)."""
    named = "context_length_exceeded" in (refusal.code, refusal.kind) or refusal.kind == "exceed_context_size_error"
    if not (named or _TOO_LONG(refusal.text)):
        return None
    text = _said(refusal, "The input is longer than the model's context.")
    return GatewayError(ErrorKind.CONTEXT_LENGTH, text, param="messages", limits=_limits(refusal))


def _limits(refusal: Refusal) -> Limits | None:
    """Prompt tokens, max_tokens (None where the prompt alone is too long), window; as far as the server told them."""
    found = next((match for search in _NUMBERS if (match := search(refusal.text))), None)
    numbers = {name: int(value[:12]) for name, value in found.groupdict().items()} if found else {}
    prompt = numbers.get("prompt", refusal.prompt_tokens)
    window = numbers.get("window", refusal.window)
    answer = numbers.get("answer")
    if prompt is None and window is None:
        return None
    alone = prompt is not None and window is not None and prompt >= window
    return prompt, None if alone else answer, window


def _not_there(refusal: Refusal, request: ChatRequest) -> GatewayError:
    """No such model, or no such route: a fault of the configuration, unless only legacy completions are missing."""
    no_route = is_no_route(refusal)
    details: dict[str, object] | None = {"completions": False} if request.prompt is not None and no_route else None
    what = "has no such route" if no_route else f"does not know the model behind '{request.model}'"
    return GatewayError(ErrorKind.UPSTREAM_NOT_FOUND, f"The upstream {what}.", details=details)


_WINDOW = re.compile(r"\(([A-Za-z]{3,40}By[A-Za-z]{3,40})\)").search
"""The name of a limit, such as UserByModelByDay (token-rotation.md)."""


def _too_many(refusal: Refusal, request: ChatRequest, headers: Mapping[str, str]) -> GatewayError:
    if "insufficient_quota" in (refusal.code, refusal.kind):
        kind, message = _PLAIN[402]
        return GatewayError(kind, message)
    delay = retry_delay(refusal, headers)
    window = _WINDOW(refusal.text)
    message = f"The upstream's rate limit for model '{request.model}' is reached"
    message += f" ({window.group(1)})." if window else "."
    if delay is not None:
        message += f" Retry after ~{delay:.0f}s."
    return GatewayError(ErrorKind.UPSTREAM_RATE_LIMITED, message, retry_after=delay)


_DURATION = r"(?>\d+(?:\.\d+)?)\s?(?>ms|[smhd])[a-z]*+\s?"  # atomic: it stands under a +
_AFTER = re.compile(rf"\b(?:retry|try again|wait)\b[^\d\n.]{{0,40}}?((?:{_DURATION})+)", re.IGNORECASE).search
_IS_DURATION = re.compile(rf"(?:{_DURATION})+", re.IGNORECASE).fullmatch
_PIECE = re.compile(r"(\d+(?:\.\d+)?)\s?(ms|[smhd])", re.IGNORECASE)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def retry_delay(refusal: Refusal, headers: Mapping[str, str]) -> float | None:
    """Seconds until another try makes sense: from `Retry-After`, `x-ratelimit-*`, or the text; None if nobody says."""
    text = _AFTER(refusal.text)
    candidates = (
        _seconds(headers.get("retry-after-ms", ""), headers, unit="ms"),
        _seconds(headers.get("retry-after", ""), headers),
        _reset(headers),
        _seconds(text.group(1), headers) if text else None,
    )
    return next((delay for delay in candidates if delay is not None), None)


def _reset(headers: Mapping[str, str]) -> float | None:
    """When the limit that is used up opens again (`x-ratelimit-remaining-requests: 0`, `x-ratelimit-reset-requests: 6m0s`)."""
    spent = [
        _seconds(headers.get(f"x-ratelimit-reset{name.removeprefix('x-ratelimit-remaining')}", ""), headers)
        for name, value in headers.items()
        if name.startswith("x-ratelimit-remaining") and value.strip() in ("0", "0.0")
    ]
    return max((delay for delay in spent if delay is not None), default=None)


def _seconds(text: str, headers: Mapping[str, str], unit: str = "s") -> float | None:
    """A delay written as a number, as `1m30s`, as Unix seconds, or as a date; bounded. The server's clock is its `Date`."""
    text = text.strip()[:64]
    if re.fullmatch(r"\d+(\.\d+)?", text):
        value = float(text)
        delay = value * _UNITS[unit] if value < 1e9 else _from_now(value, headers)
    elif _IS_DURATION(text):
        delay = sum(float(number) * _UNITS[mark.lower()] for number, mark in _PIECE.findall(text))
    else:
        delay = _from_now(_date(text), headers)
    return delay if delay is not None and 0 < delay <= MAX_DELAY else None


def _from_now(then: float | None, headers: Mapping[str, str]) -> float | None:
    now = _date(headers.get("date", ""))
    return then - now if then is not None and now is not None else None


def _date(text: str) -> float | None:
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def _said(refusal: Refusal, otherwise: str) -> str:
    return clean(refusal.text) or otherwise
