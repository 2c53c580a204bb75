"""Commands that ask the daemon say in one line what is wrong with what they were given, and show no key while they do."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ds2d.cli import main
from ds2d.cli.asking import bearer

GREETING = b"SSH-2.0-OpenSSH_9.9\r\n"


@pytest.mark.parametrize("verb", [["test-all"], ["capture", "list"], ["status", "--watch"]])
@pytest.mark.parametrize("key", ["adm-half-\n-of-a-key", "adm-ключ-\x7f"])
def test_a_key_that_no_header_takes_is_not_shown_in_a_traceback(
    verb: list[str], key: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("DS2D_ADMIN_KEY", key)
    assert main([*verb, "--url", "http://127.0.0.1:9"]) == 1
    told = capsys.readouterr()
    assert "nothing answers" in told.err
    assert "adm-" not in told.out + told.err


def test_a_key_out_of_a_file_with_other_ends_of_lines_is_the_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    assert bearer("adm-0123\r") == "Bearer adm-0123"
    assert bearer("пароль").encode("latin-1") == "Bearer пароль".encode()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DS2D_KEY", "sk-0123\r")
    assert main(["env", "codex", "--shell"]) == 0
    assert capsys.readouterr().out == "export DS2D_KEY=sk-0123\n"


@pytest.mark.parametrize("url", ["http://[::1", "http://127.0.0.1:99999", "http://", "127.0.0.1:5001"])
def test_what_is_no_url_is_said(url: str, capsys: Any) -> None:
    assert main(["status", "--url", url]) == 1
    assert capsys.readouterr().err == "error: --url must be an http or https URL\n"


def test_a_port_where_somebody_speaks_something_else_is_no_daemon(capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def speak() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(GREETING)

        speaker = threading.Thread(target=speak)
        speaker.start()
        assert main(["status", "--url", f"http://127.0.0.1:{other.getsockname()[1]}"]) == 1
        speaker.join()
    assert "nothing answers at http://127.0.0.1:" in capsys.readouterr().err
