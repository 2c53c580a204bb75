"""What a chat question has to remember for its answer; rides in `ChatRequest.reply`."""

from __future__ import annotations

import msgspec


class Reply(msgspec.Struct, frozen=True):
    """`include_usage`: a chunk of its own for usage; `running_usage`: besides on every chunk. `legacy`: the client declared
    `functions`, so a call goes out as `function_call`. `both_names`: reasoning under both of its names. `tiered`: the client
    sent `service_tier`, so one is echoed."""

    include_usage: bool = False
    running_usage: bool = False
    legacy: bool = False
    both_names: bool = False
    tiered: bool = False
