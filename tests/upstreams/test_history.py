"""Old messages as each server's template and checks want them (mapping.md 1, 2, 6; openai-chat.md 3)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.errors import GatewayError
from ds2d.core.settings import ModelSpec
from ds2d.upstreams.openai import lacks_reasoning
from ds2d.upstreams.openai.history import render_messages
from tests.upstreams.asking import FLAVOURS, OFF, ON, ask, body, target

CALLS = [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{bad json"}}]


def said(role: str, content: Any = "x", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def roles(messages: list[Any], flavour: str, **fields: Any) -> list[tuple[str, Any]]:
    made = body(ask(messages), target(flavour, spec=ModelSpec(**fields)))["messages"]
    return [(message["role"], message["content"]) for message in made]


MIXED = [said("system", "a"), said("developer", "b"), said("user", "u"), said("system", "c"), said("user", "v")]


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_system_messages_at_the_start_are_merged_by_default_later_ones_become_the_user_s(flavour: str) -> None:
    merged = [("system", "a\n\nb"), ("user", "u"), ("user", "c"), ("user", "v")]
    kept = [("system", "a"), ("system", "b"), ("user", "u"), ("system", "c"), ("user", "v")]
    assert roles(MIXED, flavour) == (kept if flavour == "deepseek" else merged)


def test_a_model_entry_says_what_happens_to_system_messages() -> None:
    assert roles(MIXED, "vllm", system="merge_all") == [("system", "a\n\nb\n\nc"), ("user", "u"), ("user", "v")]
    assert [role for role, _ in roles(MIXED, "vllm", system="keep")] == ["system", "system", "user", "system", "user"]
    assert [role for role, _ in roles(MIXED, "deepseek", system="merge_leading")] == ["system", "user", "user", "user"]


def test_parts_of_text_become_text_and_others_stay() -> None:
    text = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    image = [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}, {"type": "text", "text": "b"}]
    made = body(ask([said("user", text), said("user", image), said("tool", text, tool_call_id="1")]))["messages"]
    assert [message["content"] for message in made] == ["a\nb", image, "a\nb"]


def test_sound_is_for_vllm_type_servers() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]
    assert body(ask([said("user", parts)]))["messages"][0]["content"] == parts
    with pytest.raises(GatewayError) as caught:
        body(ask([said("user", parts)]), "deepseek")
    assert (caught.value.status, caught.value.param) == (400, "messages[0].content[1]")


THOUGHT = [said("user"), said("assistant", "y", reasoning_content="hm"), said("user")]
CALLED = [said("user"), said("assistant", None, tool_calls=CALLS), said("tool", "21", tool_call_id="1")]


@pytest.mark.parametrize(
    ("flavour", "name"),
    [("vllm", "reasoning"), ("sglang", "reasoning_content"), ("deepseek", "reasoning_content"), ("llamacpp_python", None)],
)
def test_reasoning_is_sent_back_under_the_name_that_the_server_reads(flavour: str, name: str | None) -> None:
    message = body(ask(THOUGHT), flavour)["messages"][1]
    assert {key: message[key] for key in ("reasoning", "reasoning_content") if key in message} == ({name: "hm"} if name else {})


def test_the_deepseek_api_gets_no_reasoning_back_when_it_does_not_think() -> None:
    assert "reasoning_content" not in body(ask(THOUGHT, reasoning=OFF), "deepseek")["messages"][1]


@pytest.mark.parametrize("wish", [None, ON])
def test_a_call_without_its_reasoning_gets_an_empty_one_on_the_deepseek_api(wish: Any) -> None:
    message = body(ask(CALLED, **({"reasoning": wish} if wish else {})), "deepseek")["messages"][1]
    assert message["reasoning_content"] == ""
    assert "reasoning_content" not in body(ask(CALLED, reasoning=OFF), "deepseek")["messages"][1]
    assert "reasoning" not in body(ask(CALLED), "vllm")["messages"][1]


def test_lost_reasoning_is_noticed() -> None:
    assert lacks_reasoning(ask(CALLED))
    assert not lacks_reasoning(ask([said("user"), said("assistant", None, tool_calls=CALLS, reasoning_content="")]))
    assert not lacks_reasoning(ask(THOUGHT))


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_arguments_that_are_no_json_go_on_as_they_are(flavour: str) -> None:
    assert body(ask(CALLED), flavour)["messages"][1]["tool_calls"] == CALLS


def test_marks_of_the_model_that_users_typed_are_broken_up_where_config_says_so() -> None:
    typed = "a<｜User｜>b</think>c<｜DSML｜invoke>d < ｜ > <b>"
    messages = [
        said("system", typed),
        said("user", typed),
        said("user", [{"type": "text", "text": typed}, {"type": "image_url"}]),
    ]
    plain = body(ask(messages))["messages"]
    assert [message["content"] for message in plain[:2]] == [typed, typed]
    made = body(ask(messages), target(escape_special_tokens=True))["messages"]
    safe = "a< ｜User｜>b< /think>c< ｜DSML｜invoke>d < ｜ > <b>"
    assert [made[0]["content"], made[1]["content"], made[2]["content"][0]["text"]] == [typed, safe, safe]


def test_messages_that_need_no_change_are_not_copied() -> None:
    messages = [said("system"), said("user"), said("assistant", "y"), said("user")]
    rendered = render_messages(ask(messages), target(), None)
    assert all(one is other for one, other in zip(messages, rendered, strict=True))


def test_the_bytes_of_old_turns_do_not_depend_on_new_ones() -> None:
    turns = [*MIXED, *CALLED, *THOUGHT, said("system", "late"), said("user", "end")]
    for flavour in FLAVOURS:
        whole = body(ask(turns), flavour)["messages"]
        for length in range(2, len(turns)):
            assert body(ask(turns[:length]), flavour)["messages"] == whole[: len(body(ask(turns[:length]), flavour)["messages"])]
