"""Reasoning that clients lose between a model's call and its result, kept here and put back.

Rule: a caller gets back only what models said to that caller; what is kept is bounded in bytes and time, both live from config.
Surprise: DeepSeek answers 400 when a thinking turn with calls comes back without its reasoning, and most clients drop it
(mapping.md 6). A turn is known by the ids of its calls and by a hash of what it said, best by both: some servers count ids
anew in every answer, some clients write them anew. Of turns that look the same the first counts, so running prompts keep still.
An id that stood in two turns names neither, or one conversation would get what was thought in another; so turns without
reasoning are kept too, as such.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterable
from typing import Literal, Protocol

import msgspec
import orjson

from ds2d.core.events import Choice, Completion
from ds2d.core.layouts import text_of
from ds2d.core.request import ChatRequest, Message, ReasoningWish
from ds2d.core.sizes import Size, Sizes
from ds2d.core.untracked import untracked

STEP = 500
"""Messages that are looked through in one step of `restoring`: a millisecond or two where all of them are turns with calls."""

KEY_COST = 250
"""Bytes that one key takes, about: tuple, strings, two dictionary slots."""

Key = tuple[str, str]
"""Caller, and what a turn is known by: `_names`."""


class Settings(Protocol):
    """The part of config's `reasoning` that is about remembering; meaning and bounds are config.md 2's."""

    @property
    def memory_seconds(self) -> int: ...
    @property
    def memory_bytes(self) -> int: ...
    @property
    def when_lost(self) -> Literal["empty", "thinking_off"]: ...


class Thought(msgspec.Struct):
    """The reasoning of one turn; `used` is when it was last kept or asked for."""

    text: str
    keys: tuple[Key, ...]
    size: int
    used: float


class ReasoningMemory:
    """What models thought before their calls, per caller. `clock` gives monotonic seconds.

    `restored`, `lost`: turns that were mended, or could not be, since the start.
    """

    def __init__(self, clock: Callable[[], float], settings: Callable[[], Settings]) -> None:
        self._clock = clock
        self._settings = settings
        self.told: Callable[[Thought], None] = lambda _thought: None
        """Told of everything new that is kept."""
        self._kept: OrderedDict[int, Thought] = OrderedDict()  # least recently used first
        self._index: dict[Key, int] = {}
        """Numbers in `_kept`; less than zero where several turns had that id."""
        self._next = 0
        self.bytes = 0
        self.restored = 0
        self.lost = 0

    def __len__(self) -> int:
        return len(self._kept)

    def sizes(self) -> Sizes:
        """What is kept; a turn has as many names as calls and two more, which its size counts."""
        return {"kept_bytes": Size(self.bytes, self._settings().memory_bytes)}

    def remember(self, caller: str, completion: Completion) -> None:
        """Keep the reasoning of an answer's turns that have calls, and that there was none; the others need none back."""
        for choice in completion.choices:
            if choice.calls:
                self._keep(caller, choice)
        self._trim()

    def restore(self, caller: str, request: ChatRequest) -> tuple[ChatRequest, int, int]:
        """The request with reasoning on every assistant turn that has calls; how many were found here, and how many were not.

        A turn without any gets an empty one, or the whole request thinks no more, as `reasoning.when_lost` says. The given
        request is not changed; it comes back itself where there is nothing to do, as when thinking is off anyway.
        """
        if request.reasoning.mode == "off" or not any(_forgot(message) for message in request.messages):
            return request, 0, 0
        steps = self.restoring(caller, request)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                result: tuple[ChatRequest, int, int] = stop.value
                return result

    def restoring(self, caller: str, request: ChatRequest) -> Generator[None, None, tuple[ChatRequest, int, int]]:
        """`restore` in steps, of `STEP` messages each, for those who let others have their turn in between."""
        if request.reasoning.mode == "off":
            return request, 0, 0
        self._trim()
        restored = lost = 0
        messages: list[Message] = untracked([], many=request.large)
        for number, message in enumerate(request.messages, 1):
            if _forgot(message):
                text = self._recall(caller, message)
                restored += bool(text)
                lost += not text
                message = untracked(Message(**{**message, "reasoning_content": text}), many=request.large)
            messages.append(message)
            if not number % STEP:
                yield
        self.restored += restored
        self.lost += lost
        if not restored + lost:
            return request, 0, 0
        if lost and self._settings().when_lost == "thinking_off":
            return msgspec.structs.replace(request, reasoning=ReasoningWish("off")), restored, lost
        return msgspec.structs.replace(request, messages=messages), restored, lost

    def _keep(self, caller: str, choice: Choice) -> None:
        calls = choice.calls
        exact, *ids, turn = _names([call.id for call in calls], choice.text, ((call.name, call.arguments) for call in calls))
        text = choice.reasoning
        names = [exact, *ids] if not text or (caller, turn) in self._index else [exact, *ids, turn]
        keys = tuple((caller, name) for name in names)
        size = sys.getsizeof(text) + KEY_COST * len(keys)
        if size > self._settings().memory_bytes:
            return
        self.adopt(thought := Thought(text, keys, size, self._clock()))
        self.told(thought)

    def adopt(self, thought: Thought) -> None:
        """Keep what was kept elsewhere, in another generation of the daemon (times are the system's monotonic clock)."""
        self._next += 1
        self._kept[self._next] = thought
        self.bytes += thought.size
        for key in thought.keys:
            self._index[key] = -self._next if self._is_shared(key, thought) else self._next

    def _is_shared(self, key: Key, thought: Thought) -> bool:
        """Whether this is a call's id that another turn had too."""
        before = self._index.get(key, 0)
        return key[1].startswith("call:") and (before < 0 or (before > 0 and self._kept[before].keys[0] != thought.keys[0]))

    def kept(self) -> list[Thought]:
        """Everything, least recently used first."""
        self._trim()
        return list(self._kept.values())

    def _recall(self, caller: str, message: Message) -> str:
        """The reasoning of a turn, "" if nobody has it. What is used stays: a conversation asks for all its turns each time."""
        if not self._index:  # a turn's names are not worth making for that
            return ""
        calls = message.get("tool_calls") or []
        said = ((call["function"]["name"], call["function"]["arguments"]) for call in calls)
        for name in _names([call["id"] for call in calls], text_of(message), said):
            number = self._index.get((caller, name), 0)
            if number > 0:
                kept = self._kept[number]
                kept.used = self._clock()
                self._kept.move_to_end(number)
                return kept.text
        return ""

    def _trim(self) -> None:
        """Forget what is too old or too much, least recently used first."""
        settings = self._settings()
        oldest = self._clock() - settings.memory_seconds
        while self._kept:
            number, kept = next(iter(self._kept.items()))
            if kept.used > oldest and self.bytes <= settings.memory_bytes:
                return
            del self._kept[number]
            self.bytes -= kept.size
            for key in kept.keys:
                if abs(self._index.get(key, 0)) == number:
                    del self._index[key]


def _forgot(message: Message) -> bool:
    return message["role"] == "assistant" and bool(message.get("tool_calls")) and not message.get("reasoning_content")


def _names(ids: list[str], text: str, calls: Iterable[tuple[str, str]]) -> list[str]:
    """What a turn is known by, surest first: id and content, each id, content. Clients trim text and write arguments anew, so
    neither outer blanks nor the spelling of the JSON count."""
    said = [text.strip(), *([name, _canonical(arguments)] for name, arguments in calls)]
    turn = hashlib.sha256(orjson.dumps(said)).hexdigest()
    return [f"both:{turn}:{ids[0]}", *(f"call:{call}" for call in ids), f"turn:{turn}"]


def _canonical(arguments: str) -> str:
    try:
        return orjson.dumps(orjson.loads(arguments), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return arguments.strip() or "{}"
