"""Listeners: TLS whose certificate can be renewed while it is used, and a UNIX socket at a path.

Rule: a certificate that does not fit its key is never shown: the one before it stays. A socket's path always leads to
somebody who listens, or to nobody; a file that is no socket is not touched.
Surprise: the file of a socket outlives its process on purpose: whoever starts next takes its place, also while the one
before still serves what it has accepted.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import logging
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

logger = logging.getLogger("ds2d.net")

BACKLOG = 4096
AT_ONCE = 64
"""Connections that asyncio tries to take in one go: without descriptors left it fails and says so as many times."""

SOCKET_MODE = 0o660

KEEP_FILE: Any = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Later Pythons take a socket's file away when they close it."""

_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
"""The first in a file is the server's own; keys and notes may stand before it."""

Place = socket.socket | tuple[str, int]
"""A socket that listens already, or host and port."""


class Certificate:
    """A certificate in two files. `context` is for the next handshake; `version` tells what the files held apart.

    Raises OSError (ssl.SSLError is one) if it cannot be used.
    """

    def __init__(self, cert_file: str, key_file: str, version: str) -> None:
        self._files = cert_file, key_file
        self._version = version
        self.context, self.digest = self._loaded()

    def renew(self, version: str) -> None:
        """Show what the files hold now to new connections, if that is another version and fits together."""
        if version == self._version:
            return
        try:
            self.context, self.digest = self._loaded()
        except OSError as error:
            logger.error("the certificate of server.tls was not taken up, the one before stays: %s", error.strerror or error)
            return
        self._version = version
        logger.info("a renewed certificate is in use")

    def _loaded(self) -> tuple[ssl.SSLContext, bytes]:
        """A context with the certificate, and the SHA-256 by which a client can know it."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(*self._files, password=_no_password)
        own = _CERTIFICATE.search(Path(self._files[0]).read_bytes())
        if own is None:
            raise OSError(errno.EINVAL, "no certificate in PEM form")
        return context, hashlib.sha256(ssl.PEM_cert_to_DER_cert(own.group().decode("ascii"))).digest()


def unix_listener(path: str) -> socket.socket:
    """A socket at this path, for owner and group. Raises OSError with the path: EADDRINUSE (somebody listens), EEXIST
    (a file)."""
    _clear(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(path)
        os.chmod(path, SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, os.strerror(error.errno or 0), path) from None  # bind names no path
    listener.setblocking(False)
    return listener


async def listen(factory: Callable[[], asyncio.Protocol], where: Place, *, serve: bool = True) -> asyncio.Server:
    """Have connections taken, at an address or from a socket that listens already. Without `serve` it listens, and others
    take them."""
    loop = asyncio.get_running_loop()
    if isinstance(where, tuple):
        server = await loop.create_server(factory, *where, backlog=AT_ONCE, reuse_address=True, start_serving=serve)
    elif where.family == socket.AF_UNIX:
        server = await loop.create_unix_server(factory, sock=where, backlog=AT_ONCE, start_serving=serve, **KEEP_FILE)
    else:
        server = await loop.create_server(factory, sock=where, backlog=AT_ONCE, start_serving=serve)
    for listener in server.sockets:
        with socket.socket(fileno=os.dup(listener.fileno())) as same:
            same.listen(BACKLOG)  # how many may wait is the kernel's affair, and another number
    return server


def _clear(path: str) -> None:
    """Take away a socket that nobody listens on any more."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)


def _no_password() -> str:
    """Keys with a passphrase are no use to a daemon; without this OpenSSL would ask for it at the terminal."""
    return ""
