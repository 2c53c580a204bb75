"""Tasks besides answers on OpenAI-compatible servers: who has which, under which path, and in which shape.

Rule: one row of `WAYS` a task, one `Way` a flavour; a flavour without one has not got it. Servers of unknown kind are asked as
vLLM is. Fields that steer a server from inside never get here (dialects/tasks.py).
Surprise: llama.cpp answers 200 without tokens to a body that it does not understand, and names its fields otherwise than
everybody (upstreams.md 6); llama-cpp-python takes `encoding_format` and `dimensions` and does as it likes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import msgspec
import orjson

from ds2d.core.calls import Call, Passed, Preparation, Reply
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.events import Ending, Event, Finish, Text, Usage
from ds2d.core.models import CHAT_ROUTE, TABLES, Facts, Target, matches
from ds2d.core.request import ChatRequest
from ds2d.core.sse import Record
from ds2d.core.vectors import from_base64, to_base64
from ds2d.upstreams.openai.ask import fixed_headers, headers_for
from ds2d.upstreams.openai.classify import judge
from ds2d.upstreams.openai.flavours import flavour_of, server_root
from ds2d.upstreams.openai.refusal import is_no_route, read_body
from ds2d.upstreams.openai.usage import read_usage

Body = dict[str, Any]


def _same(body: Body, _request: ChatRequest, _target: Target) -> Body:
    return body


class Way(msgspec.Struct, frozen=True):
    """How one flavour does a task. `path` as the server lists it; what begins with `/v1/` stands below the base URL, the rest
    at the server's root. `ask` makes the body that it takes, `read` the answer that vLLM would give."""

    path: str
    ask: Callable[[Body, ChatRequest, Target], Body] = _same
    read: Callable[[Body, ChatRequest, Target], Body] = _same


def serves(task: str, facts: Facts, flavour: str, model: str) -> bool | None:
    """Whether this server does the task with this model; None where only trying tells."""
    way = WAYS[task].get(flavour)
    if way is None:
        return False
    if facts.routes is not None and way.path not in facts.routes:
        return False
    if facts.routes is not None and not (task in _POOLING and CHAT_ROUTE in facts.routes):
        return True  # a vLLM has the routes that its model can serve; an old one has all of them
    return True if task == "embeddings" and matches(model, TABLES.embeds) else None


def routes_in(document: Any) -> frozenset[str] | None:
    """What a server's OpenAPI document says of the routes that anything here asks for; None if it is no such document."""
    paths = document.get("paths") if isinstance(document, dict) else None
    if not isinstance(paths, dict) or not paths:
        return None
    return frozenset(path for path in paths if path in _OF_INTEREST)


def check(request: ChatRequest, target: Target) -> None:
    """Refuse what this target's server has not got. Raises NOT_IMPLEMENTED or ROUTE_NOT_FOUND."""
    if serves(request.task, target.facts, flavour_of(target), target.model) is False:
        raise absent(request.task, request.model)
    if "messages" in request.extra and request.task == "tokenize" and flavour_of(target) in _TEXT_ONLY:
        message = "messages: this model's server takes a prompt only."
        raise GatewayError(ErrorKind.UNSUPPORTED_PARAMETER, message, param="messages")


def absent(task: str, model: str) -> GatewayError:
    """Nobody does this here: 404 for what only some servers have as an extra (vllm-extras.md 1), else 501."""
    kind = ErrorKind.ROUTE_NOT_FOUND if task in _EXTRAS else ErrorKind.NOT_IMPLEMENTED
    what = task.replace("_", " ")
    return GatewayError(kind, f"Model '{model[:200]}' does not offer {what} here." if model else f"No model here offers {what}.")


def prepare(request: ChatRequest, target: Target, token: str | None) -> Preparation:
    """The call that does the task; llama-server is asked for the prompt of messages first."""
    check(request, target)
    way = WAYS[request.task][flavour_of(target)]
    if request.upload is not None:
        return _form_call(request, target, token, way)
    body = request.extra
    if "messages" in body and request.task == "tokenize" and flavour_of(target) == "llamacpp":
        laid_out = yield _call(target, token, "/apply-template", body)
        body = {**body, "prompt": _prompt_in(laid_out)}
    return _call(target, token, way.path, None if request.task == "tokenizer_info" else way.ask(body, request, target))


