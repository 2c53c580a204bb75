"""Every saved input and some thousand changed ones on every target. The long search is scripts/fuzz."""

from __future__ import annotations

import pytest

from tests.fuzz.fuzzer import CORPUS, corpus_of, inputs
from tests.fuzz.targets import TARGETS, same_letter_by_letter

COUNT = 1500


@pytest.mark.parametrize("name", TARGETS)
def test_the_saved_inputs_are_answered(name: str) -> None:
    for data in corpus_of(name):
        TARGETS[name].run(data)


@pytest.mark.parametrize("name", TARGETS)
def test_changed_inputs_are_answered(name: str) -> None:
    for number, data in enumerate(inputs(name, COUNT)):
        try:
            TARGETS[name].run(data)
        except Exception as error:
            raise AssertionError(f"input {number}: {data!r}") from error


def test_a_drifted_name_that_runs_into_its_key_means_the_same_in_pieces() -> None:
    (text,) = [data for data in corpus_of("detector") if b'invokname="get_timeQ' in data]
    for at in range(256):
        TARGETS["detector"].run(bytes([at]) * 4 + text[4:])


def test_saved_texts_mean_the_same_letter_by_letter() -> None:
    for data in corpus_of("detector"):
        if data[4:]:
            same_letter_by_letter(data)


@pytest.mark.parametrize(
    "text",
    [
        '<tool_calls><<<invoke name="get_time"></invoke></tool_calls>',
        '<my_ns2:invoke name="get_time"></my_ns2:invoke>',
        '<invoke averyveryverylongkey="1" name="get_time"></invoke>',
        '<invoke\u3000name="get_time"></invoke>',
        '<invoke name="search"><parameter name="query">a</paramter\n></invoke>',
        '<tool_calls><invoke name="get_time"></invoke>' + "}" * 32 + "</tool_calls>",
        "x\n" + " " * 9 + "function.name: get_time\nfunction.arguments: {}",
        "x\u3000\n\u3000function.name: get_time\nfunction.arguments: {}",
        '{"name": "search", "parameters": {' + " " * 300 + '"type": "object"}}',
        '<tool_x a="b{"name": "get_time", "arguments": {}}">',
    ],
)
def test_what_was_read_differently_in_pieces_is_no_more(text: str) -> None:
    same_letter_by_letter(b"...." + text.encode())


def test_every_target_has_a_saved_corpus_and_no_corpus_is_forgotten() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(any(path.iterdir()) for path in CORPUS.iterdir())
