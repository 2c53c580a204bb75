"""Which handler answers what, and what each of them is given: the one place where the web layer meets the owners.

Rule: nothing here waits or decides; a route that needs more than its owners' methods needs a handler of its own in web/.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from aiohttp import web

from ds2d.app.toolbox import new_id, utc_now
from ds2d.core.caller import Caller
from ds2d.core.errors import ErrorKind, GatewayError
from ds2d.core.metrics import render
from ds2d.state.admin_file import AdminFile
from ds2d.state.audit import Audit
from ds2d.state.keyfile import load_key
from ds2d.web.admin.accounts import Accounts
from ds2d.web.admin.api import add_admin_routes
from ds2d.web.admin.config import ConfigRoutes
from ds2d.web.admin.console import Console
from ds2d.web.admin.desk import Desk
from ds2d.web.admin.live import Live
from ds2d.web.admin.logins import Logins as AdminLogins
from ds2d.web.admin.ops import Ops
from ds2d.web.admin.session import Guard, Sessions
from ds2d.web.admin.usage import UsageRoutes
from ds2d.web.admin.vercel import Vercel
from ds2d.web.admin_key import AdminKey
from ds2d.web.docs import Docs
from ds2d.web.handlers import Business, Probes
from ds2d.web.metrics import MetricsRoute
from ds2d.web.middleware import around
from ds2d.web.pages import Pages
from ds2d.web.responses import Responses
from ds2d.web.routes import add_dialect_routes
from ds2d.web.tasks import Tasks
from ds2d.web.token_stats import TokenStats
from ds2d.web.turn_headers import QUOTAS
from ds2d.web.usage import OwnUsage

if TYPE_CHECKING:
    from ds2d.app.daemon import Daemon


def application(daemon: Daemon) -> web.Application:
    """Every route with its handler, and what the handlers need."""
    layer = around(new_id, lambda: daemon.draining, daemon.metrics.answered)
    app = web.Application(middlewares=[layer], handler_args={"auto_decompress": False})
    business = Business(
        daemon.config,
        daemon.service,
        daemon.callers,
        daemon.catalog,
        daemon.sealer.unseal,
        lambda: daemon.draining,
        daemon.captures,
        daemon.tracing,
    )
    probes = Probes(daemon.readiness)
    responses = Responses(business, daemon.service, daemon.responses, daemon.toolbox.spawn, daemon.generations)
    business.add_actions(responses.actions() | Tasks(business, daemon.service).actions(), responses.own())
    add_dialect_routes(app.router, business.handler)
    pages = Pages(lambda: daemon.config().server.root_path, probes.root)
    for path, handler in [*probes.routes(), *pages.routes()]:
        app.router.add_route("GET", path, handler)
        app.router.add_route("HEAD", path, handler)
    app.router.add_route("POST", "/ping", probes.ping)
    for path, handler in Docs().routes():
        app.router.add_route("GET", path, handler)
    guard = _add_admin(daemon, app.router)
    app[QUOTAS] = daemon.quotas

    def models_of(caller: Caller) -> list[str]:
        return [model.id for model in daemon.catalog.models(caller.may_use)]

    own = OwnUsage(business.identify, models_of, daemon.quotas, daemon.ledger, lambda: pages.page("me"))
    for path, handler in own.routes():
        app.router.add_route("GET", path, handler)

    def administrator(request: web.Request) -> Awaitable[object]:
        return guard.admit(request, "admin")

    stats = TokenStats(daemon.config, daemon.callers, daemon.queue, daemon.observed, administrator)
    page = MetricsRoute(
        daemon.config,
        lambda: render(daemon.families()),
        daemon.listener.is_exposed,
        lambda request: business.identify(request, "openai_chat"),
        administrator,
    )
    for method, path, handler in (*stats.routes(), *page.routes()):
        app.router.add_route(method, path, handler)
    return app


def _add_admin(daemon: Daemon, router: web.UrlDispatcher) -> Guard:
    """The admin API: its owners live as long as the listener. Returns its check."""
    file = AdminFile(daemon.state_dir)
    key = AdminKey(daemon.config, secrets.token_bytes(32), time.monotonic, daemon.listener.is_exposed)
    daemon.owners["admin_key"] = key
    sessions = Sessions(daemon.config, key, load_key(daemon.state_dir, "jwt.key"), file, time.time)
    audit = Audit(daemon.state_dir, lambda: utc_now().isoformat(timespec="seconds"))
    desk = Desk(daemon.store, sessions, file, audit, time.time)
    accounts = Accounts(desk, daemon.queue, daemon.logins, daemon.client, daemon.service, new_id)
    guard = Guard(daemon.config, sessions)
    ops = Ops(
        desk,
        callers=daemon.callers,
        client=daemon.client,
        captures=daemon.captures,
        turns=daemon.service.turns,
        history=daemon.books,
        monotonic=time.monotonic,
        itself=daemon.listener.itself,
    )

    async def admit(request: web.Request, auth: str) -> object:
        if daemon.draining:  # whoever follows a live view finds the newer process
            raise GatewayError(ErrorKind.SHUTTING_DOWN, "The gateway is shutting down.")
        return await guard.admit(request, auth)

    live = daemon.owners["live"] = Live(
        desk,
        queue=daemon.queue,
        catalog=daemon.catalog,
        series=daemon.series,
        turns=daemon.service.turns,
        monotonic=time.monotonic,
        admit=admit,
        name=secrets.token_hex(4),
    )
    daemon.store.subscribe(live.look_again)
    areas = {
        "logins": AdminLogins(desk),
        "config": ConfigRoutes(desk),
        "accounts": accounts,
        "ops": ops,
        "live": live,
        "console": Console(desk, daemon.quotas),
        "usage": UsageRoutes(desk, daemon.state_dir, daemon.ledger.settle),
        "vercel": Vercel(desk, daemon.client, accounts, daemon.queue),
    }
    add_admin_routes(router, guard, areas)
    return guard