def classify(reply: Reply, request: ChatRequest) -> GatewayError:
    """What a refusal means: a route that is missing means that the server does not do this."""
    refusal = read_body(reply.body)
    if (reply.status in (404, 405) and is_no_route(refusal)) or _NOT_DONE(refusal.text):
        return absent(request.task, request.model)
    return judge(reply.status, refusal, ChatRequest(request.model, []), reply.headers)


def pass_back(request: ChatRequest, target: Target, reply: Reply) -> Passed:
    """The answer for the client: the model's name as asked, the shape of vLLM. Raises UPSTREAM_GARBLED, UNSUPPORTED_PARAMETER."""
    kind = reply.headers.get("content-type", "")
    if "json" not in kind.lower():
        return _unread(request, reply, kind)
    try:
        answer = orjson.loads(reply.body)
    except orjson.JSONDecodeError:
        _garbled()
    usage = None
    if isinstance(answer, dict):
        usage = _usage(answer.get("usage"))
        answer = WAYS[request.task][flavour_of(target)].read(answer, request, target)
        if "model" in answer:
            answer["model"] = request.model or target.model
    return Passed(orjson.dumps(answer), usage=usage)


def vectors_in(passed: Passed) -> list[list[float]]:
    """The vectors of an answer for embeddings, in order. Raises UPSTREAM_GARBLED."""
    try:
        rows = orjson.loads(passed.body)["data"]
        found = [from_base64(row["embedding"]) if isinstance(row["embedding"], str) else row["embedding"] for row in rows]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        _garbled()
    if not all(isinstance(vector, list) and vector for vector in found):
        _garbled()
    return found  # type: ignore[return-value]


def embeddings_body(vectors: Iterable[list[float]], request: ChatRequest, tokens: int) -> bytes:
    """The answer for embeddings that were not asked for anywhere."""
    rows = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    if request.extra.get("encoding_format") == "base64":
        rows = [{**row, "embedding": to_base64(row["embedding"])} for row in rows]  # type: ignore[arg-type]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return orjson.dumps({"object": "list", "data": rows, "model": request.model, "usage": usage})


class Decoder:
    """The events of a streamed task: each is one text, its JSON, under the model's name as asked."""

    def __init__(self, request: ChatRequest, target: Target) -> None:
        self.usage: Usage | None = Usage(0, 0)  # what the stream itself says is not a text whose tokens could be counted
        self.answer_id: str | None = None
        self._name = request.model or target.model
        self._over = False

    def feed(self, records: list[Record]) -> list[Event]:
        """Raises UPSTREAM_GARBLED, UPSTREAM_ERROR."""
        out: list[Event] = []
        for record in records:
            if record.data == b"[DONE]":
                return [*out, Finish((Ending("stop"),), self.usage)]
            out.append(Text(self._read(record.data)))
        return out

    def finish(self) -> list[Event]:
        """The body has ended: well, if the last event said that it was the last."""
        return [Finish((Ending("stop"),), self.usage)] if self._over else []

    def _read(self, data: bytes) -> str:
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            _garbled()
        if not isinstance(event, dict):
            _garbled()
        if event.get("error"):
            raise GatewayError(ErrorKind.UPSTREAM_ERROR, "The upstream failed.")
        self.usage = _usage(event.get("usage")) or self.usage
        endings = [choice.get("finish_reason") for choice in event.get("choices") or () if isinstance(choice, dict)]
        self._over = str(event.get("type", "")).endswith(".done") or any(endings)
        if "model" in event:
            event["model"] = self._name
        return orjson.dumps(event).decode()


def _usage(reported: Any) -> Usage | None:
    """What a task used: a transcript's counts have names of their own, and a ranking's may be a total only, all of it read."""
    if not isinstance(reported, dict):
        return None
    read = reported.get("input_tokens", reported.get("total_tokens"))
    return read_usage(reported) or read_usage({"prompt_tokens": read, "completion_tokens": reported.get("output_tokens", 0)})


# Calls


