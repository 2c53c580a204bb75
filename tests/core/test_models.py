"""What a model name becomes: the order of config.md 3, step by step."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.models import BUILT_IN, TABLES, Facts, Listed, Names, Route, Seen, State, names_of, resolve, seen
from ds2d.core.settings import ModelSpec, UpstreamSpec

R1 = "/mnt/models/DeepSeek-R1"


def server(name: str = "gpu", *models: str, state: State = "ready", flavour: str = "vllm", windows: int | None = 4096) -> Seen:
    listed = [Listed(model, 1, "vllm", windows) for model in models]
    return seen(UpstreamSpec(name=name, base_url="http://127.0.0.1:8000"), state, Facts(flavour=flavour), listed)


def config(models: dict[str, ModelSpec] | None = None, aliases: dict[str, str] | None = None, **mapping: str) -> Names:
    return names_of(models or {}, aliases or {}, mapping.get("fast", "deepseek-chat"), mapping.get("slow", "deepseek-reasoner"))


GPU = server("gpu", R1)


def route(name: str, names: Names | None = None, *upstreams: Seen, **kwargs: Any) -> Route:
    return resolve(name, names or config(), upstreams or (GPU,), **kwargs)


def refusal(name: str, names: Names | None = None, *upstreams: Seen, **kwargs: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        resolve(name, names or config(), upstreams, **kwargs)
    return caught.value


# 1. entries and native ids


def test_an_entry_says_where_it_goes_and_what_it_is() -> None:
    spec = ModelSpec(upstream=("gpu",), model=R1, context=1000, max_output=50, thinking="on", images=True)
    found = route("My-Model", config({"my-model": spec}))
    target = found.targets[0]
    assert (found.public, found.why, found.thinking) == ("my-model", "models entry", "on")
    assert (target.model, target.context, target.max_output, target.spec) == (R1, 1000, 50, spec)


def test_an_entry_may_name_several_upstreams_and_those_that_serve_are_asked() -> None:
    names = config({"m": ModelSpec(upstream=("one", "two", "three"))})
    servers = server("one", "m"), server("two", "m", state="down"), server("three", "M")
    found = route("m", names, *servers)
    assert [(target.upstream.name, target.model) for target in found.targets] == [("one", "m"), ("three", "M")]


def test_an_entry_without_upstream_goes_to_those_that_list_it() -> None:
    names = config({"m": ModelSpec(model=R1)})
    found = route("m", names, server("one", "x"), server("two", R1))
    assert [target.upstream.name for target in found.targets] == ["two"]


def test_an_entry_that_nobody_lists_yet_goes_to_the_only_upstream_there_is() -> None:
    names = config({"m": ModelSpec(model="a-new-adapter")})
    assert route("m", names, GPU).targets[0].model == "a-new-adapter"
    assert refusal("m", names, GPU, server("other", "x")).kind is ErrorKind.MODEL_UNAVAILABLE


def test_an_entry_on_an_upstream_that_does_not_exist_is_unavailable() -> None:
    error = refusal("m", config({"m": ModelSpec(upstream=("gone",))}), GPU)
    assert (error.kind, error.status) == (ErrorKind.MODEL_UNAVAILABLE, 503)
    assert error.retry_after


@pytest.mark.parametrize(
    ("native", "thinking"),
    [
        ("deepseek-chat", "off"),
        ("deepseek-reasoner", "on"),
        ("deepseek-chat-search", "off"),
        ("deepseek-reasoner-search", "on"),
    ],
)
def test_one_vllm_without_a_models_section_serves_every_native_id(native: str, thinking: str) -> None:
    found = route(f" {native.upper()} ")
    assert (found.public, found.why, found.thinking) == (native, "native id", thinking)
    assert found.targets[0].model == R1
    assert found.targets[0].context == 4096
    assert found.targets[0].spec.thinking == "switch"  # a request may say otherwise


def test_a_native_id_goes_to_the_first_upstream_with_a_ready_chat_model_and_its_first_one() -> None:
    servers = [
        server("embeds", "BAAI/bge-m3", "Qwen3-Embedding-0.6B"),
        server("starting", state="loading"),
        server("broken", "a", state="down"),
        server("first", "Qwen3-Reranker", "b", "c"),
        server("second", "d"),
    ]
    found = route("deepseek-chat", None, *servers)
    assert [(target.upstream.name, target.model) for target in found.targets] == [("first", "b")]


def test_a_native_id_goes_to_every_server_of_that_model_which_is_as_ready() -> None:
    servers = [server("a", R1), server("other", "x"), server("b", "small", R1), server("c", R1, state="down")]
    assert [target.upstream.name for target in route("deepseek-chat", None, *servers).targets] == ["a", "b"]


def test_an_upstream_that_lists_the_native_id_itself_is_asked_for_it() -> None:
    found = route("deepseek-reasoner", None, server("demo", "deepseek-chat", "deepseek-reasoner"))
    assert found.targets[0].model == "deepseek-reasoner"


@pytest.mark.parametrize("models", [(), ("deepseek-v4-pro", "deepseek-flash")])
def test_on_the_deepseek_api_a_native_id_means_deepseek_flash(models: tuple[str, ...]) -> None:
    found = route("deepseek-chat", None, server("deepseek", *models, flavour="deepseek"))
    assert found.targets[0].model == "deepseek-flash"
    assert found.targets[0].spec.images


def test_a_server_that_shows_no_list_is_asked_by_the_id_itself() -> None:
    assert route("deepseek-chat", None, server("plain", state="degraded")).targets[0].model == "deepseek-chat"
    assert refusal("deepseek-chat", None, server("plain", state="down")).kind is ErrorKind.MODEL_UNAVAILABLE


def test_a_search_id_without_an_entry_answers_like_its_plain_twin() -> None:
    names = config({"deepseek-chat": ModelSpec(upstream=("gpu",), model="x", extra_body={"a": 1})})
    found = route("deepseek-chat-search", names)
    assert (found.public, found.targets[0].model, found.thinking) == ("deepseek-chat-search", "x", "off")


def test_a_search_id_with_an_entry_gets_its_search() -> None:
    spec = ModelSpec(extra_body={"web_search_options": {}})
    found = route("deepseek-reasoner-search", config({"deepseek-reasoner-search": spec}))
    assert found.targets[0].model == R1
    assert found.targets[0].spec.extra_body == {"web_search_options": {}}
    assert found.thinking == "on"


def test_without_an_upstream_a_known_name_is_unavailable_and_an_unknown_one_unknown() -> None:
    for name in ("deepseek-chat", "gpt-4o", "claude-opus-4-6", "gpt-99"):
        assert refusal(name).kind is ErrorKind.MODEL_UNAVAILABLE
    error = refusal("nobody-knows")
    assert (error.kind, error.status, error.param) == (ErrorKind.MODEL_NOT_FOUND, 404, "model")


# 2. ids that upstreams list


def test_an_id_with_slashes_survives_and_case_does_not_matter() -> None:
    found = route(R1.lower())
    assert (found.public, found.targets[0].model, found.why, found.thinking) == (R1, R1, "listed", "switch")


def test_all_servers_of_a_model_are_targets_and_a_dead_one_only_when_all_are() -> None:
    one, two, dead = server("one", R1), server("two", R1), server("dead", R1, state="down")
    assert [target.upstream.name for target in route(R1, None, dead, one, two).targets] == ["one", "two"]
    assert [target.upstream.name for target in route(R1, None, dead).targets] == ["dead"]


def test_the_better_the_state_the_rather_a_server_is_asked() -> None:
    order: list[State] = ["ready", "degraded", "loading", "stuck", "asleep", "down"]
    servers = [server(state, R1, state=state) for state in reversed(order)]
    while servers:
        assert [target.upstream.name for target in route(R1, None, *servers).targets] == [order.pop(0)]
        servers.pop()


@pytest.mark.parametrize(
    ("model", "images"),
    [("deepseek-ai/DeepSeek-OCR", True), ("Qwen2.5-VL-7B", True), ("deepseek-flash", True), (R1, False), ("x/EVLoRA", False)],
)
def test_models_whose_name_says_that_they_see_take_images(model: str, images: bool) -> None:
    assert route(model, None, server("gpu", model)).targets[0].spec.images is images


def test_an_entry_alone_says_whether_its_model_sees() -> None:
    names = config({"m": ModelSpec(upstream=("gpu",), model="deepseek-flash")})
    assert not route("m", names).targets[0].spec.images


# 3. aliases


def test_a_configured_alias_comes_before_the_built_in_table() -> None:
    found = route("GPT-4o", config(aliases={"gpt-4O": R1}))
    assert (found.asked, found.public, found.why) == ("GPT-4o", R1, "alias")
    assert route("gpt-4o").why == "built-in alias"


def test_an_id_that_an_upstream_lists_comes_before_an_alias_of_that_name() -> None:
    assert route("gpt-4o", config(aliases={"gpt-4o": "deepseek-chat"}), server("gpu", "gpt-4o")).why == "listed"


def test_an_alias_whose_target_is_nowhere_is_known_but_unavailable() -> None:
    assert refusal("mine", config(aliases={"mine": "not-there"}), GPU).kind is ErrorKind.MODEL_UNAVAILABLE


@pytest.mark.parametrize(
    "name",
    [
        "gpt-4o", "gpt-5-codex", "o3", "claude-sonnet-4-5", "claude-haiku-4-5", "claude-opus-4-6", "claude-3-5-haiku-latest",
        "gemini-2.5-pro", "gemini-2.5-flash", *TABLES.claude, *BUILT_IN,
    ],
)  # fmt: skip
def test_every_name_of_the_reference_is_served_by_one_vllm(name: str) -> None:
    assert route(name).targets[0].model == R1


def test_config_md_example_holds_without_config() -> None:
    assert (BUILT_IN["gpt-4o"], BUILT_IN["o3"]) == ("deepseek-chat", "deepseek-reasoner")


# 4. families


@pytest.mark.parametrize(
    ("name", "public"),
    [
        ("claude-opus-9", "deepseek-reasoner"),
        ("claude-something-slow", "deepseek-reasoner"),
        ("claude-sonnet-9", "deepseek-chat"),
        ("gpt-6", "deepseek-chat"),
        ("GPT-6-reasoning", "deepseek-reasoner"),
        ("o5-mini", "deepseek-reasoner"),
        ("codex-next", "deepseek-chat"),
        ("gemini-4-pro-search", "deepseek-chat-search"),
        ("o9-search", "deepseek-reasoner-search"),
        ("llama-4-r1", "deepseek-reasoner"),
        ("qwen-max", "deepseek-chat"),
        ("mistral-large", "deepseek-chat"),
        ("command-r-plus", "deepseek-chat"),
    ],
)
def test_families_fall_back_to_native_ids(name: str, public: str) -> None:
    assert route(name).public == public


@pytest.mark.parametrize("name", ["deepseek-v9", "deepseek-chat-2", "opus", "o", "ox", "openai", "grok-9", "", "/", "gpt"])
def test_other_names_are_an_error(name: str) -> None:
    assert refusal(name, None, GPU).kind is ErrorKind.MODEL_NOT_FOUND


def test_on_claude_routes_every_name_is_of_the_family_but_a_mistyped_deepseek_one() -> None:
    assert route("anything", claude_route=True).public == "deepseek-chat"
    assert route("my-reasoner", claude_route=True).public == "deepseek-reasoner"
    assert route("gpt-4o", claude_route=True).why == "built-in alias"
    assert refusal("deepseek-v9", None, GPU, claude_route=True).kind is ErrorKind.MODEL_NOT_FOUND


def test_claude_mapping_decides_what_claude_names_become() -> None:
    names = config(fast=R1, slow="big")
    servers = GPU, server("other", "big")
    assert route("claude-haiku-4-5", names, *servers).public == R1
    assert route("claude-opus-4-6", names, *servers).public == "big"


# The tables


def test_the_tables_hold_what_the_reference_fixes() -> None:
    assert list(TABLES.native) == ["deepseek-chat", "deepseek-reasoner", "deepseek-chat-search", "deepseek-reasoner-search"]
    assert (TABLES.native_created, TABLES.claude_created) == (1677610602, 1715635200)
    assert (TABLES.claude[0], TABLES.claude[-1]) == ("claude-opus-4-6", "claude-instant-1.0")
    assert len(set(TABLES.claude)) == len(TABLES.claude)
    assert all(name.startswith("claude-") for name in TABLES.claude)
    assert {name.split("-")[1][0] for name in TABLES.claude} >= {"1", "2", "3", "i", "o", "s", "h"}


def test_aliases_lead_to_native_ids_and_hide_none() -> None:
    assert set(BUILT_IN.values()) <= set(TABLES.native)
    assert not set(BUILT_IN) & set(TABLES.native)
    assert all(alias == alias.strip().lower() for alias in BUILT_IN)
    assert sum(map(len, TABLES.aliases.values())) == len(BUILT_IN)


@given(st.text(max_size=40), st.booleans())
def test_any_name_is_a_route_or_one_of_two_errors(name: str, claude_route: bool) -> None:
    kinds = set()
    try:
        assert route(name, claude_route=claude_route).targets
    except GatewayError as error:
        kinds.add(error.kind)
    assert kinds <= {ErrorKind.MODEL_NOT_FOUND, ErrorKind.MODEL_UNAVAILABLE}
