"""Every curl line of the documents that this gateway follows, run as it stands there: reference_curls.md holds them.

Rule: hosts and keys are replaced, nothing else; where a document sends no key, none is sent, and the daemon is open to its own
host as `server.open_networks` makes it. What needs a key here all the same is said beside the line.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.functional.admin import HASH
from tests.functional.harness import ADMIN_KEY, KEY, config_for, running
from tests.functional.scenes import calling_whole
from tests.functional.scripted import Scene, Seen, scripted_upstream

HOSTS = re.compile(r"http://(?:localhost:\d+|10\.10\.10\.200:19751)")
OPEN = {"server": {"open_networks": ["127.0.0.0/8"], "open_token_stats": True}}


class Line(NamedTuple):
    """One example: its title, what is typed, and what must come of it."""

    title: str
    command: str
    expected: str


LINES = [
    Line(*found)
    for found in re.findall(
        r"^## ([^\n]+)\n\n```sh\n(.*?)\n```\n\n([^\n]+)$",
        (Path(__file__).parent / "reference_curls.md").read_text(),
        re.DOTALL | re.MULTILINE,
    )
]


def test_the_list_is_whole() -> None:
    """Twelve of the reference system, nine and four of the rotating proxy, one of the vLLM summary."""
    assert len(LINES) == 26
    assert len({line.title for line in LINES}) == 26


def calls_tools(seen: Seen) -> Scene | None:
    return calling_whole(("get_weather", {"city": "Beijing"})) if (seen.body or {}).get("tools") else None


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.title)
async def test_an_example_gives_what_its_document_says(line: Line, tmp_path: Path) -> None:
    if shutil.which("curl") is None or ("| jq" in line.command and shutil.which("jq") is None):
        pytest.skip("curl or jq is not here")
    is_open = "Authorization" not in line.command and "x-api-key" not in line.command
    async with scripted_upstream("deepseek-ai/DeepSeek-OCR") as upstream:
        upstream.decide = calls_tools
        account = {"upstream": "gpu", "email": "user@example.com", "token": "tok-0123456789", "password": "pwd"}
        config = config_for(
            upstream.base_url, admin={"password_hash": HASH}, embeddings={"provider": "deterministic"},
            accounts=[account], **(OPEN if is_open else {}),
        )  # fmt: skip
        async with running(tmp_path, config) as ds2d:
            status, text = await typed(as_typed(line, ds2d.url))
    check(line, status, text)


def as_typed(line: Line, url: str) -> str:
    """The command with our host and keys, which prints the status in a last line of its own."""
    text = (
        HOSTS.sub(url, line.command).replace("your-api-key", KEY).replace('"admin_key": "admin"', f'"admin_key": "{ADMIN_KEY}"')
    )
    more = f"-H 'Authorization: Bearer {ADMIN_KEY}' " if "key: admin" in line.expected else ""
    shown = "" if "| jq" in text else "-w '\\n%{http_code}' "
    return re.sub(r"^curl ", f"curl -s {shown}{more}", text, flags=re.MULTILINE)


async def typed(command: str) -> tuple[int, str]:
    """Status (0 where it was not printed) and text."""
    shell = await asyncio.create_subprocess_exec("sh", "-c", command, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(shell.communicate(), 30)
    text, _, status = output.decode().rpartition("\n")
    return (int(status), text) if status.isdigit() and "-w " in command else (0, output.decode())


def check(line: Line, status: int, text: str) -> None:
    marks = re.findall(r"`([^`]+)`", line.expected)
    if line.expected.startswith("prints"):
        assert text.strip().strip('"') == marks[0]
        return
    assert status == int(line.expected.split()[0]), text
    if " sse" in line.expected:
        assert text.startswith(("data: ", "event: "))
        places = [text.find(mark) for mark in marks]
        assert -1 not in places, text
        assert places == sorted(places), "events come in another order"
        return
    answer = json.loads(text)
    for mark in marks:
        path, _, wanted = mark.partition("=")
        found = at(answer, path)
        assert found is not None or wanted == "null", mark
        if wanted:
            assert json.dumps(found).strip('"') == wanted, mark


def at(value: Any, path: str) -> Any:
    """What stands at a path of names and indices; KeyError or IndexError if nothing does."""
    for name in path.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value
