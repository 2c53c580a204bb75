"""Whether an answer begins inside its thinking, found out from the answer itself (upstreams.md 4).

Rule: a server without a reasoning parser whose template opened `<think>` in the prompt sends only `</think>`; what stands
before it must not go out as text, so nothing goes out before it is known. Whoever asks next is told what was found, and may
stream; but only what an answer proves is told, and every later answer is held against it.
Surprise: a whole answer is judged by itself always, for it loses nothing by that. A stream that was told wrongly has sent its
answer as thoughts by the time it ends: then it gets the same once more as text (`Recovered`).
"""

from __future__ import annotations

import re
from collections import deque
from itertools import islice

from ds2d.core.events import Event, Failure, Finish, Reasoning, Text
from ds2d.toolcalls.formats import opened_by
from ds2d.toolcalls.source import after_blanks
from ds2d.toolcalls.tags import OPENING, lex
from ds2d.toolcalls.thinktags import CLOSE, OPEN, ThinkTags, begins_call, begins_tag

MAX_HELD = 1024 * 1024
"""Characters held back at most; an answer that long without a tag does not begin inside."""

MAX_TAGS = 512
"""Tags that are read at most, and lines that are looked at, to find out whether a call is open."""

_TAGGED_LINE = re.compile(rf"^[ \t]*+[{OPENING}]", re.MULTILINE)
_BRACKET = re.compile(rf"[{OPENING}]")
_QUOTES = "\"'“”‘’«»「」"


