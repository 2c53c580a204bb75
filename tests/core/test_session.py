"""What belongs together has a key in common, and nothing else has."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.request import ChatRequest, Message
from ds2d.core.session import LONGEST, WHOLE, session_of, trail_of

CALL: Any = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}
TALK: list[Message] = [
    {"role": "system", "content": "You help."},
    {"role": "user", "content": "List it."},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "a b"},
]


def chain(messages: list[Message], caller: str = "k", model: str = "m") -> tuple[int, ...]:
    return trail_of(ChatRequest("m", messages), caller, model).chain


def test_a_longer_talk_begins_with_the_keys_of_the_shorter() -> None:
    assert chain(TALK)[:2] == chain(TALK[:2])
    assert len(set(chain(TALK))) == 4


@pytest.mark.parametrize("at", range(4))
def test_what_differs_at_one_message_differs_from_there_on(at: int) -> None:
    other = [message.copy() for message in TALK]
    other[at]["content"] = "something else"
    same = [a == b for a, b in zip(chain(TALK), chain(other), strict=True)]
    assert same == [place < at for place in range(4)]


def test_callers_and_models_have_nothing_in_common() -> None:
    assert not set(chain(TALK)) & set(chain(TALK, caller="other"))
    assert not set(chain(TALK)) & set(chain(TALK, model="other"))


def test_reasoning_does_not_count_since_clients_drop_it() -> None:
    told: list[Message] = [{**message, "reasoning_content": "hm"} for message in TALK]  # type: ignore[typeddict-item]
    assert chain(told) == chain(TALK)


def test_calls_count() -> None:
    other: list[Message] = [*TALK[:2], {**TALK[2], "tool_calls": [{**CALL, "id": "c2"}]}]  # type: ignore[typeddict-item]
    assert chain(other)[1] == chain(TALK)[1]
    assert chain(other)[2] != chain(TALK)[2]


def test_parts_are_told_apart_and_long_texts_by_their_ends_and_length() -> None:
    def said(*parts: Any) -> int:
        return chain([{"role": "user", "content": list(parts)}])[0]

    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert len({said({"text": "a"}), said({"text": "b"}), said(picture), said({"text": "a"}, picture), said()}) == 5
    long = "x" * (4 * WHOLE)
    assert (
        len({said({"text": long}), said({"text": long + "x"}), said({"text": "y" + long[1:]}), said({"text": long[:-1] + "y"})})
        == 4
    )


def test_a_lone_surrogate_is_no_trouble() -> None:
    assert chain([{"role": "user", "content": "\ud83d"}])
    assert trail_of(ChatRequest("m", [], user="\ud83d", session="\ud83d"), "k", "m").exact


def test_the_name_of_a_conversation_spares_its_messages() -> None:
    trail = trail_of(ChatRequest("m", TALK, session="s", user="u"), "k", "m")
    assert trail.exact
    assert trail.user
    assert trail.exact != trail.user
    assert trail.chain == ()
    assert trail == trail_of(ChatRequest("m", [], session="s", user="u"), "k", "m")


def test_a_legacy_prompt_has_no_messages() -> None:
    assert trail_of(ChatRequest("m", [], prompt="x"), "k", "m").chain == ()


@pytest.mark.parametrize(
    ("headers", "keys", "session"),
    [
        ({}, (None,), None),
        ({"x-session-id": "s"}, ("cache-key",), "cache-key"),
        ({"x-session-id": "s"}, (None, ""), "s"),
        ({"x-claude-code-session-id": "cc", "x-session-id": "s"}, (), "cc"),
        ({"session-id": "codex", "thread-id": "thread"}, (), "thread"),
        ({"x-session-affinity": "open"}, (), "open"),
        ({"x-session-id": ""}, (), None),
        ({"x-session-id": "s" * 2000}, (), "s" * LONGEST),
    ],
)
def test_what_clients_call_a_conversation(headers: dict[str, str], keys: tuple[str | None, ...], session: str | None) -> None:
    assert session_of(headers, *keys) == session
