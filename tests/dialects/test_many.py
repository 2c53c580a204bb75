"""What a question costs grows with its length, not with its square: a body of a megabyte is read on the event loop."""

from __future__ import annotations

import time
from typing import Any

import pytest

from ds2d.core.request import Inbound
from ds2d.dialects import REGISTRY

MANY = 16_000
LONG = "word " * 400
"""So long that a few thousand of them, each added to a copy of all before it, are tens of gigabytes."""

SECONDS = 2.0
"""Of this thread's own time, however busy the machine is. What grew with the square took more than five, the rest a tenth."""


def chat(count: int) -> dict[str, list[Any]]:
    def call(number: int) -> dict[str, Any]:
        return {"id": f"c{number}", "type": "function", "function": {"name": f"look{number}", "arguments": "{}"}}

    calls = {"role": "assistant", "content": None, "tool_calls": [call(number) for number in range(count)]}
    return {
        "answers by name, last first": [
            calls,
            *({"role": "function", "name": f"look{number}", "content": "x"} for number in reversed(range(count))),
        ],
        "answers by name, first first": [
            calls,
            *({"role": "function", "name": f"look{number}", "content": "x"} for number in range(count)),
        ],
    }


def claude(count: int) -> dict[str, list[Any]]:
    calls = [{"type": "tool_use", "id": f"c{number}", "name": "look", "input": {}} for number in range(count)]
    results = [{"type": "tool_result", "tool_use_id": f"c{number}", "content": "x"} for number in range(count)]
    answered = {"role": "user", "content": results[::-1]}
    return {
        "calls of one message": [{"role": "assistant", "content": calls}, answered],
        "calls of many messages": [*({"role": "assistant", "content": [one]} for one in calls), answered],
        "texts of one turn": [{"role": "user", "content": "x"}, *[{"role": "assistant", "content": LONG}] * (count // 2)],
    }


def responses(count: int) -> dict[str, list[Any]]:
    calls = [{"type": "function_call", "call_id": f"c{number}", "name": "look", "arguments": "{}"} for number in range(count)]
    outputs = [{"type": "function_call_output", "call_id": f"c{number}", "output": "x"} for number in range(count)]
    return {
        "messages": [{"role": "user", "content": "x"}] * 2 * count,
        "calls, then outputs": [*calls, *outputs],
        "calls, then outputs, last first": [*calls, *outputs[::-1]],
        "rounds": [
            item
            for pair in zip(calls, outputs, strict=True)
            for item in (*pair, {"role": "user", "content": "x"})
        ],
        "texts of one turn": [{"role": "assistant", "content": LONG}] * (count // 2),
        "thoughts of one turn": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": LONG}]}] * (count // 2)
        + [{"role": "user", "content": "x"}],
    }  # fmt: skip


def gemini(count: int) -> dict[str, list[Any]]:
    calls = [{"functionCall": {"name": f"look{number}", "args": {}}} for number in range(count)]
    answers = [{"functionResponse": {"name": f"look{number}", "response": {"output": "x"}}} for number in range(count)]
    return {
        "calls, then answers": [{"role": "model", "parts": calls}, {"role": "user", "parts": answers}],
        "calls, then answers, last first": [{"role": "model", "parts": calls}, {"role": "user", "parts": answers[::-1]}],
    }


SHAPES = {"openai_chat": chat, "claude": claude, "openai_responses": responses, "gemini": gemini}
FIELDS = {"openai_chat": "messages", "claude": "messages", "openai_responses": "input", "gemini": "contents"}
CASES = [(dialect, shape) for dialect, shapes in SHAPES.items() for shape in shapes(1)]


@pytest.mark.parametrize(("dialect", "shape"), CASES)
def test_twice_as_much_takes_twice_as_long(dialect: str, shape: str) -> None:
    body = {FIELDS[dialect]: SHAPES[dialect](MANY)[shape]}
    if dialect != "gemini":
        body |= {"model": "m"}
    if dialect == "claude":
        body |= {"max_tokens": 1}
    began = time.thread_time()
    request = REGISTRY[dialect].parse(Inbound(body, {}, {}, {"model": "m", "action": "generateContent"}))
    assert time.thread_time() - began < SECONDS
    assert request.messages


def test_many_tools_of_claude_take_no_longer_each() -> None:
    tools = [{"name": f"look{number}", "input_schema": {"type": "object"}} for number in range(2 * MANY)]
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}], "tools": tools}
    began = time.thread_time()
    assert len(REGISTRY["claude"].parse(Inbound(body, {}, {}, {})).tools) == 2 * MANY
    assert time.thread_time() - began < SECONDS
