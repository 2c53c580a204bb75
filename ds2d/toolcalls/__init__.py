"""Tool calls that models write as text, and what the client asked of calls (toolcalls.md).

Rule: `build` gives the stages one answer needs, in their order, and leaves out those that have nothing to do: without
tools the text of an answer passes byte for byte, and only the look for an empty turn remains.
Order: think tags are split off, native calls are verified, text is searched, and `Policy` judges all that came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ds2d.core.pipeline import Stage
from ds2d.core.request import ChatRequest
from ds2d.toolcalls.blanks import Blanks
from ds2d.toolcalls.calls import Confidence
from ds2d.toolcalls.declared import allowed_by
from ds2d.toolcalls.detector import Detector, Mode
from ds2d.toolcalls.mislabelled import Mislabelled
from ds2d.toolcalls.native import NativeCalls
from ds2d.toolcalls.policy import Policy
from ds2d.toolcalls.thinktags import ThinkTags
from ds2d.toolcalls.unsure import Recovered, Unsure

Think = Literal["no", "outside", "inside", "unsure"]
"""Whether `<think>` is split off here, and whether the answer begins in the middle of it."""


def build(
    request: ChatRequest,
    new_id: Callable[[str], str],
    *,
    mode: Mode = "feature_match",
    confidence: Confidence = "high",
    think: Think = "no",
    told: bool | None = None,
    whole: bool = False,
) -> list[Stage]:
    """The stages between decoder and encoder. `mode` and `confidence` are config's `toolcall` section; `told` and `whole` are
    for "unsure": what earlier answers have shown, and whether the client gets this one in one piece."""
    declared = allowed_by(request)
    stages: list[Stage] = []
    unsure = Unsure(told, whole=whole) if think == "unsure" else None
    if unsure is not None:
        stages.append(unsure)
    elif think != "no":
        stages.append(ThinkTags(inside=think == "inside"))
    if request.reasoning.mode == "off":
        stages.append(Mislabelled())
    if declared:
        stages.append(NativeCalls(declared))
        if mode != "off":
            stages.append(Detector(declared, mode, confidence, new_id))
    if unsure is not None and unsure.inside:
        stages.append(Recovered(unsure))
    stages.append(Policy(request, new_id, declared))
    if request.response_format is not None and request.response_format.get("type") != "text":
        stages.append(Blanks())
    return stages
