"""What a model name becomes.

Rule: names are trimmed and compared without case, in the order of config.md 3; the built-in tables are data (models.json).
Surprise: `Facts` change while requests run (a poller learns them), so a route keeps the ones it was resolved with.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from ds2d.core.settings import ModelSpec, UpstreamSpec

State = Literal["ready", "loading", "degraded", "stuck", "asleep", "down"]


class Facts(msgspec.Struct, frozen=True):
    """What is known of an upstream from looking at it, not from config.

    `flavour` is vllm, sglang, llamacpp, llamacpp_python, transformers, deepseek or generic. `prefix` is what stands between the
    base URL and a route ("/v1" or ""). `native_tools` is False once the server refused native tools, None while unknown.
    """

    flavour: str = "generic"
    prefix: str = "/v1"
    native_tools: bool | None = None
    completions: bool | None = None


class Target(msgspec.Struct, frozen=True):
    """One upstream that can answer a route: the model's name there, its entry in `models` (or an empty one), and facts."""

    upstream: UpstreamSpec
    model: str
    spec: ModelSpec
    facts: Facts = Facts()
    context: int | None = None
    max_output: int | None = None


class Route(msgspec.Struct, frozen=True):
    """What a model name became: `asked` is the client's, `public` the name it stands for, `why` the step that matched."""

    asked: str
    public: str
    targets: tuple[Target, ...]
    why: str
    thinking: Literal["on", "off", "switch"] = "switch"


class ModelInfo(msgspec.Struct, frozen=True):
    """One line of a model list. `extra` are the fields of the upstream's own entry (`permission`, `root` ...)."""

    id: str
    created: int
    owned_by: str
    state: State
    max_model_len: int | None = None
    max_output: int | None = None
    thinking: bool = False
    images: bool = False
    extra: dict[str, object] = {}
