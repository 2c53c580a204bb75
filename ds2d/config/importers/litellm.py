"""LiteLLM's proxy config (config.yaml, or the same as JSON).

Rule: a deployment whose server speaks the OpenAI protocol is carried over; every other provider, and every setting without a
counterpart, is named.
Surprise: LiteLLM writes variables as `os.environ/NAME`; they become references and stay variables.
"""

from __future__ import annotations

import importlib
import json
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from ds2d.config.importers.taken import DEEPSEEK, Gathering, ImportProblem, Taken, host_of, is_url, read

OPEN = {
    "openai": "",
    "hosted_vllm": "",
    "vllm": "",
    "custom_openai": "",
    "openai_like": "",
    "litellm_proxy": "",
    "lm_studio": "",
    "llamafile": "",
    "xinference": "",
    "ollama_chat": "/v1",
    "ollama": "/v1",
    "deepseek": "",
}
"""Providers that speak the OpenAI protocol, and what their base address lacks for it."""

KNOWN = {"model", "api_base", "base_url", "api_key", "weight", "max_parallel_requests", "extra_headers", "custom_llm_provider"}
"""Parameters of a deployment that are carried over or that say what it is."""

BODY = ("temperature", "top_p", "max_tokens", "seed", "frequency_penalty", "presence_penalty")
"""Parameters that LiteLLM adds to every request; here `extra_body` of the model."""

STRATEGIES = {"simple-shuffle": "weighted", "least-busy": "least_loaded"}


CARRIED = {
    ("router_settings", "num_retries"),
    ("router_settings", "routing_strategy"),
    ("router_settings", "cooldown_time"),
    ("router_settings", "model_group_alias"),
    ("litellm_settings", "num_retries"),
    ("litellm_settings", "drop_params"),  # unknown fields never fail here
    ("general_settings", "master_key"),
}
"""Settings that are carried over, or that are always so here."""


def take(raw: bytes) -> Taken:
    """The config that means the same. Raises ImportProblem."""
    document = _read(raw)
    models = document.get("model_list")
    if not isinstance(models, list):
        raise ImportProblem("this is no LiteLLM config: there is no list `model_list`")
    found = Gathering()
    for index, entry in enumerate(models):
        _deployment(found, entry, f"model_list[{index}]")
    general = _section(document, "general_settings")
    if master := general.pop("master_key", None):
        found.keys.append({"key": _secret(master), "name": "litellm-master", "admin": True})
        found.left.append(
            "general_settings.master_key: is an API key here; keys made by the proxy are in its database: make new ones"
        )
    runtime, aliases = _router(found, document)
    for name in ("litellm_settings", "general_settings", "router_settings"):
        found.left += [f"{name}.{key}: has no counterpart" for key in _section(document, name) if (name, key) not in CARRIED]
    if document.get("environment_variables"):
        found.left.append("environment_variables: set them where ds2d runs (/etc/ds2d/environment)")
    ours = {"model_list", "litellm_settings", "general_settings", "router_settings", "environment_variables"}
    found.left += [f"{name}: has no counterpart" for name in document if name not in ours]
    return Taken(found.document(runtime=runtime, model_aliases=aliases), found.left)


class Params(msgspec.Struct):
    """Parameters of a deployment that say what it is."""

    model: str
    api_base: str | None = None
    base_url: str | None = None
    api_key: str | None = None
    custom_llm_provider: str | None = None
    weight: Annotated[float, Meta(ge=0.1, le=100)] | None = None
    max_parallel_requests: Annotated[int, Meta(ge=1, le=100000)] | None = None

    @property
    def address(self) -> str | None:
        """Its own address, under either name."""
        return self.api_base or self.base_url


class Info(msgspec.Struct):
    """What is known of the model."""

    max_input_tokens: Annotated[int, Meta(ge=1)] | None = None


class Deployment(msgspec.Struct):
    """An entry of `model_list`."""

    litellm_params: Params
    model_name: str | None = None
    model_info: Info | None = None


