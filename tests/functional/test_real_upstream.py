"""The tool itself: the real server says what texts.py promises, so that other tests may rely on it word for word."""

import json
from typing import Any

import httpx
import pytest

from scripts.real_upstream import texts
from tests.functional.real_upstream import RealServer

WEATHER_TOOL = {
    "type": "function",
    "function": {
        "name": texts.WEATHER_NAME,
        "description": "The weather of the coming days",
        "parameters": {
            "type": "object",
            "properties": {"location": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["location", "days"],
        },
    },
}


def ask(server: RealServer, text: str, **more: Any) -> dict[str, Any]:
    """The first choice of an answer."""
    body = {"model": server.model, "temperature": 0, "messages": [{"role": "user", "content": text}], **more}
    reply = httpx.post(server.base_url + "/chat/completions", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    choice: dict[str, Any] = reply.json()["choices"][0]
    return choice


def stream(server: RealServer, text: str, **more: Any) -> list[dict[str, Any]]:
    """The deltas of a streamed answer, whose end must be marked."""
    body = {"model": server.model, "temperature": 0, "stream": True, "messages": [{"role": "user", "content": text}], **more}
    with httpx.stream("POST", server.base_url + "/chat/completions", json=body, timeout=60) as reply:
        lines = [line.removeprefix("data: ") for line in reply.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line)["choices"][0]["delta"] for line in lines]


def joined(deltas: list[dict[str, Any]], field: str) -> str:
    return "".join(delta.get(field) or "" for delta in deltas)


def test_a_streamed_chat_is_the_text_in_many_pieces(real_vllm: RealServer) -> None:
    deltas = stream(real_vllm, "Hello")
    assert joined(deltas, "content") == texts.PLAIN
    assert len(deltas) > 10


def test_thinking_comes_first_and_apart(real_vllm: RealServer) -> None:
    deltas = stream(real_vllm, "Hello", chat_template_kwargs={"thinking": True})
    assert joined(deltas, "reasoning") == texts.THOUGHT
    assert joined(deltas, "content") == texts.PLAIN


@pytest.mark.parametrize("real_vllm", ["v31", "r1", "v32", "v4"], indirect=True)
def test_the_server_parses_the_call_in_its_own_format(real_vllm: RealServer) -> None:
    choice = ask(real_vllm, "The weather in Paris, please", tools=[WEATHER_TOOL])
    [call] = choice["message"]["tool_calls"]
    assert (call["function"]["name"], json.loads(call["function"]["arguments"])) == (
        texts.WEATHER_NAME,
        json.loads(texts.WEATHER_ARGUMENTS),
    )
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"].strip() == texts.LEAD


@pytest.mark.parametrize("real_vllm", ["none"], indirect=True)
@pytest.mark.parametrize("name", texts.TEXTS)
def test_without_parsers_every_text_comes_raw(real_vllm: RealServer, name: str) -> None:
    choice = ask(real_vllm, f"Please say #script:{name}", skip_special_tokens=False)
    assert choice["message"]["content"] == texts.TEXTS[name]


@pytest.mark.parametrize("real_vllm", ["none"], indirect=True)
def test_a_template_argument_picks_the_text_too(real_vllm: RealServer) -> None:
    choice = ask(real_vllm, "Hello", chat_template_kwargs={"script": "json"})
    assert choice["message"]["content"] == texts.JSON_OBJECT


@pytest.mark.parametrize("real_vllm", ["none"], indirect=True)
def test_tools_are_refused_where_no_parser_runs(real_vllm: RealServer) -> None:
    """What a gateway sees before it describes the tools in the prompt (toolcalls.md 5)."""
    body = {"model": real_vllm.model, "messages": [{"role": "user", "content": "Hello"}], "tools": [WEATHER_TOOL]}
    assert httpx.post(real_vllm.base_url + "/chat/completions", json=body, timeout=60).status_code == 400


@pytest.mark.parametrize("real_vllm", ["none"], indirect=True)
def test_as_many_tokens_as_asked_for(real_vllm: RealServer) -> None:
    deltas = stream(real_vllm, "Hello", ignore_eos=True, max_tokens=300)
    assert 290 <= len(deltas) <= 302


@pytest.mark.parametrize("real_vllm", ["deepseek"], indirect=True)
def test_deepseeks_own_architecture_streams_whatever_it_makes_up(real_vllm: RealServer) -> None:
    deltas = stream(real_vllm, "Hello", ignore_eos=True, max_tokens=40, temperature=1, seed=5)
    assert joined(deltas, "content")


@pytest.mark.parametrize("real_vllm", ["deepseek"], indirect=True)
def test_deepseeks_own_architecture_answers_within_a_grammar(real_vllm: RealServer) -> None:
    """The server constrains what may follow, so that even random weights say something that a test can know."""
    choice = ask(real_vllm, "Hello", structured_outputs={"choice": ["Paris", "London"]})
    assert (choice["message"]["content"] in {"Paris", "London"}, choice["finish_reason"]) == (True, "stop")


@pytest.mark.parametrize("real_vllm", ["embed"], indirect=True)
def test_a_pooling_server_embeds(real_vllm: RealServer) -> None:
    reply = httpx.post(
        real_vllm.base_url + "/embeddings", json={"model": real_vllm.model, "input": ["Hello", "你好"]}, timeout=60
    )
    assert [len(row["embedding"]) for row in reply.json()["data"]] == [128, 128]


@pytest.mark.parametrize("real_vllm", ["classify"], indirect=True)
def test_a_classifying_server_names_a_label(real_vllm: RealServer) -> None:
    reply = httpx.post(real_vllm.url + "/classify", json={"model": real_vllm.model, "input": "Hello"}, timeout=60)
    assert reply.json()["data"][0]["label"] in {"good", "bad", "ugly"}
