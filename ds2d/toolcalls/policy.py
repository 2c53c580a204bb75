"""What the client asked of calls, held against the ones that came; and whether there is an answer at all.

Rule: only declared tools are called, each call under its declared name, its own id and the next index (toolcalls.md 3, 4);
a finish without what was promised becomes a failure that says so (errors.md 2: empty turn, tool_choice violation).
Surprise: after the first call of a turn without parallel calls this stage ends the answer itself. `done` tells the
service that it may close the upstream; what would still come from there is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.core.request import ChatRequest
from ds2d.toolcalls import notes
from ds2d.toolcalls.declared import Declared, allowed_by
from ds2d.toolcalls.passing import unchanged

EmptyCause = Literal["undeclared", "malformed", "reasoning", "nothing"]
"""Why a turn is empty: `details["cause"]` of its error. Only undeclared tools were called; the calls could not be read;
the model only thought; it produced tokens that are neither."""


class Policy:
    """A stage: the last one before the encoder. `new_id(prefix)` makes ids."""

    def __init__(self, request: ChatRequest, new_id: Callable[[str], str], declared: Declared | None = None) -> None:
        self.done = False
        self._request = request
        self._declared = allowed_by(request) if declared is None else declared
        self._new_id = new_id
        self._only_one = request.parallel_tool_calls is False
        self._ids = _ids_of(request) if self._declared else set()
        self._choices: dict[int, _Choice] = {}
        self._notes: dict[str, None] = {}

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        same = unchanged(batch, self._choices, Text, Reasoning)
        if same == len(batch):
            return batch
        out = batch[:same]
        for event in batch[same:]:
            self._take(event, out)
        if self.done and not (out and isinstance(out[-1], Finish | Failure)):
            out.append(self._end(Finish(self._done_endings())))
        return out

    def finish(self) -> list[Event]:
        """Nothing is held here."""
        return []

    def _take(self, event: Event, out: list[Event]) -> None:
        kind = type(event)
        if kind is Text or kind is Reasoning:
            choice = self._choice(event.choice)  # type: ignore[union-attr]
            if not choice.over:
                choice.heard(event)  # type: ignore[arg-type]
                out.append(event)
            return
        match event:
            case ToolStart():
                self._start(self._choice(event.choice), event, out)
            case ToolArgs(text=text):
                choice = self._choice(event.choice)
                if choice.calling:
                    out.append(ToolArgs(choice.calls - 1, text, event.choice))
            case ToolEnd(broken=broken):
                choice = self._choice(event.choice)
                if choice.calling:
                    out.append(ToolEnd(choice.calls - 1, event.choice, broken))
                    self._ended(choice, broken)
            case Finish():
                out.append(self._end(event))
            case Failure() if self.done:  # of what would have been dropped: the answer was over
                out.append(self._end(Finish(self._done_endings(), event.usage)))
            case Failure():
                out.append(event)

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        return choice

    def _done_endings(self) -> tuple[Ending, ...]:
        return (Ending("tool_calls"),) * self._request.choices

    def _start(self, choice: _Choice, event: ToolStart, out: list[Event]) -> None:
        choice.calling = False
        name = self._declared.resolve(event.name)
        if choice.over:
            self._notes[notes.NOT_PARALLEL] = None
            return
        if name is None:
            choice.rejected = True
            self._notes[notes.UNDECLARED] = None
            return
        if name != event.name:
            self._notes[notes.RENAMED] = None
        choice.calling = True
        choice.calls += 1
        out.append(ToolStart(choice.calls - 1, self._unique(event.id), name, event.choice))

    def _unique(self, call_id: str) -> str:
        """The id, unless it is missing or was given before in this conversation."""
        if not call_id or call_id in self._ids:
            if call_id:
                self._notes[notes.NEW_ID] = None
            call_id = self._new_id("call_")
        self._ids.add(call_id)
        return call_id

    def _ended(self, choice: _Choice, broken: bool) -> None:
        choice.calling = False
        choice.valid = choice.valid or not broken
        if self._only_one:
            choice.over = True
            self.done = len(self._choices) >= self._request.choices and all(other.over for other in self._choices.values())

    def _end(self, event: Finish) -> Finish | Failure:
        choices = [self._choices.get(index) or _Choice() for index in range(len(event.endings))]
        endings = tuple(_ending(ending, choice) for ending, choice in zip(event.endings, choices, strict=True))
        whole = all(map(_is_whole, endings))
        if whole and self._request.tool_choice.mode == "required" and not any(choice.valid for choice in choices):
            return Failure(_violation(), event.usage)
        cause = _why_empty(choices, event, self._request)
        if cause is not None:
            return Failure(_empty(cause), event.usage)
        said = tuple(dict.fromkeys([*event.notes, *self._notes]))
        return msgspec.structs.replace(event, endings=endings, notes=said)


class _Choice:
    """What one choice has said. `calling`: a call is open and goes out. `over`: nothing more goes out."""

    __slots__ = ("blank", "calling", "calls", "over", "rejected", "spoke", "thought", "valid")

    def __init__(self) -> None:
        self.blank = False
        self.calling = False
        self.calls = 0
        self.over = False
        self.rejected = False
        self.spoke = False
        self.thought = False
        self.valid = False

    def passes(self, event: Text | Reasoning) -> bool:
        """Whether the event changes nothing that is known."""
        return (self.spoke if type(event) is Text else self.thought) and not self.over

    def heard(self, event: Text | Reasoning) -> None:
        """Remember what it was."""
        if type(event) is Reasoning:
            self.thought = True
        elif event.text.isspace():
            self.blank = True
        else:
            self.spoke = True


def _is_whole(ending: Ending) -> bool:
    """Whether the model ended by itself: not by length, filter or stop string."""
    return ending.reason in ("stop", "tool_calls") and ending.stop is None


def _ending(ending: Ending, choice: _Choice) -> Ending:
    reason = ending.reason
    if choice.over:  # its answer ended with the call, whatever became of the rest
        return msgspec.structs.replace(ending, reason="tool_calls", stop=None)
    if choice.calls and reason == "stop":
        reason = "tool_calls"
    elif not choice.calls and reason == "tool_calls":
        reason = "stop"
    return ending if reason == ending.reason else msgspec.structs.replace(ending, reason=reason)


def _why_empty(choices: list[_Choice], event: Finish, request: ChatRequest) -> EmptyCause | None:
    """Why there is no answer although the model produced something (errors.md 2); None if there is one, or nothing was due."""
    if any(choice.spoke or choice.calls for choice in choices) or not all(map(_is_whole, event.endings)):
        return None
    if any(choice.rejected for choice in choices):
        return "undeclared"
    if request.response_format is not None and any(choice.blank for choice in choices):
        return None  # JSON mode gives blanks where the model's text was no JSON (mapping.md 5)
    if any(choice.thought for choice in choices):
        return "reasoning"
    produced = event.usage is not None and event.usage.completion > len(choices)
    return "nothing" if produced else None


_EMPTY: dict[EmptyCause, str] = {
    "undeclared": "The model called only tools that were not declared.",
    "malformed": "The model's tool calls could not be read.",
    "reasoning": "The model thought, but gave no answer.",
    "nothing": "The model gave no answer.",
}


def _empty(cause: EmptyCause) -> GatewayError:
    return GatewayError(ErrorKind.EMPTY_ANSWER, _EMPTY[cause], details={"cause": cause})


def _violation() -> GatewayError:
    message = "tool_choice asks for a tool call, but the model made no valid one."
    return GatewayError(ErrorKind.TOOL_CHOICE_VIOLATION, message, param="tool_choice")


def _ids_of(request: ChatRequest) -> set[str]:
    """Ids of the calls in the conversation so far."""
    return {call["id"] for message in request.messages for call in message.get("tool_calls") or () if call.get("id")}
