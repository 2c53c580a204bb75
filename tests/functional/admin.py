"""A daemon with an admin key and two accounts, and the arguments that an administrator's requests have."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from ds2d.core.secrets import hash_password
from tests.functional.harness import ADMIN_KEY, Running, config_for, running
from tests.functional.scripted import ScriptedUpstream, scripted_upstream

ADMIN: dict[str, Any] = {"key": ADMIN_KEY}
HASH = hash_password(ADMIN_KEY, b"0123456789abcdef")
TOKENS = ("tok-first-0123456789", "tok-second-0123456789")
ACCOUNTS = [
    {"upstream": "gpu", "token": TOKENS[0]},
    {"upstream": "gpu", "email": "user@example.com", "password": "pwd-of-the-user", "token": TOKENS[1]},
]


@contextlib.asynccontextmanager
async def administered(folder: Path, **sections: Any) -> AsyncIterator[tuple[Running, ScriptedUpstream]]:
    """The daemon and the server behind it."""
    async with scripted_upstream() as upstream:
        config = config_for(upstream.base_url, admin={"password_hash": HASH}, **sections)
        async with running(folder, config) as ds2d:
            yield ds2d, upstream


async def log_in(ds2d: Running, **body: Any) -> str:
    """The token of a new login."""
    status, answer, _ = await ds2d.ask("/admin/login", {"admin_key": ADMIN_KEY, **body}, key=None)
    assert status == 200, answer
    return str(answer["token"])
