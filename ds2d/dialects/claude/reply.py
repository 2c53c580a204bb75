"""What a Claude question has to remember for its answer; rides in `ChatRequest.reply`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Thinking = Literal["shown", "omitted", "hidden"]


class Reply(msgspec.Struct, frozen=True):
    """`thinking`: whether blocks go out, empty ones go out (`display: omitted`), or none. `names`: from the name sent upstream
    to the client's own, where they differ."""

    thinking: Thinking = "hidden"
    names: Mapping[str, str] = {}
