"""Calls written in every format from a draw: the generated corpus of the report and of the property tests.

Rule: `write(format, calls, draw)` gives a text that means exactly these calls; how it is laid out is drawn. `draw` is a
`random.Random`, so a seed gives the same corpus.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

Call = tuple[str, dict[str, Any]]
Writer = Callable[[list[Call], random.Random], str]

WORDS = (
    "Paris",
    "São Paulo",
    "北京",
    "emoji 😀👩‍💻",
    'a "quoted" word',
    "back\\slash \\d",
    "tab\tand\nline\n",
    "<b>&amp;</b>",
    "a < b && c > d",
    "`code`",
    "```json\n{}\n```",
    "</think>",
    "<tool_call>",
    "</parameter>",
    '{"name": "get_time"}',
    "}}]",
    "｜DSML｜",
    "",
    " ",
    "0",
    "true",
    "<｜tool▁call▁end｜>",
    "function.name: x",
    "]]> cdata",
    "'",
    "\u2028",
    "x" * 300,
)
CITY, COUNT = ("Paris", "Rome", "北京", "New York", "Łódź 🏙"), (0, 1, 7, -3, 10**12)
SAFE_FOR_ELEMENTS = frozenset(word for word in WORDS if "</parameter>" not in word and "]]>" not in word)
"""Text that an element can hold as it stands; the rest needs CDATA or entities, which a model may forget."""


def draw_call(draw: random.Random) -> Call:
    """A call of one of the corpus' tools, with arguments that its schema allows."""
    return draw.choice(_CALLS)(draw)


def _weather(draw: random.Random) -> Call:
    arguments: dict[str, Any] = {"city": draw.choice(CITY)}
    if draw.random() < 0.5:
        arguments["days"] = draw.choice(COUNT)
    return "get_weather", arguments


def _search(draw: random.Random) -> Call:
    arguments: dict[str, Any] = {"query": draw.choice(WORDS)}
    if draw.random() < 0.5:
        arguments["tags"] = [draw.choice(CITY) for _ in range(draw.randint(0, 3))]
    if draw.random() < 0.3:
        arguments["exact"] = draw.random() < 0.5
    return "search", arguments


def _file(draw: random.Random) -> Call:
    content = "\n".join(draw.choice(WORDS) for _ in range(draw.randint(1, 6)))
    return "write_file", {"path": f"{draw.choice(CITY)}.txt", "content": content}


def _command(draw: random.Random) -> Call:
    env = {draw.choice(CITY): {"deep": [draw.choice(WORDS), draw.choice(COUNT), None, {"x": draw.choice(WORDS)}]}}
    return "run_command", {"command": draw.choice(WORDS), "timeout": draw.choice((1, 2.5)), "env": env}


_CALLS: tuple[Callable[[random.Random], Call], ...] = (_weather, _search, _file, _command, lambda _: ("get_time", {}))


def _dumps(value: Any, draw: random.Random) -> str:
    return json.dumps(value, ensure_ascii=draw.random() < 0.3, indent=draw.choice((None, None, None, 2)))


def _gap(draw: random.Random) -> str:
    return draw.choice(("", "\n", "\n\n", "\n  "))


def _json(calls: list[Call], draw: random.Random) -> str:
    key = draw.choice(("arguments", "input", "args", "parameters", "params"))
    items: list[dict[str, Any]] = []
    for name, arguments in calls:
        value: Any = json.dumps(arguments) if draw.random() < 0.2 else arguments
        items.append(
            {"name": name, key: value}
            if draw.random() < 0.7
            else {"type": "function", "function": {"name": name, "arguments": value}}
        )
    way = draw.choice(("wrapped", "wrapped", "list", "lines", "fence"))
    if way == "lines" or (way == "fence" and len(items) == 1):
        text = "\n".join(_dumps(item, draw) for item in items)
    else:
        text = _dumps(items if way == "list" else {"tool_calls": items}, draw)
    return f"```{draw.choice(('json', ''))}\n{text}\n```" if way == "fence" else text


