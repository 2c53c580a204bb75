"""What an importer makes, and the parts that importers share: upstreams by address, accounts by key, models by name."""

from __future__ import annotations

import re
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

T = TypeVar("T")

DEEPSEEK = "https://api.deepseek.com"


class ImportProblem(Exception):  # noqa: N818 - read by people as a sentence
    """The file is not what it was said to be; the message is for people."""


class Taken(msgspec.Struct):
    """A config document, and what could not be carried over, by name."""

    document: dict[str, Any]
    left: list[str]


def read(value: Any, kind: type[T], where: str) -> T:
    """A part of somebody's file as what it should be. Raises ImportProblem that begins with its place."""
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ImportProblem(f"{where}: {error}") from None


class Gathering:
    """Collects servers, keys on them and model names, in the order in which they are met."""

    def __init__(self) -> None:
        self.left: list[str] = []
        self._upstreams: dict[str, dict[str, Any]] = {}
        self._accounts: dict[tuple[str, str], dict[str, Any]] = {}
        self._models: dict[str, dict[str, Any]] = {}
        self.keys: list[Any] = []

    def upstream(self, base_url: str, wish: str) -> str:
        """The name of the upstream at this address; a new one is called as close to `wish` as the rules allow."""
        address = base_url.rstrip("/")
        if address not in self._upstreams:
            taken = {entry["name"] for entry in self._upstreams.values()}
            self._upstreams[address] = {"name": _free(_slug(wish), taken), "kind": "openai", "base_url": address}
        name: str = self._upstreams[address]["name"]
        return name

    def account(self, upstream: str, token: Any, name: str, **more: Any) -> None:
        """A key on an upstream; the same key met again is the same account."""
        if (upstream, repr(token)) not in self._accounts:
            taken = {entry["name"] for entry in self._accounts.values()}
            entry = {"name": _free(name.strip() or upstream, taken), "upstream": upstream, "token": token}
            self._accounts[upstream, repr(token)] = {**entry, **more}

    def model(self, public: str, upstream: str, model: str, where: str, **more: Any) -> bool:
        """A name that clients may ask for; False, and a line in `left`, where it is bound to another id already."""
        entry = self._models.setdefault(public, {"upstream": [], "model": model, **more})
        if entry["model"] != model:
            self.left.append(
                f"{where}: {public!r} is {entry['model']!r} already; one name stands for one id here, so {model!r} is not used"
            )
            return False
        if upstream not in entry["upstream"]:
            entry["upstream"].append(upstream)
        return True

    def document(self, **sections: Any) -> dict[str, Any]:
        """All of it as a config; empty sections are left out."""
        found = {
            "keys": self.keys,
            "upstreams": list(self._upstreams.values()),
            "accounts": list(self._accounts.values()),
            "models": self._models,
            **sections,
        }
        return {name: value for name, value in found.items() if value}


def is_url(text: Any) -> bool:
    """Whether it can be a base_url."""
    return isinstance(text, str) and urlsplit(text).scheme in ("http", "https") and bool(urlsplit(text).netloc)


def host_of(url: str) -> str:
    """A name for a server that has none."""
    return urlsplit(url).hostname or "upstream"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")[:60] or "upstream"


def _free(name: str, taken: set[str]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}-{number}"
    return free
