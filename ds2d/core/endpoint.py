"""A route of a dialect, as a value: the web layer makes the real ones from it."""

from __future__ import annotations

import msgspec

MODEL = (
    "{model:(?!.*:(?:generateContent|streamGenerateContent|countTokens|embedContent|batchEmbedContents|predict"
    "|predictLongRunning|asyncBatchEmbedContent|computeTokens|batchGenerateContent)$).+}"
)
"""A model to get: a name up to the end of the path, behind which none of Gemini's methods stands. Those are asked by POST, and
what is got would be the model that the path begins with."""


class Endpoint(msgspec.Struct, frozen=True):
    """`action` names the handler in web/: generate, count, models, model, embed ...

    `path` uses `{name}` for a segment and `{name:.+}` for the rest of the path (model ids may hold slashes).
    """

    method: str
    path: str
    action: str = "generate"