def _call(target: Target, token: str | None, path: str, body: Body | None) -> Call:
    headers = headers_for(target, token, stream=False)
    url = _place(target, path)
    if body is None:
        del headers["content-type"]
        return Call("GET", url, headers, upstream=target.upstream)
    return Call("POST", url, headers, orjson.dumps({**body, "model": target.model}), upstream=target.upstream)


def _form_call(request: ChatRequest, target: Target, token: str | None, way: Way) -> Call:
    assert request.upload is not None
    kind, length, pieces = request.upload.form(target.model)
    headers = {**fixed_headers(target.upstream), "content-type": kind, "accept": "*/*"}
    if length is not None:
        headers["content-length"] = str(length)
    if token:
        headers["authorization"] = f"Bearer {token}"
    return Call("POST", _place(target, way.path), headers, upstream=target.upstream, form=pieces)


def _place(target: Target, path: str) -> str:
    if path.startswith("/v1/"):
        return target.facts.prefix + path.removeprefix("/v1")
    return server_root(target.upstream.base_url) + path


# Shapes


def _unread(request: ChatRequest, reply: Reply, kind: str) -> Passed:
    """Bytes and plain text, as they are. vLLM says what is in its bytes in a header, in JSON."""
    if "html" in kind:
        _garbled()
    headers = {}
    usage: Usage | None = None
    try:
        told = orjson.loads(reply.headers.get("metadata", ""))
        usage = _usage(told.get("usage"))
        if request.model and "model" in told:
            told["model"] = request.model
        headers = {"metadata": msgspec.json.encode(told).decode().encode("ascii", "backslashreplace").decode()}
    except (orjson.JSONDecodeError, AttributeError):
        pass
    return Passed(reply.body, kind or "application/octet-stream", headers, usage)


def _vectors(answer: Body, request: ChatRequest, _target: Target) -> Body:
    """Vectors in the form and of the length that was asked for, whatever the server made of those fields."""
    rows = answer.get("data")
    if not isinstance(rows, list):
        _garbled()
    wanted = request.extra.get("dimensions")
    in_base64 = request.extra.get("encoding_format") == "base64"
    for row in rows:
        vector = row.get("embedding") if isinstance(row, dict) else None
        if not isinstance(vector, str | list) or not vector:
            _garbled()
        if isinstance(vector[0], list):
            message = f"Model '{request.model}' gives a vector for each token here, and none for a text."
            raise GatewayError(ErrorKind.NOT_IMPLEMENTED, message, param="model")
        try:
            if isinstance(vector, str) != in_base64:
                row["embedding"] = to_base64(vector) if isinstance(vector, list) else from_base64(vector)
        except (TypeError, OverflowError):
            _garbled()
        if wanted is not None and (length := _length(vector)) != wanted:
            message = f"dimensions: this model's vectors have {length} dimensions."
            raise GatewayError(ErrorKind.UNSUPPORTED_PARAMETER, message, param="dimensions")
    return answer


def _length(vector: Any) -> int:
    if isinstance(vector, str):
        return len(from_base64(vector) or ())
    return len(vector) if isinstance(vector, list) else 0


def _without_form(body: Body, _request: ChatRequest, _target: Target) -> Body:
    return {name: value for name, value in body.items() if name not in ("encoding_format", "dimensions")}


def _llama_text(body: Body, _request: ChatRequest, _target: Target) -> Body:
    special = body.get("add_special_tokens")
    return {
        "content": body.get("prompt"),
        "add_special": "messages" not in body if special is None else special,
        "parse_special": True,
        "with_pieces": bool(body.get("return_token_strs")),
    }


def _llama_tokens(answer: Body, request: ChatRequest, target: Target) -> Body:
    """llama-server's tokens are numbers, or numbers with their pieces: text, or bytes that are no text by themselves."""
    found = answer.get("tokens")
    if not isinstance(found, list) or (not found and request.extra.get("prompt")):
        _garbled()
    pieces = None
    if found and isinstance(found[0], dict):
        pieces = [_piece(one.get("piece")) for one in found]
        found = [one.get("id") for one in found]
    return _tokens(found, pieces, target)


def _piece(piece: Any) -> str:
    return bytes(piece).decode("utf-8", "replace") if isinstance(piece, list) else str(piece)


