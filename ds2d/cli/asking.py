"""Asking the daemon that runs: where it listens, and by what it is known.

Rule: the config says where (`--url` says otherwise); local traffic goes through no proxy.
Surprise: the daemon's certificate is made for a name that is not the address asked here, so it is known by itself: only
the very certificate of `server.tls` is believed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ds2d.cli.reading import read_config
from ds2d.config.schema import Config
from ds2d.core.logs import client_text

TIMEOUT = 30.0
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Answer(NamedTuple):
    """What the daemon said."""

    status: int
    body: bytes


class Daemon:
    """A base URL, and how what is below it is opened."""

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self.url = url.rstrip("/")
        self.context = context
        handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
        if context is not None:
            handlers.append(urllib.request.HTTPSHandler(context=context))
        self._opener = urllib.request.build_opener(*handlers)

    def ask(self, path: str, key: str | None = None) -> Answer | None:
        """What it says to a GET, whatever the status; None if nothing answers."""
        headers = {"Authorization": bearer(key)} if key else {}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)  # noqa: S310 - the scheme was checked
        try:
            with self._opener.open(request, timeout=TIMEOUT) as reply:
                return Answer(reply.status, reply.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())
        except (OSError, http.client.HTTPException):  # somebody answers there, but not in HTTP
            return None

    def events(self, path: str, key: str | None, body: Any) -> Iterator[tuple[str, dict[str, Any]]]:
        """The events (name, object) that it answers a POST with, as they come. Raises OSError, ValueError."""
        headers = {"Content-Type": "application/json", "Accept": "text/event-stream", "Authorization": bearer(key or "")}
        request = urllib.request.Request(f"{self.url}{path}", json.dumps(body).encode(), headers)  # noqa: S310
        name = ""
        with self._opener.open(request, timeout=TIMEOUT * 10) as reply:
            for line in reply:
                field, _, value = line.decode().rstrip("\n").partition(": ")
                if field == "event":
                    name = value
                elif field == "data":
                    yield name, json.loads(value)


def add_options(parser: argparse.ArgumentParser) -> None:
    """`--url` and `--config`."""
    parser.add_argument("--url", help="base URL of the daemon (default: server.host and server.port of the config)")
    parser.add_argument("--config", type=Path, metavar="FILE", help="the config file")


def find_daemon(options: argparse.Namespace) -> Daemon | None:
    """The daemon that the options lead to; None after saying why there is none."""
    if options.url is not None:
        if is_url(options.url):
            return Daemon(options.url)
        print("error: --url must be an http or https URL", file=sys.stderr)
        return None
    config = read_config(options.config, os.environ, Path.cwd())
    return daemon_of(config) if config else None


def is_url(text: str) -> bool:
    """Whether it can be asked at all."""
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0  # reading the port checks it
    except ValueError:
        return False


def daemon_of(config: Config) -> Daemon:
    """The daemon that serves with this config."""
    server = config.server
    host = ANYWHERE.get(server.host, server.host)
    where = f"{f'[{host}]' if ':' in host else host}:{server.port}"
    if server.tls.cert_file is None:
        return Daemon(f"http://{where}")
    context = ssl.create_default_context(cafile=server.tls.cert_file)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return Daemon(f"https://{where}", context)


def plain(key: str) -> str:
    """A key from an option or a variable, without the end of line that a file edited elsewhere gave it. What no header takes
    is replaced: it is refused then as any wrong key is, where the library would show it in a traceback."""
    return "".join(character if character >= " " and character != "\x7f" else "?" for character in key.strip())


def bearer(key: str) -> str:
    """A key as urllib takes it for a header, in UTF-8 as the daemon reads it."""
    return "Bearer " + plain(key).encode("utf-8", "surrogateescape").decode("latin-1")


def harmless(text: object) -> str:
    """Somebody else's words as they may go to a terminal."""
    return str(text) if str(text).isprintable() else client_text(str(text))


def admin_key() -> str | None:
    """The admin key of the environment; None after saying that there is none."""
    key = os.environ.get("DS2D_ADMIN_KEY") or os.environ.get("DS2API_ADMIN_KEY")
    if not key:
        print("error: the admin key is needed: DS2D_ADMIN_KEY=... (see .ds2d.env)", file=sys.stderr)
    return key