def _v3(calls: list[Call], draw: random.Random) -> str:
    written = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{_dumps(arguments, draw)}\n```<｜tool▁call▁end｜>"
        for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + "\n".join(written) + "<｜tool▁calls▁end｜>"


def _v31(calls: list[Call], draw: random.Random) -> str:
    written = (
        f"<｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{_dumps(arguments, draw)}<｜tool▁call▁end｜>" for name, arguments in calls
    )
    return "<｜tool▁calls▁begin｜>" + _gap(draw).join(written) + "<｜tool▁calls▁end｜>"


def _dsml(outer: str, prefix: str = "｜DSML｜") -> Writer:
    def write(calls: list[Call], draw: random.Random) -> str:
        gap = draw.choice(("\n", "\n", ""))
        parts = [f"<{prefix}{outer}>"]
        for name, arguments in calls:
            parts.append(f'<{prefix}invoke name="{name}">')
            for key, value in arguments.items():
                is_text = isinstance(value, str)
                text = value if is_text else _dumps(value, draw)
                parts.append(f'<{prefix}parameter name="{key}" string="{str(is_text).lower()}">{text}</{prefix}parameter>')
            parts.append(f"</{prefix}invoke>")
        return gap.join([*parts, f"</{prefix}{outer}>"])

    return write


def _drifted(calls: list[Call], draw: random.Random) -> str:
    prefix = draw.choice(("|DSML|", "｜｜DSML｜｜ ", "DSML_", "dsml-", "DSML:", "Dsml ", "｜DSML ", "DSML"))
    text = _dsml(draw.choice(("tool_calls", "calls", "function_calls", "tool-calls")), prefix)(calls, draw)
    return text.replace(f"<{prefix}", "＜" + prefix) if draw.random() < 0.1 else text


def _xml(calls: list[Call], draw: random.Random) -> str:
    outer, space = draw.choice(("tool_calls", "function_calls")), draw.choice(("", "", "ns:"))
    parts = [f"<{space}{outer}>"]
    for name, arguments in calls:
        parts.append(f'<{space}invoke name="{name}">')
        parts += [
            f'<{space}parameter name="{key}">{_xml_value(value, draw)}</{space}parameter>' for key, value in arguments.items()
        ]
        parts.append(f"</{space}invoke>")
    return "\n".join([*parts, f"</{space}{outer}>"])


def _xml_value(value: Any, draw: random.Random) -> str:
    if not isinstance(value, str):
        value = _dumps(value, draw)
    elif draw.random() < 0.4:
        return "<![CDATA[" + value.replace("]]>", "]]]]><![CDATA[>") + "]]>"
    return str(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _hermes(calls: list[Call], draw: random.Random) -> str:
    gap = draw.choice(("", "\n"))
    return "\n".join(
        f"<tool_call>{gap}{_dumps({'name': name, 'arguments': arguments}, draw)}{gap}</tool_call>" for name, arguments in calls
    )


def _pairs(calls: list[Call], draw: random.Random) -> str:
    return "\n".join(f"function.name: {name}\nfunction.arguments: {_dumps(arguments, draw)}" for name, arguments in calls)


WRITERS: dict[str, Writer] = {
    "json": _json,
    "deepseek_v3": _v3,
    "deepseek_v31": _v31,
    "deepseek_v32": _dsml("function_calls"),
    "deepseek_v4": _dsml("tool_calls"),
    "deepseek_v41": _dsml("calls", "｜DSML｜ "),
    "dsml_drifted": _drifted,
    "xml": _xml,
    "hermes": _hermes,
    "text": _pairs,
}


def write(name: str, calls: list[Call], draw: random.Random) -> str:
    """These calls in this format."""
    return WRITERS[name](calls, draw)


PROSE = (
    "Let me check.",
    "I'll look that up: ",
    "好的，我来查一下。",
    "Use `tool_calls` for that.",
    "The <tool_call> tag opens a block.",
    "a < b and {c}",
    "```python\nprint({'a': [1]})\n```",
    "A list:\n- one\n- two",
    "Key ` is left of 1.",
    "It costs ~5 or [6](x).",
    'First {"a": 1} then.',
    "🙂",
)


def draw_prose(draw: random.Random) -> str:
    """Some prose that ends a paragraph."""
    return "\n".join(draw.choice(PROSE) for _ in range(draw.randint(0, 2)))


QUOTED = (
    "```\n{0}\n```",
    "````markdown\n# Format\n\n```\n{0}\n```\n````",
    "~~~xml\n{0}\n~~~",
    "1. so:\n   ```text\n   x\n   {0}\n   ```",
    "> {0}",
    "```python\ntext = '''{0}'''\n```",
)


def draw_innocent(draw: random.Random) -> str:
    """A text that quotes, mentions or resembles calls, and holds none."""
    name = draw.choice(list(WRITERS))
    calls = [draw_call(draw) for _ in range(draw.randint(1, 2))]
    kind = draw.random()
    if kind < 0.5:
        frame = draw.choice(QUOTED)
        text = write(name, calls, draw)
        if name == "json":
            text = "// an example\n" + text
        if "```" in text or "~~~" in text or (frame.startswith((">", "1.")) and "\n" in text):
            frame = "``````\n{0}\n``````"
        return f"{draw_prose(draw)}\n\n{frame.format(text)}\n\n{draw_prose(draw)}"
    if kind < 0.75:
        call = ("get_weather", {"city": draw.choice(CITY)})
        text = write(draw.choice(("hermes", "deepseek_v31")), [call], draw).replace("\n", " ")
        return f"You can write `{text}` {draw.choice(('for that.', 'or so', 'in a line.'))}"
    if kind < 0.9:
        return draw.choice(_ANSWERS)(draw)
    text = write(name, calls, draw)
    return text[: draw.randint(1, min(12, len(text) - 1))]


_ANSWERS: tuple[Callable[[random.Random], str], ...] = (
    lambda draw: json.dumps(
        {"role": "assistant", "tool_calls": [{"name": "get_time", "arguments": {}}], "x": draw.choice(WORDS)}
    ),
    lambda draw: json.dumps(
        [{"name": draw.choice(CITY), "age": 1}, {"name": "Bob", "tags": [draw.choice(WORDS)]}], indent=draw.choice((None, 2))
    ),
    lambda draw: json.dumps(
        {"examples": [{"name": "get_time", "arguments": {}}], "note": draw.choice(WORDS)}, indent=draw.choice((None, 2))
    ),
    lambda draw: json.dumps({"name": "search", "description": draw.choice(WORDS), "parameters": {"type": "object"}}),
    lambda draw: f"<answer><city>{draw.choice(CITY)}</city><tools>hammer</tools></answer>",
    lambda draw: f"<tool_calls><note>{draw.choice(CITY)}</note></tool_calls>",
    lambda draw: f"call = {json.dumps({'name': 'get_time', 'arguments': {}})}  # {draw.choice(CITY)}",
    lambda draw: f"{{'name': 'get_weather', 'arguments': {{'city': '{draw.choice(CITY)}'}}}}",
)
