"""Content blocks that users send: text, images, documents, search results, and the contents of tool results.

Rule: what a block becomes depends on the block alone, so a conversation renders the same bytes on every turn.
Surprise: blocks of Anthropic's own services stand in histories of clients that switched over; they are left out, not refused.
"""

from __future__ import annotations

import logging
from typing import Any

from ds2d.core.errors import ErrorKind
from ds2d.core.gather import joined
from ds2d.core.validate import MAX_QUOTED, check_image, check_image_url, invalid
from ds2d.dialects.claude.fields import array, mapping, one_of, text

Part = dict[str, Any]
"""A content part in chat form (openai-chat.md 3)."""

_log = logging.getLogger(__name__)
_GONE = ("server_tool_use", "container_upload", "compaction", "tool_reference")


class Content:
    """Chat parts as they are collected, and where each image among them stands in the client's body."""

    def __init__(self) -> None:
        self.parts: list[Part] = []
        self.images: list[str] = []

    def say(self, words: str) -> None:
        if words:
            self.parts.append({"type": "text", "text": words})

    def show(self, url: str, path: str) -> None:
        self.parts.append({"type": "image_url", "image_url": {"url": url}})
        self.images.append(path)

    def extend(self, other: Content) -> None:
        self.parts += other.parts
        self.images += other.images

    @property
    def text(self) -> str:
        """The text parts, a blank line between them."""
        return "\n\n".join(part["text"] for part in self.parts if part["type"] == "text")

    def rendered(self) -> str | list[Part]:
        """One string where all is text, as every server takes it; else the parts."""
        return self.parts if self.images else self.text


def add_block(content: Content, block: dict[str, Any], kind: str, path: str) -> None:
    """Put one block of a user or a tool result into `content`. Raises GatewayError for what cannot be carried."""
    match kind:
        case "text":
            content.say(text(block.get("text"), f"{path}.text"))
        case "image":
            content.show(_image_url(mapping(block.get("source"), f"{path}.source"), path), path)
        case "document":
            _add_document(content, block, path)
        case "search_result":
            _add_search_result(content, block, path)
        case _:
            drop(kind, path)


def drop(kind: str, path: str) -> None:
    """Leave a block of one of Anthropic's services out of the history. Raises GatewayError if it is none of these."""
    if not (kind in _GONE or kind.startswith("mcp_") or kind.endswith("_tool_result")):
        raise invalid(f"{path}.type", f"'{kind[:MAX_QUOTED]}' is not allowed here.")
    _log.debug("%s: block of type %.40r left out", path, kind)


def _image_url(source: dict[str, Any], path: str) -> str:
    kind = one_of(source.get("type"), f"{path}.source.type", ("base64", "url", "file"))
    if kind == "file":
        raise invalid(f"{path}.source.type", "files are not stored here.", ErrorKind.UNSUPPORTED_PARAMETER)
    if kind == "url":
        url = text(source.get("url"), f"{path}.source.url")
        check_image_url(url, path)
        return url
    media = source.get("media_type")
    data = text(source.get("data"), f"{path}.source.data")
    check_image(media if isinstance(media, str) else "", data, path)
    return joined([f"data:{media};base64,", data])


def _add_document(content: Content, block: dict[str, Any], path: str) -> None:
    source = mapping(block.get("source"), f"{path}.source")
    kind = source.get("type")
    if kind not in ("text", "content"):
        raise invalid(f"{path}.source.type", "only text and content documents can be read.", ErrorKind.UNSUPPORTED_PARAMETER)
    title = block.get("title")
    content.say(f"[document: {title}]" if isinstance(title, str) and title else "[document]")
    about = block.get("context")
    content.say(about if isinstance(about, str) else "")
    if kind == "text":
        content.say(text(source.get("data"), f"{path}.source.data"))
    else:
        content.extend(read_content(source.get("content"), f"{path}.source.content"))


def _add_search_result(content: Content, block: dict[str, Any], path: str) -> None:
    title, source = block.get("title"), block.get("source")
    content.say(f"[search result: {title}]" if isinstance(title, str) and title else "[search result]")
    content.say(source if isinstance(source, str) else "")
    content.extend(read_content(block.get("content"), f"{path}.content"))


def read_content(raw: Any, path: str) -> Content:
    """The contents of a tool result, document or search result: absent, a string, or blocks. Empty text is fine in these."""
    content = Content()
    if raw is None:
        return content
    if isinstance(raw, str):
        content.say(raw)
        return content
    for index, entry in enumerate(array(raw, path)):
        at = f"{path}.{index}"
        block = mapping(entry, at)
        kind = text(block.get("type"), f"{at}.type")
        if not (kind == "text" and block.get("text") == ""):
            add_block(content, block, kind, at)
    return content
