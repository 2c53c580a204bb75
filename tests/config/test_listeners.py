"""`server.tls` and `server.unix_socket` as they are read: whole paths, both files or none, a digest that tells renewals apart."""

from __future__ import annotations

from typing import Any

import pytest

from tests.config.world import errors, parsed

TLS = {"cert_file": "tls/cert.pem", "key_file": "/etc/key.pem"}
FILES = {"/etc/ds2d/tls/cert.pem": b"certificate", "/etc/key.pem": b"key"}


def test_paths_are_whole_and_the_digest_is_of_both_files() -> None:
    server = parsed({"server": {"tls": TLS, "unix_socket": "run/ds2d.sock"}}, files=FILES).server
    assert (server.tls.cert_file, server.tls.key_file) == tuple(FILES)
    assert server.unix_socket == "/etc/ds2d/run/ds2d.sock"
    seen = {server.tls.digest}
    for path in FILES:
        seen.add(parsed({"server": {"tls": TLS}}, files={**FILES, path: b"renewed"}).server.tls.digest)
    assert len(seen) == 3
    assert parsed({}).server.tls.cert_file is None


def test_the_files_are_watched() -> None:
    assert parsed({"server": {"tls": TLS}}, files=FILES).files.keys() == FILES.keys()


@pytest.mark.parametrize(
    ("server", "path", "words"),
    [
        ({"tls": {"cert_file": "tls/cert.pem"}}, "server.tls.key_file", "is required"),
        ({"tls": {"key_file": "/etc/key.pem"}}, "server.tls.cert_file", "is required"),
        ({"tls": {**TLS, "key_file": "gone.pem"}}, "server.tls.key_file", "the file is missing"),
        ({"tls": {**TLS, "digest": "x"}}, "server.tls.digest", "unknown key"),
        ({"unix_socket": "s" * 120}, "server.unix_socket", "must have at most 107 bytes"),
    ],
)
def test_what_cannot_be_is_named(server: dict[str, Any], path: str, words: str) -> None:
    found = errors({"server": server}, files=FILES)
    assert list(found) == [path]
    assert found[path].startswith(words)
