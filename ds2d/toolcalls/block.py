"""One block: text that may hold calls, from its opening to where it is known what it was.

Rule: a block is a call if its reader committed one and no backticks quote it; else it is text, and nothing of it went out.
Surprise: whether backticks quote a block is seen only behind it, so a block may have been read and still be undecided.
"""

from __future__ import annotations

from typing import Literal

from ds2d.toolcalls.calls import Calls
from ds2d.toolcalls.formats import PARTS, ToolFormat
from ds2d.toolcalls.lexer import MAX_REST_OF_LINE, closes_quote
from ds2d.toolcalls.source import EndOfBlockError, EndOfTextError, NotACallError, Reading, Source
from ds2d.toolcalls.tags import OPENING, Tag, half

Kind = Literal["tag", "json", "fence", "pairs"]
Outcome = Literal["call", "text"]


class Block:
    """The block that is being read, and what is known of the last one while none is.

    `reader`: it is being read. `quoted`: it was read and waits for what stands behind it. `ends_open`: it ended without its
    closing tag. `behind`: white space that its reader took and that belongs to what follows.
    """

    def __init__(self, calls: Calls, source: Source) -> None:
        self.reader: Reading[None] | None = None
        self.quoted = False
        self.kind: Kind = "tag"
        self.opening: Tag | None = None
        self.format: ToolFormat | None = None
        self.ends_open = False
        self.behind = ""
        self._quote = 0
        self._calls = calls
        self._source = source

    def begin(self, kind: Kind, quote: int) -> None:
        """A block begins here; `quote` is what `Context.quote` says. Its reader is set next, by who knows the kind."""
        self.kind, self._quote = kind, quote
        self.opening = self.format = None
        self.ends_open, self.behind = False, ""
        self._calls.open_block(deferred=kind == "fence" or quote != 0, fenced=kind == "fence")
        self._source.mark()

    def go_on(self) -> Outcome | None:
        """Read on, or look for the end of a quotation. What the block is; None: more of the text must come."""
        outcome = self._decide() if self.reader is None else self._read(self.reader)
        if outcome is not None:
            self.reader, self.quoted = None, False
        return outcome

    def _read(self, reader: Reading[None]) -> Outcome | None:
        try:
            next(reader)
        except StopIteration:
            return self._end()
        except EndOfBlockError:
            self.ends_open = True
            self._give_blanks_back()
            return self._end()
        except NotACallError:
            return "text"
        except EndOfTextError:
            return self._text_ends()
        return "text" if self._source.too_much else None

    def _end(self) -> Outcome | None:
        if not self._calls.committed:
            return "text"
        if not self._quote:
            return "call"
        self.reader, self.quoted = None, True
        return self._decide()

    def _text_ends(self) -> Outcome:
        """The text ended in the block. Without a call it is text (if nobody has seen it); else what is unfinished is dropped."""
        if not self._calls.committed or (self.kind == "fence" and self._calls.ending != "whole"):
            return "text"
        source = self._source
        if source and (source.text[source.at] not in OPENING or half(source.text, source.at, PARTS)):
            source.at = len(source.text)  # its reader waited for the rest of it
        self._give_blanks_back()
        return "call"

    def _give_blanks_back(self) -> None:
        """White space that the reader took last belongs to what follows."""
        kept = self._source.kept()
        self.behind = kept[len(kept.rstrip()) :]

    def _decide(self) -> Outcome | None:
        """Whether the block that was read is quoted by backticks. None if more of its line must come."""
        source = self._source
        rest = source.text[source.at : source.at + MAX_REST_OF_LINE]
        quoted = closes_quote(rest, self._quote, final=source.ended or len(rest) == MAX_REST_OF_LINE)
        return None if quoted is None else "text" if quoted else "call"
