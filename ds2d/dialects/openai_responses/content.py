"""Content parts of messages and tool outputs, from this dialect's names to chat's (openai-responses.md 3).

Rule: nothing is fetched and nothing is stored as a file here, so a `file_id` or a file's address is refused by name.
Surprise: chat spellings of the same parts are taken too, since `messages` of chat clients come this way.
"""

from __future__ import annotations

from typing import Any

from ds2d.core.errors import ErrorKind
from ds2d.core.validate import check_image_url, decode_base64, invalid, split_data_url

Part = dict[str, Any]

TEXT_TYPES = ("input_text", "output_text", "text", "summary_text", "reasoning_text")
DETAILS = ("auto", "low", "high", "original")
MAX_PARTS = 10_000


class Images:
    """Paths of the image parts met so far, in the client's spelling (mapping.md 9); path and kind of the first part of sound."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.media: tuple[str, str] | None = None


def read_content(content: Any, path: str, images: Images) -> str | list[Part]:
    """Content for a chat message: text where it is only text in one piece, else parts. Raises the 400 class."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or len(content) > MAX_PARTS:
        raise invalid(path, "Content must be a string or an array of parts.")
    parts = [_part(part, f"{path}[{index}]", images) for index, part in enumerate(content)]
    if not parts:
        return ""
    return str(parts[0]["text"]) if len(parts) == 1 and parts[0]["type"] == "text" else parts


def read_text(content: Any, path: str, separator: str = "") -> str:
    """Content that can only be text. Raises INVALID_REQUEST for other parts."""
    read = read_content(content, path, Images())
    if isinstance(read, str):
        return read
    if any(part["type"] != "text" for part in read):
        raise invalid(path, "Only text is allowed here.")
    return separator.join(str(part["text"]) for part in read)


def _part(part: Any, path: str, images: Images) -> Part:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in TEXT_TYPES or kind == "refusal":
        return {"type": "text", "text": _string(part, "refusal" if kind == "refusal" else "text", path)}
    if kind in ("input_image", "image_url"):
        images.paths.append(path)
        return _image(part, path)
    if kind in ("input_file", "file"):
        return _file(part.get("file") if kind == "file" else part, path)
    if kind == "input_audio":
        audio = part.get("input_audio")
        if not isinstance(audio, dict) or not isinstance(audio.get("data"), str):
            raise invalid(f"{path}.input_audio", "`input_audio` needs `data` and `format`.")
        images.media = images.media or (path, "input_audio")
        return {"type": "input_audio", "input_audio": audio}
    if not isinstance(part, dict):
        raise invalid(path, "A content part must be an object.")
    raise invalid(f"{path}.type", f"Unknown content part type {kind!r}.")


def own_part(part: Any, *, said: bool) -> Any:
    """An accepted part in this dialect's own spelling; `said` by the model."""
    kind = "text" if isinstance(part, str) else part["type"]
    if kind == "text":
        return own_text(part if isinstance(part, str) else part["text"], said=said)
    if kind == "image_url":
        given = part["image_url"] if isinstance(part["image_url"], dict) else {"url": part["image_url"]}
        detail = {"detail": given["detail"]} if given.get("detail") else {}  # a chain sends it on: nothing is added
        return {"type": "input_image", "image_url": given["url"]} | detail
    return {"type": "input_file"} | part["file"] if kind == "file" else part


def own_text(text: str, *, said: bool) -> Part:
    """Text as a part of this dialect; `said` by the model."""
    if said:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _image(part: Part, path: str) -> Part:
    if part.get("file_id"):
        raise invalid(f"{path}.file_id", "images by id are not offered here; send `image_url`.", ErrorKind.UNSUPPORTED_PARAMETER)
    given = part.get("image_url")
    nested = given if isinstance(given, dict) else {"url": given, "detail": part.get("detail")}
    url, detail = nested.get("url"), nested.get("detail")
    if not isinstance(url, str) or not url:
        raise invalid(f"{path}.image_url", "`image_url` must be a URL.")
    check_image_url(url, f"{path}.image_url")
    if detail is not None and detail not in DETAILS:
        raise invalid(f"{path}.detail", "`detail` must be auto, low, high or original.")
    return {"type": "image_url", "image_url": {"url": url} | ({"detail": detail} if detail else {})}


def _file(file: Any, path: str) -> Part:
    """A text file is put in as text; nothing else can be read by a chat model."""
    if not isinstance(file, dict):
        raise invalid(path, "`file` must be an object.")
    for field in ("file_id", "file_url"):
        if file.get(field):
            raise invalid(f"{path}.{field}", "is not offered here; send `file_data`.", ErrorKind.UNSUPPORTED_PARAMETER)
    data = file.get("file_data")
    if not isinstance(data, str):
        raise invalid(f"{path}.file_data", "A file needs `file_data`.")
    coded = split_data_url(data)
    if coded is None or not coded[0].startswith("text/"):
        message = "Only text files (data:text/...;base64,) can be read."
        raise invalid(f"{path}.file_data", message, ErrorKind.UNSUPPORTED_PARAMETER)
    raw = decode_base64(coded[1])
    try:
        text = raw.decode("utf-8") if raw is not None else None
    except UnicodeDecodeError:
        text = None
    if text is None:
        raise invalid(f"{path}.file_data", "must be base64 of UTF-8 text.")
    name = file.get("filename")
    return {"type": "text", "text": f"{name}\n\n{text}" if isinstance(name, str) and name else text}


def _string(part: Part, name: str, path: str) -> str:
    value = part.get(name)
    if not isinstance(value, str):
        raise invalid(f"{path}.{name}", f"`{name}` must be a string.")
    return value
