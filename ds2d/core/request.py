"""The question: what a client asked, in one form for all dialects.

Rule: everything is carried in chat-completions form (mapping.md), so a chat client's messages pass through as they came
and the other dialects convert once. What a dialect must remember for the answer rides in `reply`, which nobody else reads.
Surprise: messages are plain dictionaries with a typed view (TypedDict): unknown keys of a client survive, at no cost.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NotRequired, Protocol, TypedDict

import msgspec

from ds2d.core.events import Usage

NOTHING: Mapping[str, str] = MappingProxyType({})
"""Shared by all questions: a dictionary for each would cost every one of them."""

IMAGE_BELOW = "[image below]"
"""What a tool's result says that is only an image: the image itself follows in the next user message."""


class FunctionCall(TypedDict):
    """`arguments` is JSON text."""

    name: str
    arguments: str


class ToolCall(TypedDict):
    """A call in an assistant message."""

    id: str
    type: str
    function: FunctionCall


class Message(TypedDict):
    """One message in chat form; `content` is text, a list of parts (openai-chat.md 3), or None.

    `reasoning_content` is the only name of reasoning in here; upstreams rename it to what they read.
    """

    role: str
    content: NotRequired[str | list[dict[str, Any]] | None]
    name: NotRequired[str]
    tool_calls: NotRequired[list[ToolCall]]
    tool_call_id: NotRequired[str]
    reasoning_content: NotRequired[str]
    prefix: NotRequired[bool]


class Function(TypedDict):
    """`parameters` is a JSON Schema object; always present after parsing."""

    name: str
    description: NotRequired[str]
    parameters: dict[str, Any]
    strict: NotRequired[bool | None]


class Tool(TypedDict):
    """A declared function in chat form."""

    type: str
    function: Function


class ToolChoice(msgspec.Struct, frozen=True):
    """What the client allows. `names`: only these tools may be called (None = any declared one).

    A forced single function is mode "required" with one name and `named` true (its wire form differs upstream).
    """

    mode: Literal["none", "auto", "required"] = "auto"
    names: tuple[str, ...] | None = None
    named: bool = False


class ReasoningWish(msgspec.Struct, frozen=True):
    """What the client wants of thinking, first rule of mapping.md 6 that matched; `mode` None: it said nothing.

    `effort` is one of minimal, low, medium, high, xhigh, max; `budget` is tokens.
    """

    mode: Literal["off", "on"] | None = None
    effort: str | None = None
    budget: int | None = None


class Upload(Protocol):
    """A form with a file in it, on its way through: it is read once, while it is sent on."""

    @property
    def begun(self) -> bool:
        """Whether some of it was read for an upstream: from then on it cannot be sent again."""

    def form(self, model: str) -> tuple[str, int | None, AsyncIterator[bytes]]:
        """The form with this model's name in it: content type, length in bytes if it is known, and its bytes."""


class ChatRequest(msgspec.Struct):
    """One question. `model` and `messages` are given by position: of more than 15 names Python makes a dictionary first.

    `model` is the name as the client wrote it. `params` are sampling fields under their chat names, given through
    unchanged (temperature, top_p, n, stop, seed, logprobs ...). `extra` are fields unknown to the contract: sent on to
    vLLM-type upstreams, dropped for others. `max_tokens` is None where the client gave none. `prompt` is set instead of
    `messages` for legacy completions. `session` is a key of prefix affinity. `images` are the paths of all image parts, in the
    client's own spelling (mapping.md 9), so that a text-only model can refuse the first by name. `result_images` are those of
    them that a tool's result showed, with the id of its call: in chat only users can show images. `media` is the first part of a
    kind that only some servers take: its path and its kind. `reply` is the dialect's own.
    `task` is empty for a question that is answered by writing; else it names the row of dialects/tasks.py: then `extra` is the
    whole body, `prompt` what a model reads of it, and `upload` stands in place of a body that is no JSON. `large`: what looks at
    all of it is done beside the event loop. `estimate` is about how many tokens its prompt has, where that was looked at already.
    `thinks_by_name`: only the model's name says what `reasoning` does.
    `text_tools` are tools that take one text, each with the parameter that it comes in: their bare text is no broken JSON.
    `notes`: what was left out of the question, in constants only, for the turn's record, its header and the log.
    """

    model: str
    messages: list[Message]
    stream: bool = False
    tools: list[Tool] = []
    tool_choice: ToolChoice = ToolChoice()
    parallel_tool_calls: bool | None = None
    max_tokens: int | None = None
    params: dict[str, Any] = {}
    response_format: dict[str, Any] | None = None
    reasoning: ReasoningWish = ReasoningWish()
    thinks_by_name: bool = False
    extra: dict[str, Any] = {}
    prompt: str | list[Any] | None = None
    user: str | None = None
    session: str | None = None
    images: tuple[str, ...] = ()
    result_images: Mapping[str, str] = NOTHING
    media: tuple[str, str] | None = None
    reply: Any = None
    task: str = ""
    upload: Upload | None = None
    large: bool = False
    estimate: int | None = None
    text_tools: Mapping[str, str] = NOTHING
    notes: tuple[str, ...] = ()

    @property
    def prompts(self) -> int:
        """How many prompts a legacy completion holds; 1 for every other question."""
        prompt = self.prompt
        return 1 if not isinstance(prompt, list) or not prompt or isinstance(prompt[0], int) else len(prompt)

    @property
    def choices(self) -> int:
        """How many answers were asked for (`n`)."""
        n = self.params.get("n")
        return n if isinstance(n, int) else 1


class Inbound(msgspec.Struct):
    """One HTTP request as a dialect sees it: nothing of the server, everything of the client.

    `headers` have lower-case names. `body` is the parsed JSON object ({} for GET). `path` are the route's parameters.
    `recall(id)` finds a stored response of this caller, or None. `unseal(token)` opens what `Envelope.seal` made, or None.
    `large`: the question is to be understood beside the event loop, and so is what looks at all of it afterwards.
    """

    body: dict[str, Any]
    headers: Mapping[str, str] = {}
    query: Mapping[str, str] = {}
    path: Mapping[str, str] = {}
    recall: Callable[[str], Any] = lambda _id: None
    unseal: Callable[[str], str | None] = lambda _token: None
    large: bool = False


class Envelope(msgspec.Struct):
    """What a dialect needs besides the events to write an answer.

    `model` is the name to answer with (the client's own). `created` is Unix seconds. `new_id(prefix)` makes an opaque id.
    `now()` is Unix seconds. `seal(text)` makes an authenticated token that the client can carry (reasoning). `usage()` is
    the running usage of the turn, if the upstream gives one. `prompt_tokens` is the counted prompt, for formats that
    state it first. `reasoning_field` is config's `reasoning.field`.
    """

    request: ChatRequest
    model: str
    request_id: str
    created: int
    new_id: Callable[[str], str]
    now: Callable[[], int]
    seal: Callable[[str], str] = lambda text: ""
    usage: Callable[[], Usage | None] = lambda: None
    prompt_tokens: Callable[[], int] = lambda: 0
    reasoning_field: str = "reasoning_content"
    settings: Mapping[str, Any] = {}
