"""Handlers of what models are asked for besides answers: the routes of dialects/tasks.py, and Gemini's embeddings.

Rule: the order of checks is that of every question (handlers.py); an answer goes out as the service gives it.
Surprise: a form is not read to its end before the turn begins: its file goes through while the upstream takes it.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from ds2d.core.calls import Passed
from ds2d.core.errors import GatewayError
from ds2d.core.request import ChatRequest, Inbound
from ds2d.dialects import gemini
from ds2d.dialects.tasks import TASKS, Task, question
from ds2d.service import Service
from ds2d.upstreams.openai import vectors_in
from ds2d.web.handlers import Action, Business
from ds2d.web.replies import json_reply, value_reply


class Tasks:
    """The handlers."""

    def __init__(self, business: Business, service: Service) -> None:
        self._business = business
        self._service = service

    def actions(self) -> dict[str, Action]:
        """By the names in the route tables."""
        found: dict[str, Action] = {name: partial(self._perform, task) for name, task in TASKS.items()}
        return found | {"embed": self._embed, "batch_embed": self._embed, "load": self._load}

    async def _perform(self, task: Task, request: web.Request, dialect: str) -> web.StreamResponse:
        if task.form:
            return await self._perform_form(task, request, dialect)
        return _reply(await self._service.perform(await self._business.ask(request, dialect, task=(task.name, task.parse))))

    async def _perform_form(self, task: Task, request: web.Request, dialect: str) -> web.StreamResponse:
        ask = await self._business.ask_with_form(request, dialect, task)
        sink = self._business.sink(request, ask)
        try:
            passed = await self._service.perform(ask, sink)
        except GatewayError as error:
            await self._business.tell_in_stream(ask, sink, error)
        else:
            if passed is not None:
                return _reply(passed)
        await sink.end()
        return sink.response

    async def _embed(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """embedContent, batchEmbedContents: the same embeddings in Gemini's shape."""
        asked: list[gemini.Embedding] = []

        def parse(inbound: Inbound) -> ChatRequest:
            asked.append(gemini.parse_embed(inbound))
            texts = list(asked[0].inputs)
            body = {"input": texts, "encoding_format": "float", "dimensions": asked[0].dimensions}
            return question("embeddings", asked[0].model, [*texts], {name: value for name, value in body.items() if value})

        ask = await self._business.ask(request, dialect, task=(dialect, parse))
        passed = await self._service.perform(ask)
        assert passed is not None
        tokens = passed.usage.prompt if passed.usage else 0
        return json_reply(gemini.render_embed(vectors_in(passed), asked[0], tokens))

    async def _load(self, request: web.Request, dialect: str) -> web.StreamResponse:
        """How many requests are in work or wait (vllm-extras.md 1)."""
        self._business.identify(request, dialect)
        return value_reply({"server_load": len(self._service.turns)})


def _reply(passed: Passed | None) -> web.Response:
    assert passed is not None, "without a sink nothing streams"
    return web.Response(body=passed.body, headers={"Content-Type": passed.content_type, **passed.headers})