class Unsure:
    """A stage that holds until a tag, reasoning, a call or the end settles it. `inside` is then what `ThinkTags` is told.

    `told` is what earlier answers have shown; with it nothing is held, unless `whole`: nobody waits for the beginning.
    `lesson` is what this answer proves, and `plain` that it had text but no sign at all.
    """

    def __init__(self, told: bool | None = None, *, whole: bool = False) -> None:
        self.inside: bool | None = None
        self._told = told
        self._stage: ThinkTags | None = None
        self._held: list[Event] = []
        self._size = 0
        self._signs: dict[int, _Signs] = {}
        self._judging = True
        self.lesson: bool | None = None
        if told is not None and not whole:
            self._settle(inside=told)

    def refute(self) -> None:
        """What was told is wrong, as has turned out behind this stage."""
        self.lesson = not self._told

    @property
    def plain(self) -> bool:
        """Whether there was text, and nothing that tells how the answer began."""
        return self._judging and any(signs.begun for signs in self._signs.values())

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take the events of one read."""
        if self._stage is not None:
            if self._judging:
                for event in batch:
                    self._judge(event)
            return self._stage.feed(batch)
        self._held += batch
        for event in batch:
            verdict = self._judge(event)
            if verdict is not None:
                return self._settle(inside=verdict)
        return []

    def finish(self) -> list[Event]:
        """The turn failed from outside."""
        out = [] if self._stage is not None else self._settle(inside=bool(self._told))
        assert self._stage is not None
        return out + self._stage.finish()

    def _judge(self, event: Event) -> bool | None:
        """Whether the answer begins inside, once that is known."""
        if not self._judging:
            return None
        if type(event) is Finish or type(event) is Failure:
            return self._judge_ending(event)
        if type(event) is Text and not event.refusal:
            signs = self._signs.get(event.choice)
            if signs is None:
                signs = self._signs[event.choice] = _Signs()
            self._size += len(event.text)
            verdict = signs.note(event.text)
            if verdict and self._is_in_call(event.choice):
                verdict = signs.proves = False
            if verdict is None and self._size > MAX_HELD:
                verdict = bool(self._told)
            self._learn(verdict, signs.proves)
            return verdict
        self._learn(False, type(event) is Reasoning)
        return False

    def _judge_ending(self, event: Finish | Failure) -> bool:
        for choice, signs in self._signs.items():
            if signs.waits_behind_tag:
                verdict = not self._is_in_call(choice)
                self._learn(verdict, verdict)
                return verdict
        return bool(self._told) and not (isinstance(event, Finish) and is_plain_stop(event))

    def _is_in_call(self, choice: int) -> bool:
        """Whether the first tag of a choice whose text is held stands in a call."""
        pieces = (event.text for event in self._held if type(event) is Text and event.choice == choice and not event.refusal)
        return ends_in_call("".join(pieces).partition(CLOSE)[0])

    def _learn(self, verdict: bool | None, proves: bool) -> None:
        if verdict is not None:
            self._judging = False
            self.lesson = verdict if proves else None

    def _settle(self, *, inside: bool) -> list[Event]:
        self.inside = inside
        self._stage = ThinkTags(inside=inside)
        held, self._held = self._held, []
        return self._stage.feed(held) if held else []


def is_plain_stop(ending: Finish) -> bool:
    """Whether every choice ended by itself, and not in a call."""
    return all(end.reason == "stop" and end.stop is None for end in ending.endings)


def ends_in_call(text: str) -> bool:
    """Whether a call that is written as text has begun, on a line of its own, and is open at the end of the text.

    A tag there is part of an argument (toolcalls.md 2), and to cut a call costs more than to show a thought.
    """
    opener = None
    for line in _lines_with_tags(text):
        tag = lex(text, line)
        entry = opened_by(tag) if tag else None
        if tag is not None and entry is not None and entry.read is not None:
            opener = tag
            break
    if opener is None:
        return False
    brackets = islice(_BRACKET.finditer(text, opener.end), MAX_TAGS)
    tags = (lex(text, bracket.start()) for bracket in brackets)
    return not any(tag is not None and (tag.closes(opener) or tag.name.endswith("end")) for tag in tags)


def _lines_with_tags(text: str) -> list[int]:
    """Where the last lines begin that begin with a bracket, the last one first."""
    return [found.end() - 1 for found in reversed(deque(_TAGGED_LINE.finditer(text), MAX_TAGS))]


class _Signs:
    """What one choice's text shows. `proves`: the verdict holds for other answers, too.

    A tag that is quoted, or stands in the midst of a line's words, makes a text about tags: nothing was thought there.
    """

    def __init__(self) -> None:
        self.begun = False
        self.proves = False
        self._kept = ""  # the beginning of a tag, or a tag and the character before it

    @property
    def waits_behind_tag(self) -> bool:
        """Whether a tag was the last that came."""
        return self._kept.endswith(CLOSE)

    def note(self, text: str) -> bool | None:
        """Take a piece of text; whether the answer begins inside, once that is known."""
        text, self._kept = self._kept + text, ""
        if not self.begun:
            at = after_blanks(text, 0)
            text = text[at:]
            if not text:
                return None
            if text.startswith(OPEN):
                self.begun = self.proves = True
                return False
            calls = begins_call(text, 0)
            if calls is None or begins_tag(text, 0, OPEN, CLOSE):
                self._kept = text
                return None
            self.begun = True
            if calls:
                return False
        return self._search(text)

    def _search(self, text: str) -> bool | None:
        close, opened = text.find(CLOSE), text.find(OPEN)
        if opened >= 0 and not 0 <= close < opened:
            return False  # whatever it is, it is not the end of a thought
        if close < 0:
            self._kept = text[-len(CLOSE) :] if "<" in text[-len(CLOSE) :] else text[-1:]
            return None
        before, after = text[close - 1 : close] if close else "", text[close + len(CLOSE) :][:1]
        if before and not after and before != "`":
            self._kept = text[close - 1 :]
            return None
        self.proves = not _is_mention(before, after)
        return self.proves


def _is_mention(before: str, after: str) -> bool:
    if before == "`":
        return True
    return before != "" and ((before in _QUOTES and after in _QUOTES) or (before in " \t" and after in " \t"))


class Recovered:
    """A stage behind the detector of a stream that was told to begin inside: the answer, where that was wrong.

    It was wrong where the model ended by itself without a tag, a call or text. What went out as thoughts goes out as text.
    """

    def __init__(self, unsure: Unsure) -> None:
        self._unsure = unsure
        self._thoughts: dict[int, list[Reasoning]] = {}
        self._size = 0
        self._watching = True

    def feed(self, batch: list[Event]) -> list[Event]:
        """Take note and hand on."""
        if not self._watching:
            return batch
        for at, event in enumerate(batch):
            if type(event) is Reasoning:
                self._thoughts.setdefault(event.choice, []).append(event)
                self._size += len(event.text)
            elif type(event) is Finish:
                if self._watching and self._thoughts and self._unsure.lesson is None and is_plain_stop(event):
                    self._unsure.refute()
                    return [*batch[:at], *self._answers(), *batch[at:]]
            elif type(event) is not Text or not event.text.isspace():
                self._watching = False
        if self._size > MAX_HELD:
            self._watching = False
        if not self._watching:
            self._thoughts.clear()
        return batch

    def finish(self) -> list[Event]:
        """Nothing is held here."""
        return []

    def _answers(self) -> list[Event]:
        return [Text("".join(piece.text for piece in pieces), choice) for choice, pieces in self._thoughts.items()]
