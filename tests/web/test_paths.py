"""Every spelling of a base URL that clients use reaches the same route."""

from __future__ import annotations

import pytest

from ds2d.web.paths import dialect_of, short_form, tidy_path


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completions/", "/v1/chat/completions"),
        ("//v1/chat/completions", "/v1/chat/completions"),
        ("/v1//chat//completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/v1/models", "/v1/models"),
        ("/v1/models/", "/v1/models"),
        ("/anthropic/v1/v1/messages", "/anthropic/v1/messages"),
        ("/anthropic/v1/messages/", "/anthropic/v1/messages"),
        ("/", "/"),
        ("//", "/"),
        ("/docs", "/docs"),
        ("//docs//", "/docs/"),
        ("/docs/config/", "/docs/config/"),
        # an id is not tidied: it may be a path itself, and may end in a slash or hold two
        ("/v1/models//mnt/models/DeepSeek-R1", "/v1/models//mnt/models/DeepSeek-R1"),
        ("/v1/models/%2Fmnt%2Fx", "/v1/models/%2Fmnt%2Fx"),
        ("//v1//models/org/name", "/v1/models/org/name"),
        ("/v1beta/models/a:generateContent", "/v1beta/models/a:generateContent"),
        ("/v1beta/models/a:generateContent/", "/v1beta/models/a:generateContent"),
        ("/v1/models/org/a:7b:streamGenerateContent//", "/v1/models/org/a:7b:streamGenerateContent"),
        ("/v1/models/a:7b/", "/v1/models/a:7b/"),
    ],
)
def test_a_path_is_tidied(sent: str, canonical: str) -> None:
    assert tidy_path(sent) == canonical
    assert tidy_path(canonical) == canonical


def test_routes_below_v1_have_a_short_form() -> None:
    assert short_form("/v1/chat/completions") == "/chat/completions"
    assert short_form("/anthropic/v1/messages") == "/anthropic/messages"
    assert short_form("/v1beta/models") is None


@pytest.mark.parametrize(
    ("path", "headers", "dialect"),
    [
        ("/v1/nothing", {}, "openai_chat"),
        ("/anthropic/v1/nothing", {}, "claude"),
        ("/other/messages", {}, "claude"),
        ("/other/count_tokens", {}, "claude"),
        ("/v1/nothing", {"anthropic-version": "2023-06-01"}, "claude"),
        ("/v1beta/nothing", {}, "gemini"),
        ("/v1/models/x:explain", {}, "gemini"),
        ("/v1/nothing", {"x-goog-api-key": "k"}, "gemini"),
        ("/admin/nothing", {}, "admin"),
    ],
)
def test_an_unmatched_path_gets_the_error_shape_of_whoever_asks_there(path: str, headers: dict[str, str], dialect: str) -> None:
    assert dialect_of(path, headers) == dialect


@pytest.mark.parametrize(
    ("sent", "canonical"),
    [
        ("/ds2d/v1/models", "/v1/models"),
        ("/ds2d", "/"),
        ("/ds2d/", "/"),
        ("/v1/models", "/v1/models"),  # from a proxy that takes the prefix away
        ("/ds2dx/v1/models", "/ds2dx/v1/models"),
        ("/ds2d//v1/v1/models", "/v1/models"),
    ],
)
def test_a_prefix_that_a_proxy_leaves_is_taken_away(sent: str, canonical: str) -> None:
    assert tidy_path(sent, "/ds2d") == canonical
