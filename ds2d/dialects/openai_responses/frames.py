"""Events as bytes: numbered, one JSON line each, whole (openai-responses.md 5).

Rule: numbers rise by one over all events of a response; every event but the lifecycle ones carries `response_id`, as the
reference has it, and what newer clients want besides.
Surprise: deltas are nearly all frames of a stream, so their heads are made once and only number and text are put in.
"""

from __future__ import annotations

from typing import Any

import orjson

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"


def frame(kind: str, data: dict[str, Any]) -> bytes:
    """One event with this JSON object as data."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))


class Frames:
    """Writes the events of one response, from sequence number `number` on; `take` gives what was written since."""

    def __init__(self, response_id: str, number: int) -> None:
        self._response_id = response_id
        self.number = number
        self._out: list[bytes] = []

    def event(self, kind: str, fields: dict[str, Any]) -> None:
        """An event about an item or a part."""
        named = {"type": kind, "sequence_number": self.number, "response_id": self._response_id}
        self._out.append(frame(kind, named | fields))
        self.number += 1

    def lifecycle(self, kind: str, head: dict[str, Any], body: bytes) -> None:
        """An event that carries the whole response object; `head` are extra top-level members."""
        named = {"type": kind, "sequence_number": self.number}
        self._out.append(frame(kind, named | head | {"response": orjson.Fragment(body)}))
        self.number += 1

    def delta_head(self, kind: str, fields: dict[str, Any]) -> bytes:
        """The constant part of the delta events of one part, for `delta`."""
        named = {"type": kind, "response_id": self._response_id} | fields
        return frame(kind, named)[:-3] + b',"sequence_number":'

    def delta(self, head: bytes, text: str) -> None:
        """A delta event. The hot path."""
        self._out.append(b'%b%d,"delta":%b}\n\n' % (head, self.number, orjson.dumps(text)))
        self.number += 1

    def raw(self, data: bytes) -> None:
        """Bytes that are no event of their own."""
        self._out.append(data)

    def take(self) -> bytes:
        """Everything written since the last call."""
        data = b"".join(self._out)
        self._out.clear()
        return data


class Silence(Frames):
    """Writes nothing: for answers that are not streamed, which need the items only."""

    def event(self, kind: str, fields: dict[str, Any]) -> None:
        """Nothing."""

    def lifecycle(self, kind: str, head: dict[str, Any], body: bytes) -> None:
        """Nothing."""

    def delta(self, head: bytes, text: str) -> None:
        """Nothing."""
