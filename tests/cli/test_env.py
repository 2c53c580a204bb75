"""`ds2d env`: what to set for each client, as a shell and as people take it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from ds2d.cli import main
from ds2d.core.connect import CLIENTS, connect

AWKWARD = 'sk-it\'s "$HOME" `x`'


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"keys": ["sk-in-the-file"], "server": {"host": "0.0.0.0", "port": 5999}}))
    return str(file)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_shell_takes_over_what_is_printed_for_it(client: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", client, "--shell", "--key", AWKWARD, "--model", "m", "--config", config]) == 0
    lines = capsys.readouterr().out
    expected = connect(client, "http://127.0.0.1:5999", AWKWARD, "m").variables
    shown = "\n".join(f'printf "%s\\0" "${name}"' for name in expected)
    taken = subprocess.run(["sh", "-c", f"{lines}\n{shown}"], capture_output=True, text=True, check=True, env={})
    assert taken.stdout.split("\0")[:-1] == list(expected.values())


@pytest.mark.parametrize("client", CLIENTS)
def test_people_see_variables_files_and_what_to_start(client: str, config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", client, "--key", "sk-1", "--url", "https://gate.example/", "--config", config]) == 0
    out = capsys.readouterr().out
    setup = connect(client, "https://gate.example", "sk-1", "deepseek-chat")
    assert setup.exports in out
    for file in setup.files:
        assert file.path in out
        assert file.text.strip() in out
    assert setup.run in out


def test_the_key_comes_from_the_environment_and_never_from_the_config(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DS2D_KEY", "sk-mine")
    assert main(["env", "openai", "--json", "--config", config]) == 0
    assert json.loads(capsys.readouterr().out)["variables"]["OPENAI_API_KEY"] == "sk-mine"
    monkeypatch.delenv("DS2D_KEY")
    assert main(["env", "openai", "--config", config]) == 0
    said = capsys.readouterr()
    assert "YOUR_KEY" in said.out
    assert "no key is known" in said.err
    assert "sk-in-the-file" not in said.out + said.err


def test_an_unknown_client_is_refused_with_the_known_ones(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "emacs", "--config", config]) == 2
    assert "claude-code" in capsys.readouterr().err
