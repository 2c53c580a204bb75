"""Where a call goes: the URL, and whether a proxy stands between.

Rule: loopback and private upstreams never go through the environment's proxy; `upstreams[].proxy` says otherwise.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def join_url(base: str, path: str) -> str:
    """The URL of a path below a base URL. A path that starts with `http` is a URL already (logins)."""
    if path.startswith(("http://", "https://")):
        return path
    return base.rstrip("/") + "/" + path.lstrip("/")


def proxy_for(url: str, setting: str | None) -> str | None:
    """The proxy to use for this URL, or None: `direct`, `env`, a URL, or None for the default of config.md."""
    if setting == "direct":
        return None
    if setting not in (None, "env"):
        return setting
    host = _host_of(url)
    if setting is None and _is_local(host):
        return None
    proxies = getproxies()
    if proxy_bypass(host):
        return None
    return proxies.get(urlsplit(url).scheme) or proxies.get("all")


@lru_cache(4096)
def _host_of(url: str) -> str:
    return urlsplit(url).hostname or ""


@lru_cache(4096)
def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith((".localhost", ".local")) or ("." not in host and ":" not in host):
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local
