"""Lines of the log: an event with its fields, as text or as JSON, one line each.

Rule: whatever is in a message, it stays one line and sends no control character to a terminal; every line that was written
for a request carries its id. Nothing of a conversation is a field.
Surprise: the id comes from the context in which the line is written, so parts that know nothing of requests need not be told.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The request that is being answered, empty outside of any."""

MAX_CLIENT_TEXT = 200
"""Characters of a client's own words in a line."""

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
_CONTROLS |= {ord("\n"): " | ", ord("\r"): "", ord("\t"): " "}

_PLAIN = re.compile(r"[!-\[\]-~]*")

PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
"""syslog's numbers, which journald takes from a prefix."""


class Event:
    """What happened, in a word or two, and its fields. Made into text only when it is written."""

    __slots__ = ("fields", "what")

    def __init__(self, what: str, fields: Mapping[str, Any]) -> None:
        self.what = what
        self.fields = fields

    def __str__(self) -> str:
        return " ".join([self.what, *(f"{name}={_shown(value)}" for name, value in self.fields.items())])


class TextFormat(logging.Formatter):
    """`LEVEL logger message key=value …`; `journald`: without a time of our own, but with the level as journald reads it."""

    def __init__(self, journald: bool = False) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        head = f"<{PRIORITIES.get(record.levelname, 6)}>" if self._journald else f"{_time(record)} "
        text = f"{record.levelname} {record.name} {record.getMessage()}"
        if (known := request_id.get()) and not (isinstance(record.msg, Event) and "request_id" in record.msg.fields):
            text += f" request_id={known}"
        if record.exc_info:
            text += f"\n{self.formatException(record.exc_info)}"
        return head + (text if text.isprintable() else text.translate(_CONTROLS))


class JsonFormat(logging.Formatter):
    """An object a line: `time` (left out under journald), `level`, `logger`, `message`, the event's fields, `request_id`."""

    def __init__(self, journald: bool = False) -> None:
        super().__init__()
        self._journald = journald

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {} if self._journald else {"time": _time(record)}
        line |= {"level": record.levelname.lower(), "logger": record.name}
        if isinstance(record.msg, Event):
            line |= {"message": record.msg.what, **record.msg.fields}
        else:
            line["message"] = record.getMessage()
        if (known := request_id.get()) and "request_id" not in line:
            line["request_id"] = known
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode("utf-8", "replace")


FORMATS: dict[str, Callable[[bool], logging.Formatter]] = {"text": TextFormat, "json": JsonFormat}
"""By `log.format`; the argument is `journald`."""


class Sparing:
    """Lets `burst` lines through at once and `per_second` from then on, so that strangers cannot fill a disk.

    `clock` is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float], burst: int = 20, per_second: float = 2.0) -> None:
        self._clock = clock
        self._burst = burst
        self._rate = per_second
        self._left = float(burst)
        self._at = clock()
        self._kept_back = 0

    def admit(self) -> int | None:
        """How many lines were kept back since the last one; None if this one is kept back as well."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            self._kept_back += 1
            return None
        self._left -= 1
        kept, self._kept_back = self._kept_back, 0
        return kept


def client_text(text: str) -> str:
    """A client's words as they may stand in a line: escaped, without blanks, cut."""
    if len(text) <= MAX_CLIENT_TEXT and _PLAIN.fullmatch(text):
        return text
    return text[: MAX_CLIENT_TEXT * 2].encode("unicode_escape").decode().replace(" ", "_")[:MAX_CLIENT_TEXT]


def _shown(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return str(value)
    if kind is float:
        return f"{value:.1f}"
    if value is None or value == "":
        return "-"
    text = value if kind is str else str(value)
    return text.replace(" ", "_") if " " in text else text


@lru_cache(4)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.created * 1000) % 1000:03d}Z"
