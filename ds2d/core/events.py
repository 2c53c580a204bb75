"""The seven events that an answer is made of, and the answer folded from them.

Rules (tests hold them for every decoder and detector): `Finish` or `Failure` comes exactly once and last; `ToolStart`,
`ToolArgs`, `ToolEnd` of one call nest and calls of one choice do not interleave; joined `ToolArgs` are what the model
wrote, verbatim, unless a repair is reported; text is never empty and never half a code point; cutting the input bytes
elsewhere changes at most how text is split across events.
Surprise: with `n` > 1 events of several choices interleave, so every event but the last carries its choice.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ds2d.core.errors import GatewayError

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

Extra = dict[str, Any]
"""Fields of an upstream's answer that the vocabulary does not know; they ride along (openai-chat.md 5, 6)."""

INSIDE = "message"
"""Key of an `Extra` under which those fields stand that came inside a choice's message or delta, not beside it."""


class Text(msgspec.Struct, frozen=True):
    """A piece of what the model says. `extra`: choice-level fields that belong to it, such as logprobs."""

    text: str
    choice: int = 0
    refusal: bool = False
    extra: Extra | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """A piece of what the model thinks."""

    text: str
    choice: int = 0
    extra: Extra | None = None


class ToolStart(msgspec.Struct, frozen=True, gc=False):
    """Call `index` (from 0, per choice) begins; `id` and `name` are final."""

    index: int
    id: str
    name: str
    choice: int = 0


class ToolArgs(msgspec.Struct, frozen=True, gc=False):
    """A piece of the JSON text of the arguments of call `index`."""

    index: int
    text: str
    choice: int = 0


class ToolEnd(msgspec.Struct, frozen=True, gc=False):
    """Call `index` is complete. `broken`: its arguments do not parse and could not be mended (toolcalls.md 3)."""

    index: int
    choice: int = 0
    broken: bool = False


class Usage(msgspec.Struct, frozen=True, gc=False):
    """Tokens of one answer. `source`: "upstream" reported them, or "counted" here. None: not known.

    `cached` is part of `prompt`, `reasoning` is part of `completion` (mapping.md 8).
    """

    prompt: int
    completion: int
    reasoning: int | None = None
    cached: int | None = None
    cache_write: int | None = None
    source: str = "upstream"
    details: dict[str, dict[str, int]] | None = None
    """Further parts that the upstream counted, by chat's names: `prompt_tokens_details` and `completion_tokens_details`."""

    @property
    def total(self) -> int:
        return self.prompt + self.completion


def own_usage(prompt: int, completion: int, *, exact: bool) -> Usage:
    """Usage that was counted here, or (not `exact`) estimated."""
    return Usage(prompt, completion, source="counted" if exact else "estimated")


def with_reasoning(usage: Usage, thought: int) -> Usage:
    """Usage with this much of the completion as reasoning: counted or estimated here, so at most all of it (mapping.md 8)."""
    return msgspec.structs.replace(usage, reasoning=min(thought, usage.completion))


class Ending(msgspec.Struct, frozen=True):
    """How one choice ended. `stop`: the stop string that ended it, where the upstream said so."""

    reason: FinishReason
    stop: str | None = None
    extra: Extra | None = None


class Finish(msgspec.Struct, frozen=True):
    """The answer is whole. `endings`: one per choice, by choice index (at least one). `extra`: top-level fields.

    `notes` are what the gateway did on the way (repairs, rejected calls, clamps): for the usage record and headers.
    """

    endings: tuple[Ending, ...]
    usage: Usage | None = None
    extra: Extra | None = None
    notes: tuple[str, ...] = ()

    @property
    def reason(self) -> FinishReason:
        return self.endings[0].reason


class Failure(msgspec.Struct, frozen=True):
    """The answer is not whole and says so."""

    error: GatewayError
    usage: Usage | None = None


Event = Text | Reasoning | ToolStart | ToolArgs | ToolEnd | Finish | Failure


class CallPart(msgspec.Struct):
    """A tool call of a folded answer; `arguments` is JSON text as the model wrote it."""

    id: str
    name: str
    arguments: str = ""
    broken: bool = False
    ended: bool = False


class TextPart(msgspec.Struct):
    """Adjacent text of a folded answer."""

    text: str
    refusal: bool = False


class ReasoningPart(msgspec.Struct):
    """Adjacent reasoning of a folded answer."""

    text: str


Part = TextPart | ReasoningPart | CallPart


class Choice(msgspec.Struct):
    """One choice of a folded answer: its parts in the order they came."""

    parts: list[Part] = []
    ending: Ending | None = None
    extra: Extra = {}

    @property
    def text(self) -> str:
        return "".join(part.text for part in self.parts if type(part) is TextPart and not part.refusal)

    @property
    def refusal(self) -> str:
        return "".join(part.text for part in self.parts if type(part) is TextPart and part.refusal)

    @property
    def reasoning(self) -> str:
        return "".join(part.text for part in self.parts if type(part) is ReasoningPart)

    @property
    def calls(self) -> list[CallPart]:
        return [part for part in self.parts if type(part) is CallPart]


