"""Looking for model servers on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ds2d.cli.scan import Found, scan


class Server(ThreadingHTTPServer):
    """Answers every request with one status and body, and remembers the paths."""

    answer = (200, b"")
    location = ""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body = self.server.answer
        self.send_response(status)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Not on the test's output."""


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_model_list_is_found_without_any_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    server.answer = (200, b'{"object": "list", "data": [{"id": "deepseek-v3"}, {"id": 5}, null]}')
    base = f"http://127.0.0.1:{server.port}/v1"
    assert scan({server.port: "vllm"}) == [Found("vllm", base, ("deepseek-v3",))]
    assert server.asked == ["/v1/models"]


@pytest.mark.parametrize(
    ("status", "body", "found"),
    [
        (200, b'{"object": "list", "data": null}', True),
        (200, b'{"object": "list", "data": []}', True),
        (401, b"{}", True),
        (403, b"", True),
        (404, b"{}", False),
        (500, b"", False),
        (200, b"<html>", False),
        (200, b'{"hello": "world"}', False),
        (200, b'{"data": 5}', False),
        (200, b"[]", False),
        (200, b"\xff", False),
    ],
)
def test_what_counts_as_a_server(server: Server, status: int, body: bytes, found: bool) -> None:
    server.answer = (status, body)
    result = scan({server.port: "x"})
    assert bool(result) == found
    assert all(each.needs_key == (status in {401, 403}) for each in result)


def test_a_redirect_is_not_followed(server: Server) -> None:
    server.answer, server.location = (302, b""), "/elsewhere"
    assert scan({server.port: "x"}) == []
    assert server.asked == ["/v1/models"]


def test_nobody_there_is_nothing_found(server: Server) -> None:
    port = server.port
    server.server_close()
    assert scan({port: "x"}) == []
    assert scan({}) == []
