"""Input items to chat messages (openai-responses.md 3, 7, 9).

Rule: adjacent reasoning, assistant messages and calls are one assistant message; each call has exactly one output, which
stands right behind the message with the call, wherever the client put it before the next user turn.
Surprise: items that only another server can have made (searches, computer use) are history without meaning here and are
dropped, while an unknown type is an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.gather import joined
from ds2d.core.request import Message, ToolCall
from ds2d.core.validate import invalid
from ds2d.dialects.openai_responses.content import Images, Part, read_content, read_text
from ds2d.dialects.openai_responses.custom import wrap
from ds2d.dialects.openai_responses.objects import Item
from ds2d.dialects.openai_responses.tools import ToolTable

CALLS = frozenset({"function_call", "custom_tool_call", "local_shell_call", "shell_call", "apply_patch_call"})
OUTPUTS = frozenset(f"{kind}_output" for kind in CALLS)
DROPPED = frozenset({"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"}) | frozenset(
    {"computer_call", "computer_call_output", "compaction_trigger", "configuration_update", "additional_tools"}
)
DROPPED_PREFIXES = ("mcp_", "tool_search_", "program")
ROLES = ("user", "system", "developer", "assistant")


class Round(msgspec.Struct, gc=False):
    """One message with what belongs right behind it: the outputs of its calls, and images that came in them.

    `said` and `thought` are the pieces of its text and reasoning, put together at the end: every piece would copy all before it.
    """

    message: Message
    outputs: dict[str, str | None] = {}
    pictures: list[Part] | None = None
    said: list[str] | None = None
    thought: list[str] | None = None
    waiting: int = 0
    """Calls without output."""


class Talk:
    """The conversation as it is read, item by item."""

    def __init__(self, table: ToolTable, unseal: Callable[[str], str | None]) -> None:
        self._table = table
        self._unseal = unseal
        self._rounds: list[Round] = []
        self._calls: dict[str, Round] = {}
        self._unanswered: dict[str, Round] = {}
        self._half: set[str] = set()  # calls that a limit or a fault cut off: nobody can have run them
        self._open: Round | None = None  # the assistant's turn that further items still join
        self._last_was_call = False
        self.images = Images()

    def system(self, text: str) -> None:
        """Add a system message."""
        self._add({"role": "system", "content": text})

    def take(self, item: Item, path: str) -> None:
        """Read one item. Raises INVALID_REQUEST with its path."""
        kind = item["type"]
        self._last_was_call = kind in CALLS
        if kind == "message":
            self._message(item, path)
        elif kind in CALLS:
            self._call(item, kind, path)
        elif kind in OUTPUTS:
            self._output(item, path)
        elif kind == "reasoning":
            self._reasoning(item)
        elif kind in ("compaction", "compaction_summary"):
            if text := self._opened(item):
                self.system(text)
        elif kind not in DROPPED and not kind.startswith(DROPPED_PREFIXES):
            raise invalid(f"{path}.type", f"Unknown item type {kind!r}.")

    def messages(self) -> list[Message]:
        """The whole conversation in chat form. Raises INVALID_REQUEST for a call without output."""
        self._check_answered(trailing=self._last_was_call)
        found: list[Message] = []
        for entry in self._rounds:
            if entry.said:
                entry.message["content"] = joined(entry.said)
            if entry.thought:
                entry.message["reasoning_content"] = joined(entry.thought)
            if entry.message["role"] == "assistant" and entry.message.get("content") is None and not entry.outputs:
                continue  # reasoning that led to nothing: upstreams refuse an empty turn
            found.append(entry.message)
            found += [
                Message(role="tool", tool_call_id=call, content=output)
                for call, output in entry.outputs.items()
                if output is not None
            ]
            if entry.pictures:
                found.append(Message(role="user", content=entry.pictures))
        return found

    def _add(self, message: Message) -> Round:
        self._open = None
        self._rounds.append(Round(message))
        return self._rounds[-1]

    def _turn(self) -> Round:
        """The assistant's turn that this item belongs to."""
        entry = self._open or self._add({"role": "assistant", "content": None})
        self._open = entry
        return entry

    def _message(self, item: Item, path: str) -> None:
        role = item.get("role")
        if role not in ROLES:
            raise invalid(f"{path}.role", "`role` must be user, system, developer or assistant.")
        if role == "assistant":
            self._say(read_text(item.get("content"), f"{path}.content"))
            return
        if role == "user":
            self._check_answered(trailing=False)
        content = read_content(item.get("content"), f"{path}.content", self.images)
        self._add({"role": "user" if role == "user" else "system", "content": content})

    def _say(self, text: str) -> None:
        entry = self._turn()
        if entry.said and any(entry.said):
            entry.said += ("\n", text)
        else:
            entry.said = [text]

    def _reasoning(self, item: Item) -> None:
        """Reasoning joins the turn it precedes; the token knows best, then the text itself, then its summary."""
        text = self._opened(item) or _joined(item.get("content")) or _joined(item.get("summary"))
        entry = self._turn()
        entry.message.setdefault("reasoning_content", "")  # its place among the keys
        if entry.thought is None:
            entry.thought = [text]
        else:
            entry.thought.append(text)

    def _opened(self, item: Item) -> str | None:
        token = item.get("encrypted_content")
        return self._unseal(token) if isinstance(token, str) and token else None

    def _call(self, item: Item, kind: str, path: str) -> None:
        call_id = item.get("call_id") or item.get("id")
        if not isinstance(call_id, str) or not call_id:
            raise invalid(f"{path}.call_id", "A call needs a `call_id`.")
        if call_id in self._calls:
            raise invalid(f"{path}.call_id", f"The call id '{call_id}' is used twice.")
        if self._open is not None and len(self._open.outputs) > self._open.waiting:
            self._open = None  # an output came in between: this call is the model's next turn
        name, arguments = self._what(item, kind, path)
        entry = self._turn()
        entry.outputs[call_id] = None
        entry.waiting += 1
        self._calls[call_id] = self._unanswered[call_id] = entry
        if item.get("status") == "incomplete":
            self._half.add(call_id)
        call = ToolCall(id=call_id, type="function", function={"name": name, "arguments": arguments})
        entry.message.setdefault("tool_calls", []).append(call)

    def _what(self, item: Item, kind: str, path: str) -> tuple[str, str]:
        """The upstream name and the arguments of a call item."""
        if kind in ("function_call", "custom_tool_call"):
            name, space = _string(item, "name", path), item.get("namespace")
            upstream = self._table.upstream(name, space if isinstance(space, str) else None)
            if kind == "function_call":
                return upstream, _string(item, "arguments", path)
            return upstream, wrap(_string(item, "input", path))
        action = item.get("operation" if kind == "apply_patch_call" else "action")
        if not isinstance(action, dict):
            raise invalid(path, "A call of this type needs its action as an object.")
        return self._table.upstream(kind.removesuffix("_call")), orjson.dumps(action).decode()

    def _output(self, item: Item, path: str) -> None:
        call_id = str(item.get("call_id") or item.get("id"))
        entry = self._calls.get(call_id)
        if entry is None:
            raise GatewayError(ErrorKind.INVALID_REQUEST, f"No tool call found for the output of {call_id!r}.", param="input")
        if entry.outputs[call_id] is not None:
            raise invalid(f"{path}.call_id", f"The call '{call_id}' has two outputs.")
        entry.outputs[call_id] = self._outcome(item, entry, path)
        entry.waiting -= 1
        del self._unanswered[call_id]
        if self._open is entry and not entry.waiting:
            self._open = None  # what comes now is the model's next turn

    def _outcome(self, item: Item, entry: Round, path: str) -> str:
        """The text of a tool's output; images move to a user message behind the outputs."""
        output = item.get("output")
        if isinstance(output, dict) or (isinstance(output, list) and item["type"] == "shell_call_output"):
            return orjson.dumps(output).decode()
        if output is None and item["type"] == "apply_patch_call_output":
            return str(item.get("status") or "")
        content = read_content(output, f"{path}.output", self.images)
        if isinstance(content, str):
            return content
        entry.pictures = [*(entry.pictures or ()), *(part for part in content if part["type"] != "text")]
        return "\n".join(str(part["text"]) for part in content if part["type"] == "text")

    def _check_answered(self, *, trailing: bool) -> None:
        """Every call so far has its output; `trailing`: calls at the very end may still wait for theirs. Half a call may do
        without one, and is left out then: an incomplete response may be continued."""
        for call_id in [call_id for call_id in self._half if call_id in self._unanswered]:
            self._leave_out(call_id)
        for call_id, entry in self._unanswered.items():  # the first of them, if there is any
            if trailing and entry is self._rounds[-1]:
                return
            message = f"No tool output found for function call {call_id}."
            raise GatewayError(ErrorKind.INVALID_REQUEST, message, param="input")

    def _leave_out(self, call_id: str) -> None:
        """Make as if there had been no such call."""
        entry = self._unanswered.pop(call_id)
        del self._calls[call_id], entry.outputs[call_id]
        entry.waiting -= 1
        calls = [call for call in entry.message.pop("tool_calls", []) if call["id"] != call_id]
        if calls:
            entry.message["tool_calls"] = calls


