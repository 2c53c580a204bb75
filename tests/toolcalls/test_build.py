"""Which stages an answer gets, and that they hold together in a pipeline."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Failure, Finish, Folder, Reasoning, Text, ToolStart, Usage, fold
from ds2d.core.pipeline import Pipeline
from ds2d.core.request import ChatRequest, ToolChoice
from ds2d.core.sse import Record
from ds2d.toolcalls import build
from tests.toolcalls.corpus import TOOLS, events_of, ids, push

CALL = '{"name": "get_time", "arguments": {}}'


def names(request: ChatRequest, **settings: Any) -> list[str]:
    return [type(stage).__name__ for stage in build(request, ids(), **settings)]


@pytest.mark.parametrize(
    ("request_", "settings", "expected"),
    [
        (ChatRequest("m", []), {}, ["Policy"]),
        (ChatRequest("m", [], tools=TOOLS, tool_choice=ToolChoice("none")), {}, ["Policy"]),
        (ChatRequest("m", [], tools=TOOLS), {}, ["NativeCalls", "Detector", "Policy"]),
        (ChatRequest("m", [], tools=TOOLS), {"mode": "off"}, ["NativeCalls", "Policy"]),
        (ChatRequest("m", [], tools=TOOLS), {"mode": "buffered"}, ["NativeCalls", "Detector", "Policy"]),
        (ChatRequest("m", []), {"think": "inside"}, ["ThinkTags", "Policy"]),
        (ChatRequest("m", []), {"think": "unsure", "told": False}, ["Unsure", "Policy"]),
        (ChatRequest("m", []), {"think": "unsure", "told": True}, ["Unsure", "Recovered", "Policy"]),
        (ChatRequest("m", []), {"think": "unsure", "told": True, "whole": True}, ["Unsure", "Policy"]),
        (ChatRequest("m", [], tools=TOOLS), {"think": "outside"}, ["ThinkTags", "NativeCalls", "Detector", "Policy"]),
    ],
)
def test_stages_that_have_nothing_to_do_are_left_out(
    request_: ChatRequest, settings: dict[str, Any], expected: list[str]
) -> None:
    assert names(request_, **settings) == expected


def test_without_tools_the_very_events_pass() -> None:
    line = build(ChatRequest("m", []), ids())
    for text in (CALL, "<tool_call>", "</think>", "`<"):
        event = Text(text)
        assert push(line, [event])[0] is event


def test_native_calls_of_a_request_without_tools_are_rejected() -> None:
    out = push(build(ChatRequest("m", []), ids()), [ToolStart(0, "a", "f"), Finish((Ending("tool_calls"),), Usage(1, 5))])
    assert isinstance(out[-1], Failure)
    assert out[-1].error.details == {"cause": "undeclared"}


def test_a_call_inside_thinking_that_the_server_does_not_split() -> None:
    line = build(ChatRequest("m", [], tools=TOOLS), ids(), think="inside")
    text = f"I need the time.\n{CALL}\n</think>\n\nOne moment."
    events = events_of(list(text), Text, Ending("stop"), line)
    assert "".join(event.text for event in events if isinstance(event, Reasoning)) == "I need the time.\n"
    assert "".join(event.text for event in events if isinstance(event, Text)) == "One moment."
    assert any(isinstance(event, ToolStart) for event in events)


class Scripted:
    """A splitter and decoder in one: each read is the events it stands for."""

    usage = None
    answer_id = None

    def __init__(self, *batches: Any) -> None:
        self._batches = list(batches)

    def feed(self, chunk: Any) -> Any:
        return [Record(b"x")] if isinstance(chunk, bytes) else self._batches.pop(0)

    def finish(self) -> Any:
        return []


def test_a_failure_from_outside_shows_what_was_text() -> None:
    script = Scripted([Text("Hello <to")], [Text("ol")])
    folder = Folder()
    pipeline = Pipeline(script, script, build(ChatRequest("m", [], tools=TOOLS), ids()), folder)  # type: ignore[arg-type]
    pipeline.feed(b"1")
    pipeline.feed(b"2")
    pipeline.fail(GatewayError(ErrorKind.UPSTREAM_TIMEOUT, "x"))
    pipeline.close()
    assert folder.completion.choices[0].text == "Hello <tool"
    assert folder.completion.failure is not None


def test_without_parallel_calls_the_pipeline_ends_with_the_first_call() -> None:
    script = Scripted([Text(f"{CALL}\n{CALL}\n")], [Text("more")])
    folder = Folder()
    request = ChatRequest("m", [], tools=TOOLS, parallel_tool_calls=False)
    pipeline = Pipeline(script, script, build(request, ids()), folder)  # type: ignore[arg-type]
    pipeline.feed(b"1")
    assert isinstance(pipeline.ending, Finish)
    pipeline.close()
    assert len(folder.completion.choices[0].calls) == 1


BODY = "# Strip </think>\n<think>\nfoo\n</think>\n\nrest of file\n"
WRITE = [{"type": "function", "function": {"name": "write_file", "parameters": {"properties": {"content": {"type": "string"}}}}}]
CALLS_WITH_TAGS = [
    '<｜DSML｜tool_calls>\n<｜DSML｜invoke name="write_file">\n<｜DSML｜parameter name="content" string="true">'
    f"{BODY}</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>write_file<｜tool▁sep｜>"
    f"{json.dumps({'content': BODY})}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    json.dumps({"tool_calls": [{"name": "write_file", "input": {"content": BODY}}]}),
]


BEFORE = {
    "outside": ["", "Well.\n", "<think>Hm.</think>Well.\n"],
    "inside": ["", "Hm.</think>", "<think>Hm.</think>Well.\n"],
    "unsure": ["", "Hm.</think>\n\n", "<think>Hm.</think>Well.\n", "Well.\n"],
}


@pytest.mark.parametrize("text", CALLS_WITH_TAGS)
@pytest.mark.parametrize(("think", "before"), [(think, before) for think, texts in BEFORE.items() for before in texts])
def test_think_tags_in_an_argument_are_the_arguments(text: str, think: Any, before: str) -> None:
    if text.startswith("{") and (think, before) == ("unsure", "Well.\n"):
        text = f"\n{text}".replace("Strip </think>", "Strip `</think>`")  # JSON behind other words is not told from thoughts
    for pieces in ([before + text], list(before + text)):
        line = build(ChatRequest("m", [], tools=WRITE), ids(), think=think)  # type: ignore[arg-type]
        (choice,) = fold(events_of(pieces, Text, Ending("stop"), line)).choices
        ((name, arguments),) = [(call.name, json.loads(call.arguments)) for call in choice.calls]
        assert (name, arguments["content"].replace("`", "")) == ("write_file", BODY)
        assert choice.text.rstrip() == ("Well." if "Well" in before else "")
