"""The official SDKs read what the encoders write: streamed and whole, errors in mid-stream, what they send back.

Rule: no server and no socket; the SDK's HTTP transport hands out an encoder's bytes, cut anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from google import genai
from google.genai import errors, types

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.request import ChatRequest, Envelope, Inbound
from ds2d.dialects import gemini, openai_chat
from tests.dialects.answers import envelope

WORDS = "U+2028:\u2028 你好 😀 \u0085 end"
ANSWER: list[Event] = [
    Reasoning("because"),
    Text("say "),
    Text(WORDS),
    ToolStart(0, "call_1", "get_weather"),
    ToolArgs(0, '{"city": "Kö'),
    ToolArgs(0, 'ln"}'),
    ToolEnd(0),
]
LAST = Finish((Ending("tool_calls"),), Usage(10, 20, 5, 4))
BROKEN = Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream went away."))


class Pieces(httpx.SyncByteStream):
    """A body that arrives seven bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        return (self._data[i : i + 7] for i in range(0, len(self._data), 7))


class Server:
    """Answers with what a dialect makes of `events`, and keeps the bodies it was asked with."""

    def __init__(self, dialect: Any, events: list[Event], ending: Finish | Failure) -> None:
        self.dialect, self.events, self.ending = dialect, events, ending
        self.asked: list[ChatRequest] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        model, _, method = request.url.path.rpartition("/")[2].partition(":")
        path = {"model": model, "method": method}
        asked = self.dialect.parse(Inbound(body, query=dict(request.url.params), path=path, unseal=lambda token: token[::-1]))
        self.asked.append(asked)
        env: Envelope = envelope(asked, seal=lambda text: text[::-1])
        if not asked.stream:
            return httpx.Response(200, content=self.dialect.render(fold([*self.events, self.ending]), env))
        encoder = self.dialect.Encoder(env)
        data = encoder.keep_alive() + b"".join(encoder.feed([event]) for event in self.events)
        data += encoder.keep_alive() + encoder.feed([self.ending])
        return httpx.Response(200, headers={"content-type": encoder.content_type}, stream=Pieces(data))


def googles(server: Server) -> genai.Client:
    http = httpx.Client(transport=httpx.MockTransport(server))
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url="http://localhost", httpx_client=http))


def openais(server: Server) -> openai.OpenAI:
    http = httpx.Client(transport=httpx.MockTransport(server))
    return openai.OpenAI(api_key="k", base_url="http://localhost/v1", http_client=http, max_retries=0)


CONFIG = types.GenerateContentConfig(
    tools=[
        types.Tool(
            function_declarations=[types.FunctionDeclaration(name="get_weather", parameters_json_schema={"type": "object"})]
        )
    ],
    thinking_config=types.ThinkingConfig(include_thoughts=True),
    automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True),
)


@pytest.mark.parametrize("streamed", [True, False])
def test_googles_sdk_reads_an_answer_and_brings_the_reasoning_back(streamed: bool) -> None:
    server = Server(gemini, ANSWER, LAST)
    client = googles(server)
    if streamed:
        chunks = list(client.models.generate_content_stream(model="m", contents="hi", config=CONFIG))
    else:
        chunks = [client.models.generate_content(model="m", contents="hi", config=CONFIG)]
    found = [part for chunk in chunks for part in chunk.candidates[0].content.parts]
    assert "".join(part.text for part in found if part.text and not part.thought) == "say " + WORDS
    assert [part.text for part in found if part.thought] == ["because"]
    (call,) = [part for part in found if part.function_call]
    assert (call.function_call.id, call.function_call.args) == ("call_1", {"city": "Köln"})
    assert chunks[-1].candidates[0].finish_reason == types.FinishReason.STOP
    assert chunks[-1].usage_metadata.thoughts_token_count == 5
    result = types.Part.from_function_response(name="get_weather", response={"result": "rain"})
    turns = [types.Content(role="model", parts=found), types.Content(role="user", parts=[result])]
    client.models.generate_content(model="m", contents=turns, config=CONFIG)
    assistant, tool = server.asked[-1].messages
    assert assistant["reasoning_content"] == "because"
    assert (assistant["tool_calls"][0]["id"], tool["tool_call_id"], tool["content"]) == ("call_1", "call_1", "rain")


def test_googles_sdk_raises_on_an_error_in_mid_stream() -> None:
    stream = googles(Server(gemini, ANSWER[:2], BROKEN)).models.generate_content_stream(model="m", contents="hi")
    with pytest.raises(errors.ServerError, match="went away"):
        list(stream)


QUESTION: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "hi"}],
    "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}],
}


def test_openais_sdk_puts_a_stream_together() -> None:
    client = openais(Server(openai_chat, ANSWER, LAST))
    with client.chat.completions.stream(**QUESTION, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        answer = stream.get_final_completion()
    (choice,) = answer.choices
    assert choice.message.content == "say " + WORDS
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls[0].function.arguments == '{"city": "Köln"}'
    assert answer.usage.total_tokens == 30


def test_openais_sdk_reads_a_whole_answer() -> None:
    answer = openais(Server(openai_chat, ANSWER, LAST)).chat.completions.create(**QUESTION)
    assert answer.choices[0].message.content == "say " + WORDS
    assert answer.choices[0].message.reasoning_content == "because"
    assert answer.usage.completion_tokens_details.reasoning_tokens == 5


def test_openais_sdk_raises_on_an_error_in_mid_stream() -> None:
    stream = openais(Server(openai_chat, ANSWER[:2], BROKEN)).chat.completions.create(**QUESTION, stream=True)
    with pytest.raises(openai.APIError, match="went away"):
        list(stream)
