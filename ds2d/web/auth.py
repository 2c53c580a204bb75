"""Who sent this request: the one place that takes a credential out of it.

Rule: authority is decided by the route that matched, never by comparing paths; nothing of the body is read before.
Surprise: several credentials in one request are normal (Claude Code sends two), so all are collected, in order.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from aiohttp import web

HEADERS = ("x-api-key", "x-goog-api-key")


def credentials(request: web.Request, query_key: bool) -> list[str]:
    """Every key in the request, in the order of errors.md 2: Bearer, x-api-key, x-goog-api-key, and `?key=` where allowed."""
    found = []
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        found.append(token.strip())
    found += [value.strip() for name in HEADERS if (value := request.headers.get(name)) and value.strip()]
    if query_key and (key := request.query.get("key", "").strip()):
        found.append(key)
    return found


def peer_of(request: web.Request, trusted: Iterable[str]) -> str | None:
    """The address that a request counts by for `server.open_networks`; None if it must not count as open.

    A request that says it was forwarded counts by what it says if it comes from a trusted proxy, else never as open
    (config.md, `server.open_networks`). A UNIX socket counts as loopback.
    """
    transport = request.transport
    name = transport.get_extra_info("peername") if transport else None
    direct = name[0] if isinstance(name, tuple) and name else "127.0.0.1"
    forwarded = request.headers.get("X-Forwarded-For")
    if forwarded is None and "Forwarded" not in request.headers:
        return direct
    if forwarded is None or not _inside(direct, trusted):
        return None
    return forwarded.split(",")[-1].strip()


def _inside(address: str, networks: Iterable[str]) -> bool:
    try:
        value = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(value in ipaddress.ip_network(network, strict=False) for network in networks)
