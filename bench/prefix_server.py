"""A model server that only counts: its prompt's words, and how many of them it has seen in front of another prompt.

    python -m bench.prefix_server PORT

Like vLLM it keeps its cache in blocks of 16 and tells queries, hits and running requests at `/metrics`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from hashlib import blake2b
from typing import Any

from aiohttp import web

BLOCK = 16
SECONDS_A_TOKEN = 2e-5


class Server:
    """One server and its cache, which forgets nothing."""

    def __init__(self) -> None:
        self.blocks: set[bytes] = set()
        self.queries = self.hits = self.running = 0

    def look_up(self, messages: list[dict[str, Any]]) -> tuple[int, int]:
        """Tokens of a prompt, and those found in the cache; then all of them are there."""
        words = json.dumps(messages).split()
        state, found, known = blake2b(digest_size=8), 0, True
        for at in range(0, len(words) - len(words) % BLOCK, BLOCK):
            state.update(" ".join(words[at : at + BLOCK]).encode())
            block = state.digest()
            known = known and block in self.blocks
            found += BLOCK * known
            self.blocks.add(block)
        self.queries += len(words)
        self.hits += found
        return len(words), found

    async def chat(self, request: web.Request) -> web.Response:
        """An answer without meaning, after the time that the new part of the prompt takes."""
        body = await request.json()
        prompt, cached = self.look_up(body["messages"])
        self.running += 1
        try:
            await asyncio.sleep((prompt - cached) * SECONDS_A_TOKEN)
        finally:
            self.running -= 1
        usage = {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1}
        usage |= {"prompt_tokens_details": {"cached_tokens": cached}}
        choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
        head = {"id": "chatcmpl-sim", "object": "chat.completion", "created": 1763640000, "model": body["model"]}
        return web.json_response({**head, "choices": [choice], "usage": usage})

    async def metrics(self, _request: web.Request) -> web.Response:
        """As vLLM writes them."""
        figures = {
            "num_requests_running": self.running,
            "num_requests_waiting": 0,
            "prefix_cache_queries_total": self.queries,
            "prefix_cache_hits_total": self.hits,
        }
        return web.Response(text="".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in figures.items()))

    async def models(self, _request: web.Request) -> web.Response:
        """One model."""
        return web.json_response({"object": "list", "data": [{"id": "deepseek-tiny", "object": "model", "owned_by": "vllm"}]})


def main(port: int) -> None:
    """Serve until killed."""
    server, app = Server(), web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/chat/completions", server.chat)
    app.router.add_get("/metrics", server.metrics)
    app.router.add_get("/v1/models", server.models)
    web.run_app(app, host="127.0.0.1", port=port, print=None)


if __name__ == "__main__":
    main(int(sys.argv[1]))
