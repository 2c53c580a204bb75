"""Other people's configs are not always as they should be: whatever stands in one, an importer gives a document or a sentence."""

from __future__ import annotations

import contextlib
import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ds2d.config.importers import REGISTRY, ImportProblem

SAMPLES = Path(__file__).parents[1] / "config" / "imports"
DOCUMENTS = {
    "ds2api": json.loads((SAMPLES / "ds2api.json").read_text()),
    "litellm": yaml.safe_load((SAMPLES / "litellm.yaml").read_text()),
    "one-api": json.loads((SAMPLES / "one-api.json").read_text()),
}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for name, item in pairs for place in places(item, (*path, name)))]


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    inner = changed
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return changed


@pytest.mark.parametrize("kind", REGISTRY)
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_value_of_any_kind_in_any_place_is_taken_or_refused_in_words(kind: str, data: st.DataObject) -> None:
    document = DOCUMENTS[kind]
    raw = json.dumps(with_value(document, data.draw(st.sampled_from(places(document))), data.draw(VALUES))).encode()
    with contextlib.suppress(ImportProblem):
        taken = REGISTRY[kind].take(raw)
        assert isinstance(taken.document, dict)
        json.dumps(taken.document)
        assert all(isinstance(line, str) for line in taken.left)


@pytest.mark.parametrize("kind", REGISTRY)
@given(raw=st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused_in_words(kind: str, raw: bytes) -> None:
    with contextlib.suppress(ImportProblem):
        REGISTRY[kind].take(raw)
