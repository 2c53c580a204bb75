"""What `ds2d capture export --scrub` writes: nothing of what anybody said, and the same calls."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import pytest

from ds2d.cli.scrub import scrubbed
from ds2d.cli.scrub_text import Words, covered
from tests.toolcalls.corpus import TOOLS, Sample, events_of, innocents, outcome, positives, stages

DECLARED = Words(
    [tool["function"]["name"] for tool in TOOLS],
    [name for tool in TOOLS for name in tool["function"].get("parameters", {}).get("properties", {})],
)
PRIVATE = ("anna", "Anna", "corp", "hunter2", "Schmidt", "positive", "Berlin", "4917", "hiv", "smith")

INPUT = {"name": "Anna Schmidt", "id": "anna", "phone": 4917}
NAME = {"type": "string", "enum": ["anna", "smith"], "default": "anna"}
QUESTION = {
    "model": "deepseek-chat",
    "metadata": {"user_id": "anna@corp.example", "anna": "anna"},
    "user": "anna",
    "stop": ["anna:"],
    "stop_sequences": ["hunter2"],
    "messages": [
        {"role": "user", "name": "anna", "content": "write to <anna@corp.example>, password <hunter2 secret>"},
        {
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_of_anna",
                    "type": "function",
                    "function": {"name": "save", "arguments": '{"name":"Anna Schmidt","n":4917,"status":"HIV\\npositive"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_of_anna", "content": "done"},
        {"role": "user", "content": [{"type": "tool_use", "id": "x", "name": "save", "input": INPUT}]},
    ],
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "save",
                "description": "for anna",
                "parameters": {
                    "type": "object",
                    "properties": {"name": NAME, "status": {"type": "string"}},
                    "required": ["name"],
                },
            },
        }
    ],
}  # fmt: skip


def scrub(question: Any, response: str = "", client: str = "") -> dict[str, Any]:
    told = json.dumps(question)
    item = {"request_body": told, "upstream_request": told, "response_body": response, "client_body": client}
    return scrubbed({**item, "request_id": "anna", "path": "/v1/x?q=anna", "status_code": 200})


def test_nothing_private_is_left_whatever_field_it_stands_in() -> None:
    done = scrub(QUESTION)
    assert [word for word in PRIVATE if word in json.dumps(done)] == []


def test_what_the_protocol_says_is_left() -> None:
    asked = json.loads(scrub(QUESTION)["request_body"])
    assert asked["model"] == "deepseek-chat"
    assert [message["role"] for message in asked["messages"]] == ["user", "assistant", "tool", "user"]
    call = asked["messages"][1]["tool_calls"][0]
    assert call["function"]["name"] == "save"
    assert json.loads(call["function"]["arguments"]) == {"name": "xxxx xxxxxxx", "x": 1111, "status": "xxx\nxxxxxxxx"}
    assert asked["messages"][2]["tool_call_id"] == call["id"]
    assert asked["messages"][3]["content"][0]["input"] == {"name": "xxxx xxxxxxx", "xx": "xxxx", "xxxxx": 1111}
    parameters = asked["tools"][0]["function"]["parameters"]
    assert parameters["properties"]["name"] == {"type": "string", "enum": ["xxxx", "xxxxx"], "default": "xxxx"}
    assert parameters["required"] == ["name"]


def test_bytes_tokens_and_vectors_are_covered() -> None:
    body = {"choices": [{"logprobs": {"content": [{"token": "Hi", "logprob": -0.5, "bytes": [72, 105]}]}}], "data": [0.25, -3]}
    done = json.loads(scrub({}, json.dumps(body))["response_body"])
    assert done["choices"][0]["logprobs"]["content"] == [{"token": "xx", "logprob": -0.5, "bytes": [11, 111]}]
    assert done["data"] == [1.11, -1]


def chunks(texts: Iterable[str]) -> str:
    events = ({"choices": [{"index": 0, "delta": {"content": text}}]} for text in texts)
    return "".join(f"data: {json.dumps(event)}\n\n" for event in events)


def test_a_call_cut_anywhere_in_a_stream_stays_one() -> None:
    text = '<tool_call>{"name": "save", "arguments": {"name": "Anna"}}</tool_call>'
    done = scrub(QUESTION, chunks(text))["response_body"]
    said = "".join(json.loads(line[6:])["choices"][0]["delta"]["content"] for line in done.split("\n") if line)
    assert said == '<tool_call>{"name": "save", "arguments": {"name": "xxxx"}}</tool_call>'


@pytest.mark.parametrize(
    "text", ["<anna>", "<anna:invoke>", "<|anna|>", "<hunter2 secret>", "< anna", "<｜anna｜>", '"anna"', "anna:"]
)
def test_angle_brackets_alone_keep_nothing(text: str) -> None:
    assert "anna" not in covered(text, DECLARED)
    assert "hunter" not in covered(text, DECLARED)
    assert len(covered(text, DECLARED)) == len(text)


def names(sample: Sample, text: str) -> list[str]:
    return [name for name, _ in outcome(events_of([text], sample.channel, sample.ending, stages())).calls]


@pytest.mark.parametrize("sample", positives() + innocents(), ids=lambda sample: sample.name)
def test_a_scrubbed_answer_has_the_calls_of_the_answer(sample: Sample) -> None:
    assert names(sample, covered(sample.text, DECLARED)) == names(sample, sample.text)
