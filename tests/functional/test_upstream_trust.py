"""Whom the real process believes over TLS: the system's authorities, which are read when they are first needed, or a file."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.functional import certificates
from tests.functional.harness import KEY, running
from tests.functional.processes import ASK, CHAT, serving
from tests.functional.processes import KEY as OWN_KEY

DEMO = [{"name": "demo", "kind": "demo"}]
TLS = {"cert_file": "cert.pem", "key_file": "key.pem"}


@pytest.mark.parametrize(
    ("variables", "upstream", "status"),
    [
        ({"SSL_CERT_FILE": "cert.pem"}, {}, 200),
        ({}, {"ca_file": "cert.pem"}, 200),
        ({}, {}, 503),
        ({"SSL_CERT_FILE": "cert.pem"}, {"ca_file": "other.pem"}, 503),
    ],
    ids=["system", "file", "nobody", "another-file"],
)
async def test_a_server_is_believed_that_an_authority_vouches_for(
    tmp_path: Path, variables: dict[str, str], upstream: dict[str, Any], status: int
) -> None:
    server, client = tmp_path / "server", tmp_path / "client"
    for folder in (server, client):
        folder.mkdir()
    trusted = certificates.write(server, "own")
    (client / "cert.pem").write_bytes(trusted.read_bytes())
    (client / "other.pem").write_bytes(certificates.make("other")[0])
    variables = {name: str(client / file) for name, file in variables.items()}
    async with running(server, {"keys": [KEY], "upstreams": DEMO, "server": {"tls": TLS}}) as live:
        entry = {"name": "up", "base_url": f"https://127.0.0.1:{live.port}/v1", **upstream}
        config = {
            "keys": [OWN_KEY],
            "upstreams": [entry],
            "accounts": [{"name": "a", "upstream": "up", "token": KEY}],
            "models": {"deepseek-chat": {"upstream": "up", "model": "deepseek-chat"}},
            "runtime": {"max_attempts": 1},
        }

        def ask() -> int:
            with serving(client, config=config, **variables) as process:
                return process.ask(CHAT, ASK)[0]

        assert await asyncio.to_thread(ask) == status
