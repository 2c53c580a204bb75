"""OpenAI-compatible servers: vLLM, SGLang, llama.cpp, transformers, the DeepSeek API and their like.

Rule: pure. How the servers differ is one table (flavours.py); what they emit was measured (upstreams.md).
A module a task: ask (with thinking, history), count, decode (with calls, usage), classify (with refusal), login, flavours.
"""

from ds2d.upstreams.openai.ask import check, output_limit, prepare
from ds2d.upstreams.openai.classify import classify
from ds2d.upstreams.openai.count import count_call, read_count
from ds2d.upstreams.openai.decode import Decoder
from ds2d.upstreams.openai.flavours import detect_flavour, prefixes, server_root
from ds2d.upstreams.openai.gauges import SOURCES
from ds2d.upstreams.openai.history import lacks_reasoning
from ds2d.upstreams.openai.login import Token, login

__all__ = [
    "SOURCES",
    "Decoder",
    "Token",
    "check",
    "classify",
    "count_call",
    "detect_flavour",
    "lacks_reasoning",
    "login",
    "output_limit",
    "prefixes",
    "prepare",
    "read_count",
    "server_root",
]
