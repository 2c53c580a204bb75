"""What clients are told: the right address for each dialect, and no value that breaks out of its place."""

import ast
import json
import shlex
import tomllib

import pytest

from ds2d.core.connect import CLIENTS, connect

ROOT = "http://127.0.0.1:5001"
AWKWARD = "a \"b' $(c) `d`\n\\e"


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("given", [ROOT, ROOT + "/", ROOT + "/v1", ROOT + "/v1/"])
def test_the_address_may_be_given_with_or_without_v1(client: str, given: str) -> None:
    assert connect(client, given, "sk-1", "m") == connect(client, ROOT, "sk-1", "m")


def test_openai_clients_get_v1_and_the_others_add_their_own_path() -> None:
    at = {client: str(connect(client, ROOT, "sk-1", "m")) for client in CLIENTS}
    assert {client for client, text in at.items() if f"{ROOT}/v1" in text} == {"codex", "opencode", "openai", "open-webui"}
    assert all(ROOT in text for text in at.values())


@pytest.mark.parametrize("client", CLIENTS)
def test_key_and_model_reach_every_client(client: str) -> None:
    setup = connect(client, ROOT, "sk-the-key", "the-model")
    assert "sk-the-key" in setup.variables.values()
    assert "the-model" in str(setup)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shell_reads_every_variable_as_one_word(client: str) -> None:
    setup = connect(client, ROOT, AWKWARD, AWKWARD)
    words = shlex.split(setup.exports)
    assert [word for word in words if word != "export"] == [f"{name}={value}" for name, value in setup.variables.items()]


def test_files_hold_what_was_given_in_their_own_syntax() -> None:
    codex, opencode, openai = (connect(client, ROOT, "k", AWKWARD).files[0].text for client in ("codex", "opencode", "openai"))
    assert tomllib.loads(codex)["model"] == AWKWARD
    assert json.loads(opencode)["provider"]["ds2d"]["models"] == {AWKWARD: {"name": AWKWARD}}
    assert any(node.value == AWKWARD for node in ast.walk(ast.parse(openai)) if isinstance(node, ast.Constant))
