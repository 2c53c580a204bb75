"""A model server that acts by what the prompt says, so that a client may ask as often and about as much as it likes.

Rule: the newest `[[act:...]]` mark in a user's message says what to do; after a tool's result the answer quotes it, which
ends every client's loop and shows that the result came back. Without a mark (titles, routers, summaries) it says something
harmless, and with a JSON schema something that satisfies it.
"""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from tests.functional.scenes import breaking, calling, calling_whole, dsml, saying, v31, written_as_text
from tests.functional.scripted import Scene, ScriptedUpstream, Seen, whole

MARK = re.compile(r"\[\[act:(\w+)\]\]")
ANSWER = "The plain answer is 4711."
THOUGHT = "Secret thought number 815."
RAN = "tool-ran-42"
PATCH = '*** Begin Patch\n*** Update File: notes.txt\n@@\n-old line\n+new "line"\n*** End Patch\n'

ARGUMENTS: dict[str, dict[str, Any]] = {
    "Bash": {"command": f"echo {RAN}", "description": "Say it"},
    "run_shell_command": {"command": f"echo {RAN}", "description": "Say it"},
    "exec_command": {"cmd": f"echo {RAN}"},
    "shell": {"command": ["echo", RAN]},
    "shell_command": {"command": f"echo {RAN}"},
    "get_weather": {"city": "Köln"},
    "apply_patch": {"input": PATCH},
}
"""What each tool is called with, first offered first: the shells of the agents, and the one of the small scripts."""


def ask_for(act: str) -> str:
    """The prompt that makes the server act so: plain, think, break, tool, dsml, v31, patch."""
    return f"Do what I ask. [[act:{act}]]"


class ActingUpstream(ScriptedUpstream):
    """`results` are the tool results that came back, `asked` the acts that were asked for, both in order."""

    def __init__(self) -> None:
        super().__init__(("deepseek-tiny",))
        self.results: list[str] = []
        self.asked: list[str] = []
        self.context = 131072

    def grew(self) -> bool:
        """Whether each prompt with tools begins with the one before it, so that an upstream's prefix cache holds."""
        bodies = [seen.body for seen in self.seen if seen.body and seen.body.get("tools")]
        prompts = [json.dumps([body["tools"], body["messages"]]).removesuffix("]]") for body in bodies]
        return len(prompts) > 1 and all(later.startswith(earlier) for earlier, later in pairwise(prompts))

    def _scene(self, seen: Seen) -> Scene:
        body = seen.body or {}
        if self.scenes or "messages" not in body:
            return super()._scene(seen)
        last = body["messages"][-1]
        if last["role"] == "tool":
            self.results.append(text_of(last))
            return _say(body, f"The tool said: {text_of(last)[:400]}")
        marks = [mark for message in body["messages"] if message["role"] == "user" for mark in MARK.findall(text_of(message))]
        if schema := ((body.get("response_format") or {}).get("json_schema") or {}).get("schema"):
            return _say(body, json.dumps(example(schema, schema.get("$defs", {}))))
        act = marks[-1] if marks else ""
        self.asked.append(act)
        return self._act(body, act)

    def _act(self, body: dict[str, Any], act: str) -> Scene:
        if act == "think":
            return _say(body, ANSWER, THOUGHT)
        if act == "break" and self.asked.count("break") == 1:
            return breaking("Half an ", "answer ")
        if act in ("", "plain", "break"):
            return _say(body, ANSWER)
        offered = [tool["function"]["name"] for tool in body.get("tools") or ()]
        name = "apply_patch" if act == "patch" else next((name for name in ARGUMENTS if name in offered), "")
        if name not in offered:
            return _say(body, f"No tool for this: {offered}")
        if act in ("dsml", "v31"):
            markup = "I look.\n\n" + (dsml if act == "dsml" else v31)(name, **ARGUMENTS[name])
            return written_as_text(markup) if body.get("stream") else whole({"content": markup})
        call = (name, ARGUMENTS[name])
        if body.get("stream"):
            return calling(call, text="I look.", reasoning=THOUGHT)
        return calling_whole(call, text="I look.", reasoning=THOUGHT)

    def _poll(self, path: str) -> Scene:
        scene = super()._poll(path)
        wide = b'"max_model_len": %d' % self.context
        scene.pieces = [piece.replace(b'"max_model_len": 4096', wide) for piece in scene.pieces]
        return scene


def _say(body: dict[str, Any], text: str, thought: str = "") -> Scene:
    if body.get("stream"):
        return saying(*re.findall(r"\S+\s*", text), reasoning=tuple(re.findall(r"\S+\s*", thought)))
    return whole({"content": text, **({"reasoning": thought} if thought else {})})


def text_of(message: dict[str, Any]) -> str:
    """The text of a message, whether it stands alone or in parts."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def example(schema: dict[str, Any], defs: dict[str, Any]) -> Any:
    """A value that satisfies a simple schema."""
    if "$ref" in schema:
        return example(defs[schema["$ref"].rsplit("/", 1)[-1]], defs)
    if "enum" in schema:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    match kind if isinstance(kind, str) else kind[0]:
        case "object":
            return {name: example(inner, defs) for name, inner in schema.get("properties", {}).items()}
        case "array":
            return [example(schema.get("items", {"type": "string"}), defs)]
        case "integer" | "number":
            return 40
        case "boolean":
            return True
    return "Ann"