def normalise(item: Any, path: str) -> Item:
    """An item with its `type`, where the client left it out. Raises INVALID_REQUEST for what is no item."""
    if not isinstance(item, dict):
        raise invalid(path, "An input item must be an object.")
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if isinstance(item.get("id"), str) else None
    if not isinstance(kind, str):
        raise invalid(f"{path}.type", "An input item needs a `type`.")
    return item if item.get("type") == kind else item | {"type": kind}


def from_chat(messages: list[Any], path: str) -> list[tuple[Item, str]]:
    """Chat messages as items, each with the path of the message it came from."""
    found: list[tuple[Item, str]] = []
    for index, message in enumerate(messages):
        where = f"{path}[{index}]"
        if not isinstance(message, dict):
            raise invalid(where, "A message must be an object.")
        found += [(item, where) for item in _chat_items(message, where)]
    return found


def _chat_items(message: dict[str, Any], path: str) -> list[Item]:
    role = message.get("role")
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message.get("tool_call_id"), "output": message.get("content")}]
    if role != "assistant":
        return [{"type": "message", "role": role, "content": message.get("content")}]
    items: list[Item] = []
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if isinstance(reasoning, str):
        items.append({"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": reasoning}]})
    said = message.get("content") or message.get("refusal")
    calls = message.get("tool_calls") or []
    if said or not calls:
        items.append({"type": "message", "role": "assistant", "content": said or ""})
    for index, call in enumerate(calls if isinstance(calls, list) else []):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            raise invalid(f"{path}.tool_calls[{index}].function", "A tool call needs a `function`.")
        items.append({"type": "function_call", "call_id": call.get("id")} | function)
    return items


def _joined(parts: Any) -> str:
    if isinstance(parts, str):
        return parts
    texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    return "\n\n".join(text for text in texts if isinstance(text, str))


def _string(item: Item, name: str, path: str) -> str:
    value = item.get(name)
    if not isinstance(value, str):
        raise invalid(f"{path}.{name}", f"`{name}` must be a string.")
    return value
