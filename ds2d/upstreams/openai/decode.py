"""What OpenAI-compatible servers answer, as events: streams and whole bodies, chat and legacy completions.

Rule: success needs evidence. `Finish` comes once, when every choice has a finish reason and the answer has ended ([DONE],
or the end of the body: not every server sends [DONE]); anything else ends in `Failure` (reliability.md, upstreams).
Surprise: nearly every record is one piece of plain text, so those are read through a narrow typed view; whatever does not
fit that view exactly is read again the careful way, which loses no field. Server quirks: upstreams.md 1 to 3 and 6.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
import orjson

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import INSIDE, Ending, Event, Extra, Failure, Finish, FinishReason, Reasoning, Text, Usage, merge_extra
from ds2d.core.models import Target
from ds2d.core.request import ChatRequest
from ds2d.core.sse import Record
from ds2d.upstreams.openai.calls import Called, CallSorter
from ds2d.upstreams.openai.classify import judge
from ds2d.upstreams.openai.flavours import prompts_to_echo
from ds2d.upstreams.openai.plain import PlainChunk, read_plain
from ds2d.upstreams.openai.refusal import Refusal, read_object
from ds2d.upstreams.openai.usage import read_usage, sum_usage

MAX_MISSES = 8
"""Records in a row that did not fit the narrow view, after which it is not tried again in this answer."""

MAX_DEPTH = 200
"""Brackets in a record up to which it cannot be nested too deeply to be written again."""

_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
"""Where half of a character may stand, which strict readers refuse."""

_ESCAPE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<half>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""Any escape of a JSON text, a pair of halves as one: what is `half` alone becomes U+FFFD, as in calls (json_reader.py)."""

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""What is not in here and not in `_CUT` means that the model came to an end by itself (openai-chat.md 5)."""

_CUT = {
    "insufficient_system_resource": "The upstream ran out of resources and cut the answer.",
    "abort": "The upstream aborted the answer.",
    "error": "The upstream failed in the middle of the answer.",
}

_KNOWN_IN_CHUNK = frozenset(
    ("id", "object", "created", "model", "choices", "usage", "error", "kv_transfer_params", "ec_transfer_params")
)
"""Top-level fields that are not handed on as they are. The two kinds of transfer parameters name hosts.

