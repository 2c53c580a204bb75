"""Checking what a client sent against a typed view, and the images inside it.

Rule: the view checks and the client's own objects stay as they came, so that keys nobody knows survive and a large body is
not copied; every refusal names the path of its field.
Surprise: msgspec already refuses a boolean or a numeric string where a number is wanted, and tells the path in its text;
all that is left to do is to read that text.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, TypeVar

import msgspec

from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.request import ChatRequest

T = TypeVar("T")

IMAGE_TYPES = frozenset(("image/png", "image/jpeg", "image/gif", "image/webp"))
"""Media types of images that models are shown (mapping.md 9)."""

BASE64_STEP = 256 * 1024
"""Characters of base64 that are decoded at once, a multiple of four: half a millisecond."""

MAX_QUOTED = 200
"""Characters of a client's own value in a refusal."""

_PLACE = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `([^`]*)`$")
_TYPE_NAMES = re.compile(r"`([^`]*)`")
_NAMES = {"float": "number", "int": "integer", "str": "string", "bool": "boolean", "NoneType": "null"}
_DATA_URL = re.compile(r"data:([^;,]*)((?:;[^;,]*)*),", re.IGNORECASE)


def convert(value: Any, kind: type[T], at: str = "") -> T:
    """`value` as a `kind` (a msgspec type). Raises GatewayError(INVALID_REQUEST) with the path of what is wrong in it.

    `at` is the path of `value` itself, such as `messages[2]`, empty for a whole body.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), at) from None


def invalid(param: str, message: str, kind: ErrorKind = ErrorKind.INVALID_REQUEST) -> GatewayError:
    """The error for the field `param`; the message leads with its path."""
    return GatewayError(kind, f"{param}: {message}", param=param)


def _refusal(text: str, at: str) -> GatewayError:
    place = _PLACE.search(text)
    path = place.group(1).partition("[...]")[0] if place else ""
    what = text[: place.start()] if place else text
    path = at + path if at else path.removeprefix(".")
    if missing := _MISSING.match(what):
        path = f"{path}.{missing.group(1)}" if path else missing.group(1)
        what = "required field is missing"
    return GatewayError(ErrorKind.INVALID_REQUEST, f"{path or 'body'}: {_plain(what)}.", param=path or None)


def _plain(what: str) -> str:
    """The library's words with JSON's names of types, cut: they may quote a value of any length."""

    def named(found: re.Match[str]) -> str:
        return " or ".join(_NAMES.get(name, name) for name in found.group(1).split(" | "))

    what = _TYPE_NAMES.sub(named, what)
    return what[:1].lower() + what[1:MAX_QUOTED]


def split_data_url(url: str) -> tuple[str, str] | None:
    """Media type (lower case) and base64 text of a data URL; None if it is none or not base64."""
    found = _base64_head(url)
    return None if found is None else (found[0], url[found[1] :])


def _base64_head(url: str) -> tuple[str, int] | None:
    """Its media type and where its base64 begins, which may be too much to copy."""
    found = _DATA_URL.match(url)
    if found is None or not found.group(2).lower().endswith(";base64"):
        return None
    return found.group(1).strip().lower(), found.end()


def decode_base64(text: str) -> bytes | None:
    """The bytes, or None: strict, standard alphabet, with padding."""
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return None


def is_base64(text: str, start: int = 0) -> bool:
    """Whether `decode_base64` gives some bytes for what begins there, in steps: an image may have tens of megabytes."""
    while len(text) - start > 2 * BASE64_STEP:
        part = text[start : start + BASE64_STEP]
        if part.endswith("=") or decode_base64(part) is None:
            return False
        start += BASE64_STEP
    return bool(decode_base64(text[start:]))


def check_image_url(url: str, param: str) -> None:
    """Refuse what cannot be an image for a model: raises INVALID_IMAGE for a data URL of another type or with bad base64,
    INVALID_REQUEST for anything that is neither http(s) nor a data URL. Remote images are never fetched (mapping.md 9)."""
    if url[:5].lower() != "data:":
        if not re.match(r"https?://[^/\s]", url, re.IGNORECASE):
            raise invalid(param, "must be an http(s) URL or a data URL.")
        return
    found = _base64_head(url)
    if found is None:
        raise invalid(param, "the data URL must have the form data:image/png;base64,...", ErrorKind.INVALID_IMAGE)
    check_image(found[0], url, param, found[1])


def check_image(media_type: str, data: str, param: str, start: int = 0) -> None:
    """Refuse an inline image of a type that models are not shown, or with bad base64 from `start` on. Raises INVALID_IMAGE."""
    if media_type not in IMAGE_TYPES:
        raise invalid(param, "the image must be png, jpeg, gif or webp.", ErrorKind.INVALID_IMAGE)
    if not is_base64(data, start):
        raise invalid(param, "the image is not valid base64.", ErrorKind.INVALID_IMAGE)


def check_image_sizes(request: ChatRequest, limit: int) -> None:
    """Refuse inline images above `limit` bytes (config's `images.max_bytes`). Raises INVALID_IMAGE with the image's path."""
    if not request.images:
        return
    parts = (part for message in request.messages for part in _parts(message) if part.get("type") == "image_url")
    for path, part in zip(request.images, parts, strict=False):
        url = part["image_url"]["url"]
        found = _base64_head(url)
        if found is not None and (len(url) - found[1]) * 3 // 4 - url.count("=", -2) > limit:
            raise invalid(path, f"the image is larger than {limit} bytes.", ErrorKind.INVALID_IMAGE)


def _parts(message: Any) -> list[dict[str, Any]]:
    content = message.get("content")
    return content if isinstance(content, list) else []
