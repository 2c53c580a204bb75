"""Whatever a server sends, a decoder gives events that keep the rules, and never raises."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d.core.events import Event, Finish, fold
from ds2d.core.models import Facts, Target
from ds2d.core.request import ChatRequest
from ds2d.core.settings import ModelSpec, UpstreamSpec
from ds2d.core.sse import Record
from ds2d.upstreams.openai import Decoder
from tests.golden.streams import Case, all_cases, drain
from tests.property.rules import assert_rules

FLAVOURS = ("vllm", "sglang", "llamacpp", "llamacpp_python", "transformers", "deepseek", "generic")
CASES = all_cases()


def decoder(flavour: str = "generic", n: int = 1) -> Decoder:
    target = Target(UpstreamSpec(name="up", base_url="http://127.0.0.1:1"), "m", ModelSpec(), Facts(flavour))
    return Decoder(ChatRequest("m", [{"role": "user", "content": "Hi"}], params={"n": n}), target)


def frame(chunk: Any) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_recorded_answers_keep_the_rules(case: Case) -> None:
    assert_rules(case.decode())


@given(st.lists(st.binary(max_size=60)), st.booleans(), st.sampled_from(FLAVOURS))
def test_random_bytes_end_in_a_failure(reads: list[bytes], streamed: bool, flavour: str) -> None:
    assert_rules(drain(decoder(flavour), reads, streamed))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def mostly(usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return usual | usual | usual | json_values


texts = st.none() | st.text(max_size=4)
functions = st.fixed_dictionaries({}, optional={"name": mostly(st.sampled_from(["", "f", "g"])), "arguments": mostly(texts)})
tool_deltas = st.fixed_dictionaries(
    {},
    optional={
        "index": mostly(st.integers(0, 2)),
        "id": mostly(st.sampled_from(["", "call_a", "call_b"])),
        "type": st.just("function"),
        "function": mostly(functions),
    },
)
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": st.just("assistant"),
        "content": mostly(texts),
        "reasoning": mostly(texts),
        "reasoning_content": mostly(texts),
        "refusal": mostly(texts),
        "tool_calls": mostly(st.lists(tool_deltas, max_size=3)),
        "function_call": mostly(functions),
        "odd": json_values,
    },
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": mostly(st.integers(0, 2)),
        "delta": mostly(deltas),
        "message": mostly(deltas),
        "text": mostly(texts),
        "finish_reason": mostly(st.sampled_from([None, "", "stop", "length", "tool_calls", "abort"])),
        "logprobs": mostly(st.none()),
        "stop_reason": mostly(texts),
        "odd": json_values,
    },
)
usages = st.dictionaries(
    st.sampled_from(["prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "reasoning_tokens"]),
    json_values,
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "id": mostly(texts),
        "choices": mostly(st.lists(mostly(choices), max_size=2)),
        "usage": mostly(usages),
        "error": st.none(),
        "odd": json_values,
    },
)


@settings(max_examples=400)
@given(st.lists(mostly(chunks), max_size=6), st.booleans(), st.integers(1, 3))
def test_odd_chunks_keep_the_rules(sent: list[Any], done: bool, n: int) -> None:
    body = b"".join(frame(chunk) for chunk in sent) + (b"data: [DONE]\n\n" if done else b"")
    assert_rules(drain(decoder(n=n), [body], streamed=True))


pieces = st.lists(st.text(min_size=1, max_size=6), max_size=6)


@given(pieces, pieces, st.lists(pieces, max_size=3), st.randoms(use_true_random=False))
def test_a_stream_folds_to_the_whole_answer(thought: list[str], said: list[str], arguments: list[list[str]], random: Any) -> None:
    """The same answer, streamed in pieces with its calls' pieces shuffled between calls, and whole."""
    calls = [orjson.dumps({"x": "".join(words)}).decode() for words in arguments]
    events = drain(decoder(), [b"".join(streamed_answer(thought, said, calls, random))], streamed=True)
    message = {
        "role": "assistant",
        "reasoning_content": "".join(thought),
        "content": "".join(said),
        "tool_calls": [called(index, text) for index, text in enumerate(calls)],
    }
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    expected = drain(decoder(), [orjson.dumps(whole)], streamed=False)
    assert isinstance(events[-1], Finish)
    assert answer(events) == answer(expected)


def called(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "id": f"call_{index}", "type": "function", "function": {"name": "f", "arguments": arguments}}


def streamed_answer(thought: list[str], said: list[str], calls: list[str], random: Any) -> list[bytes]:
    deltas: list[dict[str, Any]] = [{"reasoning_content": piece} for piece in thought] + [{"content": piece} for piece in said]
    deltas += [{"tool_calls": [called(index, "")]} for index in range(len(calls))]
    at = [0] * len(calls)
    while left := [index for index, text in enumerate(calls) if at[index] < len(text)]:
        index = random.choice(left)
        size = random.randint(1, 4)
        piece = calls[index][at[index] : at[index] + size]
        at[index] += size
        deltas.append({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    frames = [frame({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}) for delta in deltas]
    return [*frames, frame({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})]


def answer(events: list[Event]) -> Any:
    completion = fold(events)
    choice = completion.choices[0]
    return choice.reasoning, choice.text, [(call.id, call.name, call.arguments) for call in choice.calls], choice.ending


@given(st.lists(st.sampled_from([b"[DONE]", b"null", b"{}", b"[]", b'{"choices":[]}', b"\xff", b""]), max_size=5))
def test_feeding_after_the_end_gives_nothing(datas: list[bytes]) -> None:
    stage = decoder()
    stage.feed([Record(b'{"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":"stop"}]}'), Record(b"[DONE]")])
    assert stage.feed([Record(data) for data in datas]) == []
    assert stage.finish() == []
