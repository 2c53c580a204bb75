"""Every sample of the corpus: the same calls and the same text, however it is cut, in every mode, through every dialect."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from ds2d.core.events import Ending
from ds2d.dialects import REGISTRY
from tests.property.rules import assert_rules
from tests.toolcalls.clients import CLIENTS, client_bytes, seen_by, server_bytes
from tests.toolcalls.corpus import (
    FOLDER,
    Sample,
    cut,
    events_of,
    innocents,
    outcome,
    positives,
    stages,
    whole_run,
)

POSITIVE = positives()
INNOCENT = innocents()
EVERY = POSITIVE + INNOCENT
STEADY = [sample for sample in EVERY if not {"quiet", "finish"} & set(sample.options)]
"""Samples that mean the same with and without an early start."""

UNFINISHED = [sample for sample in POSITIVE if "quiet" in sample.options or "open" in sample.states]
SHORT = 1500
"""Characters up to which a sample is cut at every place; longer ones at as many places of the draw."""

MARKUP = re.compile(rb"tool\\?\xe2\x96\x81call|DSML|<\|?tool|<\|?function|</?invoke|</?parameter|tool_call>|function\.name")
"""What no client may see of a call's markup."""


def sample_id(sample: Sample) -> str:
    return sample.name


every_sample = pytest.mark.parametrize("sample", EVERY, ids=sample_id)


def test_the_corpus_is_what_it_promises() -> None:
    formats = Counter(sample.name.partition(":")[0] for sample in POSITIVE)
    assert len(formats) == 10
    assert min(formats.values()) >= 15
    assert len(POSITIVE) >= 150
    assert len(INNOCENT) >= 150
    assert len({sample.name for sample in EVERY}) == len(EVERY)
    assert sum("in" in sample.options for sample in POSITIVE) >= 9


def test_every_line_of_the_files_belongs_to_a_sample() -> None:
    for path in FOLDER.glob("*/*.txt"):
        head = path.read_text().split("=== ")[0]
        assert all(line.startswith("#") for line in head.splitlines())


@every_sample
def test_whole(sample: Sample) -> None:
    assert whole_run(sample, [sample.text]) is None


@every_sample
def test_cut_at_every_place(sample: Sample) -> None:
    places = range(1, len(sample.text))
    if len(sample.text) > SHORT:
        places = sorted(random.Random(sample.name).sample(places, 24))  # type: ignore[assignment]
    wrong = {place: found for place in places if (found := whole_run(sample, cut(sample.text, [place])))}
    assert not wrong


@every_sample
def test_cut_into_pieces_of_every_small_size_and_at_random(sample: Sample) -> None:
    draw = random.Random(sample.name)
    ways = [range(0, len(sample.text), size) for size in (1, 2, 3, 4, 7, 16, 64)]
    ways += [sorted(draw.choices(range(len(sample.text)), k=draw.randint(2, 12))) for _ in range(8)]  # type: ignore[misc]
    wrong = [found for way in ways if (found := whole_run(sample, cut(sample.text, way)))]
    assert not wrong


@pytest.mark.parametrize("sample", STEADY, ids=sample_id)
@pytest.mark.parametrize("settings", [{"confidence": "off"}, {"mode": "buffered"}, {"confidence": "low"}], ids=str)
def test_other_modes_give_the_same(sample: Sample, settings: dict[str, str]) -> None:
    """Except where a call had begun that could not be taken back: broken arguments, and the token limit."""
    assert whole_run(sample, cut(sample.text, range(0, len(sample.text), 5)), **settings) is None


@pytest.mark.parametrize("sample", UNFINISHED, ids=sample_id)
def test_without_early_start_unfinished_calls_are_text(sample: Sample) -> None:
    found = outcome(events_of(cut(sample.text, [9]), sample.channel, sample.ending, stages(mode="buffered")))
    assert set(found.states) <= {"whole"}
    assert len(found.calls) < len(sample.calls)
    assert found.shown


@every_sample
def test_mode_off_touches_nothing(sample: Sample) -> None:
    found = outcome(events_of(cut(sample.text, [3, 20]), sample.channel, sample.ending, stages(mode="off")))
    assert found.calls == []
    assert found.shown + found.reasoning == sample.text


@every_sample
def test_without_tools_text_passes_byte_for_byte(sample: Sample) -> None:
    found = outcome(events_of(cut(sample.text, [3, 20]), sample.channel, sample.ending, stages(tools=[])))
    assert found.calls == []
    assert found.shown + found.reasoning == sample.text


@every_sample
def test_events_keep_the_rules(sample: Sample) -> None:
    events = events_of(cut(sample.text, range(0, len(sample.text), 6)), sample.channel, sample.ending, stages())
    if "open" not in sample.states:  # a call that the limit cut has no end
        assert_rules(events)


def test_each_dialect_that_can_carry_tools_is_read_here() -> None:
    assert set(CLIENTS) == set(REGISTRY) - {"openai_completions"}


@every_sample
def test_through_every_dialect(sample: Sample) -> None:
    for dialect in CLIENTS:
        for stream in (True, False):
            check_client(sample, dialect, stream=stream)


def check_client(sample: Sample, dialect: str, *, stream: bool) -> None:
    """What a client of the dialect sees is what the sample says, and no markup."""
    raw = client_bytes(dialect, [server_bytes(sample)], stream=stream)
    seen = seen_by(dialect, raw, stream=stream)
    if sample.fails:
        assert seen.failed
    elif set(sample.states) <= {"whole"}:
        assert (seen.calls, seen.text) == (sample.calls, sample.shown)
        assert not seen.failed or "tool_call_rejected:undeclared" in sample.notes  # Gemini has a word for that
        assert sample.reasoning.startswith(seen.reasoning)  # chat has no place for reasoning behind a call
    if not sample.innocent and not MARKUP.search((sample.shown + sample.reasoning + repr(sample.calls)).encode()):
        assert not MARKUP.search(raw)


@pytest.mark.parametrize("dialect", CLIENTS)
def test_cut_at_every_byte_of_the_stream(dialect: str) -> None:
    sample = next(sample for sample in POSITIVE if sample.name == "02-v3: pretty arguments")
    raw = server_bytes(sample, size=24)
    wanted = seen_by(dialect, client_bytes(dialect, [raw], stream=True), stream=True)
    assert wanted.calls == sample.calls
    for place in range(1, len(raw)):
        seen = seen_by(dialect, client_bytes(dialect, [raw[:place], raw[place:]], stream=True), stream=True)
        assert seen == wanted


def test_a_sample_that_is_wrong_is_seen() -> None:
    """The runner can fail."""
    sample = Sample("x", '{"name": "get_time", "arguments": {}}', calls=[("get_weather", {})], states=["whole"])
    assert "calls" in (whole_run(sample, [sample.text]) or "")
    assert whole_run(Sample("x", "hi", shown="ho"), ["hi"])
    assert Sample("x", "hi").ending == Ending("stop")
