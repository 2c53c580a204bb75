"""One channel of one choice: text in, text and calls out.

Rule: every character goes one way, out as text or into a block, and is looked at a bounded number of times. Text that a
block took and that turns out to be none goes out whole; reading goes on behind it, never again inside it.
Surprise: a model in a loop, or an attacker through it, can begin a million blocks. Each costs more than plain text does,
so the work is paid for out of an allowance (allowance.py); when it is used up, text just passes.
"""

from __future__ import annotations

import re

from ds2d.core.events import Event, Extra, Reasoning, Text, merge_extra
from ds2d.toolcalls import notes, plain
from ds2d.toolcalls.allowance import BLOCK, EARNED_BY, LEFTOVER, QUOTED, Allowance
from ds2d.toolcalls.block import Block, Kind
from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.formats import OPENERS, PARTS, TOKENS, ends_of, opened_by
from ds2d.toolcalls.json_calls import read as read_json
from ds2d.toolcalls.lexer import (
    JSON_HEAD,
    MAX_INFO,
    PLACE,
    SPECIAL,
    WINDOW,
    Context,
    clear_until,
    fence_run,
    held_from,
    may_close_fence,
    may_open_fence,
    pair_at,
    specials,
)
from ds2d.toolcalls.source import Source, after_blanks, run_end
from ds2d.toolcalls.tags import OPENING, Tag, half, lex, only_tags, unfinished

_MAX_BLANKS = 4096
"""Characters of white space that wait for what follows them."""

_SOME_MARKER = 5
"""Characters of a marker's beginning that are taken for one when a native call follows."""

_MAX_FENCES = 16
_PLACE_OR_BRACKET = re.compile(rf"[{OPENING}]|{PLACE.pattern}")

_JSON_INFOS = frozenset({"", "json", "jsonc", "json5", "tool_call", "tool_calls", "toolcall", "tool", "function_call"})
_LEFT_BEHIND = frozenset({"endofsentence", "imend", "eotid", "eot", *TOKENS})
"""End marks of models' templates that servers let through behind a block, and those that DeepSeek's blocks end with."""

_BEHIND = _LEFT_BEHIND | PARTS
"""What the beginning of a tag right behind a block may become."""

Channel = type[Text] | type[Reasoning]