class Completion(msgspec.Struct):
    """A whole answer: what non-stream replies and the responses store are rendered from."""

    choices: list[Choice] = []
    usage: Usage | None = None
    extra: Extra = {}
    notes: tuple[str, ...] = ()
    failure: GatewayError | None = None


class Folder:
    """A last stage that keeps events as a `Completion` instead of writing them out: the encoder of non-stream answers."""

    content_type = "application/json"

    def __init__(self) -> None:
        self.completion = Completion()
        self._pieces: dict[int, list[str]] = {}  # text of the open part of each choice, joined when it closes

    def feed(self, batch: list[Event]) -> bytes:
        """Take the events of one read; nothing is written."""
        for event in batch:
            self._take(event)
        return b""

    def keep_alive(self) -> bytes:
        """Nothing: the status of a whole answer must stay open (errors.md 3)."""
        return b""

    def _take(self, event: Event) -> None:
        kind = type(event)
        if kind is Finish:
            self._finish(event)  # type: ignore[arg-type]
            return
        if kind is Failure:
            self._close_all()
            self.completion.failure = event.error  # type: ignore[union-attr]
            self.completion.usage = event.usage or self.completion.usage  # type: ignore[union-attr]
            return
        choice = self.choice(event.choice)  # type: ignore[union-attr]
        if kind is Text:
            self._text(choice, event)  # type: ignore[arg-type]
            return
        match event:
            case Reasoning(text=text):
                if not choice.parts or type(choice.parts[-1]) is not ReasoningPart:
                    self._open(choice, event.choice, ReasoningPart(""))
                self._pieces[event.choice].append(text)
                merge_extra(choice.extra, event.extra)
            case ToolStart(id=call_id, name=name):
                self._open(choice, event.choice, CallPart(call_id, name))
            case ToolArgs(text=text):
                self._pieces[event.choice].append(text)
            case ToolEnd(broken=broken):
                self._close(choice, event.choice)
                call = choice.calls[-1]
                call.broken, call.ended = broken, True

    def _text(self, choice: Choice, event: Text) -> None:
        last = choice.parts[-1] if choice.parts else None
        if type(last) is not TextPart or last.refusal != event.refusal:
            self._open(choice, event.choice, TextPart("", event.refusal))
        self._pieces[event.choice].append(event.text)
        merge_extra(choice.extra, event.extra)

    def choice(self, index: int) -> Choice:
        """The choice of that index, made if it is new."""
        while len(self.completion.choices) <= index:
            self.completion.choices.append(Choice([], None, {}))
        return self.completion.choices[index]

    def _finish(self, event: Finish) -> None:
        self._close_all()
        for index, ending in enumerate(event.endings):
            choice = self.choice(index)
            choice.ending = ending
            merge_extra(choice.extra, ending.extra)
        self.completion.usage = event.usage
        self.completion.notes = event.notes
        merge_extra(self.completion.extra, event.extra)

    def _open(self, choice: Choice, index: int, part: Part) -> None:
        self._close(choice, index)
        choice.parts.append(part)
        self._pieces[index] = []

    def _close(self, choice: Choice, index: int) -> None:
        pieces = self._pieces.pop(index, None)
        if pieces is None:
            return
        last = choice.parts[-1]
        if type(last) is CallPart:
            last.arguments += "".join(pieces)
        else:
            last.text += "".join(pieces)  # type: ignore[union-attr]
        self._pieces[index] = []

    def _close_all(self) -> None:
        for index, choice in enumerate(self.completion.choices):
            self._close(choice, index)


class Overhearing:
    """A stage that keeps a copy of everything as a `Completion`, for what must be known of an answer after it went out."""

    def __init__(self) -> None:
        self._folder = Folder()

    @property
    def completion(self) -> Completion:
        """The answer so far."""
        return self._folder.completion

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take note and hand on."""
        self._folder.feed(batch)
        return batch

    def finish(self) -> list[Event]:
        """Nothing is held here."""
        return []


def merge_extra(into: Extra, new: Extra | None) -> None:
    """Add later extras to earlier ones: lists (token ids, logprobs content) are joined, the rest is replaced by the later."""
    if not new:
        return
    for name, value in new.items():
        old = into.get(name)
        if isinstance(old, list) and isinstance(value, list):
            into[name] = old + value
        elif isinstance(old, dict) and isinstance(value, dict):
            joined = dict(old)
            merge_extra(joined, value)
            into[name] = joined
        else:
            into[name] = value


def fold(events: list[Event]) -> Completion:
    """The answer that these events make."""
    folder = Folder()
    folder.feed(events)
    return folder.completion
