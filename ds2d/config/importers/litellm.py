"""LiteLLM's proxy config (config.yaml, or the same as JSON).

Rule: a deployment whose server speaks the OpenAI protocol is carried over; every other provider, and every setting without a
counterpart, is named.
Surprise: LiteLLM writes variables as `os.environ/NAME`; they become references and stay variables.
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from ds2d.config.importers.taken import DEEPSEEK, Gathering, ImportProblem, Taken, host_of, is_url

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


def _deployment(found: Gathering, entry: Any, where: str) -> None:
    params = entry.get("litellm_params") if isinstance(entry, dict) else None
    if not isinstance(params, dict) or not isinstance(params.get("model"), str):
        raise ImportProblem(f"{where}: has no litellm_params.model")
    public = str(entry.get("model_name") or params["model"])
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
    else:
        body = {key: params[key] for key in BODY if key in params}
        about = entry.get("model_info") or {}
        more = {"context": about["max_input_tokens"]} if isinstance(about.get("max_input_tokens"), int) else {}
        if not found.model(public, name, model, where, **more, **({"extra_body": body} if body else {})):
            return
    if params.get("api_key") not in (None, "", "EMPTY", "none", "None"):
        limits = {"weight": params.get("weight"), "max_inflight": params.get("max_parallel_requests")}
        found.account(
            name, _secret(params["api_key"]), public, **{key: value for key, value in limits.items() if value is not None}
        )
    for key in params:
        if key not in KNOWN and key not in BODY:
            found.left.append(f"{where}.litellm_params.{key}: has no counterpart")
    if "extra_headers" in params:
        found.left.append(f"{where}.litellm_params.extra_headers: put them into `headers` of the upstream {name}")


def _provider(params: dict[str, Any]) -> tuple[str, str]:
    """Who serves it, and the id there. Without a known prefix it is an OpenAI server where it has an address of its own."""
    model: str = params["model"]
    if stated := params.get("custom_llm_provider"):
        return str(stated), model.removeprefix(f"{stated}/")
    head, slash, rest = model.partition("/")
    if slash and (head in OPEN or not _base(params)):
        return head, rest
    return "openai", model


def _address(provider: str, params: dict[str, Any]) -> str | None:
    base = _base(params)
    if provider == "deepseek" and not base:
        return DEEPSEEK
    if provider not in OPEN or not is_url(base):
        return None
    tail = OPEN[provider]
    return str(base) if not tail or str(base).rstrip("/").endswith(tail) else str(base).rstrip("/") + tail


def _base(params: dict[str, Any]) -> Any:
    return params.get("api_base") or params.get("base_url")


def _router(found: Gathering, document: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """`runtime` and `model_aliases` from the router's settings."""
    router = _section(document, "router_settings")
    general = _section(document, "litellm_settings")
    runtime: dict[str, Any] = {}
    retries = router.get("num_retries", general.get("num_retries"))
    if isinstance(retries, int):
        runtime["max_attempts"] = min(max(retries + 1, 1), 10)
    strategy = router.get("routing_strategy")
    if strategy in STRATEGIES:
        runtime["routing"] = STRATEGIES[strategy]
    elif strategy is not None:
        found.left.append(f"router_settings.routing_strategy: {strategy!r} is not offered; the least loaded server is taken")
    cooldown = router.get("cooldown_time")
    if isinstance(cooldown, int | float) and cooldown >= 1:
        runtime["breaker"] = {"open_seconds": min(cooldown, 3600)}
    aliases = router.get("model_group_alias")
    pairs = aliases.items() if isinstance(aliases, dict) else ()
    return runtime, {name: to if isinstance(to, str) else str(to["model"]) for name, to in pairs}


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
