"""What a Gemini question has to remember for its answer; rides in `ChatRequest.reply`."""

from __future__ import annotations

from typing import Literal

import msgspec

Form = Literal["sse", "array"]


class Reply(msgspec.Struct, frozen=True):
    """`form`: how a stream is framed, None where the setting decides. `thoughts`: thinking is shown. `thinking`: it was asked
    for. `unquote`: the answer is one word of an enum, which the model writes as a JSON string."""

    form: Form | None = None
    thoughts: bool = False
    thinking: bool = False
    unquote: bool = False
