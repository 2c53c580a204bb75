"""API keys as the admin API lists and changes them.

Rule: a key leaves here masked; a mask posted back stands for the key it was made of, and one that stands for none, or for more
keys than were posted, is refused; keys made or added here are stored as hashes, those the operator wrote stay as written.
Surprise: a deleted key stays in the file with `deleted_at`, so that its usage stays readable, and no listing posted back can
revive or remove it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ds2d.config.references import is_reference
from ds2d.config.schema import Config
from ds2d.config.show import shown
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.redact import MASK, mask
from ds2d.core.secrets import hash_key
from ds2d.core.settings import KeySpec

LISTS = ("keys", "api_keys")
FIELDS = frozenset(KeySpec.__struct_fields__) - {"key", "created_at", "deleted_at", "problem"}
"""What a key's entry may be given besides the key."""

HASH = "sha256:"
CLEAR_DIGITS = 12
"""Digits that a masked hash shows where the usual four are those of another key, too."""

Entry = dict[str, Any]
Place = tuple[list[Any], int]
"""Where a key stands in a document: the list and the place in it."""


def key_id(digest: str) -> str:
    """What a key is called where it may not be named."""
    return f"key_{digest[:16]}"


def listed(config: Config, *, deleted: bool = False) -> list[tuple[str, KeySpec]]:
    """The keys that a listing shows, each with its mask."""
    found = [spec for spec in config.keys if spec.key is not None and (deleted or spec.deleted_at is None)]
    times = Counter(map(masked_key, found))
    return [(masked_key(spec, clear=times[masked_key(spec)] > 1), spec) for spec in found]


def masked_key(spec: KeySpec, *, clear: bool = False) -> str:
    """The mask of a key; of one by reference, the reference. `clear`: enough of a hash to tell it from another."""
    assert spec.key is not None
    if spec.key.reference:
        return _reference_text(spec.key.reference)
    text = spec.key.reveal() or ""
    return text[: len(HASH) + CLEAR_DIGITS] + MASK if clear and text.startswith(HASH) else mask(text)


def describe(spec: KeySpec, masked: str) -> Entry:
    """One of `key_entries`: the entry as far as somebody set it, with its id and its key masked as the listing has it."""
    entry = {"id": key_id(spec.digest) if spec.digest else None, **shown(spec, defaults=False), "key": masked}
    if spec.problem:
        entry["problem"] = spec.problem
    return entry


def raw_entries(document: dict[str, Any]) -> Iterator[Place]:
    """Where each key stands in a document."""
    for name in LISTS:
        entries = document.get(name)
        if isinstance(entries, list):
            yield from ((entries, at) for at in range(len(entries)))


def find(document: dict[str, Any], config: Config, wanted: str) -> Place:
    """The place of a key given by itself, its id, its reference as listings show it, or its name: one that cannot be read
    has no id, and must be got rid of all the same. Raises 404."""
    digest = hash_key(wanted).removeprefix(HASH)
    places = list(raw_entries(document))
    ways: tuple[Callable[[Any], bool], ...] = (
        lambda entry: (own := _digest(entry, config)) is not None and (own == digest or key_id(own) == wanted),
        lambda entry: bool(wanted) and _reference_of(entry) == wanted,
        lambda entry: isinstance(entry, dict) and bool(entry.get("key")) and entry.get("name") == wanted,
    )
    for is_wanted in ways:
        for entries, at in places:
            if is_wanted(entries[at]):
                return entries, at
    raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such key.")


def is_known(document: dict[str, Any], config: Config, key: str) -> bool:
    """Whether a document holds this key, deleted or not."""
    digest = hash_key(key).removeprefix(HASH)
    return any(_digest(entries[at], config) == digest for entries, at in raw_entries(document))


def add(document: dict[str, Any], config: Config, key: str, fields: Entry, now: str) -> None:
    """Put a new key in, as a hash. Raises 409 where it is known, deleted or not."""
    _check_new(key)
    digest = hash_key(key).removeprefix(HASH)
    for entries, at in raw_entries(document):
        if _digest(entries[at], config) == digest:
            gone = isinstance(entries[at], dict) and entries[at].get("deleted_at")
            hint = ": PUT brings it back" if gone else ""
            raise GatewayError(ErrorKind.INVALID_REQUEST, f"This key exists already{hint}.", status=409)
    document.setdefault("keys", []).append({"key": hash_key(key), **fields, "created_at": now})


def change(entries: list[Any], at: int, fields: Entry) -> None:
    """Set fields of an entry; a deleted key is back."""
    entry = _as_object(entries[at])
    entry.pop("deleted_at", None)
    entries[at] = {**entry, **fields}


def check_kept(entry: Any, config: Config, body: Entry) -> None:
    """Refuse what a body says of an entry that an edit cannot change, unless it is what stands there or what a listing shows
    of it. Raises 400."""
    own = _as_object(entry)
    digest = _digest(entry, config)
    spec = next((spec for spec in config.keys if spec.key is not None and spec.digest == digest and digest), None)
    told = shown(spec, defaults=False) if spec else {}
    if "key" in body and body["key"] != own["key"] and not _is_named(body["key"], entry, digest):
        raise bad("key: cannot be changed: add the new key and delete this one")
    if body.get("id") not in (None, digest and key_id(digest)):
        raise bad("id: cannot be changed: it is made of the key")
    for name in ("created_at", "deleted_at"):
        if body.get(name) not in (None, own.get(name), told.get(name)):
            raise bad(f"{name}: cannot be changed here")


