"""How a client is told of this gateway: the variables and files of each, from an address, a key and a model.

Rule: one row of `CLIENTS` a client, and only what it was seen to read; text is made for a shell and for a file's own syntax,
so that whatever stands in a key or a model name stays one value.
Surprise: the dialects want different addresses: OpenAI's end in `/v1`, Claude's and Gemini's clients add their own path.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable

import msgspec
import orjson


class File(msgspec.Struct, frozen=True):
    """A file that a client reads: where it stands (`~` is the user's folder), and what must be in it."""

    path: str
    text: str


class Setup(msgspec.Struct, frozen=True):
    """What makes one client talk to this gateway. `run` starts it once that is in place; empty for a library."""

    client: str
    title: str
    variables: dict[str, str]
    files: tuple[File, ...] = ()
    run: str = ""

    @property
    def exports(self) -> str:
        """The variables as lines for a POSIX shell."""
        return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in self.variables.items())


def connect(client: str, base_url: str, key: str, model: str) -> Setup:
    """The setup of a client of `CLIENTS`. `base_url` is the gateway's root, with or without `/v1`. Raises KeyError."""
    return CLIENTS[client](base_url.rstrip("/").removesuffix("/v1"), key, model)


def _claude_code(root: str, key: str, model: str) -> Setup:
    kinds = ("ANTHROPIC_DEFAULT_OPUS_MODEL", "ANTHROPIC_DEFAULT_SONNET_MODEL", "ANTHROPIC_DEFAULT_HAIKU_MODEL")
    variables = {
        "ANTHROPIC_BASE_URL": root,
        "ANTHROPIC_AUTH_TOKEN": key,
        "ANTHROPIC_MODEL": model,
        **dict.fromkeys(kinds, model),
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    }
    return Setup("claude-code", "Claude Code", variables, run="claude")


def _codex(root: str, key: str, model: str) -> Setup:
    config = f"""\
model = {_quoted(model)}
model_provider = "ds2d"

[model_providers.ds2d]
name = "ds2d"
base_url = {_quoted(root + "/v1")}
env_key = "DS2D_KEY"
wire_api = "responses"
"""
    return Setup("codex", "Codex", {"DS2D_KEY": key}, (File("~/.codex/config.toml", config),), "codex")


def _gemini_cli(root: str, key: str, model: str) -> Setup:
    variables = {"GOOGLE_GEMINI_BASE_URL": root, "GEMINI_API_KEY": key, "GEMINI_MODEL": model}
    settings = _json({"security": {"auth": {"selectedType": "gemini-api-key"}}})
    return Setup("gemini-cli", "Gemini CLI", variables, (File("~/.gemini/settings.json", settings),), "gemini")


def _opencode(root: str, key: str, model: str) -> Setup:
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "ds2d",
        "options": {"baseURL": root + "/v1", "apiKey": "{env:DS2D_KEY}"},
        "models": {model: {"name": model}},
    }
    config = {"$schema": "https://opencode.ai/config.json", "model": f"ds2d/{model}", "provider": {"ds2d": provider}}
    return Setup(
        "opencode", "opencode", {"DS2D_KEY": key}, (File("~/.config/opencode/opencode.json", _json(config)),), "opencode"
    )


def _openai(root: str, key: str, model: str) -> Setup:
    program = f"""\
from openai import OpenAI

client = OpenAI()  # takes address and key from the variables
question = [{{"role": "user", "content": "Hello"}}]
answer = client.chat.completions.create(model={_quoted(model)}, messages=question)
print(answer.choices[0].message.content)
"""
    variables = {"OPENAI_BASE_URL": root + "/v1", "OPENAI_API_KEY": key}
    return Setup("openai", "openai SDK", variables, (File("hello.py", program),), "python hello.py")


def _open_webui(root: str, key: str, model: str) -> Setup:
    variables = {
        "ENABLE_OLLAMA_API": "false",
        "OPENAI_API_BASE_URL": root + "/v1",
        "OPENAI_API_KEY": key,
        "DEFAULT_MODELS": model,
    }
    return Setup("open-webui", "Open WebUI", variables, run="open-webui serve")


CLIENTS: dict[str, Callable[[str, str, str], Setup]] = {
    "claude-code": _claude_code,
    "codex": _codex,
    "gemini-cli": _gemini_cli,
    "opencode": _opencode,
    "openai": _openai,
    "open-webui": _open_webui,
}
"""Every client by the name under which it is asked for."""


def _quoted(text: str) -> str:
    """A string as JSON, TOML and Python all write it."""
    return orjson.dumps(text).decode()


def _json(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n"
