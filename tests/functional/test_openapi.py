"""Requests made from our own OpenAPI document, over a real socket: whatever it allows, and much that it does not, is answered
as it says and is never a bug.

Rule: every operation of the document is asked; what a request changed in the config is put back before the next one.
Surprise: schemathesis is synchronous, so the daemon runs in a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CheckContext
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import response_schema_conformance

from ds2d.web.openapi import document
from tests.functional.admin import HASH
from tests.functional.harness import ADMIN_KEY, KEY, Running, running

EXAMPLES = 12
ENDLESS = {"GET /admin/events"}
"""Answers that do not end by themselves; their own tests read them."""

SCHEMA = schemathesis.openapi.from_dict(document())
OPERATIONS = {found.ok().label: found.ok() for found in SCHEMA.get_all_operations()}

CONFIG = {
    "keys": [KEY],
    "upstreams": [{"name": "demo", "kind": "demo"}],
    "accounts": [],
    "admin": {"password_hash": HASH},
    "vercel": {"api_base": "http://127.0.0.1:9"},  # nobody is there
}


class Served:
    """A daemon in a thread."""

    def __init__(self, folder: Path) -> None:
        self.loop = asyncio.new_event_loop()
        self.folder = folder
        self.ds2d: Running | None = None
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self.loop.run_until_complete, args=(self._serve(),))

    def start(self) -> None:
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(30)
        assert not self._thread.is_alive()
        self.loop.close()

    def restore(self) -> None:
        """The config as it was at first."""
        assert self.ds2d is not None
        path = self.ds2d.path
        if json.loads(path.read_text()) != CONFIG:
            path.write_text(json.dumps(CONFIG))
            asyncio.run_coroutine_threadsafe(self._reload(), self.loop).result(10)

    async def _reload(self) -> None:
        assert self.ds2d is not None
        self.ds2d.daemon.store.reload()

    async def _serve(self) -> None:
        async with running(self.folder, CONFIG) as self.ds2d:
            self._ready.set()
            await self._stop.wait()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    daemon = Served(tmp_path_factory.mktemp("openapi"))
    daemon.start()
    yield daemon
    daemon.stop()


def no_bug(ctx: CheckContext, response: Response, case: schemathesis.Case) -> bool | None:
    """Refusals speak JSON, in words of ours, and a 500 is a bug."""
    status = response.status_code
    assert status != 500, response.text
    if status >= 400 and case.operation.method != "head" and response.content:
        body = json.loads(response.content)
        assert "error" in body or "detail" in body
        assert "Traceback" not in response.text
    return None


@pytest.mark.parametrize("label", sorted(OPERATIONS.keys() - ENDLESS))
def test_whatever_the_document_allows_is_answered_as_it_says(served: Served, label: str) -> None:
    operation = OPERATIONS[label]
    key = ADMIN_KEY if "admin" in str(operation.definition.raw.get("security", "")) else KEY
    headers = {"Authorization": f"Bearer {key}"}
    assert served.ds2d is not None
    url = served.ds2d.url

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def ask(case: schemathesis.Case) -> None:
        response = case.call(base_url=url, headers=headers, timeout=20)
        case.validate_response(response, checks=[no_bug, response_schema_conformance])
        served.restore()

    ask()


def test_each_operation_of_the_document_is_asked() -> None:
    paths: dict[str, Any] = document()["paths"]
    assert len(OPERATIONS) == sum(len(methods) for methods in paths.values())
    assert OPERATIONS.keys() >= ENDLESS
