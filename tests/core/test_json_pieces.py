"""JSON in steps is the JSON that orjson reads, and what orjson refuses is refused."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ds2d.core import json_pieces
from ds2d.core.json_pieces import STEP, dumps, loads

DEEPEST = 40
TEXTS = st.text(st.one_of(st.sampled_from('"\\,:{}[]u \n😀好'), st.characters(codec="utf-8")), max_size=40)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(TEXTS, inner, max_size=30),
    max_leaves=60,
)
STEPS = st.sampled_from([32, 33, 64, 4096])


def outcome(read: Any) -> Any:
    """What was read, or that it was refused."""
    try:
        return read()
    except (ValueError, TypeError):  # what orjson cannot write is a TypeError
        return ValueError


@given(VALUES, STEPS, st.booleans(), st.sampled_from([None, 1]))
def test_any_value_is_read_as_at_once(value: Any, step: int, escaped: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=escaped, indent=indent).encode()
    assert loads(text, DEEPEST, step) == orjson.loads(text)


@given(VALUES, STEPS, st.data())
def test_what_is_no_json_is_refused_alike(value: Any, step: int, data: st.DataObject) -> None:
    text = bytearray(json.dumps(value, ensure_ascii=data.draw(st.booleans())).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([b"", b'"', b"\\", b"\xff", b",", b"}", b"\n"]))
    assert outcome(lambda: loads(text, DEEPEST, step)) == outcome(lambda: orjson.loads(text))


@pytest.mark.parametrize(
    "text",
    [
        rb'"\ud83d\ude00"' * 1,
        b'["' + rb"\ud83d\ude00" * 40 + b'"]',
        b'["' + rb"\ude00" * 40 + b'"]',
        b'["' + b"\\\\" * 40 + b'"]',
        b'["' + b'\\"' * 40 + b'"]',
        b'["' + b"\\" * 41 + b'"]',
        b'["' + "好".encode() * 40 + b'"]',
        b'["' + "好".encode()[:2] * 40 + b'"]',
        b'["' + b"a" * 64,
        b'{"a":1,"a":2}',
        b"{" + b",".join(b'"k%d":%d' % (number % 30, number) for number in range(90)) + b"}",
        b"[" + b"1.5 , " * 200 + b"-0]",
        b"[1e400]",
        b"[NaN]",
        b"[01]",
        b"[1,]",
        b"[,1]",
        b'{"a":1,}',
        b'{"a" 1}',
        b"{1:2}",
        b"[1}",
        b"[1] 2",
        b"",
        b" \n",
        b"\xef\xbb\xbf[]",
    ],
)
@pytest.mark.parametrize("step", [32, 33, 37, 64])
def test_what_may_be_cut_wrongly(text: bytes, step: int) -> None:
    assert outcome(lambda: loads(text, DEEPEST, step)) == outcome(lambda: orjson.loads(text))


def test_what_is_too_deep_is_refused_before_it_is_read() -> None:
    assert outcome(lambda: loads(b"[" * 100_000, DEEPEST)) is ValueError


@given(VALUES, st.integers(32, 200))
def test_any_value_is_written_as_at_once(value: Any, step: int) -> None:
    assert outcome(lambda: dumps(value, step)) == outcome(lambda: orjson.dumps(value))


CODE = 'def f(x):\n    return "a" + str(x)  # 好\n'
LARGE = {
    "one text": [{"role": "user", "content": CODE * 60_000}],
    "an image": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:," + "A" * 2_000_000}}]}],
    "many messages": [{"role": "user", "content": CODE}, {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}]
    * 20_000,
    "long messages": [{"role": "user", "content": CODE * 4000}] * 12,
    "an object": {f"name {number}": {"a": [number]} for number in range(80_000)},
    "numbers": list(range(400_000)),
}


class Steps:
    """orjson, and how much it was given at once."""

    JSONDecodeError = orjson.JSONDecodeError

    def __init__(self) -> None:
        self.most = 0

    def loads(self, data: bytes) -> Any:
        self.most = max(self.most, len(data))
        return orjson.loads(data)

    def dumps(self, value: Any) -> bytes:
        written = orjson.dumps(value)
        self.most = max(self.most, len(written))
        return written


@pytest.mark.parametrize("shape", LARGE)
def test_no_step_takes_much(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = orjson.dumps({"model": "m", "messages": LARGE[shape], "stream": True})
    assert len(text) > 5 * STEP
    steps = Steps()
    monkeypatch.setattr(json_pieces, "orjson", steps)
    value = loads(text, DEEPEST)
    assert value["messages"] == LARGE[shape]
    assert steps.most <= STEP + 2
    steps.most = 0
    assert dumps(value) == text
    assert steps.most <= 2 * STEP  # a Chinese character counts as one and has three bytes
