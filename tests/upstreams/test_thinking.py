"""A wish for thinking in the words of each server (mapping.md 6)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.core.request import ReasoningWish
from ds2d.core.settings import ModelSpec
from tests.upstreams.asking import OFF, ON, ask, body, target

FIELDS = ("thinking", "reasoning_effort", "chat_template_kwargs")
T_ON = {"thinking": True, "enable_thinking": True}
T_OFF = {"thinking": False, "enable_thinking": False}


def sent(request: Any, at: Any) -> dict[str, Any]:
    made = body(request, at)
    return {name: made[name] for name in FIELDS if name in made}


def effort(word: str) -> ReasoningWish:
    return ReasoningWish("on", word)


@pytest.mark.parametrize(
    ("flavour", "wish", "fields"),
    [
        ("vllm", ReasoningWish(), {}),
        ("vllm", OFF, {"chat_template_kwargs": T_OFF, "reasoning_effort": "none"}),
        ("vllm", ON, {"chat_template_kwargs": T_ON}),
        ("vllm", effort("minimal"), {"chat_template_kwargs": T_ON, "reasoning_effort": "low"}),
        ("vllm", effort("medium"), {"chat_template_kwargs": T_ON, "reasoning_effort": "medium"}),
        ("vllm", effort("xhigh"), {"chat_template_kwargs": T_ON, "reasoning_effort": "xhigh"}),
        ("vllm", effort("max"), {"chat_template_kwargs": T_ON, "reasoning_effort": "max"}),
        ("sglang", OFF, {"chat_template_kwargs": T_OFF}),
        ("llamacpp", ON, {"chat_template_kwargs": T_ON}),
        ("deepseek", ReasoningWish(), {}),
        ("deepseek", OFF, {"thinking": {"type": "disabled"}}),
        ("deepseek", ON, {"thinking": {"type": "enabled"}}),
        ("deepseek", effort("minimal"), {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("deepseek", effort("low"), {"thinking": {"type": "enabled"}, "reasoning_effort": "low"}),
        ("deepseek", effort("medium"), {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("deepseek", effort("xhigh"), {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}),
        ("deepseek", effort("max"), {"thinking": {"type": "enabled"}, "reasoning_effort": "max"}),
        ("generic", effort("low"), {"reasoning_effort": "low"}),
        ("generic", OFF, {}),
        ("llamacpp_python", ON, {}),
        ("transformers", effort("high"), {}),
    ],
)
def test_each_server_has_its_own_switch(flavour: str, wish: ReasoningWish, fields: dict[str, Any]) -> None:
    assert sent(ask(reasoning=wish), flavour) == fields


@pytest.mark.parametrize(
    ("thinking", "fields"),
    [
        ("template", {"chat_template_kwargs": T_OFF}),
        ("deepseek", {"thinking": {"type": "disabled"}}),
        ("effort", {"reasoning_effort": "none"}),
        ("none", {}),
    ],
)
def test_config_names_the_switch(thinking: str, fields: dict[str, Any]) -> None:
    assert sent(ask(reasoning=OFF), target("generic", thinking=thinking)) == fields


@pytest.mark.parametrize(("entry", "wish", "fields"), [("on", OFF, T_ON), ("off", effort("high"), T_OFF), ("switch", ON, T_ON)])
def test_a_model_entry_that_says_on_or_off_decides(entry: Any, wish: ReasoningWish, fields: dict[str, Any]) -> None:
    made = sent(ask(reasoning=wish), target("sglang", spec=ModelSpec(thinking=entry)))
    assert made == {"chat_template_kwargs": fields}


def test_arguments_of_the_template_are_joined_and_a_client_s_own_switch_beats_its_wish() -> None:
    def kwargs(own: dict[str, Any], **fields: Any) -> Any:
        at = target(spec=ModelSpec(thinking=fields.pop("entry", "switch")))
        return sent(ask(extra={"chat_template_kwargs": own}, **fields), at)

    assert kwargs({"x": 1}, reasoning=ON) == {"chat_template_kwargs": {"x": 1, **T_ON}}
    assert kwargs({"thinking": True}, reasoning=OFF) == {"chat_template_kwargs": {"thinking": True}}
    assert kwargs({"enable_thinking": False}) == {"chat_template_kwargs": {"enable_thinking": False}, "reasoning_effort": "none"}
    assert kwargs({"thinking": True}, entry="off") == {"chat_template_kwargs": T_OFF, "reasoning_effort": "none"}


def test_without_a_switch_a_client_s_arguments_of_the_template_still_go_on() -> None:
    made = sent(ask(extra={"chat_template_kwargs": {"x": 1}}), target("vllm", thinking="none"))
    assert made == {"chat_template_kwargs": {"x": 1}}