def _tokens(found: list[Any], pieces: list[str] | None, target: Target) -> Body:
    return {"count": len(found), "max_model_len": target.context, "tokens": found, "token_strs": pieces}


def _plain_tokens(answer: Body, request: ChatRequest, target: Target) -> Body:
    """Tokens and nothing else (llama-cpp-python), or almost as vLLM (SGLang)."""
    found = answer.get("tokens")
    if not isinstance(found, list):
        _garbled()
    return _tokens(found, None, target) | {
        name: value for name, value in answer.items() if name in ("max_model_len", "token_strs")
    }


def _prompt(*names: str) -> Callable[[Body, ChatRequest, Target], Body]:
    """Detokenized text under the name that vLLM gives it."""

    def read(answer: Body, _request: ChatRequest, _target: Target) -> Body:
        text = next((answer[name] for name in names if isinstance(answer.get(name), str)), None)
        if text is None:
            _garbled()
        return {"prompt": text}

    return read


def _prompt_in(reply: Reply) -> str:
    """The prompt that llama-server made of messages."""
    try:
        prompt = orjson.loads(reply.body).get("prompt") if reply.status == 200 else None
    except (orjson.JSONDecodeError, AttributeError):
        prompt = None
    if not isinstance(prompt, str):
        raise GatewayError(ErrorKind.UPSTREAM_REJECTED, "The upstream cannot make a prompt of these messages.", param="messages")
    return prompt


_NOT_DONE = re.compile(
    r"embedding=True|not (?:appear to be )?an? embedding model"
    r"|does not support (?:the )?(?:embeddings?|pooling|score|rerank|classif)",
    re.IGNORECASE,
).search
"""How servers that have a route say that their model has no use for it: llama-cpp-python (as a 500), SGLang, earlier vLLMs."""


def _garbled() -> NoReturn:
    raise GatewayError(ErrorKind.UPSTREAM_GARBLED, "The upstream sent an answer that cannot be read.")


_EXTRAS = ("tokenizer_info", "transcriptions", "translations")

_TEXT_ONLY = ("llamacpp_python",)

_POOLING = ("embeddings", "pooling", "classify", "score", "rerank")
"""What a model that chats does not do."""

_EMBEDDINGS = Way("/v1/embeddings", read=_vectors)

WAYS: dict[str, dict[str, Way]] = {
    "embeddings": {
        **dict.fromkeys(("vllm", "sglang", "llamacpp", "generic"), _EMBEDDINGS),
        "llamacpp_python": Way("/v1/embeddings", _without_form, _vectors),
    },
    "pooling": dict.fromkeys(("vllm", "generic"), Way("/pooling")),
    "classify": {**dict.fromkeys(("vllm", "generic"), Way("/classify")), "sglang": Way("/v1/classify")},
    "score": dict.fromkeys(("vllm", "sglang", "generic"), Way("/v1/score")),
    "rerank": dict.fromkeys(("vllm", "sglang", "llamacpp", "generic"), Way("/v1/rerank")),
    "tokenize": {
        **dict.fromkeys(("vllm", "generic"), Way("/tokenize")),
        "sglang": Way("/tokenize", read=_plain_tokens),
        "llamacpp": Way("/tokenize", _llama_text, _llama_tokens),
        "llamacpp_python": Way("/extras/tokenize", lambda body, _request, _target: {"input": body.get("prompt")}, _plain_tokens),
    },
    "detokenize": {
        **dict.fromkeys(("vllm", "generic"), Way("/detokenize")),
        "sglang": Way("/detokenize", read=_prompt("text", "prompt")),
        "llamacpp": Way("/detokenize", read=_prompt("content")),
        "llamacpp_python": Way("/extras/detokenize", read=_prompt("text")),
    },
    "tokenizer_info": dict.fromkeys(("vllm", "generic"), Way("/tokenizer_info")),
    "transcriptions": dict.fromkeys(("vllm", "sglang", "transformers", "generic"), Way("/v1/audio/transcriptions")),
    "translations": dict.fromkeys(("vllm", "generic"), Way("/v1/audio/translations")),
}
"""By task and flavour."""

_OF_INTEREST = {CHAT_ROUTE, *(way.path for ways in WAYS.values() for way in ways.values())}