def _deployment(found: Gathering, raw: Any, where: str) -> None:
    entry = read(raw, Deployment, where)
    params, written = entry.litellm_params, raw["litellm_params"]
    public = entry.model_name or params.model
    provider, model = _provider(params)
    base_url = _address(provider, params)
    if base_url is None:
        found.left.append(
            f"{where}: {public!r} is of {provider or 'a provider'} that is not spoken here, or has no api_base of its own"
        )
        return
    name = found.upstream(base_url, provider if provider not in ("openai", "custom_openai") else host_of(base_url))
    if "*" in public:
        found.left.append(f"{where}: {public!r} is a pattern; every model that {name} lists is served under its own name anyway")
    elif not found.model(public, name, model, where, **_about(entry, written)):
        return
    if params.api_key not in (None, "", "EMPTY", "none", "None"):
        limits = {"weight": params.weight, "max_inflight": params.max_parallel_requests}
        found.account(name, _secret(params.api_key), public, **{key: value for key, value in limits.items() if value is not None})
    unknown = (key for key in written if key not in KNOWN and key not in BODY)
    found.left += [f"{where}.litellm_params.{key}: has no counterpart" for key in unknown]
    if "extra_headers" in written:
        found.left.append(f"{where}.litellm_params.extra_headers: put them into `headers` of the upstream {name}")


def _about(entry: Deployment, written: dict[str, Any]) -> dict[str, Any]:
    """What a model's entry says besides its server."""
    body = {key: written[key] for key in BODY if key in written}
    context = entry.model_info.max_input_tokens if entry.model_info else None
    return {**({"context": context} if context else {}), **({"extra_body": body} if body else {})}


def _provider(params: Params) -> tuple[str, str]:
    """Who serves it, and the id there. Without a known prefix it is an OpenAI server where it has an address of its own."""
    if stated := params.custom_llm_provider:
        return stated, params.model.removeprefix(f"{stated}/")
    head, slash, rest = params.model.partition("/")
    if slash and (head in OPEN or not params.address):
        return head, rest
    return "openai", params.model


def _address(provider: str, params: Params) -> str | None:
    base = params.address
    if provider == "deepseek" and not base:
        return DEEPSEEK
    if provider not in OPEN or base is None or not is_url(base):
        return None
    tail = OPEN[provider]
    return base if not tail or base.rstrip("/").endswith(tail) else base.rstrip("/") + tail


def _router(found: Gathering, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """`runtime` and `model_aliases` from the router's settings."""
    router = _section(document, "router_settings")
    general = _section(document, "litellm_settings")
    runtime: dict[str, Any] = {}
    settings = read(router, Router, "router_settings")
    retries = settings.num_retries if settings.num_retries is not None else read(general, Router, "litellm_settings").num_retries
    if retries is not None:
        runtime["max_attempts"] = min(max(retries + 1, 1), 10)
    if settings.routing_strategy in STRATEGIES:
        runtime["routing"] = STRATEGIES[settings.routing_strategy]
    elif settings.routing_strategy is not None:
        found.left.append(f"router_settings.routing_strategy: {settings.routing_strategy!r} is not offered; load decides")
    if settings.cooldown_time is not None and settings.cooldown_time >= 1:
        runtime["breaker"] = {"open_seconds": min(settings.cooldown_time, 3600)}
    aliases = settings.model_group_alias or {}
    return runtime, {name: to if isinstance(to, str) else to.model for name, to in aliases.items()}


class Alias(msgspec.Struct):
    """The long form of an alias."""

    model: str


class Router(msgspec.Struct):
    """Settings of the router that have a counterpart; one of them may stand among the general ones."""

    num_retries: int | None = None
    routing_strategy: str | None = None
    cooldown_time: float | None = None
    model_group_alias: dict[str, str | Alias] | None = None


def _section(document: dict[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return dict(value) if isinstance(value, dict) else {}


def _secret(value: Any) -> Any:
    text = str(value)
    return {"$env": text.removeprefix("os.environ/")} if text.startswith("os.environ/") else text


def _read(raw: bytes) -> dict[str, Any]:
    if raw.lstrip().startswith(b"{"):
        try:
            found = json.loads(raw)
        except ValueError as error:
            raise ImportProblem(f"is no JSON: {error}") from None
    else:
        found = _yaml(raw)
    if not isinstance(found, dict):
        raise ImportProblem("this is no LiteLLM config: it is no mapping")
    return found


def _yaml(raw: bytes) -> Any:
    try:
        yaml = importlib.import_module("yaml")  # an optional extra
    except ImportError:
        raise ImportProblem("YAML needs the package pyyaml: pip install 'ds2d[yaml]'; or give the same file as JSON") from None
    try:
        return yaml.safe_load(raw)
    except yaml.YAMLError as error:
        raise ImportProblem(f"is no YAML: {' '.join(str(error).split())}") from None
