"""Where a credential may stand in a request, and which address a request counts by."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from ds2d.web.auth import credentials, peer_of

PROXIES = ("10.0.0.0/24", "::1/128")


class Transport:
    """A connection from an address."""

    def __init__(self, peer: Any) -> None:
        self._peer = peer

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._peer if name == "peername" else default


def request(path: str = "/v1/messages", peer: Any = ("192.0.2.9", 5), **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request("POST", path, headers=named, transport=Transport(peer))  # type: ignore[arg-type]


def test_every_place_of_a_key_in_its_order() -> None:
    asked = request("/x?key=q", x_goog_api_key="g", x_api_key="x", Authorization="Bearer b")
    assert credentials(asked, query_key=True) == ["b", "x", "g", "q"]
    assert credentials(asked, query_key=False) == ["b", "x", "g"]


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("Bearer b", ["b"]), ("bearer  b ", ["b"]), ("BEARER b c", ["b c"]), ("Bearer", []), ("Bearer  ", []), ("Basic b", []),
        ("b", []), ("", []), ("Bearerb", []),
    ],
)  # fmt: skip
def test_the_bearer_scheme_and_no_other(given: str, found: list[str]) -> None:
    assert credentials(request(Authorization=given), query_key=True) == found


def test_blank_headers_and_a_blank_query_are_no_credentials() -> None:
    assert credentials(request("/x?key=", x_api_key="  ", x_goog_api_key=""), query_key=True) == []
    assert credentials(request("/x?key=%20", x_api_key=" a "), query_key=True) == ["a"]
    assert credentials(request("/x?api_key=a"), query_key=True) == []


def test_a_request_counts_by_where_it_comes_from() -> None:
    assert peer_of(request(), PROXIES) == "192.0.2.9"
    assert peer_of(request(peer=("::1", 5, 0, 0)), PROXIES) == "::1"


@pytest.mark.parametrize("peer", ["", "/run/x.sock", None, ()])
def test_a_unix_socket_counts_as_loopback(peer: Any) -> None:
    assert peer_of(request(peer=peer), ()) == "127.0.0.1"


def test_what_a_trusted_proxy_says_counts() -> None:
    assert peer_of(request(peer=("10.0.0.7", 1), X_Forwarded_For="1.1.1.1, 192.0.2.1 "), PROXIES) == "192.0.2.1"
    assert peer_of(request(peer=("10.0.0.7", 1)), PROXIES) == "10.0.0.7"


@pytest.mark.parametrize("headers", [{"X_Forwarded_For": "127.0.0.1"}, {"Forwarded": "for=127.0.0.1"}])
@pytest.mark.parametrize("peer", [("192.0.2.9", 5), ("no address", 5), ("127.0.0.1", 5)])
def test_what_anybody_else_says_never_counts_as_open(peer: Any, headers: dict[str, str]) -> None:
    assert peer_of(request(peer=peer, **headers), PROXIES) is None


def test_a_network_of_proxies_may_be_written_with_a_host_in_it() -> None:
    assert peer_of(request(peer=("10.0.0.7", 1), X_Forwarded_For="192.0.2.1"), ["10.0.0.9/24"]) == "192.0.2.1"


def test_a_forwarded_line_alone_names_nobody_even_from_a_proxy() -> None:
    assert peer_of(request(peer=("10.0.0.7", 1), Forwarded="for=127.0.0.1"), PROXIES) is None
