"""The official SDK reads our streams and answers as its own: its helpers fold, parse and resume them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import openai
import orjson
import pydantic
import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart, Usage, fold
from ds2d.core.request import Inbound
from ds2d.dialects import openai_responses
from ds2d.state import response_routes as routes
from tests.dialects.responses_kit import envelope
from tests.state.responses_world import World

STOP = Finish((Ending("stop"),), Usage(3, 5))


class Person(pydantic.BaseModel):
    name: str
    age: int


def client(answer: Callable[[httpx.Request], httpx.Response]) -> openai.OpenAI:
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return openai.OpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)


def answering(events: list[Event]) -> openai.OpenAI:
    """A client of a gateway that always answers with these events."""

    def answer(request: httpx.Request) -> httpx.Response:
        body = orjson.loads(request.content)
        made = envelope(body)
        assert openai_responses.parse(Inbound(body)).stream is bool(body.get("stream"))
        if not body.get("stream"):
            return httpx.Response(200, content=openai_responses.render(fold(events), made))
        encoder = openai_responses.Encoder(made)
        return httpx.Response(200, content=encoder.feed(events), headers={"content-type": encoder.content_type})

    return client(answer)


def test_create_gives_the_text() -> None:
    made = answering([Reasoning("hm"), Text("Hel"), Text("lo"), STOP]).responses.create(model="m", input="hi")
    assert made.output_text == "Hello"
    assert made.usage is not None
    assert made.usage.total_tokens == 8


def test_stream_helper_folds_the_same_response() -> None:
    events: list[Event] = [Reasoning("hm"), Text("Hel"), Text("lo"), STOP]
    with answering(events).responses.stream(model="m", input="hi") as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert texts == ["Hel", "lo"]
    assert final.output_text == "Hello"


def test_stream_helper_gives_calls() -> None:
    call: list[Event] = [ToolStart(0, "c1", "f"), ToolArgs(0, '{"a":'), ToolArgs(0, "1}"), ToolEnd(0), STOP]
    tools: Any = [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]
    with answering(call).responses.stream(model="m", input="hi", tools=tools) as stream:
        item = stream.until_done().get_final_response().output[0]
    assert isinstance(item, ResponseFunctionToolCall)
    assert (item.name, item.arguments, item.call_id) == ("f", '{"a":1}', "c1")


def test_parse_gives_the_object_and_sends_its_schema() -> None:
    made = answering([Text('{"name": "Ann", "age": 40}'), STOP]).responses.parse(model="m", input="hi", text_format=Person)
    assert made.output_parsed == Person(name="Ann", age=40)


def test_a_failed_stream_is_a_failed_response() -> None:
    broken = Failure(GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "It broke off."))
    events = list(answering([Text("a"), broken]).responses.create(model="m", input="hi", stream=True))
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"


def test_an_early_error_event_raises() -> None:
    refused = Failure(GatewayError(ErrorKind.UPSTREAM_REJECTED, "Bad prompt."))
    with pytest.raises(openai.APIError, match="Bad prompt"):
        list(answering([refused]).responses.create(model="m", input="hi", stream=True))


async def test_background_retrieve_resume_items_cancel_and_delete() -> None:
    world = World()
    run, encoder, made = world.begun()
    run.append(encoder.feed([Text("Hel"), Text("lo"), STOP]))
    world.store.end(run, made.request.reply)
    written = b"".join([piece async for piece in routes.events(world.store, "me", run.id, {"starting_after": "4"})])
    cancelled = await routes.cancel(world.store, "me", run.id)

    def answer(request: httpx.Request) -> httpx.Response:
        query, path = dict(request.url.params), request.url.path
        if request.method == "DELETE":
            return httpx.Response(200, content=routes.delete(world.store, "me", run.id))
        if path.endswith("/cancel"):
            return httpx.Response(200, content=cancelled)
        if path.endswith("/input_items"):
            return httpx.Response(200, content=routes.input_items(world.store, "me", run.id, query))
        if routes.wants_stream(query):
            assert query["starting_after"] == "4"
            return httpx.Response(200, content=written, headers={"content-type": "text/event-stream"})
        return httpx.Response(200, content=routes.retrieve(world.store, "me", run.id))

    sdk = client(answer).responses
    assert sdk.retrieve(run.id).output_text == "Hello"
    resumed = list(sdk.retrieve(run.id, stream=True, starting_after=4))
    assert [event.sequence_number for event in resumed] == list(range(5, 5 + len(resumed)))
    assert resumed[-1].type == "response.completed"
    (item,) = sdk.input_items.list(run.id)
    assert item.type == "message"
    assert sdk.cancel(run.id).status == "completed"
    sdk.delete(run.id)
    assert world.store.find("me", run.id) is None


def test_what_was_answered_can_be_sent_back_as_it_is() -> None:
    made = answering([Reasoning("hm"), Text("yes"), STOP]).responses.create(model="m", input="hi")
    history: Any = [
        {"role": "user", "content": "hi"},
        *(item.model_dump() for item in made.output),
        {"role": "user", "content": "go"},
    ]
    assert isinstance(made.output[1], ResponseOutputMessage)
    request = openai_responses.parse(Inbound({"model": "m", "input": history}))
    assert [message["role"] for message in request.messages] == ["user", "assistant", "user"]
    assert request.messages[1]["reasoning_content"] == "hm"
