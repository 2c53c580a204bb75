"""Answers that tests of several clients share, as scenes of the scripted upstream: calls, thinking, calls written as text."""

from __future__ import annotations

import json
from typing import Any

from tests.functional.scripted import END, Scene, chunk, say, sse, usage


def calling(*calls: tuple[str, dict[str, Any]], text: str = "", reasoning: str = "", first_id: int = 1) -> Scene:
    """A streamed answer that calls these functions, each call's arguments in two pieces as vLLM sends them."""
    events: list[dict[str, Any]] = [chunk({"role": "assistant", "content": ""})]
    events += [chunk({"reasoning": reasoning})] * bool(reasoning) + [chunk({"content": text})] * bool(text)
    for index, (name, arguments) in enumerate(calls):
        written = json.dumps(arguments, ensure_ascii=False)
        head = {"index": index, "id": f"call_{first_id + index}", "type": "function", "function": {"name": name, "arguments": ""}}
        events.append(chunk({"tool_calls": [head]}))
        for piece in (written[: len(written) // 2], written[len(written) // 2 :]):
            events.append(chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}))
    return Scene(sse(*events, chunk({}, "tool_calls"), usage()))


def calling_whole(*calls: tuple[str, dict[str, Any]], text: str | None = None, reasoning: str | None = None) -> Scene:
    """The same in one piece."""
    made = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls, 1)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": text, "tool_calls": made}
    if reasoning:
        message["reasoning"] = reasoning
    body = {
        "id": "chatcmpl-up",
        "object": "chat.completion",
        "created": 1763640000,
        "model": "up",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "tool_calls"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
    return Scene([json.dumps(body).encode()], content_type="application/json")


def saying(*texts: str, reasoning: tuple[str, ...] = ()) -> Scene:
    """A streamed answer of text."""
    return Scene(say(*texts, reasoning=reasoning))


def written_as_text(markup: str, size: int = 7) -> Scene:
    """A call that the model wrote into its text, in small pieces, and a server that did not see it."""
    return saying(*(markup[at : at + size] for at in range(0, len(markup), size)))


def breaking(*texts: str) -> Scene:
    """A stream that ends in the middle without a finish."""
    events = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": text}) for text in texts)]
    return Scene([*sse(*events, done=False), END])


def dsml(name: str, **arguments: Any) -> str:
    """A call as DeepSeek V3.2 and V4 write it (toolcalls.md 1)."""
    mark = "｜DSML｜"
    parameters = "".join(
        f'<{mark}parameter name="{key}" string="{"true" if isinstance(value, str) else "false"}">'
        f"{value if isinstance(value, str) else json.dumps(value)}</{mark}parameter>\n"
        for key, value in arguments.items()
    )
    return f'<{mark}function_calls>\n<{mark}invoke name="{name}">\n{parameters}</{mark}invoke>\n</{mark}function_calls>'


def v31(name: str, **arguments: Any) -> str:
    """A call as DeepSeek V3.1 writes it (toolcalls.md 1)."""
    body = json.dumps(arguments, ensure_ascii=False)
    return f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{body}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
