"""Where servers tell their load, and how it reads: vLLM's, SGLang's and llama.cpp's names (upstreams.md 3, 6).

Rule: figures are taken by name from text that is not ours, so whatever is missing, odd or out of bounds is None, never a guess.
Surprise: `/load` is not among the sources: vLLM answers 0 for ever unless it was started with an option (upstreams.md 1.9).
SGLang says the same requests several times: once a tensor and pipeline rank with `--enable-metrics-for-all-schedulers`, once a
priority beside their sum with `--enable-priority-scheduling`. And SGLang and llama.cpp count an answer's tokens when it ends,
so that only another counter tells whether a long one goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import orjson

from ds2d.core.load import Load

Reader = Callable[[bytes], Load | None]

_LINE = re.compile(rb"^((?:vllm|sglang|llamacpp):\w+)(\{[^\n]*\})?[ \t]+([^ \t\r\n]+)", re.MULTILINE)

_FIELDS: dict[bytes, tuple[str, ...]] = {
    b"vllm:num_requests_running": ("running",),
    b"vllm:num_requests_waiting": ("waiting",),
    b"vllm:kv_cache_usage_perc": ("cache_use",),
    b"vllm:gpu_cache_usage_perc": ("cache_use",),
    b"vllm:generation_tokens_total": ("generated", "steps"),
    b"vllm:prompt_tokens_total": ("prompted",),
    b"vllm:prefix_cache_queries_total": ("queries",),
    b"vllm:gpu_prefix_cache_queries_total": ("queries",),
    b"vllm:prefix_cache_hits_total": ("hits",),
    b"vllm:gpu_prefix_cache_hits_total": ("hits",),
    b"vllm:engine_sleep_state": ("awake",),
    b"sglang:num_running_reqs": ("running",),
    b"sglang:num_queue_reqs": ("waiting",),
    b"sglang:token_usage": ("cache_use",),
    b"sglang:realtime_tokens_total": ("steps", "decoded"),
    b"sglang:generation_tokens_total": ("generated",),
    b"sglang:prompt_tokens_total": ("prompted", "queries"),
    b"sglang:cached_tokens_total": ("hits",),
    b"llamacpp:requests_processing": ("running",),
    b"llamacpp:requests_deferred": ("waiting",),
    b"llamacpp:kv_cache_usage_ratio": ("cache_use",),
    b"llamacpp:n_decode_total": ("steps",),
    b"llamacpp:tokens_predicted_total": ("generated",),
    b"llamacpp:prompt_tokens_total": ("prompted",),
}

_ONLY = {"awake": b'sleep_state="awake"', "decoded": b'mode="decode"'}
"""The rows of a field that count, by a label."""

_PART = re.compile(rb'[{,]priority="[^"]')
"""A row of SGLang that is one priority of a sum, which has an empty one."""

_RANK = re.compile(rb'[{,]dp_rank="([^"]*)"')
_COPY = re.compile(rb'[{,]((?:tp|pp|moe_ep)_rank="[^"]*)"')
"""The ranks of one replica: each has the same requests."""

MOST = 2**53
"""A figure above is none."""


def read_metrics(body: bytes) -> Load | None:
    """Prometheus text; None if it is not from a server that we know."""
    found: dict[str, list[tuple[bytes, float]]] = {}
    for name, labels, text in _LINE.findall(body):
        value = _number(text)
        if value is None or name not in _FIELDS or _PART.search(labels):
            continue
        for field in _FIELDS[name]:
            if _ONLY.get(field, b"") in labels:
                found.setdefault(field, []).append((labels, value))
    if "running" not in found:
        return None
    use = [value for _, value in found.pop("cache_use", [])]
    asleep = "awake" in found and not any(value for _, value in found.pop("awake"))
    sums = {field: int(_sum(rows)) for field, rows in found.items() if field != "awake"}
    if "decoded" in sums:
        sums["generated"] = sums.pop("decoded")
    if "hits" not in sums:
        sums.pop("queries", None)
    return Load(**sums, cache_use=_share(use), asleep=asleep)


def read_loads(body: bytes) -> Load | None:
    """SGLang's `/v1/loads`, which answers without `--enable-metrics`."""
    parsed = _parsed(body)
    listed = parsed.get("loads") if isinstance(parsed, dict) else None
    ranks = [rank for rank in listed if isinstance(rank, dict)] if isinstance(listed, list) else []
    running = [value for rank in ranks if (value := _number(rank.get("num_running_reqs"))) is not None]
    if not running:
        return None
    waiting = [value for rank in ranks if (value := _number(rank.get("num_waiting_reqs"))) is not None]
    use = [value for rank in ranks if (value := _number(rank.get("token_usage"))) is not None]
    return Load(int(sum(running)), int(sum(waiting)), _share(use))


def read_slots(body: bytes) -> Load | None:
    """llama-server's `/slots`, which answers without `--metrics`: who is being served; who waits it does not say."""
    slots = _parsed(body)
    if not isinstance(slots, list) or not all(isinstance(slot, dict) and "is_processing" in slot for slot in slots):
        return None
    return Load(sum(slot["is_processing"] is True for slot in slots))


METRICS: tuple[tuple[str, Reader], ...] = (("/metrics", read_metrics),)

SOURCES: dict[str, tuple[tuple[str, Reader], ...]] = {
    "vllm": METRICS,
    "sglang": (*METRICS, ("/v1/loads", read_loads)),
    "llamacpp": (*METRICS, ("/slots", read_slots)),
    "generic": METRICS,
}
"""By flavour, paths below the server's root, the best first. Flavours that are not here tell nothing."""


def _sum(rows: list[tuple[bytes, float]]) -> float:
    """Over everything that is told apart, but one of the ranks of each replica."""
    replicas: dict[bytes, dict[bytes, float]] = {}
    for labels, value in rows:
        rank = _RANK.search(labels)
        copies = replicas.setdefault(rank[1] if rank else b"", {})
        copy = b",".join(sorted(_COPY.findall(labels)))
        copies[copy] = copies.get(copy, 0.0) + value
    if len(replicas) > 1:
        replicas.pop(b"", None)  # their sum
    return sum(max(copies.values()) for copies in replicas.values())


def _share(values: list[float]) -> float | None:
    return min(1.0, max(values)) if values else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, bytes)):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return number if isfinite(number) and 0 <= number < MOST else None


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
