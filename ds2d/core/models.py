"""What a model name becomes.

Rule: names are trimmed and compared without case, in the order of config.md 3; the built-in tables are data (models.json).
Surprise: `Facts` change while requests run (a poller learns them), so a route keeps the ones it was resolved with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Literal

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.settings import ModelSpec, UpstreamSpec

State = Literal["ready", "loading", "degraded", "stuck", "asleep", "down"]

_PREFERENCE: tuple[State, ...] = ("ready", "degraded", "loading", "stuck", "asleep", "down")
"""Upstreams in the first of these states that any of them has are asked; the others would be hope, not evidence."""

CHAT_ROUTE = "/v1/chat/completions"
"""A server that lists its routes and not this one does not chat, whatever its model is called."""

RETRY_SOON = 5.0
"""Retry-After in seconds where an upstream has yet to be looked at, or to come back."""


class Tables(msgspec.Struct, frozen=True):
    """The built-in tables. `native`: the reference's ids and whether they think; `first_choice`: by flavour, the model that
    stands behind them; `aliases`: target to names; `see_images`, `not_chat`, `embeds`: globs over upstreams' own ids, in lower
    case; `stands_in`: by task, globs over names of other people's models in whose place any served one may answer."""

    native: dict[str, Literal["on", "off"]]
    native_created: int
    native_owner: str
    first_choice: dict[str, str]
    aliases: dict[str, tuple[str, ...]]
    families: tuple[str, ...]
    claude: tuple[str, ...]
    claude_created: int
    claude_owner: str
    see_images: tuple[str, ...]
    not_chat: tuple[str, ...]
    embeds: tuple[str, ...]
    stands_in: dict[str, tuple[str, ...]]


TABLES = msgspec.json.decode(files("ds2d.core").joinpath("models.json").read_bytes(), type=Tables)
BUILT_IN = {alias: target for target, aliases in TABLES.aliases.items() for alias in aliases}


class Facts(msgspec.Struct, frozen=True):
    """What is known of an upstream from looking at it, not from config.

    `flavour` is vllm, sglang, llamacpp, llamacpp_python, transformers, deepseek or generic. `prefix` is what stands between the
    base URL and a route ("/v1" or ""). `native_tools` is False once the server refused native tools, None while unknown.
    `routes` are the paths that it says it has, of those that anything here asks for; None where it does not say.
    """

    flavour: str = "generic"
    prefix: str = "/v1"
    native_tools: bool | None = None
    completions: bool | None = None
    routes: frozenset[str] | None = None


class Target(msgspec.Struct, frozen=True):
    """One upstream that can answer a route: the model's name there, its entry in `models` (or an empty one), and facts."""

    upstream: UpstreamSpec
    model: str
    spec: ModelSpec
    facts: Facts = Facts()
    context: int | None = None
    max_output: int | None = None


class Route(msgspec.Struct, frozen=True):
    """What a model name became: `asked` is the client's, `public` the name it stands for, `why` the step that matched.

    `thinking` is what holds for a request that says nothing of it; whether a request may say otherwise is the target's
    `spec.thinking` (mapping.md 6).
    """

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


class Listed(msgspec.Struct, frozen=True):
    """One model as an upstream lists it. `extra`: its entry without what stands here. `created` is Unix seconds."""

    id: str
    created: int = 0
    owned_by: str = ""
    context: int | None = None
    extra: dict[str, object] = {}

    @property
    def chats(self) -> bool:
        """Whether it answers chats; told by the name, since lists do not say what a model is for."""
        return not matches(self.id, TABLES.not_chat)


class Seen(msgspec.Struct, frozen=True):
    """An upstream as it was seen last: its `models` stay known while it is down. `ids` are their places by lower-case id."""

    upstream: UpstreamSpec
    state: State = "loading"
    facts: Facts = Facts()
    models: tuple[Listed, ...] = ()
    ids: dict[str, int] = {}

    def find(self, name: str) -> Listed | None:
        """The model that it lists under this name, without case."""
        place = self.ids.get(name.lower())
        return None if place is None else self.models[place]


def seen(upstream: UpstreamSpec, state: State, facts: Facts, models: Sequence[Listed]) -> Seen:
    """An upstream as it was seen; of two ids that differ in case only, the first counts."""
    ids = {model.id.lower(): place for place, model in reversed(list(enumerate(models)))}
    return Seen(upstream, state, facts, tuple(models), ids)


class Names(msgspec.Struct, frozen=True):
    """The part of a config that names stand in, keys in lower case: entries with the name as written, aliases, families."""

    entries: dict[str, tuple[str, ModelSpec]] = {}
    aliases: dict[str, str] = {}
    fast: str = "deepseek-chat"
    slow: str = "deepseek-reasoner"


def names_of(models: Mapping[str, ModelSpec], aliases: Mapping[str, str], fast: str, slow: str) -> Names:
    """Made once a config. `fast` and `slow` are `claude_mapping`."""
    entries = {name.strip().lower(): (name, spec) for name, spec in models.items()}
    return Names(entries, {name.strip().lower(): target for name, target in aliases.items()}, fast, slow)


def resolve(name: str, names: Names, upstreams: Sequence[Seen], *, claude_route: bool = False) -> Route:
    """What `name` becomes, by config.md 3; `upstreams` in config order.

    Raises GatewayError: MODEL_NOT_FOUND for a name that no step knows, MODEL_UNAVAILABLE where the name is known but no
    upstream can be told to serve it.
    """
    asked = name.strip()
    key = asked.lower()
    if route := _public(asked, names, upstreams):
        return route
    target, why = _stands_for(key, names, claude_route)
    if target is None:
        raise GatewayError(ErrorKind.MODEL_NOT_FOUND, f"The model '{asked[:200]}' does not exist.", param="model")
    found = _public(target.strip(), names, upstreams)
    if found is None:
        raise _unavailable(asked)
    return msgspec.structs.replace(found, asked=asked, why=why)


