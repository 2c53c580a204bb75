"""What a key holder may see of their own key: limits, use, recent errors, as JSON and as a page.

Rule: a key sees itself and nothing else; what it names are models and causes, never accounts, upstreams or other keys.
Surprise: a browser cannot send a key with a link, so the page asks for it and keeps it in memory; curl with a key gets text.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web

from ds2d.core.caller import Caller
from ds2d.state.callers import expiry
from ds2d.state.ledger import Ledger
from ds2d.state.quotas import Meter, Quotas, renews_at
from ds2d.state.usage import recent_errors
from ds2d.web.auth import credentials
from ds2d.web.keys import DIALECT, Handler
from ds2d.web.replies import value_reply


class OwnUsage:
    """The routes. `identify` is the business routes' check; `models` lists the names that a caller may use; `page` is the page
    that asks for a key."""

    def __init__(
        self,
        identify: Callable[[web.Request, str], Caller],
        models: Callable[[Caller], list[str]],
        quotas: Quotas,
        ledger: Ledger,
        page: Callable[[], web.StreamResponse],
    ) -> None:
        self._identify = identify
        self._models = models
        self._quotas = quotas
        self._ledger = ledger
        self._page = page

    def routes(self) -> list[tuple[str, Handler]]:
        """Paths that answer to GET."""
        return [("/v1/usage", self.usage), ("/usage", self.usage), ("/me", self.me)]

    async def usage(self, request: web.Request) -> web.StreamResponse:
        """The caller's own limits and use."""
        return value_reply(await self._report(self._caller(request)))

    async def me(self, request: web.Request) -> web.StreamResponse:
        """The same for people: text for a request with a key, else a page that asks for one."""
        if credentials(request, query_key=False):
            return web.Response(text=as_text(await self._report(self._caller(request))))
        return self._page()

    def _caller(self, request: web.Request) -> Caller:
        request[DIALECT] = "openai_chat"
        return self._identify(request, "openai_chat")

    async def _report(self, caller: Caller) -> dict[str, Any]:
        now = datetime.now(UTC)
        meter = self._quotas.meter(caller.id)
        report: dict[str, Any] = {"object": "usage", "key": caller.name}
        report |= _limits(caller, meter, now)
        report["rate_limits"] = {name: left._asdict() for name, left in self._quotas.headroom(caller).items()}
        report["used"] = {name: _tokens(meter.used(name)) for name in ("day", "month", "total")}
        report["requests_running"] = meter.inflight
        report["last_used_at"] = _shown(meter.last_used)
        report["models"] = self._models(caller)
        await self._ledger.settle()
        report["recent_errors"] = await asyncio.get_running_loop().run_in_executor(None, _errors, self._ledger.path, caller.id)
        return report


def _limits(caller: Caller, meter: Meter, now: datetime) -> dict[str, Any]:
    spec = caller.spec
    if spec is None:
        return {"quota": {"window": "total", "renews_at": None, "limits": []}, "expires_at": None}
    limits = [{**quota._asdict(), "remaining": max(0, quota.limit - quota.used)} for quota in meter.quotas(spec)]
    quota = {"window": spec.quota_window, "renews_at": _shown(renews_at(spec.quota_window, now)), "limits": limits}
    return {"quota": quota, "max_inflight": spec.max_inflight, "expires_at": _shown(expiry(spec, meter.first_used))}


def _errors(folder: Path, caller: str) -> list[dict[str, Any]]:
    """The caller's last errors; none where the ledger cannot be read."""
    try:
        errors = recent_errors(folder, caller)
    except sqlite3.Error:
        return []
    return [{**error, "began_at": _shown(datetime.fromtimestamp(error["began_at"], UTC))} for error in errors]


def _tokens(used: list[int]) -> dict[str, int]:
    prompt, completion = used
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _shown(when: datetime | None) -> str | None:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z") if when else None


def as_text(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"key        {report['key']}", f"models     {', '.join(report['models']) or 'none'}"]
    if report["expires_at"]:
        lines.append(f"expires    {report['expires_at']}")
    lines += [
        f"{name:10} {used['total_tokens']} tokens ({used['prompt_tokens']} prompt, {used['completion_tokens']} completion)"
        for name, used in report["used"].items()
    ]
    for quota in report["quota"]["limits"]:
        renews = f", renews {report['quota']['renews_at']}" if report["quota"]["renews_at"] else ""
        lines.append(f"quota      {quota['kind']}: {quota['used']} of {quota['limit']}{renews}")
    lines += [
        f"limit      {left['limit']} {name} a minute, {left['remaining']} left" for name, left in report["rate_limits"].items()
    ]
    lines += [
        f"error      {one['began_at']} {one['model']} {one['cause']} ({one['request_id']})" for one in report["recent_errors"]
    ]
    return "\n".join(lines) + "\n"
