"""The servers behind "OpenAI-compatible", and how they differ: one table, and how one is told from the other.

Rule: what depends on the flavour of a server is a column of `TRAITS`, not an `if` somewhere else. Facts: upstreams.md.
Surprise: a server of unknown flavour gets the plain OpenAI fields only, since some refuse what they do not know
(`transformers serve`: 422).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from ds2d.core.models import Target
from ds2d.core.request import ChatRequest

Thinking = Literal["template", "deepseek", "effort", "none"]
Wire = Literal["chat", "completions", "fim"]

_OPENAI_SAMPLING = frozenset(
    (
        "temperature",
        "top_p",
        "n",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "seed",
    )
)
_DEEPSEEK_SAMPLING = _OPENAI_SAMPLING - {"n", "logit_bias", "seed"}
_LLAMA_SAMPLING = frozenset(("top_k", "min_p", "typical_p", "repeat_penalty", "grammar"))


class Traits(msgspec.Struct, frozen=True):
    """How one flavour is asked.

    `sampling`: fields of a request that it gets; `extras`: also those that nobody knows (openai-chat.md, head).
    `many`: answers with `n` choices. `tokens`: takes prompts as token ids. `echoes`: does `echo` by itself.
    `reasoning`: the name of reasoning in history, None where it must not be sent. `schema`: what it does with a JSON schema:
    "native", "object" (only json_object, the schema goes into the prompt), "inside" (json_object with the schema in it).
    `suffix`: fills in between prompt and suffix. `effort_none`: knows `reasoning_effort: "none"`. `running_usage`: it can be
    had on each chunk. `max_tools`: functions that it takes.
    """

    sampling: frozenset[str] = _OPENAI_SAMPLING
    extras: bool = False
    many: bool = True
    tokens: bool = False
    echoes: bool = False
    thinking: Thinking = "none"
    reasoning: str | None = "reasoning_content"
    schema: Literal["native", "object", "inside"] = "native"
    suffix: bool = False
    effort_none: bool = False
    running_usage: bool = False
    max_tools: int = 1024


TRAITS: dict[str, Traits] = {
    "vllm": Traits(
        extras=True,
        tokens=True,
        echoes=True,
        thinking="template",
        reasoning="reasoning",
        effort_none=True,
        running_usage=True,
    ),
    "sglang": Traits(extras=True, tokens=True, echoes=True, thinking="template"),
    "llamacpp": Traits(sampling=_OPENAI_SAMPLING | _LLAMA_SAMPLING, tokens=True, thinking="template"),
    "llamacpp_python": Traits(
        sampling=_OPENAI_SAMPLING | _LLAMA_SAMPLING, many=False, echoes=True, reasoning=None, schema="inside", suffix=True
    ),
    "transformers": Traits(many=False, schema="object"),
    "deepseek": Traits(
        sampling=_DEEPSEEK_SAMPLING, many=False, echoes=True, thinking="deepseek", schema="object", suffix=True, max_tools=128
    ),
    "generic": Traits(thinking="effort", suffix=True),
}


def flavour_of(target: Target) -> str:
    """The flavour that config sets, else the one found out."""
    configured = target.upstream.flavour
    return target.facts.flavour if configured == "auto" else configured


def traits_of(target: Target) -> Traits:
    """How this target's server is asked."""
    return TRAITS.get(flavour_of(target), TRAITS["generic"])


def wire_of(request: ChatRequest, target: Target) -> Wire:
    """Which route a question goes to: legacy completions have their own where the server has it (openai-chat.md 8)."""
    if request.prompt is None:
        return "chat"
    if flavour_of(target) == "deepseek":
        return "fim" if request.params.get("suffix") is not None else "chat"
    return "chat" if target.facts.completions is False else "completions"


def prompts_to_echo(request: ChatRequest, target: Target) -> list[str]:
    """The prompts that the gateway itself must put before the answers; empty where none was asked for or the server does it."""
    if not request.params.get("echo") or request.prompt is None:
        return []
    if wire_of(request, target) != "chat" and traits_of(target).echoes:
        return []
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    return [prompt for prompt in prompts if isinstance(prompt, str)]


_OWNERS = {
    "vllm": "vllm",
    "sglang": "sglang",
    "llamacpp": "llamacpp",
    "llama.cpp": "llamacpp",
    "me": "llamacpp_python",
    "deepseek": "deepseek",
}
"""`owned_by` in model lists."""


def detect_flavour(base_url: str, models: Any, headers: Mapping[str, str], version: Any = None) -> str:
    """Which server it is, from what it shows without being asked a question.

    `models` is the parsed model list or None, `headers` (lower-case names) came with it, `version` is the parsed answer of
    `/version` or None. "generic" where nothing tells.
    """
    if (urlsplit(base_url).hostname or "").lower().endswith("deepseek.com"):
        return "deepseek"
    if headers.get("server", "").lower().startswith("llama.cpp"):
        return "llamacpp"
    entries = models.get("data") if isinstance(models, dict) else None
    owners = [entry.get("owned_by") for entry in entries or () if isinstance(entry, dict)]
    for owner in owners:
        if isinstance(owner, str) and owner.lower() in _OWNERS:
            return _OWNERS[owner.lower()]
    if isinstance(version, dict) and isinstance(version.get("version"), str):
        return "vllm"
    return "generic"


def prefixes(base_url: str) -> tuple[str, ...]:
    """What may stand between the base URL and a route, the likeliest first; the one whose `/models` answers is right."""
    path = urlsplit(base_url).path.rstrip("/")
    last = path.rpartition("/")[2]
    if last.startswith("v") and last[1:2].isdigit():
        return ("",)
    return ("", "/v1") if path else ("/v1", "")


def server_root(base_url: str) -> str:
    """The base URL without its `/v1`: where `/version`, `/health`, `/tokenize` and the like are."""
    base = base_url.rstrip("/")
    last = base.rpartition("/")[2]
    return base[: -len(last) - 1] if last.startswith("v") and last[1:2].isdigit() and urlsplit(base).path else base
