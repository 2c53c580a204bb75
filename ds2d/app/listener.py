"""Where the daemon listens: the port, the UNIX socket, inherited sockets, and the connections that came through them.

Rule: everything that can fail is prepared before the first socket is opened, so that a newer process takes over whole or not
at all.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from ipaddress import ip_address

from aiohttp import web

from ds2d.app.toolbox import new_id
from ds2d.config.schema import Config
from ds2d.core.settings import Timeouts, UpstreamSpec
from ds2d.net.descriptors import connections_at_most
from ds2d.net.listening import Certificate, Place, unix_listener
from ds2d.web.server import BoundedServer, Runner, Site

logger = logging.getLogger("ds2d")


class Listener:
    """The listening sockets and their connections."""

    def __init__(self, config: Callable[[], Config]) -> None:
        self._config = config
        self.runner: Runner | None = None
        self._sites: list[Site] = []
        self.certificate: Certificate | None = None

    async def prepare(self, application: web.Application) -> BoundedServer:
        """Everything but the sockets. Raises OSError for a certificate that cannot be used."""
        server = self._config().server
        connections = connections_at_most(server.max_connections)
        if connections < server.max_connections:
            logger.warning("open connections: %d at most, descriptors are not enough for server.max_connections", connections)
        bounds = {"new_id": new_id, "limits": lambda: self._config().server, "max_connections": connections}
        self.runner = Runner(
            application,
            bounds,
            access_log=None,
            keepalive_timeout=server.idle_seconds,
            lingering_time=2,
            shutdown_timeout=1,
        )
        await self.runner.setup()
        files = server.tls
        if files.cert_file and files.key_file:
            self.certificate = Certificate(files.cert_file, files.key_file, files.digest)
        assert isinstance(self.runner.server, BoundedServer)
        return self.runner.server

    async def open(self, port: int, sockets: Sequence[socket.socket]) -> int:
        """Take connections at the address of the config or on inherited sockets. Returns the port (0 with inherited sockets).
        Raises OSError."""
        runner = self._prepared()
        server = self._config().server
        places: Sequence[Place] = sockets or [(server.host, port)]
        self._sites = [Site(runner, place, self.certificate) for place in places]
        for site in self._sites:
            await site.start()
        path = server.unix_socket
        if path and path not in runner.addresses:  # the port first: whoever has it already serves this path, too
            self._sites.append(Site(runner, unix_listener(path)))
            await self._sites[-1].start()
        return int(runner.addresses[0][1]) if not sockets else 0

    def twins(self) -> list[socket.socket]:
        """The sockets it listens on, once more, to be handed on."""
        return [twin for site in self._sites for twin in site.twins()]

    async def pause(self) -> None:
        """Take no new connections; those that are there stay."""
        for site in self._sites:
            await site.stop()
        self._sites = []

    async def resume(self, listeners: list[socket.socket]) -> None:
        """Take connections again, on these sockets."""
        runner = self._prepared()
        self._sites = [Site(runner, one, self.certificate) for one in listeners]
        for site in self._sites:
            await site.start()

    async def close(self) -> None:
        """End all connections."""
        if self.runner is not None:
            await self.runner.cleanup()

    @property
    def connections(self) -> int:
        """How many are open."""
        server = self.runner.server if self.runner is not None else None
        return server.open_connections if isinstance(server, BoundedServer) else 0

    def owes_answers(self) -> bool:
        """Whether somebody has asked for something and has no answer yet."""
        return self.runner is not None and self.runner.owes_answers()

    def cut_unread(self) -> None:
        """Close the connections whose clients have not taken what they were sent."""
        if self.runner is not None:
            self.runner.cut_unread()

    def addresses(self) -> list[str]:
        """Where it listens, for people."""
        return [f"{one[0]}:{one[1]}" if isinstance(one, tuple) else str(one) for one in self._addresses()]

    def is_exposed(self) -> bool:
        """Whether others than this host can reach it."""
        return any(isinstance(one, tuple) and not ip_address(one[0]).is_loopback for one in self._addresses())

    def itself(self) -> UpstreamSpec:
        """This daemon, as somebody reaches it who asks through its listener."""
        host, port = next((one[0], one[1]) for one in self._addresses() if isinstance(one, tuple))
        if ip_address(host).is_unspecified:
            host = "::1" if ":" in host else "127.0.0.1"
        certificate = self.certificate
        return UpstreamSpec(
            name="self",
            base_url=f"{'https' if certificate else 'http'}://{f'[{host}]' if ':' in host else host}:{port}",
            proxy="direct",
            pin=certificate.digest.hex() if certificate else "",
            timeouts=Timeouts(answer=120, total=120),
        )

    def renew_certificate(self, digest: str) -> None:
        """Take up the certificate's files as they are now; `digest` tells whether they have changed."""
        if self.certificate is not None:
            self.certificate.renew(digest)

    def _addresses(self) -> Sequence[object]:
        return self.runner.addresses if self.runner is not None else []

    def _prepared(self) -> Runner:
        assert self.runner is not None, "`prepare` comes first"
        return self.runner
