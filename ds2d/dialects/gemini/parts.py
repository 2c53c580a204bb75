"""Parts of a content as parts of a chat message (gemini.md 4).

Rule: a part is known by the key that holds its data; base64 comes in two alphabets and leaves in the standard one.
"""

from __future__ import annotations

from typing import Any

import orjson

from ds2d.core.errors import ErrorKind
from ds2d.core.gather import joined
from ds2d.core.validate import check_image, check_image_url, decode_base64, invalid
from ds2d.dialects.gemini.fields import level, standard_base64, text

Part = dict[str, Any]

_SOUND = {"audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mp3": "mp3", "audio/mpeg": "mp3"}
_AS_TEXT = ("executableCode", "codeExecutionResult", "toolCall", "toolResponse")
_DATA = frozenset(("text", "inlineData", "fileData", "functionCall", "functionResponse", *_AS_TEXT))
_NO_DATA = frozenset(("thoughtSignature", "thought", "videoMetadata", "partMetadata", "mediaResolution"))


def read_part(raw: Any, path: str) -> Part:
    """The members of a part by their camelCase names; a string is text.

    Raises INVALID_REQUEST where it has data of two kinds, as Google does: one of them would be lost. Empty text is none.
    """
    if isinstance(raw, str):
        return {"text": raw}
    part = level(raw, path)
    if len(_DATA & part.keys()) > 1:
        if part.get("text") == "":
            del part["text"]
        one, *others = sorted(_DATA & part.keys())
        if others:
            raise invalid(path, f"has both '{one}' and '{others[0]}'; a part holds one kind of data.")
    return part


def shown(part: Part, path: str) -> Part | None:
    """What a part that is no call and no answer shows, in chat form; None where there is nothing to show.

    Raises INVALID_REQUEST, INVALID_IMAGE or UNSUPPORTED_PARAMETER with the path of what is wrong.
    """
    if "text" in part:
        words = text(part["text"], f"{path}.text")
        return {"type": "text", "text": words} if words else None
    if "inlineData" in part:
        return _inline(level(part["inlineData"], f"{path}.inlineData"), f"{path}.inlineData")
    if "fileData" in part:
        return _linked(level(part["fileData"], f"{path}.fileData"), f"{path}.fileData")
    for kind in _AS_TEXT:
        if kind in part:
            return {"type": "text", "text": _written(kind, level(part[kind], f"{path}.{kind}"))}
    if "thoughtSignature" in part:  # what is left of an empty text part in some histories
        return None
    raise invalid(path, "has no data: text, inlineData, fileData, functionCall or functionResponse is needed.")


def _inline(blob: Part, path: str) -> Part:
    media_type = text(blob.get("mimeType", ""), f"{path}.mimeType").partition(";")[0].strip().lower()
    data = standard_base64(text(blob.get("data"), f"{path}.data"))
    if media_type.startswith("image/"):
        check_image(media_type, data or "", f"{path}.data")
        return {"type": "image_url", "image_url": {"url": joined([f"data:{media_type};base64,", data or ""])}}
    if not data:
        raise invalid(f"{path}.data", "is not valid base64.")
    if media_type in _SOUND:
        return {"type": "input_audio", "input_audio": {"data": data, "format": _SOUND[media_type]}}
    if media_type.startswith("text/"):
        try:
            return {"type": "text", "text": (decode_base64(data) or b"").decode()}
        except UnicodeDecodeError:
            raise invalid(f"{path}.data", "is not UTF-8 text.") from None
    raise invalid(f"{path}.mimeType", "only images, wav, mp3 and text are accepted.", ErrorKind.UNSUPPORTED_PARAMETER)


def _linked(file: Part, path: str) -> Part:
    """An image on the web; there is no store of files here."""
    uri = text(file.get("fileUri"), f"{path}.fileUri")
    media_type = text(file.get("mimeType", "image/*"), f"{path}.mimeType").lower()
    if not uri.lower().startswith(("http://", "https://")) or not media_type.startswith("image/"):
        raise invalid(f"{path}.fileUri", "only images at http(s) addresses are accepted.", ErrorKind.UNSUPPORTED_PARAMETER)
    check_image_url(uri, f"{path}.fileUri")
    return {"type": "image_url", "image_url": {"url": uri}}


def _written(kind: str, data: Part) -> str:
    """Work that Google's own tools did in an earlier turn, as text."""
    if kind == "executableCode" and isinstance(data.get("code"), str):
        return f"```{str(data.get('language', '')).lower()}\n{data['code']}\n```"
    if kind == "codeExecutionResult" and isinstance(data.get("output"), str):
        return f"```\n{data['output']}\n```"
    return orjson.dumps(data).decode()
