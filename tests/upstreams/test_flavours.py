"""One server told from the other, and where its routes are (config.md 2, upstreams.md 6)."""

from __future__ import annotations

from typing import Any

import pytest

from ds2d.upstreams.openai import detect_flavour, prefixes, server_root
from ds2d.upstreams.openai.flavours import TRAITS, flavour_of
from tests.upstreams.asking import FLAVOURS, target

HOST = "http://127.0.0.1:8000"


def owned_by(owner: Any) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": owner}]}


@pytest.mark.parametrize(
    ("base_url", "models", "headers", "version", "flavour"),
    [
        (HOST, owned_by("vllm"), {}, {"version": "0.32.0"}, "vllm"),
        (HOST, owned_by("sglang"), {}, None, "sglang"),
        (HOST, owned_by("llamacpp"), {"server": "llama.cpp"}, None, "llamacpp"),
        (HOST, None, {"server": "llama.cpp"}, None, "llamacpp"),
        (HOST, owned_by("me"), {"server": "uvicorn"}, None, "llamacpp_python"),
        ("https://api.deepseek.com", owned_by("deepseek"), {}, None, "deepseek"),
        ("https://API.DeepSeek.com/v1", None, {}, None, "deepseek"),
        ("https://deepseek.com.evil.example", None, {}, None, "generic"),
        (HOST, owned_by("my-org"), {}, {"version": "0.32.0"}, "vllm"),
        (HOST, owned_by("openai"), {}, None, "generic"),
        (HOST, {"data": [7, {"owned_by": 7}]}, {}, {"version": 7}, "generic"),
        (HOST, None, {}, None, "generic"),
    ],
)
def test_a_server_shows_what_it_is(base_url: str, models: Any, headers: dict[str, str], version: Any, flavour: str) -> None:
    assert detect_flavour(base_url, models, headers, version) == flavour


def test_config_beats_what_was_found_out() -> None:
    assert flavour_of(target("sglang")) == "sglang"
    assert flavour_of(target("sglang", flavour="vllm")) == "vllm"
    assert set(TRAITS) == set(FLAVOURS)


@pytest.mark.parametrize(
    ("base_url", "tried", "root"),
    [
        ("http://h:8000", ("/v1", ""), "http://h:8000"),
        ("http://h:8000/", ("/v1", ""), "http://h:8000"),
        ("http://h:8000/v1", ("",), "http://h:8000"),
        ("http://h:8000/v1/", ("",), "http://h:8000"),
        ("https://h/api/v3", ("",), "https://h/api"),
        ("http://h:3000/api", ("", "/v1"), "http://h:3000/api"),
        ("http://v1", ("/v1", ""), "http://v1"),
        ("http://h/vllm", ("", "/v1"), "http://h/vllm"),
    ],
)
def test_a_base_url_may_hold_the_version_or_not(base_url: str, tried: tuple[str, ...], root: str) -> None:
    assert prefixes(base_url) == tried
    assert server_root(base_url) == root
