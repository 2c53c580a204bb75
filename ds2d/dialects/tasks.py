"""What models are asked for besides answers: vectors, scores, labels, tokens, transcripts (vllm-extras.md, openai-chat.md 9).

Rule: a task is one row here (who asks how) and one row in `upstreams/openai/tasks.py` (which servers have it, and under which
path). Bodies go through as they came; looked at is what must be right before anybody waits, and what a model would read.
Surprise: the path decides the task, so these are no dialect of their own: errors have the OpenAI shape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ds2d.core.endpoint import Endpoint
from ds2d.core.events import Event, Failure, Finish, Text
from ds2d.core.openai_shape import NEVER_FORWARDED, error_body
from ds2d.core.request import ChatRequest, Inbound, Upload
from ds2d.core.validate import convert, invalid

MAX_INPUTS = 2048
"""Texts in one request for vectors (openai-chat.md 9)."""

TokenId = Annotated[int, Meta(ge=0)]
Row = Annotated[list[TokenId], Meta(min_length=1)]
Words = Annotated[str, Meta(min_length=1)]
Inputs = Words | Annotated[list[Words | TokenId | Row], Meta(min_length=1)]
Sides = tuple[tuple[str, str], ...]


class Common(msgspec.Struct, kw_only=True):
    """What every body may hold. Without a model it is for the only one that can do it."""

    model: str | None = None
    user: str | None = None


class Embeddings(Common, kw_only=True):
    """Vectors of texts."""

    input: Inputs | None = None
    messages: list[dict[str, Any]] | None = None
    encoding_format: Literal["float", "base64", "bytes", "bytes_only"] | None = None
    dimensions: Annotated[int, Meta(ge=1)] | None = None


class Pooling(Embeddings, kw_only=True):
    """What a pooling model makes of texts; `data` is for plug-ins."""

    data: Any = None


class Classify(Common, kw_only=True):
    """Labels for texts."""

    input: Inputs | None = None
    messages: list[dict[str, Any]] | None = None


class Score(Common, kw_only=True):
    """How well pairs fit; each pair of names is one spelling of the two sides."""

    text_1: Any = None
    text_2: Any = None
    queries: Any = None
    documents: Any = None
    items: Any = None
    data_1: Any = None
    data_2: Any = None


_SIDES: Sides = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


class Rerank(Common, kw_only=True):
    """Documents in the order in which they fit a query. Both may be more than text."""

    query: str | dict[str, Any] | list[Any]
    documents: Annotated[list[Any], Meta(min_length=1)] | Annotated[str, Meta(min_length=1)] | dict[str, Any]
    top_n: Annotated[int, Meta(ge=0)] | None = None


class Tokenize(Common, kw_only=True):
    """The tokens of a text, or of messages as a model gets them."""

    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None


class Detokenize(Common, kw_only=True):
    """The text of tokens."""

    tokens: list[TokenId]


class Task(msgspec.Struct, frozen=True):
    """One row. `paths` in canonical form, with `/v1` where it may be left out. `view` checks a body, `check` what types cannot
    say; `reads` are the fields that a model reads, which quotas count. `everywhere`: any model can do it, so that a name which
    only stands for some model is good enough. `form`: the body is a form with a file."""

    name: str
    paths: tuple[str, ...]
    summary: str
    view: type[Common] = Common
    check: Callable[[Any], None] = lambda _view: None
    reads: tuple[str, ...] = ()
    method: str = "POST"
    everywhere: bool = False
    form: bool = False

    def parse(self, inbound: Inbound) -> ChatRequest:
        """The question of a JSON body, or of a query. Raises GatewayError of the 400 class with the field's path."""
        body = inbound.body if self.method == "POST" else dict(inbound.query)
        view = convert(body, self.view)
        self.check(view)
        read = [text for name in self.reads for text in _texts(body.get(name))]
        return question(self.name, view.model or "", read, body, view.user)

    def parse_form(self, model: str, upload: Upload) -> ChatRequest:
        """The question of a form whose `model` field is this."""
        request = question(self.name, model, [], {})
        request.upload = upload
        return request


class Encoder:
    """The stream of a task: each event as its upstream wrote it; the end mark only after the upstream said that it was over."""

    content_type = "text/event-stream; charset=utf-8"

    def feed(self, batch: list[Event]) -> bytes:
        """The frames of these events."""
        return b"".join(map(_frame, batch))

    def keep_alive(self) -> bytes:
        """A comment."""
        return b": keep-alive\n\n"


