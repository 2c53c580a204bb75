"""Calls that models write as text, found while the text streams by.

Rule: text in which no call could begin passes untouched, as the very event that came, at the cost of one search for a
special character. Everything else goes through the lane of its choice and channel.
Surprise: reasoning and content are two texts: a block never runs from one into the other. Thoughts that come in the middle
of a block of the content wait behind it; any other change ends what is open as a cut would: a call that has begun is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

from ds2d.core.events import Ending, Event, Extra, Failure, Finish, Reasoning, Text, ToolArgs, ToolEnd, ToolStart
from ds2d.toolcalls import notes
from ds2d.toolcalls.allowance import Allowance
from ds2d.toolcalls.calls import Calls, Confidence, fingerprint
from ds2d.toolcalls.calls import Ending as HowEnded
from ds2d.toolcalls.declared import Declared
from ds2d.toolcalls.lane import Channel, Lane, merged
from ds2d.toolcalls.source import MAX_KEPT, Source

Mode = Literal["feature_match", "buffered", "off"]


class Detector:
    """A stage: text in which calls may be written in, text and calls out.

    `declared` are the tools that may be called. `mode` "buffered" holds everything to the end (up to 1 MiB); "off" is not
    for this stage: it is left out then. `new_id(prefix)` makes ids.
    """

    def __init__(self, declared: Declared, mode: Mode, confidence: Confidence, new_id: Callable[[str], str]) -> None:
        self._declared = declared
        self._confidence: Confidence = "off" if mode == "buffered" else confidence
        self._new_id = new_id
        self._choices: dict[int, _Choice] = {}
        self._buffering = mode == "buffered"
        self._buffer: list[Event] = []
        self._buffered = 0

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        if len(batch) == 1 and not self._buffering:
            event = batch[0]
            if type(event) is Text or type(event) is Reasoning:
                said = (self._choices.get(event.choice) or self._choice(event.choice)).take(event)
                return batch if said is None else said
        out: list[Event] = []
        for event in batch:
            if type(event) is Text or type(event) is Reasoning:
                said = (self._choices.get(event.choice) or self._choice(event.choice)).take(event)
                out += (event,) if said is None else said
            else:
                self._take(event, out)
        return self._hold(out) if self._buffering else out

    def finish(self) -> list[Event]:
        """The turn has failed from outside: text that was held, but no unfinished block."""
        out: list[Event] = []
        for choice in self._choices.values():
            choice.abandon(out)
        held, self._buffer, self._buffering = self._buffer, [], False
        return held + out

    def _take(self, event: Event, out: list[Event]) -> None:
        match event:
            case ToolStart() | ToolArgs() | ToolEnd():
                self._choice(event.choice).native(event, out)
            case Finish():
                out.append(self._ending(event, out))
            case Failure():
                out += self.finish()
                out.append(event)

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice(index, self._declared, self._confidence, self._new_id)
        return choice

    def _ending(self, event: Finish, out: list[Event]) -> Finish:
        endings = list(event.endings)
        said: dict[str, None] = dict.fromkeys(event.notes)
        for index, choice in sorted(self._choices.items()):
            ending = endings[index] if index < len(endings) else Ending("stop")
            extra = choice.finish(ending, out)
            if extra and index < len(endings):
                endings[index] = msgspec.structs.replace(ending, extra=merged(extra, ending.extra or {}))
            said.update(choice.notes)
        return msgspec.structs.replace(event, endings=tuple(endings), notes=tuple(said))

    def _hold(self, out: list[Event]) -> list[Event]:
        self._buffer += out
        self._buffered += sum(len(event.text) for event in out if isinstance(event, Text | Reasoning | ToolArgs))
        ended = bool(out) and isinstance(out[-1], Finish | Failure)
        if not ended and self._buffered <= MAX_KEPT:
            return []
        held, self._buffer, self._buffering = self._buffer, [], False
        return held


class _Choice:
    """One choice: the lane of the channel that speaks now, and the calls of all of them."""

    def __init__(self, index: int, declared: Declared, confidence: Confidence, new_id: Callable[[str], str]) -> None:
        self._index = index
        self._out: list[Event] = []
        self._source = Source()
        self._calls = Calls(self._source, self._out, declared, confidence, new_id, index)
        self._allowance = Allowance()
        self._lane: Lane | None = None
        self._extra: Extra | None = None
        self._native: _Native | None = None
        self._after_native = False
        self._behind: list[Reasoning] = []  # thoughts that came in the middle of a block of the content
        self._behind_size = 0
        self._settled = 0  # how many of them came in a block that has ended since
        self._blocks = 0
        self._torn: frozenset[tuple[str, bool]] = frozenset()

    @property
    def notes(self) -> dict[str, None]:
        return self._calls.notes

    def take(self, event: Text | Reasoning) -> list[Event] | None:
        """Take a piece of text; what goes on for it. None: the event as it is."""
        lane = self._lane
        if lane is None or lane.channel is not type(event) or (type(event) is Text and event.refusal):
            return self._change(event)
        if lane.take(event.text, event.extra):
            return None
        said = self._out[:]
        self._out.clear()
        if self._behind:
            self._look_behind(lane, said)
        return said

    def _change(self, event: Text | Reasoning) -> list[Event]:
        """Take what begins another channel; a refusal is none, and not searched."""
        out: list[Event] = []
        if self._waits(event):
            return out
        self._change_channel(out)
        if isinstance(event, Text) and event.refusal:
            return [*out, event]
        self._lane = self._new_lane(type(event))
        extra = merged(self._extra, event.extra or {}) if self._extra else event.extra
        self._extra = None
        self._lane.take(event.text, extra)
        self._move(out)
        return out

    def _waits(self, event: Text | Reasoning) -> bool:
        """Take thoughts that come in the middle of a block of the content: they go out behind it, as they came, and the content
        goes on. Not if there are too many."""
        lane = self._lane
        if type(event) is not Reasoning or lane is None or lane.channel is not Text or not lane.in_block:
            return False
        self._behind_size += len(event.text)
        if self._behind_size > MAX_KEPT:
            return False
        self._behind.append(event)
        self._blocks = lane.blocks
        return True

    def _look_behind(self, lane: Lane, out: list[Event]) -> None:
        """Thoughts whose block has ended go out when no other is open."""
        if lane.blocks != self._blocks:
            self._blocks, self._settled = lane.blocks, len(self._behind)
        if not lane.in_block:
            out += self._take_behind()

    def _take_behind(self) -> list[Reasoning]:
        behind, self._behind, self._behind_size, self._settled = self._behind, [], 0, 0
        return behind

    def _end_behind(self, ending: HowEnded, out: list[Event], *, final: bool = False) -> None:
        """A block was cut off: the thoughts that came in it were the next channel, and end, too."""
        if self._behind:
            settled = self._settled
            behind = self._take_behind()
            out += behind[:settled]
            for event in behind[settled:]:
                said = self.take(event)
                out += (event,) if said is None else said
            self._end_lane(ending, out, final=final)

    def _change_channel(self, out: list[Event]) -> None:
        """What was open in the channel so far ends here, cut off by what comes."""
        self._end_lane("cut", out)
        self._end_behind("cut", out)

    def _end_lane(self, ending: HowEnded, out: list[Event], *, final: bool = False) -> None:
        if self._lane is not None:
            self._calls.ending = ending
            self._lane.finish(final=final)
            self._calls.ending = "open"
            self._torn |= self._lane.torn
            self._close(self._lane, out)

    def finish(self, ending: Ending, out: list[Event]) -> Extra | None:
        """The answer has ended; extras that found no text are returned."""
        how = _how(ending)
        cut_off = how == "whole" and len(self._behind) > self._settled
        self._end_lane("cut" if cut_off else how, out, final=True)
        self._end_behind(how, out, final=True)
        self._release_native(out)
        return self._extra

    def abandon(self, out: list[Event]) -> None:
        """The turn has failed."""
        if self._lane is not None:
            self._lane.abandon()
            self._close(self._lane, out)
        out += self._behind
        self._behind.clear()
        self._release_native(out)

    def native(self, event: ToolStart | ToolArgs | ToolEnd, out: list[Event]) -> None:
        """A call that came as one. It goes on as it is, unless text has held calls: then it may be the double of one of
        them, and waits until it is whole."""
        if type(event) is ToolStart:
            if self._lane is not None:
                self._lane.drop_marker()
                self._change_channel(out)
            self._release_native(out)
            self._native = _Native(event.name, waits=bool(self._calls.sent))
            self._after_native = True
        native = self._native
        if native is None:
            out.append(event)
            return
        native.take(event)
        if type(event) is ToolEnd:
            self._judge(native)
        if type(event) is ToolEnd or not native.waits:
            self._release_native(out)
        if type(event) is ToolEnd:
            self._native = None

    def _judge(self, native: _Native) -> None:
        """The native call is whole: dropped if text held it, else remembered in case text will."""
        key = fingerprint(self._calls.declared.resolve(native.name) or native.name, "".join(native.pieces))
        if self._calls.sent[key] > 0:
            self._calls.sent[key] -= 1
            self._calls.notes[notes.DUPLICATE] = None
            native.events.clear()
        else:
            self._calls.native[key] += 1

    def _release_native(self, out: list[Event]) -> None:
        if self._native is not None:
            out += self._native.events
            self._native.events.clear()

    def _new_lane(self, channel: Channel) -> Lane:
        self._source.ended = False
        after_call, self._after_native = self._after_native, False
        lane = Lane(self._calls, self._source, self._out, channel, self._index, self._allowance, after_call=after_call)
        lane.torn = self._torn
        return lane

    def _close(self, lane: Lane, out: list[Event]) -> None:
        left = lane.take_extra()
        if left:
            self._extra = merged(self._extra, left)
        self._lane = None
        self._source.clear()
        self._move(out)

    def _move(self, out: list[Event]) -> None:
        out += self._out
        self._out.clear()


class _Native:
    """A native call on its way; `events` are those that have not gone out."""

    def __init__(self, name: str, *, waits: bool) -> None:
        self.name = name
        self.waits = waits
        self.pieces: list[str] = []
        self.events: list[Event] = []
        self._size = 0

    def take(self, event: ToolStart | ToolArgs | ToolEnd) -> None:
        self.events.append(event)
        if type(event) is not ToolArgs:
            return
        self._size += len(event.text)
        if self._size <= MAX_KEPT:
            self.pieces.append(event.text)
        else:  # too long to be compared
            self.waits = False
            self.pieces.clear()


def _how(ending: Ending) -> HowEnded:
    if ending.reason == "length":
        return "length"
    return "whole" if ending.reason in ("stop", "tool_calls") and ending.stop is None else "cut"
