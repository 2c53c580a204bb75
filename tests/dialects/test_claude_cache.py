"""Prompt-cache safety: what turn n made of a conversation stands unchanged at the head of what turn n+1 makes of it.

Upstreams cache prompts by prefix; one changed byte near the head costs the whole prompt of a long session.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects.claude import parse
from tests.dialects.claude_requests import READ, result, said, text, use, user

SESSIONS = Path(__file__).parent.parent / "golden" / "requests" / "claude" / "sessions"


def prompt(request: ChatRequest) -> bytes:
    """What the model is told, up to the end of the last message."""
    return orjson.dumps([request.tools, request.messages]).removesuffix(b"]]")


def assert_grows(requests: list[ChatRequest]) -> None:
    for earlier, later in pairwise(requests):
        assert prompt(later).startswith(prompt(earlier))
        assert len(later.messages) > len(earlier.messages)


@pytest.mark.parametrize("path", sorted(SESSIONS.glob("*.json")), ids=lambda path: path.stem)
def test_the_prompt_of_a_recorded_session_only_grows(path: Path) -> None:
    session = orjson.loads(path.read_bytes())
    assert_grows([parse(Inbound(body)) for body in session["turns"]])


@pytest.mark.parametrize("path", sorted(SESSIONS.glob("*.json")), ids=lambda path: path.stem)
def test_what_the_last_turn_of_a_recorded_session_becomes(path: Path) -> None:
    session = orjson.loads(path.read_bytes())
    assert parse(Inbound(session["turns"][-1])).messages == session["expect"]


@pytest.mark.parametrize("path", sorted(SESSIONS.glob("*.json")), ids=lambda path: path.stem)
def test_the_recordings_change_from_turn_to_turn_as_real_ones_do(path: Path) -> None:
    """A session without a moving billing line and cache mark would prove nothing."""
    turns = orjson.loads(path.read_bytes())["turns"]
    assert len({turn["system"][0]["text"] for turn in turns}) == len(turns)
    assert "x-anthropic-billing-header" not in str([parse(Inbound(turn)).messages for turn in turns])


def test_two_sessions_share_the_head_of_their_prompts() -> None:
    heads = []
    for number in range(2):
        billing = text(f"x-anthropic-billing-header: cc_version=2.1.197.{number}; cch={number}f3;")
        heads.append(parse(Inbound({"model": "m", "system": [billing, text("Be.")], "messages": [user("go")], "tools": [READ]})))
    assert prompt(heads[0]) == prompt(heads[1])


WORDS = st.text(min_size=1, max_size=5)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | WORDS, lambda v: st.lists(v, max_size=2)
)
INPUT = st.dictionaries(WORDS, VALUES, max_size=3)


@st.composite
def conversations(draw: st.DrawFn) -> list[tuple[list[Any], bool]]:
    """Turns of a conversation: messages, and whether the client asks behind them."""
    turns: list[tuple[list[Any], bool]] = []
    calls = 0
    open_calls: list[str] = []
    for _ in range(draw(st.integers(1, 6))):
        results = [
            result(call, draw(WORDS | st.just([text("x")])), is_error=draw(st.booleans()))
            for call in draw(st.permutations(open_calls))
        ]
        asked = [text(words) for words in draw(st.lists(WORDS, min_size=0 if results else 1, max_size=2))]
        notes = [{"role": "system", "content": words} for words in draw(st.lists(WORDS, max_size=1))]
        turns.append(([user(*draw(st.permutations([*results, *asked]))), *notes], True))
        thoughts = [{"type": "thinking", "thinking": draw(st.text(max_size=5)), "signature": ""}] * draw(st.integers(0, 1))
        open_calls = [f"c{calls + number}" for number in range(draw(st.integers(0, 3)))]
        calls += len(open_calls)
        spoken = [text(words) for words in draw(st.lists(WORDS, min_size=0 if open_calls else 1, max_size=2))]
        turns.append(([said(*thoughts, *spoken, *(use(call, **draw(INPUT)) for call in open_calls))], False))
    return turns


@given(conversations(), st.data())
def test_the_prompt_of_any_conversation_only_grows(turns: list[tuple[list[Any], bool]], data: st.DataObject) -> None:
    requests = []
    history: list[Any] = []
    for messages, asks in turns:
        history += messages
        if asks:
            body = {"model": "m", "messages": marked(history, data), "tools": [READ], "system": "Be."}
            requests.append(parse(Inbound(orjson.loads(orjson.dumps(body)))))
    assert_grows(requests)


def marked(history: list[Any], data: st.DataObject) -> list[Any]:
    """A cache mark on some block, another one on every turn."""
    copy = orjson.loads(orjson.dumps(history))
    blocks = [block for message in copy if isinstance(message["content"], list) for block in message["content"]]
    data.draw(st.sampled_from(blocks))["cache_control"] = {"type": "ephemeral"}
    return list(copy)