def _frame(event: Event) -> bytes:
    match event:
        case Text():
            return b"data: " + event.text.encode() + b"\n\n"
        case Failure():
            return b"data: " + error_body(event.error) + b"\n\n"
        case Finish():
            return b"data: [DONE]\n\n"
        case _:
            return b""


def question(task: str, model: str, reads: list[str | list[int]], body: dict[str, Any], user: str | None = None) -> ChatRequest:
    """A task as the service gets it: no output is reserved, and of the body goes what clients may send."""
    extra = {name: value for name, value in body.items() if name not in NEVER_FORWARDED and name != "model"}
    return ChatRequest(model.strip(), [], prompt=reads, max_tokens=0, extra=extra, user=user, task=task)


def _texts(value: Any) -> Iterator[str | list[int]]:
    """Texts and rows of tokens in whatever shape; of messages and parts their words."""
    if isinstance(value, str) or (isinstance(value, list) and value and all(type(one) is int for one in value)):
        yield value
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, dict):
        for name in ("content", "text"):
            yield from _texts(value.get(name))


def _one_of(view: Any, *names: str) -> None:
    """Exactly one of these fields must be there."""
    there = [name for name in names if getattr(view, name) is not None]
    if not there:
        raise invalid(names[0], "required field is missing.")
    if len(there) > 1:
        raise invalid(there[1], f"not together with {there[0]}.")


def _check_inputs(value: Any) -> None:
    """One text, texts, a row of tokens, or rows of tokens: never mixed."""
    if not isinstance(value, list):
        return
    kind = type(value[0])
    if any(type(one) is not kind for one in value):
        raise invalid("input", "must be text, texts, tokens or rows of tokens, not a mixture.")
    if kind is not int and len(value) > MAX_INPUTS:
        raise invalid("input", f"at most {MAX_INPUTS} inputs in one request.")


def _check_embeddings(view: Embeddings) -> None:
    _one_of(view, "input", "messages")
    _check_inputs(view.input)
    if view.encoding_format not in (None, "float", "base64"):
        raise invalid("encoding_format", "must be float or base64.")


def _check_pooling(view: Pooling) -> None:
    _one_of(view, "input", "messages", "data")
    _check_inputs(view.input)


def _check_classify(view: Classify) -> None:
    _one_of(view, "input", "messages")
    _check_inputs(view.input)


def _check_score(view: Score) -> None:
    if not any(getattr(view, one) is not None and getattr(view, other) is not None for one, other in _SIDES):
        raise invalid("text_1", "text_1 and text_2, queries and documents (or items), or data_1 and data_2 are required.")


def _check_tokenize(view: Tokenize) -> None:
    _one_of(view, "prompt", "messages")
    if view.continue_final_message and view.add_generation_prompt is not False:
        raise invalid("continue_final_message", "needs add_generation_prompt: false.")


_TEXTS = ("input", "messages")

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("embeddings", ("/v1/embeddings",), "vectors of texts", Embeddings, _check_embeddings, _TEXTS),
        Task("pooling", ("/v1/pooling",), "what a pooling model makes of texts", Pooling, _check_pooling, _TEXTS),
        Task("classify", ("/v1/classify",), "labels for texts", Classify, _check_classify, _TEXTS),
        Task(
            "score",
            ("/v1/score",),
            "how well pairs of texts fit",
            Score,
            _check_score,
            ("text_1", "text_2", "queries", "documents", "items", "data_1", "data_2"),
        ),
        Task("rerank", ("/v1/rerank", "/v2/rerank"), "order documents by a query", Rerank, reads=("query", "documents")),
        Task("tokenize", ("/v1/tokenize",), "the tokens of a text or of messages", Tokenize, _check_tokenize, everywhere=True),
        Task("detokenize", ("/v1/detokenize",), "the text of tokens", Detokenize, everywhere=True),
        Task("tokenizer_info", ("/v1/tokenizer_info",), "a model's tokenizer", method="GET", everywhere=True),
        Task("transcriptions", ("/v1/audio/transcriptions",), "the words of a recording", form=True),
        Task("translations", ("/v1/audio/translations",), "the words of a recording, in English", form=True),
    )
}
"""By name, which is also what the record of use calls them."""

ROUTES = (
    *(Endpoint(task.method, path, task.name) for task in TASKS.values() for path in task.paths),
    Endpoint("GET", "/v1/load", "load"),
)
"""Their routes, and the one that tells how much is going on."""
