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


def test_every_target_has_a_saved_corpus_and_no_corpus_is_forgotten() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)
    assert all(any(path.iterdir()) for path in CORPUS.iterdir())
