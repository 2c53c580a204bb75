"""Variables with a whole config, and systemd's environment files."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.config.environment import parse_env_file, whole_config
from ds2d.config.notices import ConfigErrors

RAW = '{"_": "ÿþ~~~???>>>", "keys": ["你好!"]}'.encode()
STANDARD = base64.b64encode(RAW).decode()
URL_SAFE = base64.urlsafe_b64encode(RAW).decode()


def test_the_sample_tells_the_alphabets_apart() -> None:
    assert STANDARD != URL_SAFE
    assert STANDARD.endswith("=")


@pytest.mark.parametrize(
    "text",
    [RAW.decode(), "\n " + RAW.decode(), STANDARD, URL_SAFE, STANDARD.rstrip("="), URL_SAFE.rstrip("="), "base64:" + STANDARD,
     "base64:" + URL_SAFE, "base64: " + STANDARD, "\n".join(STANDARD[i : i + 20] for i in range(0, len(STANDARD), 20))],
)  # fmt: skip
def test_a_whole_config_is_json_or_base64_in_any_spelling(text: str) -> None:
    assert whole_config({"CONFIG_JSON": text}) == ("CONFIG_JSON", RAW)


@pytest.mark.parametrize("text", ["!", "base64:ä", "abcde", "[1]"])
def test_what_is_neither_is_an_error_that_names_the_variable(text: str) -> None:
    with pytest.raises(ConfigErrors) as found:
        whole_config({"DS2D_CONFIG_JSON": text})
    assert [error.path for error in found.value.errors] == ["$DS2D_CONFIG_JSON"]


def test_the_first_variable_that_is_set_counts() -> None:
    environ = {"DS2API_CONFIG_JSON": " ", "DS2D_CONFIG_JSON": "{}", "CONFIG_JSON": "no"}
    assert whole_config(environ) == ("DS2D_CONFIG_JSON", b"{}")
    assert whole_config({}) is None


@pytest.mark.parametrize(
    ('line', 'value'),
    [
        ("A=b", "b"), ("A = b c  ", "b c"), ("A=", ""), ("A='x y' ", "x y"), ('A="x y"', "x y"), ("A='a'\"b\"c", "abc"),
        (r"A=a\ b", "a b"), ("A=a\\\nb", "ab"), ("A='a\\b'", "a\\b"), (r'A="a\"b\\c\$d\n"', r'a"b\c$d\n'), ('A="a\nb"', "a\nb"),
        ('A={"k":"v"}', '{"k":"v"}'), ("A=a'b'", "a'b'"), ("A='a' 'b' c'd' ", "abc'd'"), ("A=\\'a'", "'a'"), ('A="a" ', "a"),
        ("A='{\"k\": \"v\"}'", '{"k": "v"}'), ("A=b # c", "b # c"), ("  A=b\r", "b"),
        ("A=eyJ9==", "eyJ9=="),
    ],
)  # fmt: skip
def test_assignments_are_read_as_systemd_reads_them(line: str, value: str) -> None:
    assert parse_env_file(f"# A=comment\n; A=comment\n\nnonsense\n1A=x\n{line}\n".encode()) == {"A": value}


def test_a_config_need_not_be_quoted_in_a_file_for_systemd() -> None:
    environ = parse_env_file(b'DS2API_CONFIG_JSON={"keys": ["sk-a b", "it\'s"]}\nPORT=5002\n')
    assert whole_config(environ) == ("DS2API_CONFIG_JSON", b'{"keys": ["sk-a b", "it\'s"]}')
    assert environ["PORT"] == "5002"


def test_the_last_of_two_assignments_counts() -> None:
    assert parse_env_file(b"A=1\nB=2\nA=3") == {"A": "3", "B": "2"}


@given(st.binary(max_size=60))
def test_any_environment_file_is_read_to_its_end(raw: bytes) -> None:
    assert all(name.isidentifier() for name in parse_env_file(raw))
