"""Bounds on connections must bound connections and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.functional.harness import config_for, running
from tests.functional.scripted import Wait, scripted_upstream, whole


async def test_the_header_clock_does_not_run_while_an_answer_is_waited_for(tmp_path: Path) -> None:
    """A question that took longer than `server.header_seconds` was answered 408: the clock had started on no bytes at all."""
    config = {"server": {"header_seconds": 0.2}}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, **config)) as ds2d:
        for _ in range(2):  # on a fresh connection and on one that was kept
            wait, scene = Wait(), whole({"content": "late"})
            scene.pieces.insert(0, wait)
            upstream.scenes.append(scene)
            body = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
            asked = asyncio.create_task(ds2d.ask("/v1/chat/completions", body))
            await wait.reached.wait()
            await asyncio.sleep(0.4)  # longer than the clock under test
            wait.until.set()
            status, answer, _ = await asked
            assert status == 200, answer


async def test_behind_a_prefix_every_route_answers_with_and_without_it(tmp_path: Path) -> None:
    server = {"root_path": "/ai"}
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, server=server)) as ds2d:
        for path in ("/ai/v1/models", "/v1/models", "/ai/readyz", "/ai"):
            assert (await ds2d.ask(path))[0] == 200
        assert (await ds2d.ask("/ai/v1/chat/completions", {"model": "m", "messages": []}))[0] == 400
        assert (await ds2d.ask("/other/readyz"))[0] == 404
