"""The corpus of tests/golden/toolcalls: what models write, what it means, and how to run it through the stages."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import orjson

from ds2d.core.events import Completion, Ending, Event, Failure, Finish, Reasoning, Text, fold
from ds2d.core.pipeline import Stage
from ds2d.core.request import ChatRequest, Tool
from ds2d.toolcalls import build

FOLDER = Path(__file__).parent.parent / "golden" / "toolcalls"
TOOLS: list[Tool] = orjson.loads((FOLDER / "tools.json").read_bytes())

_REPEATED = re.compile(r"⟦(.*?) × (\d+)⟧", re.DOTALL)


class Sample(msgspec.Struct):
    """One sample. `calls` are name and arguments (parsed); `broken` and `open` calls are told apart by `states`."""

    name: str
    text: str
    options: dict[str, str] = {}
    calls: list[tuple[str, Any]] = []
    states: list[str] = []
    shown: str = ""
    reasoning: str = ""
    notes: list[str] = []
    fails: str | None = None
    innocent: bool = False

    @property
    def channel(self) -> type[Text] | type[Reasoning]:
        return Reasoning if self.options.get("in") == "reasoning" else Text

    @property
    def ending(self) -> Ending:
        return Ending(self.options.get("finish", "stop"))  # type: ignore[arg-type]


class Outcome(msgspec.Struct):
    """What came of a text."""

    calls: list[tuple[str, Any]]
    states: list[str]
    shown: str
    reasoning: str
    notes: list[str]
    fails: str | None


def positives() -> list[Sample]:
    return [sample for path in sorted((FOLDER / "calls").glob("*.txt")) for sample in _read(path)]


def innocents() -> list[Sample]:
    return [sample for path in sorted((FOLDER / "innocent").glob("*.txt")) for sample in _read(path, innocent=True)]


def _read(path: Path, *, innocent: bool = False) -> Iterable[Sample]:
    raw = path.read_bytes().decode()
    for block in ("\n" + raw).split("\n=== ")[1:]:
        title, _, body = block.partition("\n")
        name, *options = title.split(" | ")
        sample = Sample(f"{path.stem}: {name}", "", dict(option.split(": ") for option in options), innocent=innocent)
        text, _, expected = (body, "", "") if innocent else body.partition("\n--- expect")
        sample.text = _repeated(text.removesuffix("\n") if innocent else text)
        if innocent:
            setattr(sample, "reasoning" if sample.channel is Reasoning else "shown", sample.text)
            sample.fails = "empty_answer reasoning" if sample.channel is Reasoning else None
        for line in expected.strip("\n").split("\n") if expected.strip() else ():
            _expect(sample, *_repeated(line).split(" ", 1))
        yield sample


def _expect(sample: Sample, word: str, rest: str) -> None:
    match word:
        case "call":
            name, arguments = rest.split(" ", 1)
            sample.calls.append((name, orjson.loads(arguments)))
            sample.states.append("whole")
        case "broken":
            sample.calls.append((rest, None))
            sample.states.append("broken")
        case "open":
            name, arguments = rest.split(" ", 1)
            sample.calls.append((name, arguments))
            sample.states.append("open")
        case "text":
            sample.shown = orjson.loads(rest)
        case "reasoning":
            sample.reasoning = orjson.loads(rest)
        case "note":
            sample.notes.append("tool_call_" + rest)
        case "fails":
            sample.fails = rest
        case _:
            raise ValueError(f"{sample.name}: {word}")


def _repeated(text: str) -> str:
    def write(found: re.Match[str]) -> str:
        return found.group(1) * int(found.group(2))

    return _REPEATED.sub(write, text)


def ids() -> Callable[[str], str]:
    """An id maker that counts."""
    numbers = itertools.count()
    return lambda prefix: f"{prefix}{next(numbers):024d}"


def stages(mode: Any = "feature_match", confidence: Any = "high", **fields: Any) -> list[Stage]:
    """The stages of a request with the corpus' tools."""
    return build(ChatRequest("m", [], **{"tools": TOOLS, **fields}), ids(), mode=mode, confidence=confidence)


def push(line: list[Stage], batch: list[Event]) -> list[Event]:
    for stage in line:
        batch = stage.feed(batch) if batch else batch
    return batch


def events_of(pieces: Iterable[str], channel: type[Text] | type[Reasoning], ending: Ending, line: list[Stage]) -> list[Event]:
    """Everything that comes out for text that comes in these pieces."""
    out: list[Event] = []
    for piece in pieces:
        if piece:
            out += push(line, [channel(piece)])
    return out + push(line, [Finish((ending,))])


def outcome(events: list[Event]) -> Outcome:
    return outcome_of(fold(events), events[-1])


def outcome_of(completion: Completion, ending: Event) -> Outcome:
    choice = completion.choices[0] if completion.choices else None
    calls = choice.calls if choice else []
    states = ["open" if not call.ended else "broken" if call.broken else "whole" for call in calls]
    return Outcome(
        calls=[(call.name, _arguments(call.arguments, state)) for call, state in zip(calls, states, strict=True)],
        states=states,
        shown=choice.text if choice else "",
        reasoning=choice.reasoning if choice else "",
        notes=list(completion.notes),
        fails=f"{ending.error.kind} {(ending.error.details or {}).get('cause')}" if isinstance(ending, Failure) else None,
    )


def _arguments(text: str, state: str) -> Any:
    """Of a whole call the value, of a cut one the text so far, of a broken one nothing."""
    if state == "broken":
        return None
    return orjson.loads(text) if state == "whole" else text


def expected(sample: Sample) -> Outcome:
    return Outcome(sample.calls, sample.states, sample.shown, sample.reasoning, sample.notes, sample.fails)


def differs(sample: Sample, found: Outcome) -> str | None:
    """What is not as expected, in words; None if all is."""
    wanted = expected(sample)
    for field in ("calls", "states", "shown", "reasoning", "fails"):
        if getattr(found, field) != getattr(wanted, field):
            return f"{field}: {_short(getattr(found, field))} instead of {_short(getattr(wanted, field))}"
    missing = [note for note in wanted.notes if note not in found.notes]
    return f"notes {found.notes} lack {missing}" if missing else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 600 else f"{text[:300]} ... {text[-300:]}"


def whole_run(sample: Sample, pieces: Iterable[str], **settings: Any) -> str | None:
    """Run a sample in these pieces; what is not as expected, or None."""
    return differs(sample, outcome(events_of(pieces, sample.channel, sample.ending, stages(**settings))))


def cut(text: str, places: Iterable[int]) -> list[str]:
    at = [0, *sorted({place for place in places if 0 < place < len(text)}), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(at)]