class Lane:
    """Reads one channel; events are appended to `out`. `after_call`: a native call came just before."""

    def __init__(
        self,
        calls: Calls,
        source: Source,
        out: list[Event],
        channel: Channel,
        choice: int,
        allowance: Allowance,
        *,
        after_call: bool,
    ) -> None:
        self.channel = channel
        self.context = Context()
        self._calls = calls
        self._source = source
        self._out = out
        self._choice = choice
        self._said: list[str] = []
        self._blanks: list[str] = []  # white space that goes out with the next text, and not at all before a call
        self._blank_size = 0
        self._between = True  # at the beginning, or behind a block
        self._after_block = after_call
        self._comma = False
        self._dropping = False
        self._block = Block(calls, source)
        self._unclosed: set[tuple[str, bool]] = set()
        self.blocks = 0
        """How many blocks have ended."""
        self._final = False
        self.torn: frozenset[tuple[str, bool]] = frozenset()
        """Ends of a call that broke off when the channel changed: the rest of its markup may come in this one."""
        self._idle = False  # nothing is open or held
        self._room = 0  # characters that a fence's first or last line may still have; what waits for its end just grows
        self._allowance = allowance
        self._extra: Extra | None = None

    def take(self, text: str, extra: Extra | None) -> bool:
        """Take a piece of this channel's text. True: it goes out as it came; else what there is to say is in `out`."""
        allowance, context = self._allowance, self.context
        allowance.characters += len(text)
        if self._idle and not allowance.used_up:
            if context.fences:
                if context.passes_in_fence(text):
                    return True
            elif SPECIAL(text) is None:
                if not context.line_start and "\n" not in text:
                    context.remember(text)
                    return True
                if context.passes_lines(text):
                    return True
        return self._look_closer(text, extra)

    def _look_closer(self, text: str, extra: Extra | None) -> bool:
        """`take` for text that does not pass at first sight."""
        allowance, source = self._allowance, self._source
        if allowance.used_up:
            allowance.count()
            if self._idle and allowance.used_up:
                return True
        if self._block.reader is None:  # what a block takes is its reader's to bound
            allowance.spend(1 + specials(text) + len(text) // EARNED_BY)
        size = -1
        if self._idle and not self.context.fences and not allowance.used_up:
            size = clear_until(text, self.context)
            if size == len(text):
                self.context.note(text)
                return True
        if extra:
            self._extra = merged(self._extra, extra)
        source.feed(text)
        if size >= 0:
            self._idle = False
            self._pass(size)
            self._flush()
        elif self._room > len(text) and "\n" not in text and not allowance.used_up:
            self._room -= len(text)
        else:
            self._run()
        return False

    def finish(self, *, final: bool) -> None:
        """The channel has ended: everything that is held goes out, as a call where only closers are missing. `final`: so has
        the answer."""
        self._source.ended, self._final = True, final
        block = self._block
        if block.reader is not None and self._calls.started and block.opening is not None and self._calls.ending == "cut":
            self.torn = self.torn | {(name, block.opening.dsml) for name in ends_of(block.opening)}
        self._run()
        if self._blanks and not self._after_block and not self._dropping:
            self._said += self._blanks
        self._blanks.clear()
        self._flush()

    def abandon(self) -> None:
        """The turn has failed: what is text goes out, an unfinished block does not."""
        if self._block.reader is None and not self._block.quoted:
            self._say(self._source.text[self._source.at :])
        self._flush()

    def drop_marker(self) -> None:
        """A native call comes now: a marker before it that has no block is left over from its markup. A call that has started
        is none."""
        block = self._block
        if block.reader is not None and self._calls.started:
            return  # it ends broken
        if block.reader is not None and block.kind == "tag" and not self._calls.committed:
            block.reader = None
            self._source.clear()
        elif block.reader is None and len(self._source.text) - self._source.at >= _SOME_MARKER:
            self._source.clear()
        self._between = self._after_block = True

    @property
    def in_block(self) -> bool:
        """Whether a block is being read."""
        return self._block.reader is not None

    def take_extra(self) -> Extra | None:
        """Extras of text that never went out."""
        extra, self._extra = self._extra, None
        return extra

    def _run(self) -> None:
        source, block = self._source, self._block
        self._room = 0
        while True:
            if block.reader is not None or block.quoted:
                goes_on = self._go_on_in_block()
            elif source.at == len(source.text):
                break
            elif self._between:
                goes_on = self._cross()
            elif self.context.fences:
                goes_on = self._in_fence()
            else:
                goes_on = self._in_text()
            if not goes_on:
                break
        self._flush()
        waits = block.reader or block.quoted or self._between or self._dropping or self._blanks or self._extra or self.torn
        self._idle = not waits and source.at == len(source.text)

    # Text.

    def _cross(self) -> bool:
        """White space at the beginning or behind a block, and what is left over behind one. False if more must come."""
        source = self._source
        while self._take_blanks():
            pass
        if self._blank_size > _MAX_BLANKS:
            self._between = self._after_block = False
            self._said += [] if self._dropping else self._blanks
            self._blanks.clear()
            return True
        if not source:
            return False
        text, at = source.text, source.at
        found = lex(text, at) if self._after_block else None
        if found is not None and self._is_left_behind(found) and not self._allowance.used_up:
            self._allowance.spend(LEFTOVER)
            source.at = found.end
            self._blanks.clear()
            return True
        if found is None and self._after_block and self._final and half(text, at, _BEHIND):
            source.at = len(text)
            self._blanks.clear()
            return True
        if found is None and self._after_block and not source.ended and unfinished(text, at, _BEHIND):
            return False
        self._between = False
        return True

    def _take_blanks(self) -> bool:
        """Hold the white space that stands here, and one comma between JSON calls. False if there is none."""
        source = self._source
        text, at = source.text, after_blanks(source.text, source.at)
        if self._block.kind == "json" and self._after_block and not self._comma and text[at : at + 1] == ",":
            at, self._comma = at + 1, True
        size = at - source.at
        if size:
            self._blanks.append(text[source.at : at])
            self._blank_size += size
            self.context.note(self._blanks[-1])
            source.at = at
        return size > 0

    def _is_left_behind(self, found: Tag) -> bool:
        return (found.closing and found.name in OPENERS) or found.name in _LEFT_BEHIND

    def _in_text(self) -> bool:
        source = self._source
        text, at = source.text, source.at
        if self._allowance.used_up:
            self._calls.notes[notes.GAVE_UP] = None
            return not self._pass(len(text) - at)
        if self.context.line_start and (word := pair_at(text, at)) >= 0:
            self._pass(word - at)
            return self._open_pairs()
        found = (_PLACE_OR_BRACKET if self.torn else PLACE).search(text, at)
        if found is None:
            end = len(text) if source.ended else held_from(text, at, self.context)
            return not self._pass(end - at)
        mark = found.group()
        self._pass(found.start() - at + (mark == "\n"))
        if mark == "\n":
            return True
        self._allowance.spend(BLOCK)
        if mark in "`~":
            return self._open_fence()
        return self._open_tag() if mark in OPENING else self._open_json()

    def _pass(self, size: int = 1) -> bool:
        """So many characters are text after all."""
        source = self._source
        if size:
            start = source.at
            source.at = start + size
            self._say(source.text[start : start + size])
        return True

    # Places where a block may begin.

    def _open_tag(self) -> bool:
        source = self._source
        found = lex(source.text, source.at)
        if found is None:
            names = OPENERS.union(name for name, _ in self.torn) if self.torn else OPENERS
            if not source.ended and unfinished(source.text, source.at, names):
                return False
            if self.torn and self._final and half(source.text, source.at, names):
                source.at = len(source.text)
                return True
            return self._pass()
        if (found.closing and (found.name, found.dsml) in self._unclosed) or self._ends_torn(found):
            source.at = found.end
            return True
        entry = opened_by(found)
        read = entry.read if entry else None
        if read is None or (found.empty and found.name != "invoke") or self.context.quotation:
            return self._pass()  # a tag that opens nothing is not waited for, so it hides nothing, either
        block = self._begin("tag")
        source.at = found.end
        block.opening, block.format = found, entry
        block.reader = read(source, self._calls, found)
        return True

    def _ends_torn(self, found: Tag) -> bool:
        """Whether a tag is left over from a call that broke off."""
        return (found.name, found.dsml) in self.torn and (found.closing or found.name in TOKENS)

    def _open_json(self) -> bool:
        source = self._source
        if JSON_HEAD.match(source.text, source.at) is None or self.context.in_code() or self.context.quotation:
            return self._pass()
        self._begin("json").reader = read_json(source, self._calls, marked=False)
        return True

    def _open_pairs(self) -> bool:
        if self.context.quotation:
            return self._pass()
        self._allowance.spend(BLOCK)
        self._begin("pairs").reader = plain.read_pairs(self._source, self._calls)
        return True

    def _open_fence(self) -> bool:
        """A run of three or more: a fence's first line, or inline code."""
        source = self._source
        text, at = source.text, source.at
        after = run_end(text, at)
        if after == len(text) and after - at <= WINDOW and not source.ended:
            return False
        if after - at > WINDOW or not may_open_fence(text, at, at, self.context):
            return self._pass(after - at)
        info = self._rest_of_line(after)
        if info is None:
            return False
        if text[at] == "`" and "`" in info:
            return self._pass(after - at)
        fence, whole = text[at:after], text[after + len(info) : after + len(info) + 1] == "\n"
        self.context.fences.append(fence)
        if not whole or info.strip().lower() not in _JSON_INFOS or self.context.quotation:
            return self._pass(after + len(info) - at)
        block = self._begin("fence")
        source.at = after + len(info) + 1
        block.reader = plain.read_fenced(source, self._calls, fence)
        return True

    def _in_fence(self) -> bool:
        """Go on in a fence: to the line that closes it, or opens one inside."""
        source = self._source
        text, at = source.text, source.at
        run = fence_run(text, at, self.context.fences[-1])
        if run is None:
            held = 0 if source.ended else min(len(text) - at, WINDOW)
            end = len(text) - held + len(text[len(text) - held :].rstrip(self.context.fences[-1][0]))
            return not self._pass(end - at)
        self._pass(run.start() - at)
        rest = self._rest_of_line(run.end())
        if rest is None:
            return False
        self._fence_line(run.group(), rest)
        return self._pass(run.end() - run.start() + len(rest))

    def _rest_of_line(self, at: int) -> str | None:
        """The line from text[at] on, as far as it can be a fence's; None if more of it must come."""
        source = self._source
        end = source.text.find("\n", at, at + MAX_INFO)
        if end < 0 and len(source.text) - at < MAX_INFO and not source.ended:
            self._room = MAX_INFO - (len(source.text) - at)
            return None
        return source.text[at : end if end >= 0 else at + MAX_INFO]

    def _fence_line(self, run: str, rest: str) -> None:
        """A run of marks inside a fence. One of the same length with a word behind it opens a fence inside."""
        fences = self.context.fences
        if len(run) < len(fences[-1]) or not may_close_fence(self.context.line()):
            return
        if not rest.strip():
            fences.pop()
        elif run[0] not in rest and len(fences) < _MAX_FENCES and not rest[0].isspace():
            fences.append(run)

    # Blocks.

    def _begin(self, kind: Kind) -> Block:
        quote = 0 if kind == "fence" else self.context.quote()
        self._flush()
        if quote:
            self._allowance.spend(QUOTED)
        self._block.begin(kind, quote)
        return self._block

    def _go_on_in_block(self) -> bool:
        """False if more must come."""
        outcome = self._block.go_on()
        if outcome == "call":
            self._accept()
        elif outcome == "text":
            self._refuse()
        return outcome is not None

    def _accept(self) -> None:
        """The block was one: its markup is gone, its calls are out."""
        self.blocks += 1
        block = self._block
        if block.ends_open and block.opening is not None:
            self._unclosed.add((block.opening.name, block.opening.dsml))
        self._calls.settle()
        self._source.forget()
        self._blanks.clear()
        if block.behind:
            self._blanks.append(block.behind)
        self.context.restart()
        if block.kind == "fence":
            self.context.fences.pop()
        self._between = self._after_block = True
        self._comma = False
        self._blank_size = 0
        self._dropping = self._dropping or (block.format is not None and block.format.drops_text_after)

    def _refuse(self) -> None:
        """The block was text, as far as it was read and nothing of it went out."""
        kind = self._block.kind
        self.blocks += 1
        self._calls.give_up()
        self._calls.discard()
        kept = self._source.kept()
        self._source.forget()
        if self._calls.committed:
            self._blanks.clear()
        left_over = self._calls.native or (self._after_block and self._final)
        if not (left_over and kind == "tag" and only_tags(kept)):
            self._say(kept)
        if kind == "pairs" and not kept and self._source:
            self._pass()  # the reader took nothing, and must not be asked again

    # Out.

    def _say(self, text: str) -> None:
        if not text:
            return
        self.context.note(text)
        self._between = self._after_block = False
        if self._dropping:
            self._blanks.clear()
            return
        if self._blanks:
            self._said += self._blanks
            self._blanks.clear()
        self._said.append(text)

    def _flush(self) -> None:
        if self._said:
            self._out.append(self.channel("".join(self._said), self._choice, extra=self._extra))
            self._said.clear()
            self._extra = None


def merged(first: Extra | None, second: Extra) -> Extra:
    """Both, the first unchanged."""
    if not first:
        return second
    both = dict(first)
    merge_extra(both, second)
    return both