def _stands_for(key: str, names: Names, claude_route: bool) -> tuple[str | None, str]:
    """Steps 3 and 4: the public name behind an alias or family, and the step."""
    if key in names.aliases:
        return names.aliases[key], "alias"
    if key in BUILT_IN:
        return BUILT_IN[key], "built-in alias"
    if key.startswith("deepseek-"):
        return None, ""
    if claude_route or key.startswith("claude-"):
        slow = any(word in key for word in ("opus", "reasoner", "slow"))
        return (names.slow if slow else names.fast), "claude family"
    numbered = len(key) > 1 and key[0] == "o" and key[1].isdigit()
    if not numbered and not key.startswith(TABLES.families):
        return None, ""
    target = "deepseek-reasoner" if numbered or "reason" in key or "r1" in key else "deepseek-chat"
    return target + ("-search" if "search" in key else ""), "family"


def _public(name: str, names: Names, upstreams: Sequence[Seen]) -> Route | None:
    """Steps 1 and 2: an entry, a native id, or an id that an upstream lists. Raises MODEL_UNAVAILABLE."""
    key = name.lower()
    if key in names.entries:
        public, spec = names.entries[key]
        return _by_entry(name, public, spec, upstreams)
    if key in TABLES.native:
        twin = names.entries.get(key.removesuffix("-search"))
        if twin is not None:  # no search is configured: it answers like its plain twin
            return msgspec.structs.replace(_by_entry(name, twin[0], twin[1], upstreams), public=key)
        return _by_nature(name, key, None, upstreams)
    listing = best([upstream for upstream in upstreams if upstream.find(key)])
    if not listing:
        return None
    targets = tuple(target_of(upstream, _listed_name(upstream, key), None) for upstream in listing)
    return Route(name, targets[0].model, targets, "listed")


def _by_entry(asked: str, public: str, spec: ModelSpec, upstreams: Sequence[Seen]) -> Route:
    """An entry of `models`. Without `upstream` it goes to any that lists it."""
    model = spec.model or public
    if spec.upstream:
        found = [upstream for upstream in upstreams if upstream.upstream.name in spec.upstream]
    else:
        found = [upstream for upstream in upstreams if upstream.find(model)]
        if not found and public.lower() in TABLES.native and spec.model is None:
            return msgspec.structs.replace(_by_nature(asked, public.lower(), spec, upstreams), why="models entry")
        if not found and len(upstreams) == 1:
            found = list(upstreams)  # it may be listed later, and there is no other
    if not found:
        raise _unavailable(asked)
    targets = tuple(target_of(upstream, _listed_name(upstream, model), spec) for upstream in best(found))
    return Route(asked, public, targets, "models entry", _thinking(public, spec))


def _by_nature(asked: str, native: str, spec: ModelSpec | None, upstreams: Sequence[Seen]) -> Route:
    """A native id: the first upstream with a ready chat model, and of its models that id, else its first; and every other
    server that lists the same model and is as ready."""
    candidates = [(upstream, model) for upstream in upstreams if (model := _chat_model(upstream, native))]
    found = best([upstream for upstream, _ in candidates])
    if not found:
        raise _unavailable(asked)
    model = next(model for upstream, model in candidates if upstream is found[0])
    also = [upstream for upstream in found[1:] if (listed := upstream.find(model)) and listed.id == model]
    targets = tuple(target_of(upstream, model, spec) for upstream in (found[0], *also))
    return Route(asked, native, targets, "native id", _thinking(native, targets[0].spec))


def _chat_model(upstream: Seen, native: str) -> str | None:
    """The model that a native id means on this upstream; None if none is known that chats."""
    if upstream.facts.routes is not None and CHAT_ROUTE not in upstream.facts.routes:
        return None
    own = upstream.find(native)
    if own is not None:
        return own.id
    first = TABLES.first_choice.get(upstream.facts.flavour)
    if first is not None and (not upstream.models or upstream.find(first)):
        return first
    if not upstream.models and upstream.state in ("ready", "degraded"):
        return native  # it serves without a model list: such servers take any name
    return next((model.id for model in upstream.models if model.chats), None)


def best(upstreams: Sequence[Seen]) -> list[Seen]:
    """Those in the best state that any has, in their order."""
    for state in _PREFERENCE:
        if found := [upstream for upstream in upstreams if upstream.state == state]:
            return found
    return []


def target_of(upstream: Seen, model: str, spec: ModelSpec | None) -> Target:
    """This model there. `spec` is the entry of `models`; without one, whether the model sees images is told by its name."""
    listed = upstream.find(model)
    if spec is None:
        spec = ModelSpec(images=matches(model, TABLES.see_images))
    context = spec.context or (listed.context if listed else None)
    return Target(upstream.upstream, model, spec, upstream.facts, context, spec.max_output)


def _listed_name(upstream: Seen, model: str) -> str:
    """The upstream's own spelling where it lists the model."""
    listed = upstream.find(model)
    return listed.id if listed else model


def _thinking(public: str, spec: ModelSpec) -> Literal["on", "off", "switch"]:
    return TABLES.native.get(public.lower(), "switch") if spec.thinking == "switch" else spec.thinking


def matches(name: str, globs: Iterable[str]) -> bool:
    """Whether a name, in whatever case, fits one of the globs."""
    return any(fnmatchcase(name.lower(), glob) for glob in globs)


def _unavailable(asked: str) -> GatewayError:
    message = f"No upstream serves the model '{asked[:200]}' now."
    return GatewayError(ErrorKind.MODEL_UNAVAILABLE, message, param="model", retry_after=RETRY_SOON)
