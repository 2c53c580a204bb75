"""TLS and the UNIX socket: real handshakes, renewed certificates, a socket that takes the place of one that is dead."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
import ssl
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from ds2d.cli import main
from ds2d.net.listening import Certificate, unix_listener
from tests.functional import certificates, processes
from tests.functional.admin import ADMIN, HASH
from tests.functional.harness import KEY, Running, config_for, running
from tests.functional.processes import daemons, demo, ds2d, free_port, serving
from tests.functional.scripted import scripted_upstream
from tests.functional.test_queue import until

ASK: dict[str, Any] = {"model": "deepseek-chat", "messages": [{"role": "user", "content": "Hello"}]}
AUTH = {"Authorization": f"Bearer {KEY}"}
TLS = {"cert_file": "cert.pem", "key_file": "key.pem"}
DEMO = [{"name": "demo", "kind": "demo"}]


def shown(port: int) -> str:
    """The name in the certificate that a new connection is shown."""
    der = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate(("127.0.0.1", port), timeout=20))
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def certificate_of(live: Running) -> str:
    return await asyncio.to_thread(shown, live.port)


async def chat(live: Running, trusted: Path, *, stream: bool = False) -> tuple[int, str]:
    context = ssl.create_default_context(cafile=trusted)
    url = f"https://127.0.0.1:{live.port}/v1/chat/completions"
    async with live.http.post(url, json={**ASK, "stream": stream}, headers=AUTH, ssl=context) as reply:
        return reply.status, await reply.text()


async def test_tls_on_the_port_and_a_renewed_certificate_without_a_restart(tmp_path: Path) -> None:
    trusted = certificates.write(tmp_path, "first")
    async with scripted_upstream() as upstream, running(tmp_path, config_for(upstream.base_url, server={"tls": TLS})) as live:
        assert (await chat(live, trusted))[0] == 200
        status, text = await chat(live, trusted, stream=True)
        assert status == 200
        assert "data: [DONE]" in text
        with pytest.raises((aiohttp.ClientError, ConnectionError)):  # no plain HTTP beside it
            await live.ask("/healthz")
        assert await certificate_of(live) == "CN=first"

        known = live.daemon.listener.certificate
        assert known is not None
        before = known.digest
        certificate, key = certificates.make("second")
        (tmp_path / "cert.pem").write_bytes(certificate)
        live.daemon.store.reload()  # half of a renewal: the certificate does not fit the key
        assert await certificate_of(live) == "CN=first"
        (tmp_path / "key.pem").write_bytes(key)
        await until(lambda: known.digest != before, 20)  # the watcher finds it by itself
        assert await certificate_of(live) == "CN=second"
        assert (await chat(live, trusted))[0] == 200
        assert live.daemon.store.pending_restart == []

        trusted.unlink()  # a renewal that goes wrong is named, and changes nothing
        live.daemon.store.reload()
        assert live.daemon.store.problem is not None
        assert await certificate_of(live) == "CN=second"


async def test_the_daemon_and_its_commands_know_their_own_certificate(tmp_path: Path) -> None:
    certificates.write(tmp_path, "own")
    server = {"tls": TLS, "port": free_port()}
    config = {"keys": [KEY], "upstreams": DEMO, "admin": {"password_hash": HASH}, "server": server}
    async with running(tmp_path, config) as live:
        url = f"https://127.0.0.1:{live.port}/admin/test"
        async with live.http.post(url, json={}, headers={"Authorization": f"Bearer {ADMIN['key']}"}, ssl=False) as reply:
            assert (await reply.json())["success"] is True


async def test_status_asks_over_tls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificates.write(tmp_path, "own")
    port = free_port()
    config = {"keys": [KEY], "upstreams": DEMO, "server": {"tls": TLS, "port": port}}
    async with running(tmp_path, config, port=port):
        assert await asyncio.to_thread(main, ["status", "--config", str(tmp_path / "config.json")]) == 0
        assert capsys.readouterr().out.startswith("ready\n")
        certificates.write(tmp_path, "stranger")  # nobody else's certificate is believed
        other = tmp_path / "other"
        other.mkdir()
        certificates.write(other, "stranger")
        (other / "config.json").write_text(json.dumps(config))
        assert await asyncio.to_thread(main, ["status", "--config", str(other / "config.json")]) == 1


async def test_a_unix_socket_beside_the_port(tmp_path: Path) -> None:
    config = {"keys": [KEY], "upstreams": DEMO, "server": {"unix_socket": "ds2d.sock"}}
    path = tmp_path / "ds2d.sock"
    for _ in range(2):  # the second daemon takes the place of the first one's socket
        async with running(tmp_path, config) as live:
            assert stat.S_IMODE(path.stat().st_mode) == 0o660
            assert (await live.ask("/v1/chat/completions", ASK))[0] == 200
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as client:
                async with client.post("http://ds2d/v1/chat/completions", json={**ASK, "stream": True}, headers=AUTH) as reply:
                    assert reply.status == 200
                    assert "data: [DONE]" in await reply.text()
                async with client.post("http://ds2d/v1/chat/completions", json=ASK) as reply:
                    assert reply.status == 401
            assert str(path) in live.daemon.listener.addresses()


def test_a_file_may_hold_key_notes_and_chain(tmp_path: Path) -> None:
    certificate, key = certificates.make("own")
    authority, _ = certificates.make("authority")
    plain = certificates.write(tmp_path, "other")
    plain.write_bytes("für München\n".encode("latin-1") + key + certificate + authority)
    (tmp_path / "key.pem").write_bytes(key)
    found = Certificate(str(plain), str(tmp_path / "key.pem"), "1")
    assert found.digest == hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).digest()


def test_a_socket_that_somebody_serves_and_a_file_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "ds2d.sock"
    with unix_listener(str(path)):
        with pytest.raises(OSError, match="in use"):
            unix_listener(str(path))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    unix_listener(str(path)).close()
    path.unlink()
    path.write_text("precious")
    with pytest.raises(FileExistsError):
        unix_listener(str(path))
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("server", "words"),
    [
        ({"tls": {"cert_file": "cert.pem", "key_file": "other.pem"}}, "server.tls: the certificate cannot be used"),
        ({"unix_socket": "cert.pem"}, "cert.pem: File exists"),
        ({"unix_socket": "none/ds2d.sock"}, "none/ds2d.sock: No such file or directory"),
    ],
)
def test_what_cannot_be_listened_with_is_named_at_the_start(tmp_path: Path, server: dict[str, Any], words: str) -> None:
    certificates.write(tmp_path, "own")
    (tmp_path / "other.pem").write_bytes(certificates.make("other")[1])
    (tmp_path / "config.json").write_text(json.dumps(demo(server={"port": 0, **server})))
    done = ds2d(tmp_path, "serve")
    assert done.returncode == 1
    assert words in done.stderr, done.stderr


async def test_who_only_shakes_hands_counts_and_has_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Silent connections would take as many descriptors as there are, if they were counted only when their TLS stands."""
    monkeypatch.setattr("ds2d.net.handshakes.HANDSHAKE_SECONDS", 2.0)
    trusted = certificates.write(tmp_path, "own")
    server = {"tls": TLS, "max_connections": 3}
    async with running(tmp_path, {"keys": [KEY], "upstreams": DEMO, "server": server}) as live:
        silent = [await asyncio.open_connection("127.0.0.1", live.port) for _ in range(3)]
        await until(lambda: live.daemon.sizes()["connections.open"].now == 3, 20)
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""  # at once: there is no place
        writer.close()
        assert live.daemon.sizes()["connections.open"].now <= 3
        for reader, writer in silent:
            async with asyncio.timeout(20):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
            writer.close()
        await until(lambda: live.daemon.sizes()["connections.open"].now == 0, 20)
        assert await until_answered(live, trusted) == 200
    assert live.daemon.sizes()["connections.open"].now == 0


