"""OpenAI-compatible servers: vLLM, SGLang, llama.cpp, transformers, the DeepSeek API and their like.

Rule: pure. How the servers differ is one table (flavours.py); what they emit was measured (upstreams.md).
A module a matter: ask (with thinking, history), count, decode (with calls, usage), classify (with refusal), login, flavours,
tasks (what is asked for besides answers).
"""

from ds2d.core.calls import Preparation, Reply
from ds2d.core.errors import GatewayError
from ds2d.core.models import Target
from ds2d.core.pipeline import Decoding
from ds2d.core.request import ChatRequest
from ds2d.upstreams.openai import ask, decode, tasks
from ds2d.upstreams.openai import classify as refusals
from ds2d.upstreams.openai.ask import fixed_headers, output_limit
from ds2d.upstreams.openai.count import count_call, read_count
from ds2d.upstreams.openai.flavours import detect_flavour, prefixes, server_root
from ds2d.upstreams.openai.gauges import SOURCES
from ds2d.upstreams.openai.history import lacks_reasoning
from ds2d.upstreams.openai.login import Token, login
from ds2d.upstreams.openai.tasks import absent, embeddings_body, pass_back, routes_in, serves, vectors_in


def check(request: ChatRequest, target: Target) -> None:
    """Refuse what this target's server cannot do, before it costs anything."""
    (tasks.check if request.task else ask.check)(request, target)


def prepare(request: ChatRequest, target: Target, token: str | None) -> Preparation:
    """How to ask: steps, and the call that answers the question or does the task."""
    return (tasks.prepare if request.task else ask.prepare)(request, target, token)


def Decoder(request: ChatRequest, target: Target) -> Decoding:  # noqa: N802 - a class in the modules
    """A new decoder for one answer, or for the stream of a task."""
    return (tasks.Decoder if request.task else decode.Decoder)(request, target)


def classify(reply: Reply, request: ChatRequest) -> GatewayError:
    """The error that a status other than 200 stands for."""
    return (tasks.classify if request.task else refusals.classify)(reply, request)


__all__ = [
    "SOURCES",
    "Decoder",
    "Token",
    "absent",
    "check",
    "classify",
    "count_call",
    "detect_flavour",
    "embeddings_body",
    "fixed_headers",
    "lacks_reasoning",
    "login",
    "output_limit",
    "pass_back",
    "prefixes",
    "prepare",
    "read_count",
    "routes_in",
    "server_root",
    "serves",
    "vectors_in",
]
