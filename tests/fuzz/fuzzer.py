"""A small fuzzer: changed copies of a corpus, and those are kept that reach lines that none before reached.

Rule: everything follows from the seed, so a failure is reproduced by its number. The corpus is files named by their hash, one
folder a target; what the search finds is added by scripts/fuzz, and an input that failed once stays as a test.
Surprise: guided by lines, not by branches: the interpreter tells them for a factor of five, and tells no more.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.targets import TARGETS, Fuzzed

CORPUS = Path(__file__).parent / "corpus"
MAX_INPUT = 8000
WORDS = (
    b"data: ", b"\r\n", b"\n\n", b"\r", b"[DONE]", b"null", b"true", b"{}", b"[]", b'"', b"\\u", b"\xf0\x9f\x90\x9a", b"\xff",
    b"\0", b"<tool_call>", b"</tool_call>", b"<think>", b"```", b'{"name": "get_time", "arguments": {}}', b"-1", b"1e999",
    b"9" * 25, b"0x10", b'"type"', b'"role"', b'"content"', b'"text"', b'"tool_calls"', b'"function"', b'"arguments"', b'"$env"',
    b": ", b"chunked",
)  # fmt: skip


def corpus_of(name: str) -> list[bytes]:
    """The saved inputs of a target, and its seeds."""
    saved = sorted((CORPUS / name).glob("*"))
    return [*TARGETS[name].seeds(), *(path.read_bytes() for path in saved)]


def save(name: str, data: bytes) -> Path:
    """Keep an input."""
    folder = CORPUS / name
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / hashlib.sha256(data).hexdigest()[:16]
    path.write_bytes(data)
    return path


def changed(data: bytes, corpus: list[bytes], dice: random.Random) -> bytes:
    """A copy with a few changes."""
    out = bytearray(data)
    for _ in range(1 << dice.randrange(4)):
        at, size = dice.randrange(len(out) + 1), dice.randrange(1, 9) ** dice.randrange(1, 3)
        match dice.randrange(7):
            case 0:
                out[at : at + size] = b""
            case 1:
                out[at:at] = dice.choice(WORDS)
            case 2:
                out[at : at + 1] = bytes([dice.randrange(256)])
            case 3:
                out[at:at] = out[at : at + size] * dice.randrange(1, 4)
            case 4:
                other = dice.choice(corpus)
                begin = dice.randrange(len(other) + 1)
                out[at : at + size] = other[begin : begin + 4 * size]
            case 5:
                out[at : at + size] = dice.choice(WORDS)
            case 6:
                out = out[:at]
    return bytes(out[:MAX_INPUT])


def inputs(name: str, count: int, seed: int = 7) -> Iterator[bytes]:
    """So many changed copies, the same ones each time."""
    corpus, dice = corpus_of(name), random.Random(f"{name} {seed}")
    for _ in range(count):
        yield changed(dice.choice(corpus), corpus, dice)


class Lines:
    """The lines of some modules that were reached."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self._modules = modules
        self._wanted: dict[CodeType, bool] = {}
        self.seen: set[tuple[CodeType, int]] = set()

    def new(self, run: Callable[[], None]) -> bool:
        """Whether this run reaches a line for the first time."""
        before = len(self.seen)
        sys.settrace(self._enter)
        try:
            run()
        finally:
            sys.settrace(None)
        return len(self.seen) > before

    def _enter(self, frame: FrameType, event: str, _argument: Any) -> Any:
        code = frame.f_code
        wanted = self._wanted.get(code)
        if wanted is None:
            wanted = self._wanted[code] = any(module in code.co_filename for module in self._modules)
        return self._line if wanted else None

    def _line(self, frame: FrameType, event: str, _argument: Any) -> Any:
        if event == "line":
            self.seen.add((frame.f_code, frame.f_lineno))
        return self._line


def search(name: str, seconds: float, seed: int) -> tuple[int, int, list[Path]]:
    """Look for new lines and failures. Returns inputs tried, inputs kept, and failures, which are saved, too."""
    target: Fuzzed = TARGETS[name]
    lines, corpus, dice = Lines(target.modules), corpus_of(name), random.Random(seed)
    for data in corpus:
        lines.new(lambda data=data: target.run(data))  # type: ignore[misc]
    tried = kept = 0
    failures: list[Path] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = changed(dice.choice(corpus), corpus, dice)
        tried += 1
        try:
            if lines.new(lambda data=data: target.run(data)):  # type: ignore[misc]
                save(name, data)
                corpus.append(data)
                kept += 1
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what we look for
            path = save(name, data)
            sys.stderr.write(f"{name}: {type(error).__name__} on {path}: {str(error)[:200]}\n")
            failures.append(path)
            if len(failures) >= 5:
                break
    return tried, kept, failures
