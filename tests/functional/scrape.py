"""/metrics of a running daemon, read by prometheus_client's own parser."""

from __future__ import annotations

from typing import Any

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from ds2d.core.metrics import CONTENT_TYPE
from tests.functional.harness import Running
from tests.functional.scripted import Scene, ScriptedUpstream, chunk, say, sse, usage
from tests.functional.test_every_dialect import QUESTIONS

GAUGES: dict[str, float] = {
    "num_requests_running": 3,
    "num_requests_waiting": 1,
    "kv_cache_usage_perc": 0.25,
    "generation_tokens_total": 100,
    "prefix_cache_queries_total": 40,
    "prefix_cache_hits_total": 10,
}
"""What a vLLM says of itself."""

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CHAT = "/v1/chat/completions"


class Page:
    """A scrape. `value(name, **labels)` is one sample's, 0 where there is none; labels that are not named add up."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(text)}
        self.samples = [sample for family in self.families.values() for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        wanted = labels.items()
        return sum(sample.value for sample in self.samples if sample.name == name and wanted <= sample.labels.items())

    def labels(self, name: str, label: str) -> set[str]:
        return {sample.labels[label] for sample in self.samples if sample.name == name}


async def scrape(live: Running, key: str | None = None) -> Page:
    status, text, headers = await live.ask("/metrics", key=key)
    assert status == 200, text
    assert headers["content-type"] == CONTENT_TYPE
    return Page(text)


async def mixed_run(live: Running, upstream: ScriptedUpstream) -> int:
    """Every dialect, whole and streamed; a cut stream, calls of which one is mended and one refused, and refusals of three
    kinds. Returns how many turns that were."""
    turns = 0
    for dialect, (path, body, stream_path, more) in QUESTIONS.items():
        if dialect == "completions":
            upstream.answer_as_completion()
        for where, asked in ((path, body), (stream_path, {**body, **more})):
            status, answer, _ = await live.ask(where, asked)
            assert status == 200, answer
            turns += 1
    ask: dict[str, Any] = {**QUESTIONS["chat"][1], "stream": True}
    upstream.scenes.append(Scene([*say("Hel", "lo")[:3]]))  # the end of the body without a finish
    assert "error" in (await live.ask(CHAT, ask))[1]
    calls = [
        {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern",}'}},
        {"index": 1, "id": "call_2", "type": "function", "function": {"name": "nobody", "arguments": "{}"}},
    ]
    details = {"prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 2}}
    counts = usage(16, 8)
    counts["usage"] |= details
    upstream.scenes.append(Scene(sse(chunk({"role": "assistant", "tool_calls": calls}), chunk({}, "tool_calls"), counts)))
    assert (await live.ask(CHAT, {**ask, "tools": [WEATHER]}))[0] == 200
    assert (await live.ask(CHAT, {**ask, "model": "deepseek-nope"}))[0] == 404
    assert (await live.ask(CHAT, ask, key="sk-wrong"))[0] == 401  # no turn
    assert (await live.ask(CHAT, data=b"{", method="POST"))[0] == 400  # no turn
    return turns + 3
