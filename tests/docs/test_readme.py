"""README's commands, run as they are printed: in a copy, against a daemon with the embedded demo on the port README names."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.functional.processes import answers, ds2d, environment, serving

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PORT = 5001


def blocks(language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands(block: str) -> list[str]:
    """A block's commands; a line that ends in a backslash goes on."""
    return [line for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@pytest.fixture(scope="module", name="here")
def _here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which `init` was run and the daemon serves, on README's port where it is free."""
    folder = tmp_path_factory.mktemp("readme")
    assert ds2d(folder, "init", "--no-scan").returncode == 0
    with ExitStack() as stack:
        try:
            process = stack.enter_context(serving(folder, port=None if answers(PORT) else PORT))
        except AssertionError:  # another worker took it in this moment
            process = stack.enter_context(serving(folder))
        (folder / "port").write_text(str(process.port))
        yield folder


def as_printed(here: Path, text: str) -> str:
    """The text; only where README's port is taken on this machine, with another one."""
    return text.replace(f"127.0.0.1:{PORT}", f"127.0.0.1:{(here / 'port').read_text()}")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
def test_the_lines_for_a_second_terminal_work_at_once(here: Path) -> None:
    (block,) = [block for block in blocks("sh") if ".ds2d.env" in block]
    source, *lines = commands(block)
    assert source == ". ./.ds2d.env"
    said = []
    for line in lines:
        done = subprocess.run(
            ["sh", "-c", f"{source}\n{as_printed(here, line)}"], cwd=here, env=environment(), capture_output=True, text=True,
            timeout=20, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout)
    ready, models, chat, stream = said
    assert json.loads(ready) == {"status": "ready"}
    assert "deepseek-chat" in {model["id"] for model in json.loads(models)["data"]}
    assert json.loads(chat)["choices"][0]["message"]["content"]
    assert "reasoning_content" in stream
    assert stream.endswith("data: [DONE]\n\n")


def test_the_python_lines_work_with_the_key_put_in(here: Path) -> None:
    (block,) = blocks("python")
    key = dict(line.removeprefix("export ").split("=", 1) for line in (here / ".ds2d.env").read_text().splitlines())["DS2D_KEY"]
    code = as_printed(here, block).replace("sk-…", key.strip("'"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=here, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "demo" in done.stdout.lower()


@pytest.mark.parametrize("block", blocks("json"))
def test_every_config_in_readme_is_valid(tmp_path: Path, block: str) -> None:
    (tmp_path / "config.json").write_text(block.replace("sk-…", "sk-readme-0123456789abcdef"))
    done = ds2d(tmp_path, "check-config")
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_verb_and_file_that_readme_names_is_there() -> None:
    for words in set(re.findall(r"`ds2d ([a-z-]+(?: [a-z]+)?)`", README)):
        done = ds2d(ROOT, *words.split(), "--help")
        assert done.returncode == 0, words
    for name in set(re.findall(r"\]\(([A-Za-z0-9_./-]+)\)", README)) | set(
        re.findall(r"`((?:scripts|systemd)/[\w.-]+)`", README)
    ):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"^    (scripts/\w+)", README, re.MULTILINE):
        assert (ROOT / name).stat().st_mode & 0o111, name


def test_readme_names_the_port_that_is_the_default() -> None:
    assert set(re.findall(r"127\.0\.0\.1:(\d+)", README)) - {"8000"} == {str(PORT)}
    assert json.loads((ROOT / "config.example.json").read_text())["server"]["port"] == PORT
