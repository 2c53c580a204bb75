"""Token counts as servers report them, checked before anybody stores, bills or passes them on.

Rule: a number that cannot be true (negative, fractional, absurd, a part larger than its whole) is as good as none.
Surprise: where the counts stand differs by server (mapping.md 8, upstreams.md 6): DeepSeek has its own name for cached
tokens, SGLang puts reasoning tokens at the top, and vLLM may say 0 of them beside pages of reasoning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ds2d.core.events import Usage

_PLACED = frozenset(("cached_tokens", "cache_write_tokens", "reasoning_tokens"))
"""Parts that are fields of `Usage`."""

MOST_TOKENS = 10**9
"""More than any answer can have; a larger number is a fault of the server."""


def read_usage(reported: Any) -> Usage | None:
    """The usage object of a chunk or body; None if it says nothing believable."""
    if not isinstance(reported, dict):
        return None
    prompt = _count(reported, "prompt_tokens")
    completion = _count(reported, "completion_tokens")
    total = _count(reported, "total_tokens")
    if prompt is None and completion is not None and total is not None:
        prompt = total - completion
    if completion is None and prompt is not None and total is not None:
        completion = total - prompt
    if prompt is None or completion is None or prompt < 0 or completion < 0 or prompt + completion == 0:
        return None
    of_prompt = reported.get("prompt_tokens_details")
    of_completion = reported.get("completion_tokens_details")
    cached = _first(_count(of_prompt, "cached_tokens"), _count(reported, "prompt_cache_hit_tokens"))
    return Usage(
        prompt,
        completion,
        reasoning=_part(_first(_count(of_completion, "reasoning_tokens"), _count(reported, "reasoning_tokens")), completion),
        cached=_part(cached, prompt),
        cache_write=_part(_count(of_prompt, "cache_write_tokens"), prompt),
        details=_further(of_prompt, of_completion),
    )


def _further(of_prompt: Any, of_completion: Any) -> dict[str, dict[str, int]] | None:
    """Parts for which `Usage` has no place (audio, predictions): chat clients get them as they came (S0-35)."""
    if not of_prompt and not of_completion:
        return None
    given = {"prompt_tokens_details": of_prompt, "completion_tokens_details": of_completion}
    found: dict[str, dict[str, int]] = {}
    for name, parts in given.items():
        counts = {part: _count(parts, part) for part in parts if part not in _PLACED} if type(parts) is dict else {}
        if known := {part: count for part, count in counts.items() if count is not None}:
            found[name] = known
    return found or None


def sum_usage(of_choices: Mapping[int, Usage], choices_per_prompt: int) -> Usage:
    """One usage from those that servers report choice by choice: a prompt counts once, whatever was made of it.

    `of_choices` is by choice index; choice i answers prompt i // choices_per_prompt (openai-chat.md 8).
    """
    prompts = {index // choices_per_prompt: usage for index, usage in of_choices.items()}
    return Usage(
        sum(usage.prompt for usage in prompts.values()),
        sum(usage.completion for usage in of_choices.values()),
        reasoning=_sum(usage.reasoning for usage in of_choices.values()),
        cached=_sum(usage.cached for usage in prompts.values()),
        cache_write=_sum(usage.cache_write for usage in prompts.values()),
    )


def _count(where: Any, name: str) -> int | None:
    if type(where) is not dict:
        return None
    value = where.get(name)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one


def _part(part: int | None, whole: int) -> int | None:
    return part if part is not None and part <= whole else None


def _sum(counts: Iterable[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
