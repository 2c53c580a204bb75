"""What a record costs in the pure stages: microseconds for the splitter and for splitter and decoder, no sockets.

    .venv/bin/python -m bench.pipeline [--records 20000] [--json]

Each figure is the best of several runs, per record of a stream that arrives in reads of 16 records. The last column is the
cost of twice as many records over twice the cost: above 1.2 something is not linear.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from typing import Any

import orjson

from ds2d.core.events import Event
from ds2d.core.models import Facts, Target
from ds2d.core.request import ChatRequest
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter
from ds2d.upstreams.openai import Decoder

REPEATS = 7
RECORDS_A_READ = 16

VLLM = {"id": "chatcmpl-0123456789abcdef0123456789abcdef", "object": "chat.completion.chunk", "created": 1790000000, "model": "m"}
RUNNING = {"usage": {"prompt_tokens": 6, "total_tokens": 9, "completion_tokens": 3}}
LOGPROB = {"content": [{"token": " word", "logprob": -0.5, "bytes": [32, 119, 111, 114, 100], "top_logprobs": []}]}


def vllm(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, "token_ids": None}
    return {**VLLM, "choices": [{**choice, **more}]}


def sglang(delta: dict[str, Any]) -> dict[str, Any]:
    said = {"role": None, "content": None, "reasoning_content": None, "tool_calls": None, **delta}
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": None, "matched_stop": None}
    return {**VLLM, "choices": [choice], "usage": None}


def arguments(text: str) -> dict[str, Any]:
    return vllm({"tool_calls": [{"index": 0, "function": {"arguments": text}}]})


CALL = vllm({"tool_calls": [{"id": "call_1", "type": "function", "index": 0, "function": {"name": "f"}}]})
STREAMS: dict[str, tuple[str, list[dict[str, Any]], dict[str, Any]]] = {
    "vLLM text": ("vllm", [], vllm({"content": " word"})),
    "vLLM text, running usage": ("vllm", [], {**vllm({"content": " word"}), **RUNNING}),
    "vLLM reasoning": ("vllm", [], vllm({"reasoning": " word"})),
    "SGLang text": ("sglang", [], sglang({"content": " word"})),
    "vLLM tool arguments": ("vllm", [CALL], arguments(' "ab": "cd",')),
    "vLLM text with logprobs": ("vllm", [], vllm({"content": " word"}, logprobs=LOGPROB)),
    "a field that nobody knows": ("generic", [], {**vllm({"content": " word"}), "provider": "Acme"}),
}


def reads_of(first: list[dict[str, Any]], chunk: dict[str, Any], records: int) -> list[bytes]:
    frames = [b"data: " + orjson.dumps(one) + b"\n\n" for one in first]
    frames += [b"data: " + orjson.dumps(chunk) + b"\n\n"] * (records - len(frames))
    return [b"".join(frames[start : start + RECORDS_A_READ]) for start in range(0, records, RECORDS_A_READ)]


def split(reads: list[bytes], flavour: str) -> None:
    splitter = Splitter()
    for read in reads:
        splitter.feed(read)


def decode(reads: list[bytes], flavour: str) -> None:
    target = Target(UpstreamSpec(name="up", base_url="http://127.0.0.1:1"), "m", ModelSpec(), Facts(flavour))
    splitter, decoder = Splitter(), Decoder(ChatRequest("m", []), target)
    events: list[Event] = []
    for read in reads:
        events = decoder.feed(splitter.feed(read))
    assert events, "every read of these streams holds text"


def best(work: Callable[[list[bytes], str], None], reads: list[bytes], flavour: str) -> float:
    """Seconds of the fastest run."""
    times = []
    gc.disable()
    for _ in range(REPEATS):
        start = time.perf_counter()
        work(reads, flavour)
        times.append(time.perf_counter() - start)
    gc.enable()
    return min(times)


def measure(records: int) -> list[dict[str, Any]]:
    rows = []
    for name, (flavour, first, chunk) in STREAMS.items():
        reads = reads_of(first, chunk, records)
        once, twice = best(decode, reads, flavour), best(decode, reads_of(first, chunk, 2 * records), flavour)
        row = {
            "stream": name,
            "bytes": len(orjson.dumps(chunk)) + 8,
            "split_us": best(split, reads, flavour) / records * 1e6,
            "split_and_decode_us": once / records * 1e6,
            "doubling": twice / once / 2,
        }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Cost of a record in the pure stages.")
    parser.add_argument("--records", type=int, default=20000)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = measure(options.records)
    if options.json:
        print(json.dumps(rows))
        return
    print(f"{'stream':28} {'bytes':>6} {'split us':>9} {'+ decode us':>12} {'doubling':>9}")
    for row in rows:
        figures = f"{row['split_us']:9.2f} {row['split_and_decode_us']:12.2f} {row['doubling']:9.2f}"
        print(f"{row['stream']:28} {row['bytes']:6} {figures}")


if __name__ == "__main__":
    main()
