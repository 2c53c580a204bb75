"""What looking for tool calls costs: per chunk of ordinary text, and per byte of hostile text against plain text.

    .venv/bin/python -m bench.toolcalls [--mb 64] [--chunk 4 64 1024 65536] [--only NAME ...] [--json]

CPU time of this process, tools declared. First a stage that does nothing (the machine's yardstick), the detector alone and all
stages with ordinary text and no call (the aim is under 1 us a chunk), a new answer every 5,000 chunks, because what a text
costs is paid for out of an allowance and 100,000 chunks of Markdown use it up. `README` is this project's, in words and marks;
`Markdown` has nothing but marks and fences. Then texts made to be expensive: markers begun and never closed, storms of
backticks, deep braces.
`x plain` is their cost per byte over that of plain text of the same length in the same chunks (aim: 2); `doubled` the cost
of twice as much over twice the cost (above 1.2 something is not linear; noise is about 0.1).
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from ds2d.core.events import Ending, Event, Finish, Text
from ds2d.core.models import Facts, Target
from ds2d.core.pipeline import Pipeline, Stage
from ds2d.core.request import ChatRequest, Envelope, Tool
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Splitter
from ds2d.dialects import openai_chat
from ds2d.toolcalls import build
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.detector import Detector
from ds2d.toolcalls.policy import Policy
from ds2d.upstreams.openai import Decoder

MEGABYTE = 1 << 20
ANSWER = 5000
"""Chunks of an ordinary answer."""

CHUNKS = (4, 64, 1024, 65536)


def tool(name: str, **properties: str) -> Tool:
    schema = {key: {"type": kind} for key, kind in properties.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": schema}}}


TOOLS = [tool("get_weather", city="string", days="integer"), tool("get_time"), tool("search", query="string", tags="array")]
REQUEST = ChatRequest("m", [{"role": "user", "content": "hi"}], stream=True, tools=TOOLS)

PROSE = "The quick brown fox jumps over the lazy dog, then it rests for a while in the warm sun of the late afternoon.\n"
README = Path(__file__).parent.parent / "README.md"
MARKDOWN = "Use `fox` and [dog](https://x.org/y); if a < b then {c: 1}, *not* `d`.\n\n```python\nx = {'a': [1]}\n```\n\nDone.\n"
HOSTILE = {
    "opening tags": "<tool_call>",
    "opening tags and braces": '<tool_call>{"name":"get_time","arg',
    "DSML opened": "<｜DSML｜tool_calls>",
    "DSML calls opened": '<｜DSML｜tool_calls><｜DSML｜invoke name="get_time">x',
    "V3 tokens": "<｜tool▁calls▁begin｜>",
    "V3.1 calls opened": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_time",
    "closing tags": "</tool_call></invoke>",
    "invoke in a value": '<invoke name="get_weather"><parameter name="city">x',
    "backticks": "`",
    "backticks and words": "`a",
    "double backticks": "``a` ",
    "fences": "```\n",
    "fences of JSON": '```json\n{"name":"get_time","arguments":{',
    "deep braces": "{",
    "deep brackets": "[",
    "deep objects": '{"a":{',
    "deep calls": '{"tool_calls":[',
    "names": '{"name":"get_time",',
    "functions": '{"function":{',
    "arguments": '{"arguments":{"a":',
    "quoted calls": '` {"name":"get_time","arguments":{}} ',
    "angle brackets": "<",
    "think tags": "</think>",
    "blanks and think tags": "<think> </think> ",
    "rows of a table": "<tr><td>some cell</td><td>12</td></tr>\n",
    "pairs": "function.name: get_time\n",
    "CDATA": "<![CDATA[",
    "line feeds": "\n",
}

WHOLE_WAY = (
    *("opening tags", "DSML calls opened", "backticks and words", "deep objects", "fences of JSON"),
    *("angle brackets", "think tags", "blanks and think tags", "rows of a table"),
)


def ids() -> Callable[[str], str]:
    numbers = itertools.count()
    return lambda prefix: f"{prefix}{next(numbers):024d}"


def detector() -> list[Stage]:
    return [Detector(Declared(TOOLS), "feature_match", "high", ids())]


def policy() -> list[Stage]:
    return [Policy(REQUEST, ids())]


def everything() -> list[Stage]:
    return build(REQUEST, ids(), think="outside")


class Nothing:
    """A stage without work."""

    def feed(self, batch: list[Event]) -> list[Event]:
        return batch

    def finish(self) -> list[Event]:
        return []


def nothing() -> list[Stage]:
    return [Nothing()]


def cut(text: str, chunk: int) -> list[str]:
    return [text[at : at + chunk] for at in range(0, len(text), chunk)]


def words(text: str) -> list[str]:
    """Pieces as a tokenizer cuts them, roughly."""
    return re.findall(r" ?\w{1,8}|[^\w\s]+|\s+", text)


def cpu_seconds(stages: list[Stage], pieces: list[str]) -> float:
    """CPU time of these stages for a text in pieces."""
    batches: list[list[Event]] = [[Text(piece)] for piece in pieces]
    batches.append([Finish((Ending("stop"),))])
    gc.collect()
    gc.disable()
    began = time.process_time()
    for batch in batches:
        for stage in stages:
            batch = stage.feed(batch) if batch else batch
    spent = time.process_time() - began
    gc.enable()
    return spent


def piped_seconds(text: str, chunk: int) -> float:
    """The same for the whole way of a streamed chat answer: server bytes to client bytes, a read per record."""
    target = Target(UpstreamSpec(name="up", kind="openai", base_url="http://127.0.0.1:1/v1"), "m", ModelSpec(), Facts())
    envelope = Envelope(REQUEST, "m", "req_1", 1, ids(), lambda: 1)
    pipeline = Pipeline(Splitter(), Decoder(REQUEST, target), everything(), openai_chat.Encoder(envelope))
    reads = [
        b"data: " + orjson.dumps({"id": "x", "choices": [{"index": 0, "delta": {"content": piece}}]}) + b"\n\n"
        for piece in cut(text, chunk)
    ]
    gc.collect()
    began = time.process_time()
    for read in reads:
        pipeline.feed(read)
        pipeline.said.clear()
    return time.process_time() - began


def repeated(unit: str, size: int) -> str:
    return (unit * (size // len(unit) + 1))[:size]


STAGES = (("nothing", nothing), ("detector", detector), ("policy", policy), ("all stages", everything))


def ordinary(say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Cost per chunk of ordinary text, the best of forty answers."""
    rows = []
    for name, pieces in (
        ("prose, a token a chunk", cut(repeated(PROSE, ANSWER * 5), 5)),
        ("prose, 64 characters a chunk", cut(repeated(PROSE, ANSWER * 64), 64)),
        ("README, a token a chunk", words(README.read_text())[:ANSWER]),
        ("Markdown, a token a chunk", cut(repeated(MARKDOWN, ANSWER * 4), 4)),
    ):
        row: dict[str, Any] = {"text": name}
        for label, make in STAGES:
            row[label] = min(cpu_seconds(make(), pieces) for _ in range(40)) / len(pieces) * 1e6
        rows.append(row)
        say(f"{name:32s}" + "".join(f"  {label} {row[label]:5.2f} us" for label, _ in STAGES))
    return rows