def delete(entries: list[Any], at: int, now: str) -> None:
    """Mark an entry as deleted. Raises 404 if it was."""
    entry = _as_object(entries[at])
    if entry.get("deleted_at"):
        raise GatewayError(ErrorKind.ROUTE_NOT_FOUND, "There is no such key.")
    entries[at] = {**entry, "deleted_at": now}


def replace_all(document: dict[str, Any], config: Config, posted: Any, now: str) -> None:
    """Make the posted list the keys in force: masks keep the keys they stand for, others come in as hashes, what is left out
    is deleted. Raises 400 with the place of what is wrong."""
    if not isinstance(posted, list):
        raise bad("keys: must be a list of strings")
    standing = [(entries, at) for entries, at in raw_entries(document) if _is_live(entries[at], config)]
    kept = _kept(posted, [entries[at] for entries, at in standing], config)
    for entries, at in standing:
        if _identity(entries[at], config) not in kept:
            delete(entries, at, now)
    for index, known in enumerate(kept):
        if known is None:
            key, fields = split(posted[index], f"keys[{index}]")
            add(document, config, key, fields, now)


def _kept(posted: list[Any], standing: list[Any], config: Config) -> list[str | None]:
    """Which of the standing keys each posted one is; None for a new one. Keys that share a mask are kept all together: who
    posts fewer of them has not said which, and a guess would refuse somebody's key."""
    texts = [split(item, f"keys[{index}]")[0] for index, item in enumerate(posted)]
    known = {_identity(entry, config): entry for entry in standing}
    kept = [digest if (digest := hash_key(text).removeprefix(HASH)) in known else None for text in texts]
    named = set(kept)
    for index, text in enumerate(texts):
        if kept[index] is not None or not (MASK in text or text.startswith("$")):
            continue
        same = [name for name, entry in known.items() if name not in named and _is_mask_of(text, entry)]
        before, times = texts[:index].count(text), texts.count(text)
        if before >= len(same):
            raise bad(f"keys[{index}]: this masked key stands for none of the keys")
        if times < len(same):
            raise bad(f"keys[{index}]: this masked key may be {len(same)} keys: delete a key by its id instead")
        kept[index] = same[before]
    return kept


def split(item: Any, path: str) -> tuple[str, Entry]:
    """Key and fields of a posted key, which is a string or an object."""
    if isinstance(item, dict) and isinstance(item.get("key"), str):
        return item["key"], {name: value for name, value in item.items() if name in FIELDS}
    if not isinstance(item, str) or not item:
        raise bad(f"{path}: must be a string that is not empty")
    return item, {}


def _check_new(key: str) -> None:
    if MASK in key:
        raise bad("key: this is a masked key, not a key")
    if not 1 <= len(key) <= 1024 or not key.isascii() or not key.isprintable() or " " in key:
        raise bad("key: must have 1 to 1024 visible ASCII characters")


def _as_object(entry: Any) -> Entry:
    return dict(entry) if isinstance(entry, dict) else {"key": entry}


def _is_live(entry: Any, config: Config) -> bool:
    return not (isinstance(entry, dict) and (entry.get("deleted_at") or not entry.get("key")))


def _digest(entry: Any, config: Config) -> str | None:
    key = entry.get("key") if isinstance(entry, dict) else entry
    if isinstance(key, str) and key:
        return hash_key(key).removeprefix(HASH)
    if is_reference(key):
        return next((spec.digest for spec in config.keys if spec.key is not None and spec.key.reference == key), None)
    return None


def _identity(entry: Any, config: Config) -> str:
    """What tells a key from others: its digest; of one that cannot be read, its reference."""
    return _digest(entry, config) or _reference_of(entry)


def _is_mask_of(text: str, entry: Any) -> bool:
    """Whether a listing may have shown this key so, at whatever length it masks hashes."""
    key = entry.get("key") if isinstance(entry, dict) else entry
    if not isinstance(key, str):
        return text == _reference_of(entry)
    shown_part = text.removesuffix(MASK)
    if key.startswith(HASH) and text.endswith(MASK) and len(shown_part) > len(HASH):
        return key.startswith(shown_part)
    return text == mask(key)


def _is_named(posted: Any, entry: Any, digest: str | None) -> bool:
    """Whether a posted text is this key: itself, its hash, or a mask of it."""
    return isinstance(posted, str) and (hash_key(posted).removeprefix(HASH) == digest or _is_mask_of(posted, entry))


def _reference_of(entry: Any) -> str:
    """The reference that stands for a key, as listings show it; empty for a key that stands there itself."""
    key = entry.get("key") if isinstance(entry, dict) else entry
    return _reference_text(key) if isinstance(key, dict) and is_reference(key) else ""


def _reference_text(reference: Mapping[str, str]) -> str:
    ((kind, name),) = reference.items()
    return f"{kind}:{name}"


def bad(message: str) -> GatewayError:
    """A 400 of the admin API."""
    return GatewayError(ErrorKind.INVALID_REQUEST, message)