async def test_a_daemon_stops_while_somebody_shakes_hands(tmp_path: Path) -> None:
    certificates.write(tmp_path, "own")
    async with running(tmp_path, {"keys": [KEY], "upstreams": DEMO, "server": {"tls": TLS}}) as live:
        _, writer = await asyncio.open_connection("127.0.0.1", live.port)
        await until(lambda: live.daemon.sizes()["connections.open"].now == 1, 20)
    assert live.daemon.sizes()["connections.open"].now == 0
    writer.close()


async def until_answered(live: Running, trusted: Path) -> int:
    """The status of a chat, tried again where a busy machine was slower than the shortened clock."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(aiohttp.ClientError, ConnectionError):
                return (await chat(live, trusted))[0]


async def test_no_tls_and_a_hurry_are_fine(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Garbage, a client that leaves in the handshake, and one that sends its question with the last bytes of it."""
    trusted = certificates.write(tmp_path, "own")
    async with running(tmp_path, {"keys": [KEY], "upstreams": DEMO, "server": {"tls": TLS}}) as live:
        for first in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"", b"\x00" * 5000):
            _, writer = await asyncio.open_connection("127.0.0.1", live.port)
            writer.write(first)
            writer.close()
        context = ssl.create_default_context(cafile=trusted)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", live.port)
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                writer.write(outgoing.read())
                incoming.write(await reader.read(65536))
        client.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        writer.write(outgoing.read())  # the handshake's last message and the question in one
        answer = b""
        while b"200 OK" not in answer:
            incoming.write(await reader.read(65536))
            with contextlib.suppress(ssl.SSLWantReadError):
                answer += client.read(65536)
        writer.close()
        await until(lambda: live.daemon.sizes()["connections.open"].now == 0, 20)
        assert (await chat(live, trusted, stream=True))[0] == 200
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


def over_unix(path: Path) -> int:
    """The status of a look through the socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(path))
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: ds2d\r\nConnection: close\r\n\r\n")
        return int(client.makefile("rb").readline().split()[1])


def test_both_listeners_go_over_to_a_newer_process(tmp_path: Path) -> None:
    certificates.write(tmp_path, "own")
    config = demo(server={"tls": TLS, "unix_socket": "ds2d.sock"})
    with serving(tmp_path, config=config) as process:
        assert (shown(process.port), over_unix(tmp_path / "ds2d.sock")) == ("CN=own", 200)
        done = ds2d(tmp_path, "upgrade", "--state", "state")
        assert done.returncode == 0, done.stderr
        newer = int(done.stdout.partition("(process ")[2].rstrip(")\n"))
        processes.until(lambda: daemons(tmp_path) == [newer])
        assert (shown(process.port), over_unix(tmp_path / "ds2d.sock")) == ("CN=own", 200)