def hostile(size: int, chunks: list[int], only: list[str], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Cost per byte of hostile texts over plain text, and of twice as much over twice the cost."""
    rows = []
    for chunk in chunks:
        length = size if chunk > 16 else min(size, 16 * MEGABYTE)  # tokens are slow to make, not to read
        plain = cpu_seconds(detector(), cut(repeated(PROSE, length), chunk))
        say(f"\nchunks of {chunk}, {length / MEGABYTE:g} M characters: plain text {plain / length * 1e9:.1f} ns a character")
        for name, unit in HOSTILE.items():
            if only and name not in only:
                continue
            half = cpu_seconds(detector(), cut(repeated(unit, length // 2), chunk))
            whole = cpu_seconds(detector(), cut(repeated(unit, length), chunk))
            row = {
                "text": name,
                "chunk": chunk,
                "ns": whole / length * 1e9,
                "times_plain": whole / plain,
                "doubled": whole / half / 2,
            }
            rows.append(row)
            say(f"  {name:26s} {row['ns']:8.1f} ns  x plain {row['times_plain']:6.2f}  doubled {row['doubled']:5.2f}")
    return rows


def whole_way(size: int, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """The same ratio for the whole way from server bytes to client bytes."""
    rows = []
    for chunk in (16, 256):
        length = min(size, 4 * MEGABYTE)
        plain = piped_seconds(repeated(PROSE, length), chunk)
        record = plain / length * chunk * 1e6
        say(f"\nthe whole way, records of {chunk} characters, {length / MEGABYTE:g} M: plain {record:.1f} us a record")
        for name in WHOLE_WAY:
            spent = piped_seconds(repeated(HOSTILE[name], length), chunk)
            rows.append({"text": name, "record": chunk, "times_plain": spent / plain})
            say(f"  {name:26s} x plain {spent / plain:6.2f}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=float, default=8, help="M characters of hostile text (64 is the promise)")
    parser.add_argument("--chunk", type=int, nargs="*", default=list(CHUNKS))
    parser.add_argument("--only", nargs="*", default=[], help="names of hostile texts")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout, progress on stderr")
    options = parser.parse_args()
    out = sys.stderr if options.json else sys.stdout

    def say(line: str) -> None:
        print(line, file=out, flush=True)

    size = int(options.mb * MEGABYTE)
    result = {
        "ordinary": ordinary(say),
        "hostile": hostile(size, options.chunk, options.only, say),
        "whole_way": whole_way(size, say),
    }
    if options.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