Others are, null only in a whole answer, whose clients look for the key.
"""

_OF_THE_END = ("stop_reason", "matched_stop")
"""Fields of a choice that belong to its end, null or not; all others ride on the text they came with."""

_KNOWN_IN_CHOICE = frozenset(("index", "delta", "message", "text", "finish_reason", *_OF_THE_END))

_KNOWN_IN_DELTA = frozenset(("role", "content", "reasoning", "reasoning_content", "refusal", "tool_calls", "function_call"))


class _Choice:
    """One choice as far as it has come. `extra` are fields that no event carried yet; `calls` come with the first call, which
    most choices never see."""

    __slots__ = ("calls", "extra", "index", "reason", "stop", "usage")

    def __init__(self, index: int) -> None:
        self.index = index
        self.calls: CallSorter | None = None
        self.reason: FinishReason | None = None
        self.stop: str | None = None
        self.extra: Extra = {}
        self.usage: Usage | None = None

    def ending(self, reason: FinishReason) -> Ending:
        """How it ended: with calls exactly if there were any, whatever word the server used (openai-chat.md 5)."""
        if reason in ("stop", "tool_calls"):
            reason = "tool_calls" if self.calls is not None and self.calls.seen else "stop"
        return Ending(reason, self.stop, self.extra or None)


class Decoder:
    """Records of one answer to events. A whole body comes as one record.

    `usage` is the latest known, also while the answer runs; `answer_id` is the server's own id of the answer.
    """

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self.usage: Usage | None = None
        self.answer_id: str | None = None
        self._request = request
        self._per_choice_usage = request.choices > 1 or isinstance(request.prompt, list)
        self._most_choices = request.choices * request.prompts
        self._echo = prompts_to_echo(request, target)
        self._choices: dict[int, _Choice] = {}
        self._called = Called(request)
        self._extra: Extra = {}
        self._reported: list[Any] = []
        self._thought = False
        self._misses = 0
        self._over = False
        self._out: list[Event] = []

    def feed(self, records: list[Record]) -> list[Event]:
        """Take the records of one network read. Faults come back as `Failure`; nothing is raised."""
        out = self._out = []
        try:
            for record in records:
                if self._over:
                    break
                if record.event or self._misses >= MAX_MISSES:
                    self._take_carefully(record)
                    continue
                try:
                    chunk = read_plain(record.data)
                except (ValueError, RecursionError):  # msgspec's errors, and bytes that are no UTF-8, are ValueErrors
                    self._misses += 1
                    self._take_carefully(record)
                else:
                    self._misses = 0
                    self._take_plain(chunk)
        except GatewayError as error:
            self._fail(error)
        if self._reported:
            self._settle_usage()
        return out

    def finish(self) -> list[Event]:
        """The body has ended: `Finish` if the answer is whole, else `Failure`; nothing if it had ended before."""
        out = self._out = []
        if not self._over:
            try:
                self._end()
            except GatewayError as error:
                self._fail(error)
        return out

    def _take_plain(self, chunk: PlainChunk) -> None:
        if self.answer_id is None:
            self.answer_id = self._called.answer_id = chunk.id or None
        if chunk.system_fingerprint is not None:
            self._extra["system_fingerprint"] = chunk.system_fingerprint
        if chunk.usage is not None:
            self._note_usage(chunk.usage, chunk.choices[0].index if len(chunk.choices) == 1 else None)
        for plain in chunk.choices:
            index = plain.index
            choice = self._choices.get(index) or self._new_choice(index)
            delta = plain.delta
            if delta is None:
                if plain.text:
                    self._say(choice, Text(plain.text, index))
                continue
            if thought := delta.reasoning_content or delta.reasoning:
                self._thought = True
                self._say(choice, Reasoning(thought, index))
            if delta.content:
                if choice.calls is None:  # without a call of its own: this is what nearly every chunk is
                    self._out.append(Text(delta.content, index))
                else:
                    self._say(choice, Text(delta.content, index))
            for call in delta.tool_calls or ():
                self._out += self._sorter(choice).go_on(call.index, call.function.arguments)

    def _say(self, choice: _Choice, event: Text | Reasoning) -> None:
        if choice.calls is not None and choice.calls.queue:
            self._out += choice.calls.pass_by(event)
        else:
            self._out.append(event)

    def _take_carefully(self, record: Record) -> None:
        if not record.data and record.event != b"error":
            return  # a sign of life as a `data:` with nothing behind it
        data = record.data.strip()
        if data == b"[DONE]":
            self._end()
            return
        chunk = _read_json(data)
        if chunk is None:  # llama-server's first event for a list of prompts
            return
        refusal = read_object(chunk)
        if refusal is None and record.event == b"error":
            refusal = Refusal()
        if refusal is not None:
            raise judge(refusal.status or 500, refusal, self._request)
        if not isinstance(chunk, dict):
            raise _garbled("an answer that is not an object")
        self._take_chunk(chunk)

    def _take_chunk(self, chunk: dict[str, Any]) -> None:
        if self.answer_id is None and isinstance(chunk.get("id"), str):
            self.answer_id = self._called.answer_id = chunk["id"] or None
        choices = chunk.get("choices")
        if choices is None:
            choices = []
        if not isinstance(choices, list):
            raise _garbled("choices that are no list")
        if chunk.get("usage") is not None:
            only = choices[0].get("index", 0) if len(choices) == 1 and isinstance(choices[0], dict) else None
            self._note_usage(chunk["usage"], only)
        for number, choice in enumerate(choices):
            if not isinstance(choice, dict):
                raise _garbled("a choice that is not an object")
            self._take_choice(choice, number)
        whole = any("message" in choice for choice in choices)
        for name, value in chunk.items():
            if name not in _KNOWN_IN_CHUNK and (value is not None or (whole and name not in self._extra)):
                self._extra[name] = value

    def _take_choice(self, fields: dict[str, Any], number: int) -> None:
        index = fields.get("index", number)
        if type(index) is not int:
            index = number
        choice = self._choices.get(index) or self._new_choice(index)
        reason = fields.get("finish_reason")
        whole = "delta" not in fields and "message" in fields
        said = fields.get("message" if whole else "delta")
        extra = {name: value for name, value in fields.items() if name not in _KNOWN_IN_CHOICE and value is not None}
        if said is None:
            self._say_content(choice, index, fields.get("text"), extra)
        elif isinstance(said, dict):
            if inside := {name: value for name, value in said.items() if name not in _KNOWN_IN_DELTA and value}:
                extra[INSIDE] = inside
            self._take_delta(choice, index, said, extra, whole)
        else:
            raise _garbled("a delta that is not an object")
        merge_extra(choice.extra, extra)
        if reason and choice.reason is None:
            self._end_choice(choice, reason, fields)

    def _take_delta(self, choice: _Choice, index: int, delta: dict[str, Any], extra: Extra, whole: bool) -> None:
        """Reasoning, text and calls of a delta or message, in that order. What `extra` says goes with the first of them."""
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._thought = True
            self._say(choice, Reasoning(thought, index, extra=self._carried(choice, extra)))
        self._say_content(choice, index, delta.get("content"), extra)
        refusal = delta.get("refusal")
        if isinstance(refusal, str) and refusal:
            self._say(choice, Text(refusal, index, refusal=True, extra=self._carried(choice, extra)))
        calls = delta.get("tool_calls")
        if not calls and isinstance(delta.get("function_call"), dict):
            calls = [{"function": delta["function_call"]}]  # llama-cpp-python sends both: then this one says nothing new
        if calls:
            if not isinstance(calls, list):
                raise _garbled("tool_calls that are no list")
            self._out += self._sorter(choice).feed(calls, whole=whole)

    def _say_content(self, choice: _Choice, index: int, content: Any, extra: Extra) -> None:
        """Text, or a list of typed parts of which some may be thinking."""
        if not content:
            return
        parts = content if isinstance(content, list) else [content]
        for part in parts:
            kind = part.get("type") if isinstance(part, dict) else None
            text = (part.get("text") or part.get(kind)) if isinstance(part, dict) and isinstance(kind, str) else part
            if isinstance(text, list):
                words = [piece.get("text") or "" for piece in text if isinstance(piece, dict)]
                text = "".join(words) if all(isinstance(word, str) for word in words) else None
            if not isinstance(text, str):
                raise _garbled("content that is no text")
            if text and kind in ("thinking", "reasoning"):
                self._thought = True
                self._say(choice, Reasoning(text, index, extra=self._carried(choice, extra)))
            elif text:
                self._say(choice, Text(text, index, extra=self._carried(choice, extra)))

    def _carried(self, choice: _Choice, extra: Extra) -> Extra | None:
        """The fields that ride on the next event: those of its chunk, after those that found nothing to ride on."""
        if not extra and not choice.extra:
            return None
        carried, choice.extra = choice.extra, {}
        merge_extra(carried, extra)
        extra.clear()
        return carried

    def _end_choice(self, choice: _Choice, reason: Any, fields: dict[str, Any]) -> None:
        if isinstance(reason, str) and reason in _CUT:
            raise GatewayError(ErrorKind.UPSTREAM_ERROR, _CUT[reason])
        if choice.calls is not None:
            self._out += choice.calls.finish()
        choice.reason = _REASONS.get(reason, "stop") if isinstance(reason, str) else "stop"
        stops = (fields.get("stop_reason"), fields.get("matched_stop"))
        choice.stop = next((stop for stop in stops if isinstance(stop, str)), None)
        choice.extra |= {name: fields[name] for name in _OF_THE_END if name in fields}

    def _new_choice(self, index: int) -> _Choice:
        if not 0 <= index < self._most_choices:
            raise _garbled("a choice that was not asked for")
        choice = self._choices[index] = _Choice(index)
        if self._echo:
            self._out.append(Text(self._echo[index // self._request.choices], index))
        return choice

    def _sorter(self, choice: _Choice) -> CallSorter:
        if choice.calls is None:
            choice.calls = CallSorter(choice.index, self._called.client_name, self._called.identify)
        return choice.calls

    def _note_usage(self, reported: Any, index: Any) -> None:
        """Keep what a chunk said of usage; it is looked at once a read. `index`: the only choice in the chunk, if it is one."""
        if not self._per_choice_usage or type(index) is not int:
            self._reported.append(reported)
            return
        choice = self._choices.get(index) or self._new_choice(index)
        choice.usage = read_usage(reported) or choice.usage
        known = {number: each.usage for number, each in self._choices.items() if each.usage is not None}
        if known:
            self.usage = sum_usage(known, self._request.choices)

    def _settle_usage(self) -> None:
        """The latest usage that can be believed."""
        reported, self._reported = self._reported, []
        while reported:
            if (usage := read_usage(reported.pop())) is not None:
                self.usage = usage
                return

    def _final_usage(self) -> Usage | None:
        """vLLM's deepseek_v3 parser says that none of its reasoning is reasoning; that is no count (upstreams.md 3)."""
        self._settle_usage()
        if self.usage is not None and self.usage.reasoning == 0 and self._thought:
            self.usage = msgspec.structs.replace(self.usage, reasoning=None)
        return self.usage

    def _end(self) -> None:
        choices = [self._choices.get(index) for index in range(max(self._choices, default=-1) + 1)]
        if not choices:
            raise _garbled("an answer without any choice")
        endings = []
        for choice in choices:
            if choice is None or choice.reason is None:
                raise GatewayError(ErrorKind.UPSTREAM_DISCONNECTED, "The upstream's answer ended before it was finished.")
            if choice.calls is not None:
                self._out += choice.calls.finish()  # calls that came after the finish reason
            endings.append(choice.ending(choice.reason))
        self._over = True
        self._out.append(Finish(tuple(endings), self._final_usage(), self._extra or None))

    def _fail(self, error: GatewayError) -> None:
        self._over = True
        self._out.append(Failure(error, self._final_usage()))


def _read_json(data: bytes) -> Any:
    """Any JSON that can be written again: orjson reads 1024 levels and writes 254, of which a dialect needs a few itself."""
    try:
        try:
            chunk = orjson.loads(data)
        except orjson.JSONDecodeError:
            if _HALF.search(data) is None:
                raise
            chunk = orjson.loads(_ESCAPE.sub(_mended, data))
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            orjson.dumps([[[[[[[[chunk]]]]]]]])
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise _garbled("an answer that is not JSON") from error
    return chunk


def _mended(escape: re.Match[bytes]) -> bytes:
    return rb"\ufffd" if escape["half"] else escape[0]


def _garbled(what: str) -> GatewayError:
    return GatewayError(ErrorKind.UPSTREAM_GARBLED, f"The upstream sent {what}.")
