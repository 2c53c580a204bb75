"""The command-line agents, headless: each answers, thinks, runs a tool and brings its result back, reads calls that the model
wrote into its text, and asks again after an answer that broke off; Codex besides changes a file with a freeform patch
(clients.md).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ds2d.core.connect import Setup, connect
from tests.clients.acting import ANSWER, RAN, THOUGHT, ask_for
from tests.clients.running import Case, Outcome, Stage
from tests.functional.harness import KEY

MARKUP = ("<｜", "｜DSML｜")


def answered(outcome: Outcome) -> str:
    """Shown by all that answer in plain words."""
    if outcome.code != 0:
        return f"exit code {outcome.code}"
    if ANSWER not in outcome.out:
        return "the answer is not in its output"
    return ""


def plain(outcome: Outcome) -> str:
    return answered(outcome) or ("thoughts without any" if THOUGHT in outcome.out else "")


def thought(outcome: Outcome) -> str:
    """For clients that print what the model thinks, apart from the answer."""
    return answered(outcome) or ("" if THOUGHT in outcome.out else "the reasoning is not in its output")


def hid_its_thoughts(outcome: Outcome) -> str:
    """For clients that print the answer alone: reasoning in it would be taken for the answer."""
    return answered(outcome) or ("the reasoning is printed as answer" if THOUGHT in outcome.out else "")


def used_the_tool(outcome: Outcome) -> str:
    results = outcome.stage.upstream.results
    if outcome.code != 0:
        return f"exit code {outcome.code}"
    if not any(RAN in result for result in results):
        return f"no tool result came back (results: {results})"
    if len(results) != 1:
        return f"{len(results)} results of one call came back"
    if "The tool said:" not in outcome.out:
        return "the answer after the tool is not in its output"
    if any(mark in outcome.out for mark in MARKUP):
        return "markup of a tool call is in its output"
    return "" if outcome.stage.upstream.grew() else "the second prompt does not begin with the first"


def asked_again(outcome: Outcome) -> str:
    """An upstream that breaks off once must end as an error that the agent takes for passing, and only once."""
    asked = outcome.stage.upstream.asked.count("break")
    return answered(outcome) or ("" if asked == 2 else f"it asked {asked} times")


def changed_the_file(outcome: Outcome) -> str:
    notes = (outcome.stage.work / "notes.txt").read_text()
    if notes != 'new "line"\n':
        return f"notes.txt holds {notes!r} (results: {outcome.stage.upstream.results})"
    return "" if outcome.code == 0 else f"exit code {outcome.code}"


def cases() -> list[Case]:
    """All of them."""
    return [*_claude_code(), *_gemini_cli(), *_codex()]


QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1"}
"""What keeps Claude Code from asking anybody else."""


def _as_told(name: str, client: str, run: Callable[[str], Callable[[Stage], list[str]]], more: str = "") -> Case:
    """The client set up by nothing but what Connect and `ds2d env` say, for a model that it has never heard of; `more` is
    added to its file to keep it quiet."""

    def setup(stage: Stage) -> Setup:
        return connect(client, stage.url, KEY, "deepseek-chat")

    def prepare(stage: Stage) -> None:
        for file in setup(stage).files:
            path = stage.home / file.path.removeprefix("~/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text + more)

    quiet = {**QUIET, "GEMINI_CLI_NO_RELAUNCH": "true"}
    return Case(
        name,
        "as Connect says",
        run("plain"),
        plain,
        prepare=prepare,
        environment=lambda stage: {**quiet, **setup(stage).variables},
    )


def _six(
    client: str, run: Callable[[str], Callable[[Stage], list[str]]], thinks: Callable[[Outcome], str], **more: object
) -> list[Case]:
    """What every agent is asked. `run` makes the command of an act."""
    asked = [
        ("plain answer", "plain", plain),
        ("reasoning", "think", thinks),
        ("a tool and its result", "tool", used_the_tool),
        ("a call as DSML text", "dsml", used_the_tool),
        ("a call as V3.1 text", "v31", used_the_tool),
        ("an upstream that breaks off", "break", asked_again),
    ]
    return [Case(client, does, run(act), check, **more) for does, act, check in asked]  # type: ignore[arg-type]


def _claude_code() -> list[Case]:
    def run(act: str) -> Callable[[Stage], list[str]]:
        shown = ["--output-format", "stream-json", "--verbose", "--dangerously-skip-permissions"]
        # what starts the native program where the package's install script has not put it in place
        wrapper = Path("@anthropic-ai", "claude-code", "cli-wrapper.cjs")
        return lambda stage: [stage.node, str(stage.modules / wrapper), "-p", ask_for(act), *shown]

    def environment(stage: Stage) -> dict[str, str]:
        return {
            "ANTHROPIC_BASE_URL": stage.url,
            "ANTHROPIC_API_KEY": KEY,
            "ANTHROPIC_MODEL": "claude-sonnet-4-6",
            **QUIET,
        }

    return [*_six("Claude Code", run, thought, environment=environment), _as_told("Claude Code", "claude-code", run)]


def _gemini_cli() -> list[Case]:
    def run(act: str) -> Callable[[Stage], list[str]]:
        return lambda stage: [str(stage.modules / ".bin" / "gemini"), "--skip-trust", "--yolo", "-p", ask_for(act)]

    def environment(stage: Stage) -> dict[str, str]:
        return {"GOOGLE_GEMINI_BASE_URL": stage.url, "GEMINI_API_KEY": KEY, "GEMINI_CLI_NO_RELAUNCH": "true"}

    def prepare(stage: Stage) -> None:
        settings = {
            "security": {"auth": {"selectedType": "gemini-api-key"}},
            "general": {"enableAutoUpdate": False, "enableAutoUpdateNotification": False},
            "privacy": {"usageStatisticsEnabled": False},
            "telemetry": {"enabled": False},
        }
        (stage.home / ".gemini").mkdir()
        (stage.home / ".gemini" / "settings.json").write_text(json.dumps(settings))

    six = _six("Gemini CLI", run, hid_its_thoughts, environment=environment, prepare=prepare)
    return [*six, _as_told("Gemini CLI", "gemini-cli", run)]


CODEX_CONFIG = """\
model = "gpt-5.5"
check_for_update_on_startup = false
{provider}
"""
CODEX_QUIET = """\
[analytics]
enabled = false
[feedback]
enabled = false
"""
OWN_PROVIDER = """\
model_provider = "ds2d"
[model_providers.ds2d]
name = "ds2d"
base_url = "{url}/v1"
env_key = "DS2D_KEY"
wire_api = "responses"
"""
BUILT_IN = 'openai_base_url = "{url}/v1"\n'


def _codex() -> list[Case]:
    def run(act: str) -> Callable[[Stage], list[str]]:
        options = ["exec", "--json", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox"]
        return lambda stage: [str(stage.modules / ".bin" / "codex"), *options, ask_for(act)]

    def configured(provider: str) -> Callable[[Stage], None]:
        def prepare(stage: Stage) -> None:
            (stage.home / ".codex").mkdir()
            (stage.home / ".codex" / "config.toml").write_text(
                CODEX_CONFIG.format(provider=provider.format(url=stage.url)) + CODEX_QUIET
            )
            (stage.work / "notes.txt").write_text("old line\n")

        return prepare

    own = configured(OWN_PROVIDER)
    return [
        *_six("Codex", run, thought, prepare=own),
        _as_told("Codex", "codex", run, CODEX_QUIET),
        Case("Codex", "a freeform patch changes a file", run("patch"), changed_the_file, prepare=own),
        Case(
            "Codex",
            "its own provider, by WebSocket first",
            run("plain"),
            plain,
            environment=lambda _stage: {"CODEX_API_KEY": KEY},
            prepare=configured(BUILT_IN),
            limit=30,
        ),
    ]
