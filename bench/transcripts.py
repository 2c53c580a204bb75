"""Recorded agent sessions, made from a seed: a system prompt that all share, a task, and turn after turn of calls and results.

Rule: the same seed gives the same bytes. Each turn's question is the whole of the one before and what came since, as agents send.
"""

from __future__ import annotations

import json
import random
from typing import Any

Message = dict[str, Any]

WORDS = [
    "read",
    "write",
    "file",
    "test",
    "error",
    "line",
    "function",
    "returns",
    "value",
    "module",
    "path",
    "import",
    "class",
    "call",
    "queue",
    "server",
    "model",
    "token",
    "cache",
    "stream",
    "request",
    "answer",
    "client",
    "config",
    "account",
    "limit",
    "worker",
    "build",
    "check",
    "fails",
    "passes",
    "expected",
    "found",
    "missing",
    "line",
    "index",
    "list",
]
TOOLS = ("read_file", "run_tests", "search", "edit_file", "list_folder")
SYSTEM_WORDS, RESULT_WORDS, SAID_WORDS = 220, (60, 160), (10, 30)


def sessions(count: int = 20, turns: int = 8, seed: int = 1, salt: str = "") -> list[list[list[Message]]]:
    """By session and turn, the messages of a question. `salt` stands at the head of all: another one shares no cache."""
    system = {"role": "system", "content": f"{salt} You are a coding agent. {_text(random.Random(seed), SYSTEM_WORDS)}".strip()}
    return [_session(random.Random(f"{seed}/{number}"), system, turns) for number in range(count)]


def _session(chance: random.Random, system: Message, turns: int) -> list[list[Message]]:
    messages: list[Message] = [system, {"role": "user", "content": f"Task: {_text(chance, 40)}"}]
    questions = []
    for turn in range(turns):
        questions.append(list(messages))
        name, identity = chance.choice(TOOLS), f"call_{turn}"
        arguments = json.dumps({"path": f"src/{chance.choice(WORDS)}.py"})
        call = {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}
        messages.append({"role": "assistant", "content": _text(chance, chance.randint(*SAID_WORDS)), "tool_calls": [call]})
        result = _text(chance, chance.randint(*RESULT_WORDS))
        messages.append({"role": "tool", "tool_call_id": identity, "content": result})
    return questions


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(WORDS) for _ in range(words))
