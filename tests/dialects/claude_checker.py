"""A strict reader of Claude streams, written from anthropic-messages.md 6 and clients.md, not from the encoder.

Rule: it accepts exactly what the strictest client accepts, and gives back the message that a client would have built.
"""

from __future__ import annotations

from typing import Any

import orjson

EMPTY_BLOCKS = {
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
    "text": {"type": "text", "text": ""},
    "tool_use": {"type": "tool_use", "input": {}},
}
DELTAS = {
    "text": ("text_delta", "text"),
    "thinking": ("thinking_delta", "thinking"),
    "tool_use": ("input_json_delta", "partial_json"),
}
START_USAGE = {"input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"}


class BrokenStreamError(AssertionError):
    """The stream is not what a Claude client understands."""


def need(condition: object, what: str) -> None:
    if not condition:
        raise BrokenStreamError(what)


def frames(stream: bytes) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of every event; comments vanish. One `event:` and one `data:` line each, and nothing else."""
    text = stream.decode()
    need(text == "" or text.endswith("\n\n"), "the last frame is not closed")
    found = []
    for block in text.split("\n\n")[:-1]:
        if block.startswith(":"):
            need("\n" not in block, "a comment of several lines")
            continue
        lines = block.split("\n")
        need(
            len(lines) == 2 and lines[0].startswith("event: ") and lines[1].startswith("data: "),
            f"a frame of other lines: {block!r}",
        )
        data = orjson.loads(lines[1][6:])
        need(data["type"] == lines[0][7:], "the name is not the type")
        found.append((lines[0][7:], data))
    return found


class Reader:
    """Follows one stream; `message` is what a client has at the end, `error` what it was told instead."""

    def __init__(self, stream: bytes) -> None:
        self.message: dict[str, Any] = {}
        self.error: dict[str, Any] | None = None
        self.pings = 0
        self.done = False
        self._open: dict[str, Any] | None = None
        self._json = ""
        self._seen_call_json = False
        for name, data in frames(stream):
            need(not self.done, f"{name} after the end")
            getattr(self, f"_{name}")(data)
        need(self.done, "no end")

    def _message_start(self, data: dict[str, Any]) -> None:
        need(not self.message, "a second message_start")
        message = data["message"]
        need(message["type"] == "message" and message["role"] == "assistant" and message["id"].startswith("msg_"), "no message")
        need(message["content"] == [] and message["stop_reason"] is None and message["stop_sequence"] is None, "not open")
        need(message["usage"].keys() >= START_USAGE and message["usage"]["output_tokens"] in (0, 1), "usage of the start")
        self.message = message

    def _ping(self, data: dict[str, Any]) -> None:
        need(self.message, "a ping before message_start")
        need(data == {"type": "ping"}, "a ping that says something")
        self.pings += 1

    def _content_block_start(self, data: dict[str, Any]) -> None:
        need(self.message, "a block before message_start")
        need(self._open is None, "a block inside a block")
        need(data["index"] == len(self.message["content"]), "an index that does not count up")
        block = data["content_block"]
        fixed = {key: value for key, value in block.items() if key not in ("id", "name")}
        need(fixed == EMPTY_BLOCKS[block["type"]], f"a block that is not empty: {block}")
        need(block["type"] != "tool_use" or (block["id"] and block["name"]), "a call without id or name")
        self.message["content"].append(block)
        self._open, self._json = block, ""

    def _content_block_delta(self, data: dict[str, Any]) -> None:
        need(self._open is not None, "a delta outside of a block")
        assert self._open is not None
        need(data["index"] == len(self.message["content"]) - 1, "the index of another block")
        kind, field = DELTAS[self._open["type"]]
        delta = data["delta"]
        need(delta.keys() == {"type", field} and delta["type"] == kind, f"{delta['type']} in a {self._open['type']} block")
        need(delta[field] != "", "an empty delta")
        if kind == "input_json_delta":
            self._json += delta[field]
        else:
            self._open[field] += delta[field]

    def _content_block_stop(self, data: dict[str, Any]) -> None:
        need(self._open is not None and data["index"] == len(self.message["content"]) - 1, "a stop of no open block")
        assert self._open is not None
        if self._open["type"] == "tool_use":
            self._open["input"] = self._json
        need(self._open["type"] != "text" or self._open["text"], "an empty text block")
        self._open = None

    def _message_delta(self, data: dict[str, Any]) -> None:
        need(self.message and self._open is None, "message_delta too early")
        need(data["delta"].keys() >= {"stop_reason", "stop_sequence"} and data["delta"]["stop_reason"], "no stop_reason")
        need(
            {"input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"} <= data["usage"].keys(),
            "usage",
        )
        cut = data["delta"]["stop_reason"] in ("max_tokens", "refusal")
        for number, block in enumerate(self.message["content"]):
            if block["type"] == "tool_use":
                block["input"] = self._input(block["input"], may_be_cut=cut and number == len(self.message["content"]) - 1)
        self.message.update(data["delta"])
        self.message["usage"].update(data["usage"])

    def _input(self, text: str, *, may_be_cut: bool) -> Any:
        """What a client makes of the joined deltas. A cut one stays text."""
        try:
            value = orjson.loads(text or "{}")
        except orjson.JSONDecodeError:
            need(may_be_cut, f"input that is no JSON: {text!r}")
            return text
        need(isinstance(value, dict), "input that is no object")
        return value

    def _message_stop(self, data: dict[str, Any]) -> None:
        need(self.message.get("stop_reason"), "message_stop without message_delta")
        need(data == {"type": "message_stop"}, "a stop that says something")
        self.done = True

    def _error(self, data: dict[str, Any]) -> None:
        need(data["error"]["type"] and data["error"]["message"] and data["request_id"], "an error that says nothing")
        self.error, self.done = data, True
